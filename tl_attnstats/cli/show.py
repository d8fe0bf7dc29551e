"""`attnstats show`: print tables and exemplars in the terminal."""

from __future__ import annotations

import argparse
import re
from typing import TYPE_CHECKING

from tl_attnstats.cli.common import Commands, UsageError, console, head, path, stats_file, text, whole
from tl_attnstats.errors import choices

if TYPE_CHECKING:
    from tl_attnstats.results.stats import AttentionStats


def add_to(commands: Commands[argparse.ArgumentParser]) -> None:
    """Add the command to the parser."""
    parser = commands.add_parser("show", help="print tables and exemplars in the terminal")
    parser.set_defaults(command=_show, positional=("stats",))
    parser.add_argument("stats", type=path, metavar="DIR", help="output of run: the directory, or its stats.nc")
    parser.add_argument("--head", type=head, metavar="L10H10", help="everything about one head")
    parser.add_argument("--top", type=text, metavar="STATISTIC", help="the heads with the largest values")
    parser.add_argument("--label", metavar="NOUN", help="with --top: the tag, relation, direction or offset")
    parser.add_argument("-n", type=whole(1), metavar="N", help="with --top: number of heads (default 10)")


def _show(args: argparse.Namespace) -> None:
    for option, value in (("--label", args.label), ("-n", args.n)):
        if value is not None and args.top is None:
            raise UsageError(f"{option} {value}: applies only to --top STATISTIC, which is missing")
    file = stats_file(args.stats)
    from tl_attnstats.cli import tables as show
    from tl_attnstats.results.stats import load

    stats = load(file)
    if args.top is not None:
        _check_top(stats, args.top, args.label)
    if args.head:
        show.head_page(stats, args.head, console())
    if args.top:
        show.top(stats, args.top, console(), n=args.n or 10, label=args.label)
    if not args.head and not args.top:
        show.overview(stats, console())


def _check_top(stats: AttentionStats, name: str, label: str | None) -> None:
    """Raise `UsageError` unless the statistic has one value per head, or per head and label with the label given."""
    by_head = {str(key): value for key, value in stats.dataset.data_vars.items() if {"layer", "head"} <= {*value.dims}}
    labels = {key: [str(dim) for dim in value.dims if dim not in ("layer", "head")] for key, value in by_head.items()}
    ranked = [key for key, dims in labels.items() if len(dims) < 2 and by_head[key].dtype.kind == "f"]
    ranked = [key for key in ranked if set(labels[key]) <= set(stats.dataset.coords)]
    if name not in ranked:
        told = [key for key in ranked if key in stats.statistics]
        raise UsageError(f"--top {name}: no statistic of this name with one value per head; expected {choices(told)}")
    if not labels[name]:
        if label is not None:
            raise UsageError(f"--label {label}: {name} has one value per head and takes no label")
        return
    (dim,) = labels[name]
    known = [str(value) for value in stats.dataset[dim].values]
    if label is None:
        raise UsageError(f"--top {name}: has a value for each {dim}; choose one with --label: {_listed(known)}")
    if label not in known:
        raise UsageError(f"--label {label or repr(label)}: {name} has no such {dim}; expected one of {_listed(known)}")


def _listed(labels: list[str]) -> str:
    numbers = all(re.fullmatch(r"-?\d+", label) for label in labels)
    return f"{labels[0]} to {labels[-1]}" if numbers else choices(labels)
