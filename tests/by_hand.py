"""Sequences and patterns made by hand, whose statistics follow from the definitions."""

from __future__ import annotations

from collections.abc import Callable

import numpy as np

from tests.reference import Reference, Tokens
from tests.reference_worth import Worth

Weight = Callable[[int, int], float]
BOS, CLS, SEP = 1, 101, 102


def words(ids: list[int], *, heads: list[int | None] | None = None, encoder: bool = False, **more: object) -> Tokens:
    """One token per word. For an encoder, the first and the last token are special and belong to no word."""
    n = len(ids) - 2 * encoder
    owners: list[int | None] = [None, *range(n), None] if encoder else list(range(n))
    special = [encoder and owner is None for owner in owners]
    said = {"upos": ["X"] * n, "heads": heads or [None] * n, "deprel": ["obj"] * n, **more}
    return Tokens(0, special, owners, ids=ids, **said)  # type: ignore[arg-type]


def pattern(tokens: Tokens, *heads: Weight, causal: bool = True) -> np.ndarray:
    """One layer of heads, each given by its weight at (i, j); rows need not sum to 1."""
    n = len(tokens)
    return np.array([[[[float(w(i, j)) * (j <= i or not causal) for j in range(n)] for i in range(n)] for w in heads]])


def worth(*data: tuple[np.ndarray, Tokens], causal: bool = True) -> Worth:
    return Worth(Reference(list(data), causal=causal, null="first" if causal else "special"))


def value(found: Worth, name: str) -> np.ndarray:
    return found.expected()[name][0]


def pieces(heads: list[int | None], causal: bool, **more: object) -> Tokens:
    """Words with an even number have one piece, words with an odd number two."""
    owners: list[int | None] = [word for word in range(len(heads)) for _ in range(1 + word % 2)]
    owners = [None, *owners] if causal else [None, *owners, None]
    special = [owner is None for owner in owners]
    n = len(heads)
    said = {"upos": ["X"] * n, "deprel": ["nsubj", "obj", "nmod:poss"] * (n // 3 + 1), **more}
    return Tokens(0, special, owners, heads=heads, ids=[9] * len(owners), **said)  # type: ignore[arg-type]
