"""Typical exemplars against plain loops, and what must not change them."""

from __future__ import annotations

import random
from collections import defaultdict
from typing import Any

import numpy as np
import pytest

import tl_attnstats as ta
from tests import tiny
from tests.reference import Reference, tokens_of
from tests.running import run_alone
from tl_attnstats.collectors.typical import TypicalExemplars, hashed
from tl_attnstats.errors import MetricError

WORD = 2**64


def mixed(x: int) -> int:
    """The finaliser of splitmix64, in plain integers."""
    x = (x + 0x9E3779B97F4A7C15) % WORD
    x = ((x ^ (x >> 30)) * 0xBF58476D1CE4E5B9) % WORD
    x = ((x ^ (x >> 27)) * 0x94D049BB133111EB) % WORD
    return x ^ (x >> 31)


Place = tuple[int, int, int]  # sentence, query, key


def expected(
    truth: Reference, digests: dict[int, int], starts: dict[int, list[int]], k: int
) -> tuple[np.ndarray, dict[tuple[int, int, int], list[tuple[Place, float]]]]:
    """Rows of each head and bin, and the sample of each."""
    n_layers, n_heads = truth.data[0][0].shape[:2]
    rows = np.zeros((n_layers, n_heads, 10), dtype=int)
    everyone = defaultdict(list)
    for pattern, tokens in truth.data:
        by_row = defaultdict(list)
        for i, j in truth.content_pairs(tokens):
            by_row[i].append(j)
        for i, keys in by_row.items():
            hash_ = mixed(digests[tokens.number] ^ mixed((starts[tokens.number][i] << 32) + i)) >> 1
            for layer, head in np.ndindex(n_layers, n_heads):
                weights = [round(float(pattern[layer, head, i, j]) * 1e5) for j in keys]
                largest = max(weights)
                at = min(9, largest // 10_000)
                rows[layer, head, at] += 1
                if largest > 0:
                    key = keys[weights.index(largest)]
                    found = (hash_, (tokens.number, i, key), float(pattern[layer, head, i, key]))
                    everyone[layer, head, at].append(found)
    return rows, {slot: [row[1:] for row in sorted(found)[:k]] for slot, found in everyone.items()}


def assert_as_expected(
    stats: ta.AttentionStats, truth: Reference, corpus: Any, starts: dict[int, list[int]], k: int = 2
) -> None:
    digests = {sentence.number: sentence.digest for sentence in corpus}
    texts = {sentence.number: sentence.text for sentence in corpus}
    rows, sample = expected(truth, digests, starts, k)
    np.testing.assert_array_equal(stats["typical_rows"].values, rows)
    assert max(map(len, sample.values())) == k
    for layer, head in np.ndindex(*rows.shape[:2]):
        table = stats.typical_exemplars(f"L{layer}H{head}")
        found = defaultdict(list)
        for row in table.to_dict("records"):
            at = round(row["row_max"] * 10)
            assert row["rows"] == rows[layer, head, at]
            assert row["text"] == texts[row["sentence"]]
            assert at / 10 - 1e-5 <= row["weight"] <= at / 10 + 0.1 + 1e-5
            found[at].append((row["sentence"], row["query"], row["key"]))
        assert dict(found) == {
            at: [place for place, _ in sample[layer, head, at]] for at in range(10) if sample.get((layer, head, at))
        }
        weights = [weight for at in range(10) for _, weight in sample.get((layer, head, at), [])]
        np.testing.assert_allclose(table["weight"], weights, rtol=0, atol=2e-6)


def bare(n: int, seed: int, causal: bool = True) -> list[tuple[np.ndarray, ta.Sentence]]:
    sentences = tiny.sentences(n, seed=seed)
    return [(tiny.patterns(2, 3, len(s.words), causal, seed + s.number).astype(np.float32), s) for s in sentences]


@pytest.mark.parametrize("causal", [True, False])
@pytest.mark.parametrize("null", ["first", "none"])
def test_bare_patterns_equal_the_plain_loops(causal: bool, null: Any) -> None:
    data = bare(30, 5, causal)
    tokens = [tokens_of(s, [(w.start, w.end) for w in s.words], [False] * len(s.words)) for _, s in data]
    truth = Reference([(p.astype(float), t) for (p, _), t in zip(data, tokens, strict=True)], causal=causal, null=null)
    stats = ta.collect_patterns(iter(data), [TypicalExemplars(3)], causal=causal, null=null)
    assert_as_expected(stats, truth, [s for _, s in data], {s.number: [w.start for w in s.words] for _, s in data}, k=3)


@pytest.mark.parametrize("source", ["hooks", "streamed"])
def test_a_model_equals_the_plain_loops(tiny_decoder: Any, source: Any) -> None:
    corpus = ta.Corpus(tiny.sentences(25, seed=3))
    truth = Reference([run_alone(tiny_decoder, s) for s in corpus], causal=True, null="first")
    stats = ta.collect(tiny_decoder, corpus, ["typical_exemplars"], source=source, batch_tokens=60, progress=False)
    starts = {}
    for sentence, (_, tokens) in zip(corpus, truth.data, strict=True):
        offsets = tiny_decoder.tokenizer(sentence.text, add_special_tokens=False, return_offsets_mapping=True)
        inner = [start for start, _ in offsets["offset_mapping"]]
        starts[sentence.number] = [0] * (len(tokens) - len(inner)) + inner
    assert_as_expected(stats, truth, corpus, starts)


def test_neither_batches_nor_order_nor_shards_change_the_sample(tiny_decoder: Any) -> None:
    corpus = ta.Corpus(tiny.sentences(40, seed=4))

    def collected(corpus: ta.Corpus, batch_tokens: int) -> ta.AttentionStats:
        return ta.collect(tiny_decoder, corpus, ["typical_exemplars"], batch_tokens=batch_tokens, progress=False)

    whole = collected(corpus, 1000)
    parts = [collected(corpus.shard(n, 3), 30) for n in (1, 2, 3)]
    for order in ((0, 1, 2), (2, 0, 1), (1, 2, 0)):
        first, second, third = (parts[n] for n in order)
        assert_same(first.merge(second).merge(third), whole)
        assert_same(first.merge(second.merge(third)), whole)
    assert_same(collected(corpus, 30), whole)


def assert_same(a: ta.AttentionStats, b: ta.AttentionStats) -> None:
    for name in b.dataset.data_vars:
        if name == "typical_weight":
            np.testing.assert_allclose(a[name].values, b[name].values, rtol=0, atol=2e-6)
        else:
            np.testing.assert_array_equal(a[name].values, b[name].values, err_msg=str(name))


@pytest.mark.parametrize("seed", range(3))
def test_the_order_of_patterns_changes_nothing(seed: int) -> None:
    data = bare(30, seed)
    whole = ta.collect_patterns(iter(data), ["typical_exemplars"])
    shuffled = random.Random(seed).sample(data, len(data))
    again = ta.collect_patterns(iter(shuffled), ["typical_exemplars"])
    columns = ["text", "query", "key", "rows", "weight"]  # numbers follow the order
    for head in ("L0H0", "L1H2"):
        assert again.typical_exemplars(head)[columns].equals(whole.typical_exemplars(head)[columns])


def test_equal_sentences_stay_apart_by_their_numbers() -> None:
    (pattern, sentence), *_ = bare(1, 0)
    stats = ta.collect_patterns(iter([(pattern, sentence)] * 4), ["typical_exemplars"])
    assert set(stats.typical_exemplars("L0H0")["sentence"]) == {0, 1}


def test_runs_on_different_corpora_merge(tiny_decoder: Any) -> None:
    corpora = [ta.Corpus(tiny.sentences(12, seed=seed)) for seed in (5, 6)]
    both = ta.Corpus([*corpora[0], *corpora[1]])
    first, second, whole = (
        ta.collect(tiny_decoder, corpus, ["typical_exemplars"], progress=False) for corpus in (*corpora, both)
    )
    assert_same(first.merge(second), whole)


def test_every_row_is_equally_likely() -> None:
    """Of 20 rows, the smallest hash is each one's about as often as any other's, over many sentences."""
    digests = np.array([ta.Sentence(str(n), (), "digits", n).digest for n in range(4000)], dtype=np.uint64)
    positions = np.arange(20, dtype=np.uint64)
    first = np.bincount(hashed(digests[:, None], positions * np.uint64(5), positions).argmin(-1), minlength=20)
    assert ((first - 200) ** 2 / 200).sum() < 43.8  # chi-squared with 19 degrees of freedom, p = 0.001


def test_rows_without_weight_count_and_are_not_shown() -> None:
    (pattern, sentence), *_ = bare(1, 0)
    pattern = np.zeros_like(pattern)
    pattern[..., 0] = 1
    stats = ta.collect_patterns([(pattern, sentence)], ["typical_exemplars"])
    assert len(stats.typical_exemplars("L0H0")) == 0
    assert stats["typical_rows"].sel(row_max=0).values.tolist() == [[len(sentence.words) - 1] * 3] * 2


def test_state_is_saved_loaded_and_shown_with_the_null_character(tmp_path: Any) -> None:
    words = (ta.Word(0, 1, "X", None, "dep"), ta.Word(2, 3, "X", 0, "dep"))
    stats = ta.collect_patterns([(np.tri(2)[None, None] / 2, ta.Sentence("a\0b", words, "x"))], ["typical_exemplars"])
    stats.save(tmp_path / "stats.nc")
    again = ta.load(tmp_path / "stats.nc")
    assert_same(again, stats)
    (row,) = again.typical_exemplars("L0H0").to_dict("records")
    assert (row["text"], row["weight"], row["row_max"], row["key_text"]) == ("a␀b", 0.5, 0.5, "b")


def test_statistics_without_them_say_how_to_get_them() -> None:
    stats = ta.collect_patterns(iter(bare(2, 0)), ["distance"])
    with pytest.raises(MetricError, match="no typical exemplars here; collect with metrics that include 'typical_ex"):
        stats.typical_exemplars("L0H0")
