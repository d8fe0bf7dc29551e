"""A statistic of your own: how much attention goes to words that were mentioned before.

    python examples/own_statistic.py texts.txt

It is a ratio of sums, so it gets a standard error, is saved, and merges, as every built-in statistic does.
"""

from __future__ import annotations

import argparse
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

import tl_attnstats as ta


class Mentioned(ta.RatioCollector):
    """Share of content attention on words whose form occurs earlier in the sequence."""

    name = "mentioned"
    formula = "Σ w[i,j]·1[the word of j occurs before j] / Σ w[i,j]"
    reads = ("column_mass",)  # the attention that each key gets: [batch, head, key]
    needs_words = True

    def terms(self, block: ta.Reductions) -> tuple[Tensor, Tensor]:
        """Numerator and denominator of each sequence and head, `[batch, head]`."""
        again = torch.stack([mentioned(item, block.keys.input_ids.shape[1]) for item in block.keys.items])
        attention = block.column_mass
        return (attention * again[:, None].to(attention)).sum(-1), attention.sum(-1)


def mentioned(item: ta.TokenizedSentence, n_tokens: int) -> Tensor:
    """Which tokens belong to a word whose form stands in the sentence before it."""
    words = item.sentence.words
    forms = [item.sentence.text[word.start : word.end].lower() for word in words]
    again = torch.zeros(n_tokens, dtype=torch.bool)
    for token, word in enumerate(item.word_of_token):
        again[token] = word >= 0 and forms[word] in forms[:word]
    return again


def main(arguments: Sequence[str] | None = None) -> None:
    """Collect, and print the heads that look most at what was mentioned before."""
    parser = argparse.ArgumentParser(description="How much attention goes to words that were mentioned before.")
    parser.add_argument("text", type=Path, help="plain text, a text a line")
    parser.add_argument("--model", default="demo", help="hub name, local directory, .gguf file, or 'demo'")
    args = parser.parse_args(arguments)

    corpus = ta.Corpus.from_text_file(args.text)
    stats: Any = ta.collect(ta.load_model(args.model), corpus, metrics=[Mentioned, "null_share"])
    print(stats.top_heads("mentioned", n=5, max_null=0.9))


if __name__ == "__main__":
    main()
