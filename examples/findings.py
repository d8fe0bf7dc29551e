"""What is left of a run's numbers without sinks, and beyond position.

    attnstats run demo --out out/demo
    python examples/findings.py out/demo

What follows ± is a standard error; means are over heads.
"""

from __future__ import annotations

import argparse
from collections.abc import Iterator, Sequence
from pathlib import Path

import numpy as np

import tl_attnstats as ta
from tl_attnstats.results.claims import replicates_of
from tl_attnstats.results.ranking import tied

EITHER = {"direction": "either"}
ALIGNMENT = ("dependency_alignment", "alignment_by_position", "alignment_excess")
NEEDED = ("sinks", "pos_to", "pos_to_without_sinks", "position", "dependency_alignment", "distance", "bootstrap")
Row = tuple[str, ...]


def main(arguments: Sequence[str] | None = None) -> None:
    """Load a run, and print tables in Markdown."""
    parser = argparse.ArgumentParser(description="What is left of a run's numbers without sinks, and beyond position.")
    parser.add_argument("run", type=Path, help="directory that attnstats run wrote")
    parser.add_argument("--layers", type=int, nargs=2, default=(3, 9), help="first and last whose sinks are listed")
    parser.add_argument("--tag", default="DET", help="part of speech that sinks may explain (default: DET)")
    args = parser.parse_args(arguments)

    stats = ta.load(args.run / "stats.nc")
    if missing := [name for name in NEEDED if name not in stats.state]:
        parser.error(f"{args.run}: has no {', '.join(missing)}; use a run of all statistics, without --metrics")
    first, last = args.layers
    if not {first, last} <= {*stats["layer"].values.tolist()} or first > last:
        parser.error(f"--layers {first} {last}: expected two layers of the run, the first one first")
    print(f"{stats.subject}\n")
    titles = ("layer", "sink share", "sinks a sequence", args.tag, f"{args.tag} without sinks")
    print_table(titles, sinks_by_layer(stats, first, last, args.tag))
    print_table(("sink", f"share of content attention, layers {first} to {last}"), sink_tokens(stats, first, last))
    print_table(("layer", "alignment", "by position", "excess"), alignment_by_layer(stats))
    r = stats.correlation("dependency_alignment", "alignment_by_position", **EITHER).r
    print(f"r(alignment, by position) over heads: {r:.2f}\n")
    print_table(("strongest by", "head", "alignment", "by position", "excess"), aligned_heads(stats))
    print_table(("claim", "as in the paper", "verdict", "without sinks, or beyond position", "verdict"), claims(stats))


def sinks_by_layer(stats: ta.AttentionStats, first: int, last: int, tag: str) -> Iterator[Row]:
    """How much sinks take, and how much attention a part of speech gets with and without them."""
    columns = (
        stats["sink_share"],
        stats["sink_rate"],
        stats.head_values("pos_to", tag=tag),
        stats.head_values("pos_to_without_sinks", tag=tag),
    )
    chosen = (stats["layer"] >= first) & (stats["layer"] <= last)
    for layer in stats["layer"].values[chosen]:
        yield str(layer), *(f"{float(column.sel(layer=layer).mean()):.3f}" for column in columns)
    for name, layers in ((f"{first} to {last}", chosen), ("others", ~chosen)):
        yield name, *(f"{float(column[layers].mean()):.3f}" for column in columns)
    frequency = f"{float(stats['pos_frequency'].sel(tag=tag)):.3f}"
    yield "share of content keys", "–", "–", frequency, "–"


def sink_tokens(stats: ta.AttentionStats, first: int, last: int, n: int = 5) -> Iterator[Row]:
    """The tokens that take most as sinks, and all others together."""
    share = stats["sink_tokens"].sel(layer=slice(first, last)).mean(("layer", "head"))
    named = share[share["token"] != "other"]
    largest = named[np.argsort(-named.values, kind="stable")[:n]]
    for token in largest:
        yield f"`{token['token_text'].item()!r}`", f"{float(token):.3f}"
    yield "other tokens", f"{float(share.sum() - largest.sum()):.3f}"
    yield "all sinks", f"{float(share.sum()):.3f}"


def alignment_by_layer(stats: ta.AttentionStats) -> Iterator[Row]:
    """Alignment with dependencies in either direction, what position alone gives, and the rest with its error."""
    of_heads = [stats.head_values(name, **EITHER).values for name in ALIGNMENT]
    replicates = replicates_of(stats, "alignment_excess")
    assert replicates is not None  # `position` is needed
    for place, layer in enumerate([*stats["layer"].values, "all"]):
        rows = slice(None) if layer == "all" else slice(place, place + 1)
        alignment, by_position, excess = (float(np.nanmean(values[rows])) for values in of_heads)
        error = float(np.nanmean(replicates[:, rows], (1, 2)).std(ddof=1))
        yield str(layer), f"{alignment:.4f}", f"{by_position:.4f}", f"{signed(excess)} ± {error:.4f}"


def aligned_heads(stats: ta.AttentionStats, n: int = 3) -> Iterator[Row]:
    """The strongest heads by alignment and by excess, and how many others have bounds that overlap the first one's."""
    for kind, name in (("alignment", "dependency_alignment"), ("excess", "alignment_excess")):
        top = stats.top_heads(name, n=stats[name].size, max_null=0.9, **EITHER)
        for place, head in enumerate(top["head"][:n]):
            layer, number = stats.find_head(head)
            here = [stats.head_values(of, **EITHER).sel(layer=layer, head=number).item() for of in ALIGNMENT]
            error = float(stats["alignment_excess_se"].sel(layer=layer, head=number, **EITHER))
            first = f"{kind}: {tied(top)} more may be first" if place == 0 else ""
            yield first, head, f"{here[0]:.4f}", f"{here[1]:.4f}", f"{signed(here[2])} ± {error:.4f}"


def claims(stats: ta.AttentionStats) -> Iterator[Row]:
    """The paper's claims that sinks or position could explain, each with what remains."""
    counterparts = ta.counterparts_of(stats)
    for claim in ta.claims_of(stats):
        if claim.name in counterparts:
            after = counterparts[claim.name]
            yield claim.statement, claim.shown, claim.verdict, after.shown, after.verdict


def signed(value: float) -> str:
    """A difference, with its sign."""
    return f"{value:+.4f}".replace("-", "−")


def print_table(titles: Sequence[str], rows: Iterator[Row]) -> None:
    """A table in Markdown, and an empty line."""
    for row in (titles, ["---"] * len(titles), *rows):
        print(f"| {' | '.join(row)} |")
    print()


if __name__ == "__main__":
    main()
