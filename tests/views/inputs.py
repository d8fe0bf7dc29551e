"""Made-up attention of one input, for the views."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np

import tl_attnstats as ta
from tests import tiny
from tl_attnstats.views.neurons import Neurons

TOKENS = ("<s>", "The", " cat", " paid", " $5", " to", " the", " ￿日", "\n", " שלום", "😀", ".")


def attention(
    n_layers: int = 3, n_heads: int = 4, tokens: Sequence[str] = TOKENS, causal: bool = True, first_layer: int = 0
) -> ta.TextAttention:
    """Random patterns over `tokens`, the first of which is null."""
    n = len(tokens)
    pattern = tiny.patterns(n_layers, n_heads, n, causal, seed=1).astype(np.float32)
    layers = tuple(range(first_layer, first_layer + n_layers))
    return ta.TextAttention(tuple(tokens), pattern, np.arange(n) == 0, layers)


def with_neurons(causal: bool = True, d_head: int = 8) -> ta.TextAttention:
    """Random query and key vectors over `TOKENS`, and the patterns that follow from them."""
    rng = np.random.default_rng(3)
    n = len(TOKENS)
    queries, keys = rng.normal(size=(2, 2, 3, n, d_head))
    scale = np.array([0.5, 0.25])
    scores = scale[:, None, None, None] * np.einsum("lhqd,lhkd->lhqk", queries, keys)
    weights = np.exp(scores) * (np.tri(n) if causal else 1)
    pattern = weights / weights.sum(-1, keepdims=True)
    return ta.TextAttention(TOKENS, pattern, np.arange(n) == 0, (4, 5), Neurons(queries, keys, scale))
