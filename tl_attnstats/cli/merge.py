"""`attnstats merge`: shards of a run, or runs on different sentences, become one result."""

from __future__ import annotations

import argparse
from pathlib import Path

from tl_attnstats.cli.common import (
    ENCODER_DECODER_STREAMS,
    REPORT_FILE,
    STATS_FILE,
    Commands,
    check_writable,
    path,
)


def add_to(commands: Commands[argparse.ArgumentParser]) -> None:
    """Add the command to the parser."""
    parser = commands.add_parser("merge", help="merge shards of a run, or runs on different sentences, into one result")
    parser.set_defaults(command=_merge, positional=("given",))
    parser.add_argument(
        "given", nargs="+", type=path, metavar="DIR", help="output of run --shard, or of run; directories or files"
    )
    parser.add_argument(
        "--out", type=path, required=True, metavar="DIR", help="where to write stats.nc, figures and report.html"
    )
    parser.add_argument("--partial", action="store_true", help="accept that shards are missing; the result says which")


def _merge(args: argparse.Namespace) -> None:
    from tl_attnstats.cli.output import write_results
    from tl_attnstats.results.shard_files import merge_shards

    for stream in _streams(args.given):
        out = args.out / stream
        check_writable("--out", out, STATS_FILE, REPORT_FILE)
        write_results(merge_shards([_source(given / stream) for given in args.given], partial=args.partial), out)


def _streams(given: list[Path]) -> tuple[str, ...]:
    """The streams of attention that have directories of their own, as `run` writes them for an encoder–decoder."""
    return tuple(s for s in ENCODER_DECODER_STREAMS if any((path / s).is_dir() for path in given)) or ("",)


def _source(path: Path) -> Path:
    """The statistics of a whole run if that is what is in a directory, else the directory, for its shards."""
    shards = path.is_dir() and any(path.glob("shard-*.nc"))
    return path / STATS_FILE if (path / STATS_FILE).is_file() and not shards else path
