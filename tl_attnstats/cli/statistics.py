"""Which statistics `attnstats run` collects, and their options."""

from __future__ import annotations

import argparse
from typing import TYPE_CHECKING

from tl_attnstats.cli.common import UsageError, names, whole
from tl_attnstats.collectors import BUILT_IN, DEFAULT_METRICS
from tl_attnstats.corpus.kinds import SequenceKind
from tl_attnstats.errors import choices

if TYPE_CHECKING:
    from tl_attnstats.collectors.base import Collector

MOST_EXEMPLARS, MOST_OFFSET, MOST_OCTAVES = 10_000, 100_000, 30
# Options that apply to a single statistic.
OPTIONS_OF = {
    "exemplars": ("exemplars", "exclude_self"),
    "offset_profile": ("max_offset", "octaves"),
    "dep_to": ("subtypes",),
}


def add_to(parser: argparse.ArgumentParser) -> None:
    """Add the options."""
    parser.add_argument(
        "--metrics", type=names, metavar="A,B", help=f"statistics: {', '.join(DEFAULT_METRICS)} (default: all)"
    )
    parser.add_argument(
        "--exemplars", type=whole(1, MOST_EXEMPLARS), metavar="K", help="exemplars per head (default 10)"
    )
    parser.add_argument(
        "--exclude-self", action="store_true", help="leave out exemplars of tokens that attend to themselves"
    )
    parser.add_argument(
        "--max-offset", type=whole(1, MOST_OFFSET), metavar="D", help="width of the offset profile (default 64)"
    )
    parser.add_argument(
        "--octaves",
        type=whole(0, MOST_OCTAVES),
        metavar="N",
        help="number of octaves of the profile beyond D (default: 7 for documents)",
    )
    parser.add_argument("--subtypes", action="store_true", help="distinguish subtypes of relations (nmod:poss)")


def check(args: argparse.Namespace) -> None:
    """Raise `UsageError` for a statistic that is unknown, or an option of one that is not collected."""
    collected = args.metrics or DEFAULT_METRICS
    for name in collected:
        if name not in BUILT_IN:
            raise UsageError(f"--metrics: unknown statistic {name!r}; known: {choices(BUILT_IN)}")
    for name, options in OPTIONS_OF.items():
        for option in options:
            flag = f"--{option.replace('_', '-')}"
            given = getattr(args, option)
            if given is None or given is False:
                continue
            if name not in collected:
                raise UsageError(f"{flag}: applies to the statistic {name}, which is not among --metrics")
            if args.stream == "cross" and option in ("exclude_self", "max_offset", "octaves"):
                raise UsageError(f"{flag}: does not apply to --stream cross, which is between two sequences")


def chosen(args: argparse.Namespace, *, crosses: bool = False) -> list[Collector]:
    """The requested statistics, with their options."""
    from tl_attnstats.collectors.base import known
    from tl_attnstats.collectors.dependency import DepTo
    from tl_attnstats.collectors.exemplars import Exemplars
    from tl_attnstats.collectors.offsets import OffsetProfile

    configured = {
        # Cross-attention has no self-pairs.
        "exemplars": Exemplars(args.exemplars or 10, args.exclude_self and not crosses),
        "offset_profile": OffsetProfile(args.max_offset or 64, args.octaves),
        "dep_to": DepTo(args.subtypes),
    }
    return [configured[name] if name in configured else known(name)() for name in args.metrics or DEFAULT_METRICS]


def of_kind(args: argparse.Namespace, metrics: list[Collector], sequence_kind: SequenceKind) -> list[Collector]:
    """The statistics that apply: for token ids, those that need no words, unless --metrics names them."""
    if sequence_kind != "tokens" or args.metrics:
        return metrics
    if args.subtypes:
        raise UsageError("--subtypes: relations need words, but the corpus has only token ids; leave it out")
    left_out = ", ".join(metric.name for metric in metrics if metric.needs_words)
    print(f"token ids: without {left_out} (no words)")
    return [metric for metric in metrics if not metric.needs_words]


def across(args: argparse.Namespace) -> list[Collector]:
    """The statistics defined for cross-attention, or all of --metrics if --stream cross is requested."""
    every = chosen(args, crosses=True)
    if args.metrics and args.stream == "cross":
        return every
    left_out = ", ".join(metric.name for metric in every if metric.within_sequence)
    if left_out:
        print(f"cross: without {left_out} (undefined between two sequences)")
    return [metric for metric in every if not metric.within_sequence]
