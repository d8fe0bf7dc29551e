"""Behaviours against TransformerLens' own `detect_head`, on the same prompts.

The detector divides by the attention of all rows, `behaviour` by that of the rows which have such a key. So where the
first position is no null key, and each row of a pattern adds up to 1, its score is behaviour · rows / tokens.
"""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest
import torch
from transformer_lens import head_detector

import tl_attnstats as ta
from tests import tiny
from tl_attnstats.attention.pairs import BEHAVIOURS
from tl_attnstats.attention.scope import Scope

HEADS = {"previous": "previous_token_head", "duplicate": "duplicate_token_head", "induction": "induction_head"}
# Tokens that come again, next to themselves too, so that a row can be its own induction key.
TEXT = " the cat and the dog and the the cat saw a dog the the the cat"
# Words of one token each, twice: the second half has one duplicate and one induction key a row, the first half none.
TWICE = 2 * " red dog tree house river stone light bread"
FLOAT = {"rtol": 0, "atol": 1e-5}


def collect(model: Any, prompts: list[str], null: Any) -> ta.AttentionStats:
    ids = [model.to_tokens(prompt)[0] for prompt in prompts]
    return ta.collect(model, ta.Corpus.from_token_ids(ids), ["behaviour"], null=null, progress=False)


def detected(model: Any, prompt: Any, pattern: Any, **how: Any) -> np.ndarray:
    return head_detector.detect_head(model, prompt, pattern, **how).numpy()


def detection_pattern(kind: str, ids: torch.Tensor) -> torch.Tensor:
    pattern: torch.Tensor = getattr(head_detector, f"get_{HEADS[kind]}_detection_pattern")(ids[None])
    return pattern


def as_pattern(kind: str, ids: list[int], null: Any) -> torch.Tensor:
    sentence = ta.Sentence("a" * len(ids), (), "ids")
    spans = [(i, i + 1) for i in range(len(ids))]
    tokens = ta.TokenizedSentence(sentence, ids, spans, [-1] * len(ids), [False] * len(ids))
    scope = Scope(ta.Batch([tokens]), True, null)
    sequence, query, key = BEHAVIOURS[kind](scope).expand()
    counted = scope.counts(sequence, query, key)
    pattern = torch.zeros(len(ids), len(ids))
    pattern[query[counted], key[counted]] = 1
    return pattern


@pytest.mark.parametrize("kind", HEADS)
def test_the_keys_are_those_of_the_detector(kind: str) -> None:
    rng = np.random.default_rng(0)
    for _ in range(20):
        ids = rng.integers(0, 6, 24)  # few different tokens, so that they repeat
        expected = detection_pattern(kind, torch.tensor(ids))
        assert torch.equal(as_pattern(kind, ids.tolist(), "none"), expected)
        expected[:, 0] = 0  # exclude_bos
        assert torch.equal(as_pattern(kind, ids.tolist(), "first"), expected)


@pytest.mark.parametrize("kind", HEADS)
def test_without_null_keys_the_score_is_behaviour_times_rows_by_tokens(smollm2: Any, kind: str) -> None:
    tokens = smollm2.to_tokens(TEXT).shape[1]
    stats = collect(smollm2, [TEXT], "none").dataset.sel(kind=kind)
    expected = stats["behaviour"] * int(stats["behaviour_rows"]) / tokens
    np.testing.assert_allclose(detected(smollm2, TEXT, HEADS[kind]), expected, **FLOAT)


@pytest.mark.parametrize("kind", HEADS)
def test_over_prompts_of_one_length_too(smollm2: Any, kind: str) -> None:
    prompts = [TWICE, 2 * " river red red tree bread house dog dog"]
    lengths = {smollm2.to_tokens(prompt).shape[1] for prompt in prompts}
    assert len(lengths) == 1
    stats = collect(smollm2, prompts, "none").dataset.sel(kind=kind)
    expected = stats["behaviour"] * int(stats["behaviour_rows"]) / (2 * lengths.pop())
    np.testing.assert_allclose(detected(smollm2, prompts, HEADS[kind]), expected, **FLOAT)


@pytest.mark.parametrize("null", ["none", "first"])
@pytest.mark.parametrize("kind", HEADS)
def test_behaviour_is_the_score_by_that_of_its_rows(smollm2: Any, kind: str, null: Any) -> None:
    """`exclude_bos` is the null rule "first"; the detector also scores a pattern of whole rows."""
    ids = smollm2.to_tokens(TEXT)[0]
    pattern = detection_pattern(kind, ids)
    how = {"exclude_bos": null == "first"}
    if how["exclude_bos"]:
        pattern[:, 0] = 0
    rows = pattern.any(1, keepdim=True).float().expand_as(pattern).tril()
    expected = detected(smollm2, TEXT, pattern, **how) / detected(smollm2, TEXT, rows, **how)
    stats = collect(smollm2, [TEXT], null)
    np.testing.assert_allclose(stats["behaviour"].sel(kind=kind), expected, **FLOAT)


@pytest.mark.parametrize("kind", HEADS)
def test_absolute_errors_where_a_row_has_one_key_at_most(smollm2: Any, kind: str) -> None:
    """A row with one key, of attention p, is 2(1 - p) off, a row without is 1 off. The detector rounds to three digits.

    So the score is (2 · behaviour - 1) · rows / tokens.
    """
    ids = smollm2.to_tokens(TWICE)[0]
    assert detection_pattern(kind, ids).sum(1).max() == 1
    stats = collect(smollm2, [TWICE], "none").dataset.sel(kind=kind)
    expected = (2 * stats["behaviour"] - 1) * int(stats["behaviour_rows"]) / len(ids)
    found = detected(smollm2, TWICE, HEADS[kind], error_measure="abs")
    np.testing.assert_allclose(found, expected, rtol=0, atol=5e-4 + FLOAT["atol"])


def test_previous_tokens_among_all_content_attention(smollm2: Any) -> None:
    """The detector's rows are all rows: those of `offset_profile`. The current token is offset 0."""
    ids = smollm2.to_tokens(TEXT)[0]
    corpus = ta.Corpus.from_token_ids([ids])
    stats = ta.collect(smollm2, corpus, ["offset_profile"], null="first", progress=False)
    itself, previous = (stats["offset_profile"].sel(offset=offset).values for offset in (0, 1))
    name, how = HEADS["previous"], {"exclude_bos": True}
    np.testing.assert_allclose(detected(smollm2, TEXT, name, **how), previous, **FLOAT)
    without_itself = detected(smollm2, TEXT, name, exclude_current_token=True, **how)
    np.testing.assert_allclose(without_itself, previous / (1 - itself), **FLOAT)


def test_tiny_models_too(tiny_decoder: Any) -> None:
    words = " ".join(sentence.text for sentence in tiny.sentences(3, seed=1))
    tokens = tiny_decoder.to_tokens(words).shape[1]
    stats = collect(tiny_decoder, [words], "none")
    for kind, name in HEADS.items():
        here = stats.dataset.sel(kind=kind)
        expected = here["behaviour"] * int(here["behaviour_rows"]) / tokens
        np.testing.assert_allclose(detected(tiny_decoder, words, name), expected, **FLOAT)
