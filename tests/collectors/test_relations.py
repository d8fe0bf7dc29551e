"""Relation accuracy: against plain loops, on constructed heads, and merged."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest

import tl_attnstats as ta
from tests import tiny
from tests.reference import Reference, tokens_of
from tests.reference_worth import Relations, Worth
from tests.running import truth

METRICS = ["relation_accuracy", "null_share"]


def assert_same(stats: ta.AttentionStats, relations: Relations, *, off: float = 0) -> None:
    """Pairs are equal. So are hits, except for a share of `off`, where rounding decides between two words."""
    labels = {(str(r), str(d)) for r in stats["relation"].values for d in stats["direction"].values}
    assert set(relations.pairs) <= labels
    n_pairs = n_off = 0.0
    for half in (0, 1):
        pairs, hits = relations.relation_pairs(half), relations.relation_hits(half)
        for relation, direction in labels:
            where = {"relation": relation, "direction": direction, "half": half}
            expected = pairs.get((relation, direction), 0)
            assert stats["relation_pairs"].sel(where) == expected
            found = stats["relation_hits"].sel(where).values
            wrong = np.abs(found - hits.get((relation, direction), 0))
            n_pairs, n_off = n_pairs + expected * found.size, n_off + float(wrong.sum())
    assert n_off <= off * n_pairs
    for (relation, direction), hits in relations.hits.items():
        ratio = relations.half(hits, relations.pairs[relation, direction], None)
        if not off:
            here = stats.dataset.sel(relation=relation, direction=direction)
            np.testing.assert_allclose(here["relation_accuracy"], ratio.value(), rtol=1e-12)
            np.testing.assert_allclose(here["relation_accuracy_se"], ratio.error(), rtol=1e-9, atol=1e-9)


def table(stats: ta.AttentionStats, relations: Relations) -> None:
    """`best_relation_heads` gives what the loops give."""
    found = stats.best_relation_heads().set_index(["relation", "direction"])
    for key, row in relations.best_relation_heads().items():
        here = found.loc[key]
        assert here["pairs"] == row["pairs"]
        assert here["head"] == ", ".join(dict.fromkeys(f"L{layer}H{head}" for layer, head in row["heads"]))
        assert here["best_offset"] == ", ".join(dict.fromkeys(str(offset) for offset in row["offsets"]))
        for name, expected in (
            ("accuracy", "accuracy"),
            ("se", "error"),
            ("offset_accuracy", "offset_accuracy"),
            ("offset_se", "offset_error"),
        ):
            np.testing.assert_allclose(here[name], row[expected], rtol=1e-9, atol=1e-12, err_msg=f"{key} {name}")


def patterns(n: int, causal: bool, seed: int = 0) -> list[tuple[np.ndarray, ta.Sentence]]:
    made = tiny.sentences(n, seed=seed, most_words=25)
    return [(tiny.patterns(2, 3, len(s.words), causal, s.number).astype(np.float32), s) for s in made]


def of_words(data: list[tuple[np.ndarray, ta.Sentence]], causal: bool, null: str) -> Worth:
    tokens = []
    for pattern, sentence in data:
        spans = [(word.start, word.end) for word in sentence.words]
        n = len(spans)
        tokens.append((pattern.astype(float), tokens_of(sentence, spans, [False] * n, ids=list(range(n)))))
    return Worth(Reference(tokens, causal=causal, null=null))


@pytest.mark.parametrize("causal", [True, False])
def test_patterns_of_words(causal: bool) -> None:
    data, null = patterns(60, causal), "first" if causal else "none"
    stats = ta.collect_patterns(data, METRICS, causal=causal, null=null)
    relations = Relations(of_words(data, causal, null))
    assert_same(stats, relations)
    table(stats, relations)


@pytest.mark.parametrize("source", ["hooks", "streamed"])
@pytest.mark.parametrize("kind", ["decoder", "encoder"])
def test_a_tiny_model(kind: str, source: Any, tiny_decoder: Any, tiny_encoder: Any, monkeypatch: Any) -> None:
    monkeypatch.setattr("tl_attnstats.attention.kernels.cpu.LEAST_ROWS", 3)  # blocks end inside words
    monkeypatch.setattr("tl_attnstats.attention.sources.streamed.BLOCK_ELEMENTS", 1)
    model = {"decoder": tiny_decoder, "encoder": tiny_encoder}[kind]
    corpus = ta.Corpus(tiny.sentences(20, seed=4, most_words=20))
    stats = ta.collect(model, corpus, METRICS, source=source, batch_tokens=100, progress=False)
    causal = kind == "decoder"
    worth = truth(model, corpus, causal=causal, null="first" if causal else "special")
    assert_same(stats, Relations(worth), off=0.001)


@pytest.mark.parametrize("source", [pytest.param("hooks", marks=pytest.mark.slow), "streamed"])
def test_smollm2(smollm2: Any, gold_corpus: ta.Corpus, source: Any) -> None:
    corpus = gold_corpus[:10]
    stats = ta.collect(smollm2, corpus, METRICS, source=source, progress=False)
    assert_same(stats, Relations(truth(smollm2, corpus, causal=True, null="first")), off=0.001)


def test_minilm(minilm: Any, gold_corpus: ta.Corpus) -> None:
    corpus = gold_corpus[:10]
    stats = ta.collect(minilm, corpus, METRICS, progress=False)
    assert_same(stats, Relations(truth(minilm, corpus, causal=False, null="special")), off=0.001)


def test_gold_parses_given_as_attention_are_found() -> None:
    data = []
    for sentence in tiny.sentences(80, seed=1, most_words=20):
        n = len(sentence.words)
        up = np.zeros((n, n))
        for i, word in enumerate(sentence.words):
            up[i, i if word.head is None else word.head] = 1
        data.append((np.stack([up, np.eye(n, k=-1) + np.eye(n) * 0.1])[None], sentence))
    stats = ta.collect_patterns(data, METRICS, causal=False, null="none")
    found = stats["relation_accuracy"].sel(direction="to_parent")
    np.testing.assert_allclose(found.sel(layer=0, head=0), 1)
    best = stats.best_relation_heads()
    best = best[best["direction"] == "to_parent"]
    assert len(best) > 2
    assert (best["accuracy"] == 1).all()
    assert (best["head"] == "L0H0").all()
    # The other head attends to the previous word, so its accuracy is that of offset -1. From the first word it attends
    # to none: a tie, which goes to the earliest candidate, the second word.
    state = stats.state["relation_accuracy"].sum("half").sel(direction="to_parent")
    ties = [s.words[0].deprel.split(":")[0] for _, s in data if len(s.words) > 1 and s.words[0].head == 1]
    expected = state["offset_hits"].sel(offset=-1).values + [ties.count(r) for r in state["relation"].values]
    np.testing.assert_array_equal(state["hits"].sel(layer=0, head=1), expected)


def test_shards_merge_to_the_whole(tmp_path: Any) -> None:
    data = patterns(30, True)
    whole = ta.collect_patterns(data, METRICS)
    halves = [ta.collect_patterns(data[n::2], METRICS) for n in (1, 0)]
    state = ta.RelationAccuracy.merge(*(part.state["relation_accuracy"] for part in halves))
    merged = ta.RelationAccuracy.compute(state, 30)
    for name in merged.data_vars:
        np.testing.assert_allclose(merged[name], whole[name], rtol=1e-12, atol=1e-12, err_msg=str(name))
    whole.save(tmp_path / "stats.nc")
    assert ta.load(tmp_path / "stats.nc").best_relation_heads().equals(whole.best_relation_heads())


def test_documents_leave_relations_out_and_keep_to_sentences_if_asked(tiny_decoder: Any) -> None:
    texts = ["The cat sat on the mat. It saw the dog near the house. She slept."]
    corpus = ta.Corpus.from_texts(texts * 3, sequence_kind="document")
    stats = ta.collect(tiny_decoder, corpus, progress=False)
    assert "relation_accuracy" not in stats.dataset
    assert "relation_accuracy: takes long in documents" in stats.provenance["left_out"]
    asked = ta.collect(tiny_decoder, corpus, METRICS, progress=False)
    alone = ta.collect(tiny_decoder, ta.Corpus.from_texts(texts * 3), METRICS, progress=False)
    # In a document only the first word of the text is null, so the first words of later sentences add a few pairs.
    assert 0 <= int(asked["relation_pairs"].sum() - alone["relation_pairs"].sum()) <= 6


def test_without_relations_the_table_is_empty() -> None:
    (sentence,) = (s for s in tiny.sentences(3, seed=2) if len(s.words) == 1)
    stats = ta.collect_patterns([(np.ones((1, 2, 1, 1)), sentence)], METRICS)
    assert stats["relation"].size == 0
    best = stats.best_relation_heads()
    assert best.empty
    assert list(best) == [
        "relation", "direction", "head", "accuracy", "se", "best_offset", "offset_accuracy", "offset_se", "pairs"
    ]  # fmt: skip
