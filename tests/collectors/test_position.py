"""Alignment by position alone: against plain loops, on constructed heads, and its errors."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest

import tl_attnstats as ta
from tests import tiny
from tests.reference import DIRECTIONS
from tests.reference_worth import Worth
from tests.running import truth
from tl_attnstats.errors import MetricError

METRICS = ["position", "dependency_alignment"]
NAMES = ("alignment_by_position", "alignment_excess")


def assert_same(stats: ta.AttentionStats, worth: Worth) -> None:
    expected = worth.position_alone()
    for name in NAMES:
        for direction in DIRECTIONS:
            found = stats[name].sel(direction=direction)
            np.testing.assert_allclose(found, expected[f"{name}[{direction}]"], rtol=0, atol=1e-4, err_msg=name)
    excess = stats["dependency_alignment"] - stats["alignment_by_position"]
    np.testing.assert_allclose(stats["alignment_excess"], excess, rtol=0, atol=1e-6)


@pytest.mark.parametrize("source", ["hooks", "streamed"])
@pytest.mark.parametrize("kind", ["decoder", "encoder"])
def test_a_tiny_model(kind: str, source: Any, tiny_decoder: Any, tiny_encoder: Any) -> None:
    model = {"decoder": tiny_decoder, "encoder": tiny_encoder}[kind]
    corpus = ta.Corpus(tiny.sentences(10, seed=4, most_words=20))
    stats = ta.collect(model, corpus, METRICS, source=source, batch_tokens=100, progress=False)
    causal = kind == "decoder"
    assert_same(stats, truth(model, corpus, causal=causal, null="first" if causal else "special"))


@pytest.mark.parametrize("source", [pytest.param("hooks", marks=pytest.mark.slow), "streamed"])
def test_smollm2(smollm2: Any, gold_corpus: ta.Corpus, source: Any) -> None:
    corpus = gold_corpus[:12]
    stats = ta.collect(smollm2, corpus, METRICS, source=source, progress=False)
    assert_same(stats, truth(smollm2, corpus, causal=True, null="first"))


def test_minilm(minilm: Any, gold_corpus: ta.Corpus) -> None:
    corpus = gold_corpus[:12]
    stats = ta.collect(minilm, corpus, METRICS, progress=False)
    assert_same(stats, truth(minilm, corpus, causal=False, null="special"))


def data(causal: bool, weight: Any, n: int = 30) -> list[tuple[np.ndarray, ta.Sentence]]:
    """Patterns whose weights depend only on the offset, on random trees."""
    made = []
    for sentence in tiny.sentences(n, seed=6, most_words=90):
        offsets = np.subtract.outer(*[np.arange(len(sentence.words))] * 2)
        pattern = np.vectorize(weight)(offsets).astype(float) * ((offsets >= 0) | (not causal))
        made.append((np.stack([pattern, pattern / 2])[None], sentence))
    return made


@pytest.mark.parametrize("causal", [True, False])
def test_a_head_whose_weights_depend_on_the_offset_only_has_no_excess(causal: bool) -> None:
    made = data(causal, lambda d: 1 / (2 + abs(d) + (d < 0)))
    stats = ta.collect_patterns(made, METRICS, causal=causal, null="none")
    # Not exactly 0, because offsets beyond 64 share a bin.
    np.testing.assert_allclose(stats["alignment_excess"], 0, atol=1e-4)
    assert (stats["alignment_by_position"] > 0.01).all()


def test_errors_are_the_spread_over_replicates() -> None:
    made = [(tiny.patterns(2, 3, len(s.words), True, s.number), s) for s in tiny.sentences(12, seed=3)]
    stats = ta.collect_patterns(made, [ta.Position(n_replicates=9), "dependency_alignment"])
    found = []
    for replicate in range(9):
        times = [np.random.default_rng(sentence.digest).poisson(1, 9)[replicate] for _, sentence in made]
        repeated = [pair for pair, n in zip(made, times, strict=True) for _ in range(n)]
        found.append(ta.collect_patterns(repeated, [ta.Position(n_replicates=1)]))
    for name in NAMES:
        spread = np.std([part[name].sel(direction=list(DIRECTIONS)).values for part in found], 0, ddof=1)
        np.testing.assert_allclose(stats[f"{name}_se"].sel(direction=list(DIRECTIONS)), spread, rtol=1e-9)


def test_shards_merge_to_the_whole(tiny_encoder: Any) -> None:
    corpus = ta.Corpus(tiny.sentences(12, seed=4))
    whole = ta.collect(tiny_encoder, corpus, METRICS, source="hooks", batch_tokens=1, progress=False)
    parts = [
        ta.collect(tiny_encoder, corpus[n::2], METRICS, source="hooks", batch_tokens=1, progress=False) for n in (1, 0)
    ]
    merged = parts[0].merge(parts[1])
    for name in (*NAMES, *(f"{name}_se" for name in NAMES)):
        np.testing.assert_allclose(merged[name], whole[name], rtol=1e-12, atol=1e-12, err_msg=name)


def test_too_small_an_offset_is_refused() -> None:
    with pytest.raises(MetricError, match="max_offset=0: expected at least 1, or the position baseline says nothing"):
        ta.Position(max_offset=0)
