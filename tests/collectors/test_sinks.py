"""Sinks: against plain loops, on constructed heads, and merged."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest
import torch

import tl_attnstats as ta
from tests import tiny
from tests.asserting import assert_same_sinks, close
from tests.reference_worth import Worth
from tests.running import truth
from tl_attnstats.errors import MetricError

METRICS = ["sinks", "pos_to_without_sinks", "dep_to_without_sinks", "pos_to", "null_share"]


def assert_same(stats: ta.AttentionStats, worth: Worth) -> None:
    assert_same_sinks(stats, worth)
    labels = {
        "pos_to_without_sinks": ("tag", worth.without_sinks(lambda tokens, j: tokens.tag(j))),
        "dep_to_without_sinks": ("relation", worth.without_sinks(lambda tokens, j: tokens.relation(j))),
    }
    for name, (dim, ratios) in labels.items():
        assert set(ratios) == {*stats[dim].values}
        for label, ratio in ratios.items():
            close(name, stats[name].sel({dim: label}), ratio.value())
            close(name, stats[f"{name}_se"].sel({dim: label}), ratio.error())


def sharpened(model: Any, by: float) -> Any:
    """The same model with more peaked attention, so that it has sinks."""
    with torch.no_grad():
        for name, weight in model.original_model.named_parameters():
            if "q_proj" in name or "query" in name:
                weight *= by
    return model


@pytest.mark.parametrize("source", ["hooks", "streamed"])
@pytest.mark.parametrize("null", ["special", "first", "none"])
@pytest.mark.parametrize("kind", ["decoder", "encoder"])
def test_a_tiny_model(kind: str, null: Any, source: Any, smollm2_tokenizer: Any, minilm_tokenizer: Any) -> None:
    made, tokenizer = {"decoder": (tiny.decoder, smollm2_tokenizer), "encoder": (tiny.encoder, minilm_tokenizer)}[kind]
    model = sharpened(made(tokenizer, seed=2), 4)
    corpus = ta.Corpus(tiny.sentences(10, seed=4, most_words=24))
    stats = ta.collect(model, corpus, METRICS, source=source, null=null, batch_tokens=150, progress=False)
    assert (stats["sink_share"] > 0).any()
    assert_same(stats, truth(model, corpus, causal=kind == "decoder", null=null))


@pytest.mark.parametrize("source", [pytest.param("hooks", marks=pytest.mark.slow), "streamed"])
def test_smollm2(smollm2: Any, gold_corpus: ta.Corpus, source: Any) -> None:
    corpus = gold_corpus[:20]
    stats = ta.collect(smollm2, corpus, METRICS, source=source, progress=False)
    assert float(stats["sink_share"].max()) > 0.5
    assert_same(stats, truth(smollm2, corpus, causal=True, null="first"))


@pytest.mark.parametrize("source", ["hooks", "streamed"])
def test_minilm(minilm: Any, gold_corpus: ta.Corpus, source: Any) -> None:
    corpus = gold_corpus[:20]
    stats = ta.collect(minilm, corpus, METRICS, source=source, progress=False)
    assert_same(stats, truth(minilm, corpus, causal=False, null="special"))


def planted(n: int, sink: int, weight: float) -> tuple[np.ndarray, ta.TokenizedSentence]:
    """A causal head that gives `weight` of each later row to one key and the rest to the row's own token."""
    pattern = np.zeros((1, 1, n, n))
    for i in range(n):
        pattern[0, 0, i, i] = 1
        if i > sink:
            pattern[0, 0, i, [sink, i]] = weight, 1 - weight
    words = tuple(ta.Word(2 * i, 2 * i + 1, "DET" if i == sink else "NOUN", None, "dep") for i in range(n))
    sentence = ta.Sentence(" ".join("abcdefghijklmnopqrstuvwxyz"[:n]), words, "planted")
    spans = [(2 * i, 2 * i + 1) for i in range(n)]
    return pattern, ta.TokenizedSentence(sentence, [100 + i for i in range(n)], spans, list(range(n)), [False] * n)


def test_a_planted_sink_is_found_with_its_token_and_share() -> None:
    stats = ta.collect_patterns([planted(12, 3, 0.5)], METRICS)
    # Rows 1 to 11 count. The sink gets 0.5 from each of the 8 rows after it, and 1 from its own.
    assert stats["sink_rate"].item() == 1
    assert stats["sink_share"].item() == pytest.approx((8 * 0.5 + 1) / 11)
    found = stats["sink_tokens"].sel(token="103")
    assert found.item() == pytest.approx((8 * 0.5 + 1) / 11)
    assert found["token_text"].item() == "d"
    assert stats["pos_to"].sel(tag="DET").item() == pytest.approx((8 * 0.5 + 1) / 11)
    assert stats["pos_to_without_sinks"].sel(tag="DET").item() == 0
    assert stats["pos_to_without_sinks"].sel(tag="NOUN").item() == pytest.approx(1)


@pytest.mark.parametrize(
    ("n", "weight", "is_sink"),
    [(12, 0.31, True), (12, 0.29, False), (11, 0.9, False)],
    ids=["above 0.3", "below 0.3", "seven rows"],
)
def test_a_sink_takes_more_than_a_share_of_enough_rows(n: int, weight: float, is_sink: bool) -> None:
    stats = ta.collect_patterns([planted(n, 3, weight)], METRICS)
    assert stats["sink_rate"].item() == is_sink


def test_sinks_of_shards_merge_to_those_of_the_whole(smollm2: Any, gold_corpus: ta.Corpus, tmp_path: Any) -> None:
    corpus = gold_corpus[:20]
    whole = ta.collect(smollm2, corpus, METRICS, progress=False)
    parts = [ta.collect(smollm2, corpus[n::3], METRICS, progress=False) for n in (2, 0, 1)]
    merged = parts[0].merge(parts[1]).merge(parts[2])
    merged.save(tmp_path / "merged.nc")
    for found in (merged, ta.load(tmp_path / "merged.nc")):
        assert found["token"].values.tolist() == whole["token"].values.tolist()
        assert found["token_text"].values.tolist() == whole["token_text"].values.tolist()
        for name in ("sink_share", "sink_share_se", "sink_rate", "sink_tokens", "pos_to_without_sinks"):
            np.testing.assert_allclose(found[name], whole[name], rtol=0, atol=1e-5, err_msg=name)


def test_token_ids_have_sinks_and_no_tags(smollm2: Any) -> None:
    corpus = ta.Corpus.repeated_tokens(smollm2, 3, 20)
    stats = ta.collect(smollm2, corpus, progress=False)
    assert "sink_share" in stats.dataset
    assert "pos_to_without_sinks" not in stats.dataset


def test_the_null_key_is_no_sink() -> None:
    pattern, tokens = planted(12, 0, 0.9)
    stats = ta.collect_patterns([(pattern, tokens)], METRICS)
    assert stats["sink_rate"].item() == 0
    assert ta.collect_patterns([(pattern, tokens)], METRICS, null="none")["sink_rate"].item() == 1


def test_sixty_four_tokens_are_named_and_the_rest_are_other() -> None:
    n = 66
    data = [planted(12, 3, 0.75 if number == n - 1 else 0.5) for number in range(n)]
    for number, (_, tokens) in enumerate(data):
        tokens.ids[3] = 1000 + number  # type: ignore[index]
    stats = ta.collect_patterns(data, METRICS)
    # The last token gets 8 · 0.75 + 1 of n · 11, each other one 8 · 0.5 + 1: of equal shares, the lower ids are named.
    assert stats["token"].values.tolist() == [str(id_) for id_ in (1065, *range(1000, 1063))] + ["other"]
    shares = np.array([7, *[5] * 63, 2 * 5]) / (n * 11)
    np.testing.assert_allclose(stats["sink_tokens"][0, 0], shares, rtol=1e-6)
    assert stats["sink_share"].item() == pytest.approx(shares.sum())
    whole, first, second = (ta.collect_patterns(some, METRICS) for some in (data, data[:30], data[30:]))
    np.testing.assert_allclose(second.merge(first)["sink_tokens"], whole["sink_tokens"], rtol=1e-12)
    assert second.merge(first)["token"].values.tolist() == whole["token"].values.tolist()


def test_no_sinks_are_saved_and_merged(tmp_path: Any) -> None:
    few, more = (ta.collect_patterns([planted(n, 3, 0.5)], METRICS) for n in (5, 12))
    assert few["sink_share"].item() == 0
    assert few["token"].values.tolist() == ["other"]
    few.save(tmp_path / "few.nc")
    merged = ta.load(tmp_path / "few.nc").merge(more)
    assert merged["token"].values.tolist() == ["103", "other"]
    assert merged["token_text"].values.tolist() == ["d", "other"]
    # 4 rows count in one run, 11 in the other.
    assert merged["sink_share"].item() == pytest.approx((8 * 0.5 + 1) / 15)
    assert merged["sink_rate"].item() == 0.5


@pytest.mark.parametrize("name", ["pos_to_without_sinks", "dep_to_without_sinks"])
def test_token_ids_are_refused_where_words_are_needed(tiny_decoder: Any, name: str) -> None:
    corpus = ta.Corpus.repeated_tokens(tiny_decoder, 2, 10)
    with pytest.raises(MetricError, match=f"metrics: got {name}, which needs words, and token ids have none"):
        ta.collect(tiny_decoder, corpus, ["sinks", name], progress=False)
