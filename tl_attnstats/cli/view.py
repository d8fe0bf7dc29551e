"""`attnstats view`: draw the attention of one text."""

from __future__ import annotations

import argparse

from tl_attnstats.cli.common import (
    HEAD,
    MODEL_HELP,
    Commands,
    UsageError,
    add_choice,
    check_writable,
    draw_to_files,
    head,
    layers,
    names,
    path,
    text,
    whole,
)
from tl_attnstats.models.options import MAX_TOKENS

KINDS = ("head", "model", "neuron")
SUFFIXES = (".pdf", ".png", ".svg")


def add_to(commands: Commands[argparse.ArgumentParser]) -> None:
    """Add the command to the parser."""
    parser = commands.add_parser("view", help="draw the attention of one text")
    parser.set_defaults(command=_view, positional=("text",))
    parser.add_argument("text", help="the text")
    parser.add_argument("--model", type=text, required=True, help=MODEL_HELP)
    add_choice(parser, "--kind", KINDS, default="model", help="which view (default model)")
    parser.add_argument(
        "--head", type=_heads, metavar="L8H6[,L9H1]", help="with --kind head: one or several heads; with neuron: one"
    )
    parser.add_argument(
        "--query", type=text, metavar="TOKEN", help="show only this attending token, by position (from 0) or text"
    )
    parser.add_argument("--layers", type=layers, metavar="0-3,7", help="layers to draw (default: all)")
    parser.add_argument(
        "--bos", action=argparse.BooleanOptionalAction, help="start with BOS (default: as TransformerLens)"
    )
    parser.add_argument("--show-null", action="store_true", help="draw lines to null tokens too")
    parser.add_argument(
        "--max-tokens",
        type=whole(1),
        default=MAX_TOKENS,
        metavar="N",
        help=f"refuse longer texts (default {MAX_TOKENS})",
    )
    parser.add_argument("--out", type=path, required=True, metavar="FILE", help="output file: .svg, .pdf or .png")


def _heads(given: str) -> list[str]:
    return [head(name) for name in names(given)]


def _view(args: argparse.Namespace) -> None:
    heads = args.head or []
    _check(args, heads)
    from tl_attnstats.models.loading import find_model, load_model

    find_model(args.model)
    draw_to_files()
    import matplotlib.pyplot as plt

    from tl_attnstats.plotting.save import save
    from tl_attnstats.views import head_view, model_view, neuron_view
    from tl_attnstats.views.text_attention import attention_of

    attention = attention_of(
        load_model(args.model),
        args.text,
        layers=args.layers,
        prepend_bos=args.bos,
        neurons=args.kind == "neuron",
        max_tokens=args.max_tokens,
    )
    query = int(args.query) if args.query and args.query.isdecimal() else args.query
    hide_null = not args.show_null
    if args.kind == "model":
        figure, _ = model_view(attention, hide_null=hide_null)
    elif args.kind == "head":
        figure, _ = head_view(attention, heads, query=query, hide_null=hide_null)
    else:
        figure = neuron_view(attention, heads[0], query)[0]
    save(figure, args.out)
    plt.close(figure)
    print(args.out)


def _check(args: argparse.Namespace, heads: list[str]) -> None:
    """Check everything that does not need the model. Raises `UsageError`."""
    if not args.text.strip():
        raise UsageError(f"text: got {args.text!r}, which has no tokens; expected some text")
    if args.out.suffix.lower() not in SUFFIXES:
        raise UsageError(f"--out {args.out}: got the suffix {args.out.suffix!r}, expected one of {', '.join(SUFFIXES)}")
    if args.kind == "model":
        if heads or args.query:
            raise UsageError("--head and --query apply only to --kind head or neuron; the model view shows all heads")
    elif not heads or (args.kind == "neuron" and len(heads) > 1):
        expected = "one or several comma-separated heads" if args.kind == "head" else "one head"
        raise UsageError(
            f"--head: --kind {args.kind} got {','.join(heads) or 'none'}, expected {expected}, such as L8H6"
        )
    if args.kind == "neuron" and args.show_null:
        raise UsageError("--show-null applies only to --kind head or model; the neuron view shows all keys")
    for name in heads:
        layer = int(HEAD.fullmatch(name)[1])  # type: ignore[index]  # the option type has checked it
        if args.layers is not None and layer not in args.layers:
            raise UsageError(f"--head {name}: layer {layer} is not among --layers; leave --layers out, or add it")
    check_writable("--out", args.out.parent, args.out.name)
