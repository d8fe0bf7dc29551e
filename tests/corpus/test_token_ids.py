"""A corpus of token ids, read as they are, without text or words."""

from __future__ import annotations

import json
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
import xarray as xr

import tl_attnstats as ta
from tests.asserting import assert_same_behaviour, assert_same_exemplars, assert_same_sinks
from tests.reference import Reference, Tokens, expected
from tests.reference_worth import Worth
from tl_attnstats import Corpus, Framing, Sentence
from tl_attnstats.errors import CorpusError, MetricError

WORDLESS = ("null_share", "distance", "entropy", "variability", "offset_profile")
OF_WORDS = (
    "pos_to, pos_from, dep_to, dependency_alignment, pos_to_without_sinks, dep_to_without_sinks, position, "
    "relation_accuracy, baselines"
)
OF_IDS = ("behaviour", "behaviour_baseline", "behaviour_rows", "sink_share", "sink_rate", "sink_tokens")


def random_ids(n: int, seed: int, low: int = 1000, high: int = 20_000) -> list[list[int]]:
    """Random sequences of mixed lengths, each followed by itself."""
    rng = np.random.default_rng(seed)
    halves = [rng.integers(low, high, rng.integers(1, 12)).tolist() for _ in range(n)]
    return [half + half for half in halves]


def run_alone(model: Any, ids: list[int], number: int, special: list[bool] | None = None) -> tuple[np.ndarray, Tokens]:
    """The pattern of one sequence of ids alone, and its tokens, which have no words."""
    with torch.no_grad():
        _, cache = model.run_with_cache(torch.tensor([ids]), names_filter=lambda name: name.endswith("hook_pattern"))
    layers = [cache[f"blocks.{layer}.attn.hook_pattern"][0] for layer in range(model.cfg.n_layers)]
    tokens = Tokens(number, special or [False] * len(ids), [None] * len(ids), [], [], [], ids=ids)
    return torch.stack(layers).double().numpy(), tokens


def assert_same(stats: ta.AttentionStats, truth: Reference) -> None:
    """The statistics are those that need no words, and equal the loops."""
    assert set(stats.statistics) == {*WORDLESS, *OF_IDS, "mean_pattern"}
    worth = Worth(truth)
    assert_same_behaviour(stats, worth)
    assert_same_sinks(stats, worth)
    for name, (value, error) in expected(truth).items():
        base, _, label = name.rstrip("]").partition("[")
        if base not in WORDLESS or base == "variability":
            continue
        where = {"offset": int(label)} if label else {}
        np.testing.assert_allclose(stats[base].sel(where).values, value, rtol=0, atol=1e-4, err_msg=name)
        np.testing.assert_allclose(stats[f"{base}_se"].sel(where).values, error, rtol=0, atol=1e-4, err_msg=name)
    bound = stats["variability_error"].values + 1e-6
    assert (np.abs(stats["variability"].values - truth.variability()) <= bound).all()


@pytest.mark.parametrize("source", ["hooks", "streamed"])
@pytest.mark.parametrize("bos", [None, True, False])
def test_statistics_of_token_ids_equal_the_reference(tiny_decoder: Any, source: Any, bos: bool | None) -> None:
    given = random_ids(10, seed=1)
    before = [tiny_decoder.tokenizer.bos_token_id] if bos else []  # only on request
    data = [
        run_alone(tiny_decoder, before + ids, n, [bool(before)] * len(before) + [False] * len(ids))
        for n, ids in enumerate(given)
    ]
    truth = Reference(data, causal=True, null="first")
    corpus = Corpus.from_token_ids(given)
    stats = ta.collect(tiny_decoder, corpus, source=source, prepend_bos=bos, batch_tokens=60, progress=False)
    assert stats.provenance["source"] == source
    assert stats.provenance["sequence_kind"] == "tokens"
    assert stats.provenance["special_tokens"] == (f"{tiny_decoder.tokenizer.bos_token} …" if bos else "…")
    assert_same(stats, truth)
    assert_same_exemplars(stats, truth, exact=source == "hooks")


@pytest.mark.parametrize("source", ["hooks", "streamed"])
def test_token_ids_of_an_encoder_may_include_special_tokens(tiny_encoder: Any, source: Any) -> None:
    cls, sep = tiny_encoder.tokenizer.cls_token_id, tiny_encoder.tokenizer.sep_token_id
    given = [[cls, *ids, sep] for ids in random_ids(8, seed=2)]
    data = [run_alone(tiny_encoder, ids, n, [True] + [False] * (len(ids) - 2) + [True]) for n, ids in enumerate(given)]
    stats = ta.collect(tiny_encoder, Corpus.from_token_ids(given), source=source, progress=False)
    assert stats.provenance["null"] == "special"
    assert_same(stats, Reference(data, causal=False, null="special"))


def test_a_text_s_own_ids_give_the_same_attention(tiny_decoder: Any) -> None:
    texts = ["The cat sat on the mat.", "Dogs bark.", "日本 😀 Zürich"]
    ids = [tiny_decoder.to_tokens(text, prepend_bos=True)[0].tolist() for text in texts]
    as_ids = ta.collect(tiny_decoder, Corpus.from_token_ids(ids), ["entropy", "distance"], progress=False)
    corpus = Corpus([Sentence(text, (), text) for text in texts])
    as_texts = ta.collect(tiny_decoder, corpus, ["entropy", "distance"], prepend_bos=True, progress=False)
    xr.testing.assert_allclose(as_ids.dataset, as_texts.dataset)


def test_what_needs_words_is_left_out_or_refused_by_name(tiny_decoder: Any) -> None:
    corpus = Corpus.from_token_ids(random_ids(4, seed=3))
    stats = ta.collect(tiny_decoder, corpus, progress=False)
    assert stats.provenance["left_out"] == f"{OF_WORDS}: token ids have no words"
    assert list(json.loads(stats.provenance["settings"])) == [*WORDLESS, "behaviour", "sinks", "exemplars", "bootstrap"]
    replicated = {str(name) for name in stats.dataset if str(name).endswith("_replicates")}
    assert replicated == {"null_share_replicates", "distance_replicates", "entropy_replicates"}
    for name in OF_WORDS.split(", "):
        with pytest.raises(MetricError, match=f"metrics: got {name}, which needs words, and token ids have none"):
            ta.collect(tiny_decoder, corpus, ["distance", name], progress=False)
    of_text = ta.collect(tiny_decoder, Corpus([Sentence("a cat", (), "one")] * 2), progress=False)
    assert "left_out" not in of_text.provenance


def test_bootstrap_of_token_ids_merges_and_loads(tiny_decoder: Any, tmp_path: Path) -> None:
    corpus = Corpus.from_token_ids(random_ids(9, seed=4))
    whole = ta.collect(tiny_decoder, corpus, progress=False)
    parts = [ta.collect(tiny_decoder, corpus.shard(n, 2), progress=False) for n in (1, 2)]
    merged = parts[0].merge(parts[1])
    merged.save(tmp_path / "stats.nc")
    again = ta.load(tmp_path / "stats.nc")
    for name in whole.dataset.data_vars:
        if whole[name].dtype.kind == "f":
            np.testing.assert_allclose(again[name].values, whole[name].values, atol=1e-5, err_msg=str(name))


def test_exemplars_show_the_tokens_as_decoded(tiny_decoder: Any) -> None:
    tokenizer = tiny_decoder.tokenizer
    ids = tokenizer("The cat saw NATO", add_special_tokens=False)["input_ids"]
    table = ta.collect(tiny_decoder, Corpus.from_token_ids([ids, ids[::-1]]), progress=False).exemplars("L0H0")
    assert set(table["text"]) == {tokenizer.decode(ids), "".join(tokenizer.decode([i]) for i in ids[::-1])}
    for row in table.itertuples():
        sequence = ids if row.sentence == 0 else ids[::-1]
        assert row.query_text == tokenizer.decode([sequence[row.query]])
        assert row.key_text == tokenizer.decode([sequence[row.key]])


def test_decoded_pieces_that_do_not_join_are_separated(minilm_tokenizer: Any, smollm2_tokenizer: Any) -> None:
    """BERT's word pieces contain no spaces, and half of a character cannot be decoded: spaces separate the pieces."""
    ids = minilm_tokenizer("unbelievable mats", add_special_tokens=False)["input_ids"]
    half = smollm2_tokenizer("日😀", add_special_tokens=False)["input_ids"]
    assert len(half) > 3
    for tokenizer, given in ((minilm_tokenizer, ids), (smollm2_tokenizer, half)):
        tokens = Framing(tokenizer).tokenize(Sentence("", (), "one", ids=tuple(given)))
        pieces = [tokenizer.decode([i]) for i in given]
        assert tokens.sentence.text == " ".join(pieces)
        assert [tokens.sentence.text[start:end] for start, end in tokens.spans] == pieces


def test_an_id_without_a_token_is_shown_as_a_number(smollm2_tokenizer: Any) -> None:
    """Embeddings may have more rows than the tokenizer has tokens."""
    tokens = Framing(smollm2_tokenizer).tokenize(Sentence("", (), "one", ids=(len(smollm2_tokenizer) + 5, 1044)))
    assert tokens.sentence.text.startswith(f"<{len(smollm2_tokenizer) + 5}>")


@pytest.mark.parametrize("kind", ["hooked", "bare"])
def test_ids_outside_the_vocabulary_are_refused(tiny_decoder: Any, kind: str) -> None:
    size = tiny_decoder.cfg.d_vocab
    model, more = tiny_decoder, {}
    if kind == "bare":
        model, more = tiny_decoder.original_model, {"tokenizer": tiny_decoder.tokenizer}
    ta.collect(model, Corpus.from_token_ids([[size - 1, 0]]), ["distance"], progress=False, **more)
    with pytest.raises(CorpusError) as raised:
        ta.collect(model, Corpus.from_token_ids([[1], [7, size, 8]]), progress=False, **more)
    assert str(raised.value) == (
        f"sentence 2 (sequence 2) has the token id {size} at position 1, expected ids in the model's "
        f"vocabulary, 0 to {size - 1}"
    )


def test_sequences_longer_than_the_context_are_refused_or_cut(tiny_decoder: Any) -> None:
    room = tiny_decoder.cfg.n_ctx
    corpus = Corpus.from_token_ids([list(range(1000, 1000 + room + 5))])
    with pytest.raises(CorpusError, match=f"has {room + 5} tokens, but the model's context has room for {room}"):
        ta.collect(tiny_decoder, corpus, progress=False)
    assert ta.collect(tiny_decoder, corpus, truncate=True, progress=False).provenance["tokens"] == room


@pytest.mark.parametrize("suffix", ["parquet", "jsonl"])
def test_token_ids_survive_a_file(tmp_path: Path, suffix: str, tiny_decoder: Any) -> None:
    corpus = Corpus.from_token_ids(random_ids(5, seed=5), origin="random")
    path = tmp_path / f"ids.{suffix}"
    corpus.to_file(path)
    again = Corpus.from_file(path)
    assert list(again) == list(corpus)
    assert (again.sequence_kind, again.origin, again.identity) == ("tokens", "random", corpus.identity)
    assert repr(again) == "Corpus(5 sequences of token ids, random)"
    stats = [ta.collect(tiny_decoder, c, progress=False).dataset for c in (corpus, again)]
    assert stats[0].identical(stats[1])


@pytest.mark.parametrize(
    "made",
    [
        [[5, 6, 7], [8, 9]],
        [(5, 6, 7), (8, 9)],
        iter([[5, 6, 7], [8, 9]]),
        [np.array([5, 6, 7]), torch.tensor([8, 9])],
        [list(np.array([5, 6, 7])), list(torch.tensor([8, 9]))],
    ],
)
def test_ids_may_come_in_any_kind_of_sequence(made: Any) -> None:
    assert [s.ids for s in Corpus.from_token_ids(made)] == [(5, 6, 7), (8, 9)]


@pytest.mark.parametrize("array", [np.array([[5, 6], [7, 8]]), torch.tensor([[5, 6], [7, 8]])])
def test_ids_may_be_rows_of_an_array(array: Any) -> None:
    corpus = Corpus.from_token_ids(array)
    assert [s.ids for s in corpus] == [(5, 6), (7, 8)]
    assert {type(id_) for s in corpus for id_ in s.ids or ()} == {int}


@pytest.mark.parametrize(
    ("given", "message"),
    [
        ("abc", "sequences: got 'abc', expected lists of token ids"),
        (5, "sequences: got 5, expected lists"),
        ([5, 6], "sequences: number 1 is 5, expected a list of token ids"),
        (["ab"], "sequences: number 1 is 'ab', expected a list"),
        ([[5], []], r"sentence 'sequence 2': ids=\(\), expected a non-empty tuple of token ids"),
        ([[5, -1]], r"sentence 'sequence 1', ids\[1\]: got -1, expected a token id \(a non-negative integer"),
        ([[5, 1.0]], r"ids\[1\]: got 1\.0, expected a token id"),
        ([[5, True]], r"ids\[1\]: got True, expected a token id"),
        ([[5, None]], r"ids\[1\]: got None, expected a token id"),
        ([[2**63]], r"ids\[0\]: got 9223372036854775808, expected a token id"),
        ([], "empty corpus: no sentence found in token ids given in Python"),
    ],
)
def test_bad_token_ids_are_refused(given: Any, message: str) -> None:
    with pytest.raises(CorpusError, match=message):
        Corpus.from_token_ids(given)


def test_digests_depend_on_the_ids_only() -> None:
    one = Sentence("", (), "one", ids=(5, 6))
    assert one.digest == Sentence("", (), "two", 7, (5, 6)).digest == one.decoded("a text").digest
    others = [(6, 5), (5,), (56,), (5, 6, 6)]
    assert len({one.digest, Sentence("", (), "one").digest, *(replace(one, ids=ids).digest for ids in others)}) == 6


def test_texts_and_token_ids_are_not_mixed(tiny_decoder: Any) -> None:
    ids, text = Sentence("", (), "ids", ids=(5,)), Sentence("a", (), "text")
    with pytest.raises(
        CorpusError, match="sentences: 'ids' holds token ids, which contradicts sequence_kind='sentence'"
    ):
        Corpus([text, ids])
    with pytest.raises(CorpusError, match="sentences: 'text' holds a text, which contradicts sequence_kind='tokens'"):
        Corpus([ids, text], sequence_kind="tokens")
    with pytest.raises(CorpusError, match="words: got 1, expected none beside token ids"):
        Sentence("a", (ta.Word(0, 1, "X", None, "dep"),), "both", ids=(5,))
    with pytest.raises(CorpusError, match="sequences are of kind 'tokens', these collectors are for 'sentence'"):
        next(ta.Collectors(tiny_decoder).batches(Corpus.from_token_ids([[5]])))


def test_an_encoder_begins_with_cls_if_it_is_asked_to(tiny_encoder: Any) -> None:
    collectors = ta.Collectors(tiny_encoder, sequence_kind="tokens", prepend_bos=True)
    (batch,) = collectors.batches(Corpus.from_token_ids([[5, 6]]))
    assert batch.input_ids.tolist() == [[tiny_encoder.tokenizer.cls_token_id, 5, 6]]
    assert batch.special.tolist() == [[True, False, False]]
