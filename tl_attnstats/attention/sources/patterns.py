"""Attention patterns from elsewhere, given as arrays."""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from dataclasses import replace
from typing import Any

import numpy as np
import torch
from jaxtyping import Float
from torch import Tensor

from tl_attnstats.attention.kernels.projections import Consumer
from tl_attnstats.attention.kernels.torch_blocks import reductions_of
from tl_attnstats.attention.scope import Scope
from tl_attnstats.corpus.batches import Batch, TokenizedSentence
from tl_attnstats.corpus.sentence import Sentence
from tl_attnstats.errors import HookError


class PatternSource:
    """Hands out given patterns, one sentence per batch.

    Args:
        patterns: pairs of an array `[layer, head, query, key]` (torch or numpy) and the tokens it is over: a
            `TokenizedSentence`, or a `Sentence` whose words are the tokens.
    """

    name = "patterns"

    def __init__(self, patterns: Iterable[tuple[Any, Sentence | TokenizedSentence]]):
        self._patterns = patterns
        self._pattern: Float[Tensor, "layer head query key"] = torch.empty(0, 0, 0, 0)

    def batches(self) -> Iterator[Batch]:
        """Yield the tokens of each pattern in turn; `read` then reads that pattern.

        Raises:
            HookError: for an array of another shape.
        """
        for number, (array, tokens) in enumerate(self._patterns):
            pattern = torch.as_tensor(np.asarray(array) if not isinstance(array, Tensor) else array)
            where = f"patterns: item {number + 1}"
            if pattern.ndim != 4 or pattern.shape[2] != pattern.shape[3]:
                raise HookError(f"{where} has shape {tuple(pattern.shape)}, expected [layer, head, query, key]")
            if number and pattern.shape[:2] != self._pattern.shape[:2]:
                here, before = (tuple(array.shape[:2]) for array in (pattern, self._pattern))
                raise HookError(f"{where} has (layers, heads) {here}, the ones before it {before}")
            self._pattern = pattern
            yield Batch([_tokens(tokens, pattern.shape[2], number, where)], device=pattern.device)

    @property
    def size(self) -> tuple[int, int]:
        """How many layers and heads the latest pattern has."""
        n_layers, n_heads = self._pattern.shape[:2]
        return n_layers, n_heads

    def read(self, batch: Batch, scope: Scope, consumer: Consumer) -> None:
        """Hand the attention of each layer to the consumer."""
        for layer, pattern in enumerate(self._pattern):
            consumer.take(reductions_of(pattern[None], scope, layer))


def _tokens(tokens: Sentence | TokenizedSentence, n_tokens: int, number: int, where: str) -> TokenizedSentence:
    """Return the tokens of a pattern; the sentence is numbered by its place among the patterns."""
    if isinstance(tokens, Sentence):
        words = tokens.words
        spans = [(word.start, word.end) for word in words]
        everyone = list(range(len(words)))
        tokens = TokenizedSentence(tokens, everyone, spans, everyone, [False] * len(words))
    if len(tokens) != n_tokens:
        raise HookError(
            f"{where} has a pattern over {n_tokens} tokens and {len(tokens)} tokens or words to go with it; "
            f"pass a TokenizedSentence with one entry a token"
        )
    return replace(tokens, sentence=tokens.sentence.numbered(number))
