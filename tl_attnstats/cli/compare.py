"""`attnstats compare`: compare the statistics of several models."""

from __future__ import annotations

import argparse
from pathlib import Path

from tl_attnstats.cli.common import Commands, UsageError, check_writable, draw_to_files, path, stats_file
from tl_attnstats.corpus.untrusted import printable


def add_to(commands: Commands[argparse.ArgumentParser]) -> None:
    """Add the command to the parser."""
    parser = commands.add_parser("compare", help="compare the statistics of several models on one page")
    parser.set_defaults(command=_compare, positional=("stats",))
    parser.add_argument(
        "stats",
        nargs="+",
        type=_named,
        metavar="[NAME=]DIR",
        help="output of run; NAME is the model's name in the comparison",
    )
    parser.add_argument(
        "--out", type=path, required=True, metavar="DIR", help="where to write comparison.html, claims.csv and figures"
    )
    parser.add_argument("--allow-different", action="store_true", help="compare runs on different corpora too")


def _named(given: str) -> tuple[str, Path]:
    """Name ("" if none is given) and path of `NAME=DIR`."""
    name, equals, directory = given.partition("=")
    if not equals or Path(given).exists():
        return "", path(given)
    if not name.strip() or not directory.strip():
        raise argparse.ArgumentTypeError(f"{given}: expected DIR or NAME=DIR")
    return name, path(directory)


def _compare(args: argparse.Namespace) -> None:
    files = [stats_file(given) for _, given in args.stats]
    check_writable("--out", args.out)
    draw_to_files()
    from tl_attnstats import report
    from tl_attnstats.results.compare import compare
    from tl_attnstats.results.stats import load

    stats = [load(file) for file in files]
    names = [name or str(of.provenance["model"]) for (name, _), of in zip(args.stats, stats, strict=True)]
    if len(set(names)) < len(names):
        names = [name or given.absolute().name for name, given in args.stats]
    if len(set(names)) < len(names):
        raise UsageError(f"compare: got the names {', '.join(names)}, expected distinct names; pass NAME=DIR")
    comparison = compare(dict(zip(names, stats, strict=True)), allow_different=args.allow_different)
    page, table, *figures = report.write_comparison(comparison, args.out)
    for note in comparison.notes:
        print(printable(f"note: {note}"))
    print(f"claims: {table}")
    print(f"figures: {', '.join(figure.name for figure in figures)}")
    print(f"comparison: {page}")
