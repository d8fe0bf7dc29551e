"""Statistics of attention patterns from elsewhere."""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import replace
from typing import Any

import numpy as np
import torch
from torch import Tensor

from tl_attnstats.attention.reductions import AttentionBlock
from tl_attnstats.attention.scope import Scope
from tl_attnstats.collectors.base import Shape
from tl_attnstats.collectors.group import CollectorGroup, Metric
from tl_attnstats.corpus.batches import Batch, TokenizedSentence
from tl_attnstats.corpus.sentence import Sentence
from tl_attnstats.errors import CorpusError, HookError
from tl_attnstats.models.options import NullRule, check_null_rule
from tl_attnstats.results.state import Counted, Reading, RunState
from tl_attnstats.results.stats import AttentionStats


def collect_patterns(
    patterns: Iterable[tuple[Any, Sentence | TokenizedSentence]],
    metrics: Iterable[Metric] | None = None,
    *,
    causal: bool = True,
    null: NullRule = "first",
    model_name: str = "patterns",
) -> AttentionStats:
    """Statistics of attention patterns from elsewhere, one sentence at a time.

    Args:
        patterns: pairs of an array `[layer, head, query, key]` (torch or numpy) and the tokens it is over: a
            `TokenizedSentence`, or a `Sentence` whose words are the tokens.
        metrics: as for `collect`.
        causal: whether a query reaches only keys at or before its own position.
        null: the rule for the null set.
        model_name: for the provenance.
    """
    check_null_rule(null)
    group: CollectorGroup | None = None
    for number, (array, tokens) in enumerate(patterns):
        pattern = torch.as_tensor(np.asarray(array) if not isinstance(array, Tensor) else array)
        where = f"patterns: item {number + 1}"
        if pattern.ndim != 4 or pattern.shape[2] != pattern.shape[3]:
            raise HookError(f"{where} has shape {tuple(pattern.shape)}, expected [layer, head, query, key]")
        n_layers, n_heads, n_tokens, _ = pattern.shape
        item = _tokens(tokens, n_tokens, number, where)
        shape = Shape(tuple(range(n_layers)), n_heads, causal)
        group = group or CollectorGroup(metrics, shape)
        if shape != group.shape:
            before = (len(group.shape.layers), group.shape.n_heads)
            raise HookError(f"{where} has (layers, heads) {(n_layers, n_heads)}, the ones before it {before}")
        scope = Scope(Batch([item], device=pattern.device), causal, null, pair_sets=group.pair_sets)
        for layer in range(n_layers):
            group.update(AttentionBlock(pattern[layer][None], scope, layer))
        group.end_batch(scope)
    if group is None:
        raise CorpusError("patterns: got none, expected at least one")
    reading = Reading(model=model_name, attention="causal" if causal else "bidirectional", null=null)
    return AttentionStats(RunState.of(group, reading, (Counted.of(group.tally, None),), source="patterns"))


def _tokens(tokens: Sentence | TokenizedSentence, n_tokens: int, number: int, where: str) -> TokenizedSentence:
    """What a pattern is over, its sentence numbered by its place among the patterns."""
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
