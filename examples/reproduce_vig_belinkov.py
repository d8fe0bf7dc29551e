"""The numbers of Vig & Belinkov (2019) beside those of any model.

    python examples/reproduce_vig_belinkov.py gpt2

As in the paper, no BOS token is put before a sentence. What follows ± is a standard error.
"""

from __future__ import annotations

import argparse
from collections.abc import Iterator, Sequence
from pathlib import Path

import numpy as np
import pandas as pd

import tl_attnstats as ta

SAMPLE = Path(ta.__file__).parent / "data" / "sample.txt"
EITHER = {"direction": "either"}
# Quantity, GPT-2 small in the paper, here.
Row = tuple[str, str, str]


def main(arguments: Sequence[str] | None = None) -> None:
    """Collect, and print two tables in Markdown."""
    parser = argparse.ArgumentParser(description="The numbers of Vig & Belinkov (2019) beside those of a model.")
    parser.add_argument("model", help="hub name, local transformers directory, .gguf file, or 'demo'")
    parser.add_argument("--text", type=Path, default=SAMPLE, help="plain text, a text a line (default: the sample)")
    parser.add_argument("--limit", type=int, help="only the first so many sentences")
    args = parser.parse_args(arguments)

    corpus = ta.Corpus.from_text_file(args.text)[: args.limit]
    stats = ta.collect(ta.load_model(args.model), corpus, prepend_bos=False)

    print(f"{stats.provenance['model']}, {stats.provenance['corpus']}\n")
    print_table(("", "GPT-2 small in the paper", "here"), numbers(stats))
    print()
    claims = [(c.statement, c.paper, c.shown, c.verdict) for c in ta.claims_of(stats)]
    print_table(("claim", "paper", "here", "verdict"), claims)


def numbers(stats: ta.AttentionStats) -> Iterator[Row]:
    """The paper's numbers, in its order."""
    claims = {claim.name: claim.shown for claim in ta.claims_of(stats)}
    sentences, tokens = (int(stats.provenance[count]) for count in ("sequences", "tokens"))
    yield "sentences", "10,000", f"{sentences:,}"
    yield "tokens a sentence", "27.7", f"{tokens / sentences:.1f}"
    yield "null share, mean over heads", "0.57", claims["null_attention"]
    yield "largest null share", "over 0.97", best(stats.top_heads("null_share"), "null_share")

    yield from nouns(stats)
    yield "tags some head attends to over twice the mean", "13 of 16", claims["twice_mean_to"]
    yield "tags some head attends from over twice the mean", "7 of 16", claims["twice_mean_from"]

    yield from alignment(stats)
    yield from dependencies(stats)

    distance = stats["distance"]
    furthest = stats.top_heads("distance").iloc[0]
    layer, head = stats.find_head(furthest["head"])
    deepest = stats.by_layer("distance")["mean"].idxmax()
    yield "layer that looks furthest", "the deepest", f"{deepest} (of {layers(stats)})"
    yield "SD of distance over heads", "3.6", f"{float(distance.std(ddof=1)):.1f}"
    yield "largest distance", "14.2 (L5H1)", best(stats.top_heads("distance"), "distance", 1)
    yield "entropy of that head", "0.41", f"{float(stats['entropy'].sel(layer=layer, head=head)):.2f}"
    yield "r(distance, entropy)", "0.61", claims["distance_and_entropy"]
    yield "r(distance, alignment)", "−0.73", claims["distance_and_alignment"]


def nouns(stats: ta.AttentionStats) -> Iterator[Row]:
    """Attention to nouns."""
    if "NOUN" in stats["tag"]:
        values = stats.head_values("pos_to", tag="NOUN")
        yield "attention to nouns, mean over heads", "0.21", f"{float(values.mean()):.2f}"
        yield "largest attention to nouns", "0.43 (L9H0)", best(stats.top_heads("pos_to", tag="NOUN"), "pos_to")


def alignment(stats: ta.AttentionStats) -> Iterator[Row]:
    """Attention along dependencies, in either direction."""
    name = "dependency_alignment"
    peak = stats.by_layer(name, **EITHER)["mean"].idxmax()
    yield "layer that follows dependencies most", "in the middle", f"{peak} (of {layers(stats)})"
    top = stats.top_heads(name, **EITHER)
    yield "largest dependency alignment", "0.42 (L4H11)", best(top, name)
    layer, head = stats.find_head(top.iloc[0]["head"])
    yield "variability of that head", "0.004", f"{float(stats['variability'].sel(layer=layer, head=head)):.3f}"
    by_position = stats.top_heads("variability", n=stats["variability"].size, ascending=True)
    first = by_position[by_position["layer"] == by_position["layer"].min()]["head"].head(2)
    aligned = stats.top_heads(name, n=stats["variability"].size, **EITHER).set_index("head")[name]
    found = ", ".join(f"{aligned[head]:.2f} ({head})" for head in first)
    yield "alignment of the two heads of layer 0 that follow position most", "0.04, 0.10", found


def dependencies(stats: ta.AttentionStats) -> Iterator[Row]:
    """How long dependencies are, in tokens: of the corpus, whatever the attention."""
    # How many of each length there are; the last entry is of all beyond.
    n = stats.state["baselines"]["dependency_by_distance_a"]
    distances = n["token_distance"].values
    yield "mean length of a dependency, in tokens", "3.89", f"{np.average(distances, weights=n.values):.2f}"
    for distance, paper in ((1, "0.42"), (5, "0.07"), (10, "0.02")):
        share = float(stats["dependency_by_distance"].sel(token_distance=distance))
        yield f"share of token pairs {distance} apart that are in a relation", paper, f"{share:.2f}"
    yield (
        "dependencies no longer than 18 tokens",
        "99.8%",
        f"{float(n.sel(token_distance=slice(0, 18)).sum() / n.sum()):.1%}",
    )


def best(top: pd.DataFrame, name: str, digits: int = 3) -> str:
    """The first of the heads in a table, with its value and error."""
    row = top.iloc[0]
    return f"{row[name]:.{digits}f} ± {row['se']:.{digits}f} ({row['head']})"


def layers(stats: ta.AttentionStats) -> str:
    """The layers there are: "0 to 11"."""
    return f"{stats['layer'].values[0]} to {stats['layer'].values[-1]}"


def print_table(titles: Sequence[str], rows: Iterator[Row] | Sequence[Sequence[str]]) -> None:
    """A table in Markdown."""
    for row in (titles, ["---"] * len(titles), *rows):
        print(f"| {' | '.join(row)} |")


if __name__ == "__main__":
    main()
