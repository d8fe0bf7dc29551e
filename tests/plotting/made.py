"""Small made-up statistics to draw."""

from __future__ import annotations

from typing import Any

import tl_attnstats as ta
from tests import tiny


def collected(
    n_layers: int = 3, n_heads: int = 4, metrics: Any = None, causal: bool = True, n_sentences: int = 6
) -> ta.AttentionStats:
    sentences = tiny.sentences(n_sentences, seed=2, most_words=9)
    patterns = [tiny.patterns(n_layers, n_heads, len(s.words), causal, s.number) for s in sentences]
    return ta.collect_patterns(zip(patterns, sentences, strict=True), metrics, causal=causal)


def null_heads(n_heads: int, metrics: Any = ("distance",)) -> ta.AttentionStats:
    """One layer of four heads, of which so many look at the first token alone."""
    sentence = next(s for s in tiny.sentences(30) if len(s.words) == 6)
    pattern = tiny.patterns(1, 4, 6, True, 1)
    pattern[0, :n_heads] = 0
    pattern[0, :n_heads, :, 0] = 1
    return ta.collect_patterns([(pattern, sentence)], None if metrics is None else list(metrics))
