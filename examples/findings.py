"""What is left of a run's numbers without sinks, and beyond position.

    attnstats run demo --out out/demo
    python examples/findings.py out/demo

What follows ± is a standard error; means are over heads.
"""

from __future__ import annotations

import argparse
from collections.abc import Callable, Iterator, Sequence
from dataclasses import replace
from pathlib import Path

import numpy as np
from jaxtyping import Float

import tl_attnstats as ta
from tl_attnstats.collectors.position import Position
from tl_attnstats.results.claims import Claim, count_twice_mean, depths_of, pearson, replicates_of

EITHER = {"direction": "either"}
ALIGNMENT = ("dependency_alignment", "alignment_by_position", "alignment_excess")
NEEDED = ("sinks", "pos_to", "pos_to_without_sinks", "position", "dependency_alignment", "distance", "bootstrap")
ByHead = Float[np.ndarray, "layer head"]
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
    replicates = excess_replicates(stats)
    for place, layer in enumerate([*stats["layer"].values, "all"]):
        rows = slice(None) if layer == "all" else slice(place, place + 1)
        alignment, by_position, excess = (float(np.nanmean(values[rows])) for values in of_heads)
        error = float(np.nanmean(replicates[:, rows], (1, 2)).std(ddof=1))
        yield str(layer), f"{alignment:.4f}", f"{by_position:.4f}", f"{signed(excess)} ± {error:.4f}"


def aligned_heads(stats: ta.AttentionStats, n: int = 3) -> Iterator[Row]:
    """The strongest heads by alignment and by excess, and how many others have bounds that overlap the first one's."""
    for kind, name in (("alignment", "dependency_alignment"), ("excess", "alignment_excess")):
        top = stats.top_heads(name, n=stats[name].size, max_null=0.9, **EITHER)
        tied = int((top["high"] >= top["low"][0]).sum()) - 1
        for place, head in enumerate(top["head"][:n]):
            layer, number = stats.find_head(head)
            here = [stats.head_values(of, **EITHER).sel(layer=layer, head=number).item() for of in ALIGNMENT]
            error = float(stats["alignment_excess_se"].sel(layer=layer, head=number, **EITHER))
            first = f"{kind}: {tied} more may be first" if place == 0 else ""
            yield first, head, f"{here[0]:.4f}", f"{here[1]:.4f}", f"{signed(here[2])} ± {error:.4f}"


def claims(stats: ta.AttentionStats) -> Iterator[Row]:
    """The paper's claims that sinks or position could explain, each with what remains."""
    excess = stats.head_values("alignment_excess", **EITHER).values
    sampled, depths = excess_replicates(stats), depths_of(stats)
    distance, distances = stats["distance"].values, replicates_of(stats, "distance")
    assert distances is not None  # `bootstrap` is needed

    def peak(values: ByHead) -> float:
        return float(depths[np.nanargmax(np.nanmean(values, 1))])

    tags = [tag for tag in stats["tag"].values if tag != "none"]
    sure, counted = (count_twice_mean(stats, "pos_to_without_sinks", **how) for how in ({}, {"n_errors": 0}))
    changed: dict[str, Callable[[Claim], Claim]] = {
        "alignment_in_the_middle": lambda claim: bounded(claim, peak(excess), [peak(one) for one in sampled]),
        "distance_and_alignment": lambda claim: bounded(
            claim,
            pearson(distance.ravel(), excess.ravel()),
            [pearson(x.ravel(), y.ravel()) for x, y in zip(distances, sampled, strict=True)],
        ),
        "twice_mean_to": lambda claim: replace(
            claim,
            value=counted / len(tags),
            low=sure / len(tags),
            high=counted / len(tags),
            detail=f"{counted} of {len(tags)}, {sure} beyond error",
        ),
    }
    for claim in ta.claims_of(stats):
        if claim.name in changed:
            after = changed[claim.name](claim)
            yield claim.statement, claim.shown, claim.verdict, after.shown, after.verdict


def bounded(claim: Claim, value: float, replicates: Sequence[float]) -> Claim:
    """The claim with another value, its error and bounds from replicates."""
    low, high = np.percentile(replicates, (2.5, 97.5))
    return replace(claim, value=value, se=float(np.std(replicates, ddof=1)), low=float(low), high=float(high))


def excess_replicates(stats: ta.AttentionStats) -> Float[np.ndarray, "replicate layer head"]:
    """The excess of alignment, either direction, in each bootstrap replicate of the corpus."""
    state = stats.state["position"]
    parts = (state.isel(replicate=[n]) for n in range(1, state.sizes["replicate"]))
    return np.stack([Position.compute(part, 0)["alignment_excess"].sel(EITHER).values for part in parts])


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
