"""The whole patterns of exemplars in the report of `attnstats run`."""

from __future__ import annotations

import argparse
from typing import TYPE_CHECKING

from tl_attnstats.cli.common import UsageError

if TYPE_CHECKING:
    from tl_attnstats.results.stats import AttentionStats
    from tl_attnstats.results.whole import WholePatterns
    from tl_attnstats.run import Collectors

OF = ("exemplars", "typical_exemplars")


def add_to(parser: argparse.ArgumentParser) -> None:
    """Add the option to the parser of `run`."""
    parser.add_argument(
        "--no-patterns",
        action="store_true",
        help="leave the whole patterns of exemplars out of the report: they take one more pass over their sentences",
    )


def check(args: argparse.Namespace) -> None:
    """Raise `UsageError` if the option has no effect."""
    if args.no_patterns and args.shard:
        raise UsageError("--no-patterns: has no effect with --shard, which writes no report; leave it out")
    if args.no_patterns and args.metrics and not set(OF) & set(args.metrics):
        raise UsageError("--no-patterns: has no effect without exemplars, which are not among --metrics; leave it out")


def patterns_for(args: argparse.Namespace, collectors: Collectors, stats: AttentionStats) -> WholePatterns | None:
    """The whole patterns of the exemplars; None if they are not wanted or cannot be had.

    Documents, token ids, encoder–decoders and models without hooks have none.
    """
    info = collectors.info
    there = any(name in stats.state for name in OF)
    if args.no_patterns or not there or not info.hooked or info.stream != "self":
        return None
    if collectors.sequence_kind != "sentence":
        return None
    from tl_attnstats.views.exemplar_patterns import exemplar_patterns

    return exemplar_patterns(
        collectors.model, stats, prepend_bos=args.bos, null=args.null, batch_tokens=args.batch_tokens
    )
