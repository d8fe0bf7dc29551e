"""Statistics of attention patterns that come from elsewhere: the loop without a model."""

from __future__ import annotations

from collections.abc import Iterable
from typing import Any

from tl_attnstats.attention.scope import Scope
from tl_attnstats.attention.sources.patterns import PatternSource
from tl_attnstats.collectors.base import Shape
from tl_attnstats.collectors.group import CollectorGroup, Metric
from tl_attnstats.corpus.batches import TokenizedSentence
from tl_attnstats.corpus.sentence import Sentence
from tl_attnstats.errors import CorpusError
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

    Raises:
        HookError: for an array of another shape, or with more or fewer tokens than its sentence.
        CorpusError: for no patterns.
    """
    check_null_rule(null)
    source = PatternSource(patterns)
    group: CollectorGroup | None = None
    for batch in source.batches():
        n_layers, n_heads = source.size
        group = group or CollectorGroup(metrics, Shape(tuple(range(n_layers)), n_heads, causal))
        scope = Scope(batch, causal, null, pair_sets=group.pair_sets)
        source.read(batch, scope, group.consumer)
        group.end_batch(scope)
    if group is None:
        raise CorpusError("patterns: got none, expected at least one")
    reading = Reading(model=model_name, attention="causal" if causal else "bidirectional", null=null)
    return AttentionStats(RunState.of(group, reading, (Counted.of(group.tally, None),), source=source.name))
