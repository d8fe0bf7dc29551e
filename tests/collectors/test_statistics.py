"""Every statistic of every head against the plain loops of `reference.py`: real models, tiny models, bare patterns."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest

import tl_attnstats as ta
from tests import tiny
from tests.asserting import EXEMPLARS, assert_same, assert_same_exemplars
from tests.reference import Reference, tokens_of
from tests.running import run_alone


@pytest.fixture(scope="module")
def gold_truth(smollm2: Any, gold_corpus: ta.Corpus) -> Reference:
    return Reference([run_alone(smollm2, s) for s in gold_corpus[:52]], causal=True, null="first")


@pytest.mark.parametrize("source", [pytest.param("hooks", marks=pytest.mark.slow), "streamed"])
def test_statistics_of_smollm2_on_gold_annotation_equal_the_reference(
    smollm2: Any, gold_corpus: ta.Corpus, gold_truth: Reference, source: Any
) -> None:
    stats = ta.collect(smollm2, gold_corpus[:52], source=source, progress=False)
    assert stats.provenance["sequences"] == 52
    assert_same(stats, gold_truth)
    assert_same_exemplars(stats, gold_truth, exact=source == "hooks")


@pytest.mark.slow
def test_statistics_of_smollm2_on_spacy_s_annotation_equal_the_reference(
    smollm2: Any, sample_corpus: ta.Corpus
) -> None:
    corpus = sample_corpus[:52]
    truth = Reference([run_alone(smollm2, s) for s in corpus], causal=True, null="first")
    stats = ta.collect(smollm2, corpus, source="hooks", progress=False)
    assert_same(stats, truth)
    assert_same_exemplars(stats, truth)


@pytest.mark.parametrize("source", ["hooks", "streamed"])
def test_statistics_of_minilm_equal_the_reference(minilm: Any, sample_corpus: ta.Corpus, source: Any) -> None:
    corpus = sample_corpus[:25]
    truth = Reference([run_alone(minilm, s) for s in corpus], causal=False, null="special")
    stats = ta.collect(minilm, corpus, source=source, progress=False)
    assert_same(stats, truth)
    assert_same_exemplars(stats, truth, exact=source == "hooks")


@pytest.mark.parametrize("null", ["first", "special", "none"])
@pytest.mark.parametrize("bos", [True, False])
@pytest.mark.parametrize("source", ["hooks", "streamed"])
def test_statistics_of_a_tiny_decoder_equal_the_reference(tiny_decoder: Any, null: str, bos: bool, source: Any) -> None:
    corpus = ta.Corpus(tiny.sentences(12, seed=3))
    truth = Reference([run_alone(tiny_decoder, s, bos) for s in corpus], causal=True, null=null)
    settings: dict[str, Any] = {"null": null, "prepend_bos": bos, "source": source}
    stats = ta.collect(tiny_decoder, corpus, batch_tokens=60, progress=False, **settings)
    assert_same(stats, truth)
    assert_same_exemplars(stats, truth, exact=source == "hooks")


@pytest.mark.parametrize("null", ["first", "special", "none"])
@pytest.mark.parametrize("source", ["hooks", "streamed"])
def test_statistics_of_a_tiny_encoder_equal_the_reference(tiny_encoder: Any, null: str, source: Any) -> None:
    corpus = ta.Corpus(tiny.sentences(12, seed=4))
    truth = Reference([run_alone(tiny_encoder, s) for s in corpus], causal=False, null=null)
    stats = ta.collect(tiny_encoder, corpus, null=null, source=source, batch_tokens=60, progress=False)
    assert_same(stats, truth)
    assert_same_exemplars(stats, truth, exact=source == "hooks")


def word_patterns(n: int, *, causal: bool, seed: int) -> list[tuple[np.ndarray, ta.Sentence]]:
    sentences = tiny.sentences(n, seed=seed)
    return [(tiny.patterns(3, 4, len(s.words), causal, seed + s.number), s) for s in sentences]


@pytest.mark.parametrize("causal", [True, False])
@pytest.mark.parametrize("null", ["first", "none"])
@pytest.mark.parametrize("exclude_self", [True, False])
def test_statistics_of_bare_patterns_equal_the_reference(causal: bool, null: Any, exclude_self: bool) -> None:
    data = word_patterns(15, causal=causal, seed=5)
    spans = [[(w.start, w.end) for w in s.words] for _, s in data]
    tokens = [tokens_of(s, span, [False] * len(span)) for (_, s), span in zip(data, spans, strict=True)]
    patterns = [pattern.astype(np.float32) for pattern, _ in data]
    truth = Reference([(p.astype(float), t) for p, t in zip(patterns, tokens, strict=True)], causal=causal, null=null)
    pairs = list(zip(patterns, (s for _, s in data), strict=True))
    others = [name for name in ta.DEFAULT_METRICS if name != "exemplars"]
    metrics = [*others, ta.Exemplars(EXEMPLARS, exclude_self)]
    stats = ta.collect_patterns(iter(pairs), metrics, causal=causal, null=null)
    assert_same(stats, truth)
    assert_same_exemplars(stats, truth, exclude_self=exclude_self)


def test_subtypes_of_relations_are_kept_on_request() -> None:
    data = word_patterns(15, causal=True, seed=6)
    merged = ta.collect_patterns(iter(data), ["dep_to"])
    apart = ta.collect_patterns(iter(data), [ta.DepTo(subtypes=True)])
    assert "nmod:poss" in apart["relation"].values
    assert "nmod:poss" not in merged["relation"].values
    whole = apart["dep_to"].sel(relation=["nmod", "nmod:poss"]).sum("relation")
    np.testing.assert_allclose(merged["dep_to"].sel(relation="nmod"), whole, atol=1e-12)


def test_offsets_beyond_the_widest_share_one_bin() -> None:
    data = word_patterns(15, causal=False, seed=7)
    wide = ta.collect_patterns(iter(data), ["offset_profile"], causal=False)["offset_profile"]
    narrow = ta.collect_patterns(iter(data), [ta.OffsetProfile(2)], causal=False)["offset_profile"]
    assert narrow["offset"].values.tolist() == [-3, -2, -1, 0, 1, 2, 3]
    np.testing.assert_allclose(narrow.sel(offset=3), wide.sel(offset=slice(3, None)).sum("offset"), atol=1e-12)
    np.testing.assert_allclose(narrow.sel(offset=-3), wide.sel(offset=slice(None, -3)).sum("offset"), atol=1e-12)
    np.testing.assert_allclose(narrow.sel(offset=-1), wide.sel(offset=-1), atol=1e-12)


@pytest.mark.parametrize("causal", [True, False])
def test_octaves_sum_the_shares_of_their_offsets(causal: bool) -> None:
    data = word_patterns(15, causal=causal, seed=7)
    every = ta.collect_patterns(iter(data), ["offset_profile"], causal=causal)["offset_profile"]
    octaves = ta.collect_patterns(iter(data), [ta.OffsetProfile(2, octaves=2)], causal=causal)["offset_profile"]
    ranges = {0: (0, 0), 1: (1, 1), 2: (2, 2), 3: (3, 4), 5: (5, 8), 9: (9, 99)}
    if not causal:
        ranges |= {-start: (-end, -start) for start, (_, end) in ranges.items() if start}
    assert octaves["offset"].values.tolist() == sorted(ranges)
    for offset, (first, last) in ranges.items():
        expected = every.sel(offset=slice(first, last)).sum("offset")
        np.testing.assert_allclose(octaves.sel(offset=offset), expected, atol=1e-12, err_msg=str(offset))


def test_a_previous_token_head_has_distance_1_and_no_entropy() -> None:
    """Derived by hand: all content attention is one token back."""
    sentence = tiny.sentences(1, seed=8, most_words=12)[0]
    n = len(sentence.words)
    pattern = np.zeros((1, 1, n, n))
    for i in range(n):
        pattern[0, 0, i, max(0, i - 1)] = 0.25
        pattern[0, 0, i, 0] += 0.75
    stats = ta.collect_patterns([(pattern, sentence)])
    assert stats["distance"].item() == pytest.approx(1)
    assert stats["offset_profile"].sel(offset=1).item() == pytest.approx(1)
    assert stats["entropy"].item() == pytest.approx(0, abs=1e-12)
    assert stats["variability"].item() == pytest.approx(0, abs=1e-12)
    # Rows 1 to n-1 count; in row 1 the previous token is the null token.
    assert stats["null_share"].item() == pytest.approx((1 + 0.75 * (n - 2)) / (n - 1))
    assert np.isnan(stats["distance_se"].item())  # undefined for one sequence


def test_a_head_that_looks_only_at_null_has_no_shares() -> None:
    sentence = tiny.sentences(1, seed=8, most_words=12)[0]
    pattern = np.zeros((1, 1, len(sentence.words), len(sentence.words)))
    pattern[..., 0] = 1
    stats = ta.collect_patterns([(pattern, sentence)])
    assert stats["null_share"].item() == 1
    for name in ("distance", "entropy", "variability"):
        assert np.isnan(stats[name].item()), name
    assert np.isnan(stats["pos_to"].values).all()
    assert len(stats.exemplars("L0H0")) == 0
