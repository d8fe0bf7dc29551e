"""`attnstats models`: describe a model."""

from __future__ import annotations

import argparse

from tl_attnstats.cli.common import MODEL_HELP, Commands, console, text


def add_to(commands: Commands[argparse.ArgumentParser]) -> None:
    """Add the command to the parser."""
    parser = commands.add_parser("models", help="describe a model: streams, layers, heads, windows, null tokens")
    parser.set_defaults(command=_models, positional=("model",))
    parser.add_argument("model", type=text, help=MODEL_HELP)


def _models(args: argparse.Namespace) -> None:
    from tl_attnstats.models.loading import find_model, load_model

    find_model(args.model)  # fast, unlike the next import
    from tl_attnstats.cli import offers

    offers.page(load_model(args.model), console())
