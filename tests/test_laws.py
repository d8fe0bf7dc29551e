"""Things that must not change statistics: padding, batches, order, shards, blocks, and values that do not count."""

from __future__ import annotations

import random
from dataclasses import replace
from typing import Any

import numpy as np
import pytest
import torch
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

import tl_attnstats as ta
from tests import tiny
from tests.asserting import assert_close
from tl_attnstats.attention.kernels.torch_blocks import reductions_of
from tl_attnstats.attention.scope import Scope
from tl_attnstats.collectors.base import Shape
from tl_attnstats.collectors.group import CollectorGroup
from tl_attnstats.results.state import Counted, Reading, RunState

N_LAYERS, N_HEADS = 2, 3
few = settings(max_examples=15, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
seeds = st.integers(0, 10**6)


def words_as_tokens(sentence: ta.Sentence) -> ta.TokenizedSentence:
    words = sentence.words
    everyone = list(range(len(words)))
    return ta.TokenizedSentence(sentence, everyone, [(w.start, w.end) for w in words], everyone, [False] * len(words))


def sample(seed: int, *, causal: bool, n: int = 9) -> list[tuple[np.ndarray, ta.TokenizedSentence]]:
    return [
        (tiny.patterns(N_LAYERS, N_HEADS, len(s.words), causal, seed + s.number).astype(np.float32), words_as_tokens(s))
        for s in tiny.sentences(n, seed)
    ]


def statistics(
    batches: list[list[tuple[np.ndarray, ta.TokenizedSentence]]],
    *,
    causal: bool,
    null: Any = "first",
    rubbish: float | None = None,
    rows: int = 10**6,
) -> ta.AttentionStats:
    """Collect from padded batches of patterns, in blocks of `rows` rows; `rubbish` fills the padding."""
    group = CollectorGroup(None, Shape(tuple(range(N_LAYERS)), N_HEADS, causal))
    for batch in batches:
        width = max(len(item) for _, item in batch) + (0 if rubbish is None else 2)
        padded = np.full((N_LAYERS, len(batch), N_HEADS, width, width), 0.0, np.float32)
        items = []
        for place, (pattern, item) in enumerate(batch):
            n = len(item)
            padded[:, place, :, n:] = 1 / width if rubbish is None else rubbish
            padded[:, place, :, :n, :n] = pattern
            items.append(item)
        made = ta.Batch(items) if rubbish is None else WiderBatch(items, width)
        scope = Scope(made, causal, null, pair_sets=group.pair_sets)
        for layer in range(N_LAYERS):
            whole = torch.from_numpy(padded[layer])
            for first in range(0, width, rows):
                group.consumer.take(reductions_of(whole[:, :, first : first + rows], scope, layer, first))
        group.end_batch(scope)
    counted = replace(Counted.of(group.tally, None), corpus="one corpus")
    return ta.AttentionStats(RunState.of(group, Reading(model="m", null=null, attention="causal"), (counted,)))


class WiderBatch(ta.Batch):
    """A batch with more padding than its longest sentence needs."""

    def __init__(self, items: list[ta.TokenizedSentence], width: int):
        super().__init__(items)
        self.width = width

    def _padded(self, rows: Any, fill: Any, dtype: torch.dtype) -> torch.Tensor:
        return torch.tensor([[*row, *[fill] * (self.width - len(row))] for row in rows], dtype=dtype)


@few
@given(seed=seeds, causal=st.booleans(), null=st.sampled_from(["first", "none"]))
def test_batching_changes_nothing(seed: int, causal: bool, null: str) -> None:
    data = sample(seed, causal=causal)
    one_by_one = statistics([[pair] for pair in data], causal=causal, null=null)
    order = random.Random(seed).sample(data, len(data))
    assert_close(one_by_one, statistics([data], causal=causal, null=null))
    assert_close(one_by_one, statistics([order[:2], order[2:7], order[7:]], causal=causal, null=null))


@few
@given(seed=seeds, causal=st.booleans(), rubbish=st.sampled_from([0.0, 1.0, -3.0, 1e30, np.nan, np.inf]))
def test_rubbish_in_padding_changes_nothing(seed: int, causal: bool, rubbish: float) -> None:
    data = sample(seed, causal=causal)
    clean = statistics([data], causal=causal)
    assert_close(clean, statistics([data], causal=causal, rubbish=rubbish))


@few
@given(seed=seeds, causal=st.booleans(), rows=st.integers(1, 20))
def test_blocks_of_rows_change_nothing(seed: int, causal: bool, rows: int) -> None:
    data = sample(seed, causal=causal)
    assert_close(statistics([data], causal=causal), statistics([data], causal=causal, rows=rows))


@few
@given(seed=seeds, causal=st.booleans(), cut=st.integers(1, 8))
def test_shards_merge_to_the_whole(seed: int, causal: bool, cut: int) -> None:
    data = sample(seed, causal=causal)
    whole = statistics([data[:cut], data[cut:]], causal=causal)
    first, second = statistics([data[:cut]], causal=causal), statistics([data[cut:]], causal=causal)
    assert_close(whole, first.merge(second), 1e-12)
    assert_close(whole, second.merge(first), 1e-12)


@few
@given(seed=seeds, causal=st.booleans(), factor=st.floats(0.01, 5))
def test_weights_of_null_keys_change_null_share_and_entropy_only(seed: int, causal: bool, factor: float) -> None:
    data = sample(seed, causal=causal)
    changed = [(pattern.copy(), item) for pattern, item in data]
    for pattern, _ in changed:
        pattern[..., 0] *= factor
    before, after = statistics([data], causal=causal), statistics([changed], causal=causal)
    # Entropy leaves out rows with much null attention; no other statistic depends on it.
    moved = {f"{name}{kind}" for name in ("null_share", "entropy") for kind in ("", "_se", "_replicates")}
    for name in set(before.dataset) - moved:
        assert before.dataset[name].equals(after.dataset[name]), name
    np.testing.assert_allclose(after["null_share"], factor * before["null_share"], rtol=1e-5)


@few
@given(seed=seeds, budget=st.integers(1, 200))
def test_token_budget_changes_nothing_on_a_model(tiny_decoder: Any, seed: int, budget: int) -> None:
    corpus = ta.Corpus(tiny.sentences(8, seed))
    usual = ta.collect(tiny_decoder, corpus, progress=False)
    assert_close(usual, ta.collect(tiny_decoder, corpus, batch_tokens=budget, progress=False), 2e-6)


def test_shards_of_a_corpus_merge_to_the_whole_on_a_model(tiny_encoder: Any) -> None:
    corpus = ta.Corpus(tiny.sentences(20, seed=1))
    whole = ta.collect(tiny_encoder, corpus, progress=False)
    parts = [ta.collect(tiny_encoder, corpus[i::3], progress=False) for i in range(3)]
    merged = parts[2].merge(parts[0]).merge(parts[1])
    assert_close(whole, merged, 2e-6)
    assert merged.provenance == whole.provenance


@pytest.mark.slow
@pytest.mark.parametrize("causal", [True, False])
def test_sums_of_many_small_weights_keep_their_digits(causal: bool) -> None:
    """Sums are in float64, so a thousand batches of the same sentence give the same ratios as one."""
    data = sample(3, causal=causal, n=1)
    once, often = statistics([data], causal=causal), statistics([data] * 1000, causal=causal)
    for name in ("distance", "entropy", "null_share", "pos_to"):
        np.testing.assert_allclose(often[name], once[name], rtol=1e-12, err_msg=name)
