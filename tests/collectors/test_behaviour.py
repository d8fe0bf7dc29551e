"""Previous, duplicate and induction tokens: against plain loops, on constructed heads, and on a real model."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest

import tl_attnstats as ta
from tests import tiny
from tests.asserting import assert_same_behaviour
from tests.reference_worth import KINDS
from tests.running import truth
from tl_attnstats.attention.pairs import BEHAVIOURS
from tl_attnstats.attention.scope import Scope
from tl_attnstats.errors import CorpusError

METRICS = ["behaviour", "null_share"]


@pytest.mark.parametrize("source", ["hooks", "streamed"])
@pytest.mark.parametrize("null", ["first", "none"])
def test_a_tiny_decoder(tiny_decoder: Any, source: Any, null: Any) -> None:
    corpus = ta.Corpus(tiny.sentences(8, seed=4))
    stats = ta.collect(tiny_decoder, corpus, METRICS, source=source, null=null, batch_tokens=100, progress=False)
    assert_same_behaviour(stats, truth(tiny_decoder, corpus, causal=True, null=null))


@pytest.mark.parametrize("source", ["hooks", "streamed"])
@pytest.mark.parametrize("null", ["special", "first", "none"])
def test_a_tiny_encoder(tiny_encoder: Any, source: Any, null: Any) -> None:
    corpus = ta.Corpus(tiny.sentences(8, seed=4))
    stats = ta.collect(tiny_encoder, corpus, METRICS, source=source, null=null, batch_tokens=100, progress=False)
    assert_same_behaviour(stats, truth(tiny_encoder, corpus, causal=False, null=null))


@pytest.mark.parametrize("source", [pytest.param("hooks", marks=pytest.mark.slow), "streamed"])
def test_smollm2(smollm2: Any, gold_corpus: ta.Corpus, source: Any) -> None:
    corpus = gold_corpus[:20]
    stats = ta.collect(smollm2, corpus, METRICS, source=source, progress=False)
    assert_same_behaviour(stats, truth(smollm2, corpus, causal=True, null="first"))


@pytest.mark.parametrize("source", ["hooks", "streamed"])
def test_minilm(minilm: Any, gold_corpus: ta.Corpus, source: Any) -> None:
    corpus = gold_corpus[:20]
    stats = ta.collect(minilm, corpus, METRICS, source=source, progress=False)
    assert_same_behaviour(stats, truth(minilm, corpus, causal=False, null="special"))


IDS = [7, 3, 5, 3, 5, 9, 3, 5]  # 3 and 5 are repeated, and 5 follows 3


def looking_at(kind: str, causal: bool) -> np.ndarray:
    """A head that attends to the nearest key of a kind, or to the query itself if there is none."""
    keys = {
        "previous": lambda i: [i - 1] if i > 1 else [],
        "duplicate": lambda i: [j for j in range(1, i) if IDS[j] == IDS[i]],
        "induction": lambda i: [j for j in range(1, i + 1) if IDS[j - 1] == IDS[i]],
    }[kind]
    pattern = np.zeros((1, 1, len(IDS), len(IDS)))
    for i in range(len(IDS)):
        pattern[0, 0, i, (keys(i) or [i])[-1]] = 1
    return pattern


def of_ids(pattern: np.ndarray, **how: Any) -> ta.AttentionStats:
    sentence = ta.Sentence("a" * len(IDS), (), "ids")
    spans = [(i, i + 1) for i in range(len(IDS))]
    tokens = ta.TokenizedSentence(sentence, IDS, spans, [-1] * len(IDS), [False] * len(IDS))
    return ta.collect_patterns([(pattern, tokens)], ["behaviour"], **how)


@pytest.mark.parametrize("causal", [True, False])
@pytest.mark.parametrize("kind", KINDS)
def test_a_head_that_attends_to_nothing_else_has_a_share_of_1(kind: str, causal: bool) -> None:
    stats = of_ids(looking_at(kind, causal), causal=causal)
    assert stats["behaviour"].sel(kind=kind).item() == pytest.approx(1)
    # Of 8 tokens, all but the first two have a content key before them. 4 are repeated (3, 5, 3, 5), and each of the 4
    # has an induction key.
    assert stats["behaviour_rows"].values.tolist() == [6, 4, 4]


@pytest.mark.parametrize("causal", [True, False])
def test_even_attention_has_the_baseline(causal: bool) -> None:
    even = np.tri(len(IDS)) if causal else np.ones((len(IDS), len(IDS)))
    # Rows are not renormalised: each content pair has the same weight, as in the baseline.
    stats = of_ids((even / len(IDS))[None, None], causal=causal)
    np.testing.assert_allclose(stats["behaviour"][0, 0], stats["behaviour_baseline"], rtol=1e-6)


@pytest.mark.parametrize("kind", KINDS)
def test_sets_take_linear_memory(kind: str) -> None:
    n = 60
    sentence = ta.Sentence("a" * n, (), "one token over and over")
    tokens = ta.TokenizedSentence(sentence, [7] * n, [(i, i + 1) for i in range(n)], [-1] * n, [False] * n)
    pairs = BEHAVIOURS[kind](Scope(ta.Batch([tokens]), True, "none"))
    assert len(pairs.keys) <= n
    # "previous" has one key per row, "duplicate" all earlier keys, "induction" all keys but the first, up to the query.
    assert len(pairs.expand()[0]) == {"previous": n - 1}.get(kind, n * (n - 1) / 2)


def test_smollm2_has_induction_heads(smollm2: Any) -> None:
    corpus = ta.Corpus.repeated_tokens(smollm2, 10, 50, seed=0)
    stats = ta.collect(smollm2, corpus, ["behaviour", "null_share"], progress=False)
    top = stats.top_heads("behaviour", n=5, kind="induction")
    assert {"L18H6", "L17H3", "L17H4"} <= set(top["head"])
    assert (top["behaviour"] > 20 * float(stats["behaviour_baseline"].sel(kind="induction"))).all()


def test_repeated_tokens(smollm2_tokenizer: Any) -> None:
    corpus = ta.Corpus.repeated_tokens(smollm2_tokenizer, 3, 20, seed=1)
    assert corpus.sequence_kind == "tokens"
    for sentence in corpus:
        assert sentence.ids is not None
        assert sentence.ids[:20] == sentence.ids[20:]
    assert list(corpus) == list(ta.Corpus.repeated_tokens(smollm2_tokenizer, 3, 20, seed=1))
    assert corpus[0].ids != ta.Corpus.repeated_tokens(smollm2_tokenizer, 3, 20, seed=2)[0].ids


def test_repeated_tokens_draw_every_ordinary_token_and_no_special_one(smollm2_tokenizer: Any) -> None:
    special = {id_ for id_, token in smollm2_tokenizer.added_tokens_decoder.items() if token.special}
    # <|im_start|> and others are special, but have no name such as bos_token.
    assert special > {*smollm2_tokenizer.all_special_ids}
    (sentence,) = ta.Corpus.repeated_tokens(smollm2_tokenizer, 1, 20 * len(smollm2_tokenizer))
    # With 20 draws per token, a token is missed with probability exp(-20), so any of 49,000 with probability 1e-4.
    assert {*(sentence.ids or ())} == {*range(len(smollm2_tokenizer))} - special


@pytest.mark.parametrize(
    ("wrong", "message"),
    [
        ({"n": 0}, "n=0: expected a whole number, at least 1"),
        ({"n": 2.5}, "n=2.5: expected a whole number, at least 1"),
        ({"n": True}, "n=True: expected a whole number, at least 1"),
        ({"length": -3}, "length=-3: expected a whole number, at least 1"),
        ({"length": "20"}, "length='20': expected a whole number, at least 1"),
        ({"seed": -1}, "seed=-1: expected a whole number, at least 0"),
        ({"seed": None}, "seed=None: expected a whole number, at least 0"),
        ({"model": "gpt2"}, "model: got str, expected a model with a tokenizer, or a tokenizer"),
    ],
)
def test_repeated_tokens_refuses(smollm2_tokenizer: Any, wrong: dict[str, Any], message: str) -> None:
    given = {"model": smollm2_tokenizer, "n": 3, "length": 20} | wrong
    with pytest.raises(CorpusError, match=message):
        ta.Corpus.repeated_tokens(**given)
