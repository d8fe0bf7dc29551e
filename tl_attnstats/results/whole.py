"""Whole patterns of exemplars, in 8 bits, for the report."""

from __future__ import annotations

import base64
import zlib
from dataclasses import dataclass
from typing import Any

import numpy as np
from jaxtyping import Float, UInt8

LEVELS = 255
ERROR = 0.5 / LEVELS
"""Largest error of a weight that is kept in 8 bits."""


@dataclass(frozen=True)
class WholePatterns:
    """The patterns of heads on the sentences of their exemplars, null keys and all. `exemplar_patterns` makes them.

    Attributes:
        causal: whether queries reach only earlier keys; then only the lower triangle of a pattern is kept.
        tokens: by the number of the sentence, its tokens as pieces of the text, special tokens by their names.
        null: by the number of the sentence, the positions of its null tokens.
        patterns: by head ("L10H10") and number of the sentence, the weights times 255.
        said: what is left out, in a sentence; "" for nothing.
    """

    causal: bool
    tokens: dict[int, list[str]]
    null: dict[int, list[int]]
    patterns: dict[str, dict[int, UInt8[np.ndarray, "query key"]]]
    said: str = ""

    def contents(self, heads: list[str]) -> dict[str, Any]:
        """Everything for JSON. The weights of all heads, sentences in order, are one compressed text.

        Args:
            heads: names of the heads, in the order of the page.
        """
        numbers = [sorted(self.patterns.get(head, {})) for head in heads]
        parts = [
            self._flat(self.patterns[head][number]) for head, of in zip(heads, numbers, strict=True) for number in of
        ]
        return {
            "causal": self.causal,
            "tokens": {str(number): tokens for number, tokens in sorted(self.tokens.items())},
            "null": {str(number): places for number, places in sorted(self.null.items())},
            "heads": numbers,
            "weights": base64.b64encode(zlib.compress(b"".join(parts), 9)).decode(),
            "said": self.said,
        }

    def _flat(self, pattern: UInt8[np.ndarray, "query key"]) -> bytes:
        return (pattern[np.tril_indices(len(pattern))] if self.causal else pattern).tobytes()


def in_8_bits(pattern: Float[np.ndarray, "query key"]) -> UInt8[np.ndarray, "query key"]:
    """Weights from 0 to 1 as whole numbers to 255; `ERROR` is the largest error."""
    return np.asarray(np.rint(np.clip(pattern, 0, 1) * LEVELS), dtype=np.uint8)
