from __future__ import annotations

import random
import time
from dataclasses import replace
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from tests import tiny
from tl_attnstats import Sentence, Word
from tl_attnstats.errors import CorpusError

WORDS = (Word(0, 1, "DET", 1, "det"), Word(2, 5, "NOUN", None, "root"), Word(5, 6, "PUNCT", 1, "punct"))
CAT = Sentence("a cat.", WORDS, "cat")


def changed(index: int, **fields: Any) -> tuple[Word, ...]:
    return tuple(replace(word, **fields) if at == index else word for at, word in enumerate(WORDS))


def test_sentence_with_a_word_without_characters() -> None:
    """As the later words of a CoNLL-U multi-word token are. They stand where the word before them ends."""
    words = (Word(0, 5, "AUX", None, "root"), Word(5, 5, "PART", 0, "advmod"), Word(6, 6, "X", 1, "dep"))
    assert Sentence("don't ", words, "clitic").words == words


def test_sentence_of_no_words_and_no_text() -> None:
    assert Sentence("", (), "empty").words == ()


@pytest.mark.parametrize("text", ["\0", "\x07\x1f", "\u2028", "e\u0301\u200d", "\U0010ffff"])
def test_sentence_takes_every_character(text: str) -> None:
    assert Sentence(text, (Word(0, len(text), "X", None, "root"),), text).text == text


@pytest.mark.parametrize(
    ("index", "fields", "shown", "least"),
    [
        (0, {"start": -1}, "start=-1, end=1", 0),
        (1, {"start": 5, "end": 2}, "start=5, end=2", 1),  # end before start
        (1, {"start": 0}, "start=0, end=5", 1),  # over the word before
        (2, {"start": 4}, "start=4, end=6", 5),
        (2, {"end": 7}, "start=5, end=7", 5),  # beyond the text
        (2, {"end": 10**9}, "start=5, end=1000000000", 5),
        (0, {"start": True}, "start=True, end=1", 0),
        (0, {"end": 1.0}, "start=0, end=1.0", 0),
        (0, {"start": None}, "start=None, end=1", 0),
        (0, {"end": "1"}, "start=0, end='1'", 0),
    ],
)
def test_sentence_span_outside_its_place(index: int, fields: Any, shown: str, least: int) -> None:
    with pytest.raises(CorpusError) as raised:
        Sentence("a cat.", changed(index, **fields), "cat")
    assert str(raised.value) == (
        f"sentence 'cat', words[{index}]: {shown}, expected integers with {least} ≤ start ≤ end ≤ 6: "
        f"inside the text and after the previous word"
    )


@pytest.mark.parametrize("head", [-1, 0, 3, 10**9, True, 1.0, "1", float("nan"), [1]])
def test_sentence_head_that_is_no_other_word(head: Any) -> None:
    with pytest.raises(CorpusError) as raised:
        Sentence("a cat.", changed(0, head=head), "cat")
    assert str(raised.value) == (
        f"sentence 'cat', words[0]: head={head!r}, expected None or the index of another word, 0 to 2"
    )


@pytest.mark.parametrize(
    ("heads", "way"),
    [
        ((1, 0), "0 → 1 → 0"),
        ((1, 2, 0), "0 → 1 → 2 → 0"),
        ((None, 2, 3, 1, 1), "1 → 2 → 3 → 1"),  # beside a tree, and with a word whose head is in the circle
        ((1, 2, 3, 2), "2 → 3 → 2"),
        ((*range(1, 99), 0), "0 → 1 → 2 → 3 → … → 98 → 0"),
    ],
)
def test_sentence_heads_in_a_circle(heads: tuple[int | None, ...], way: str) -> None:
    words = tuple(Word(at, at + 1, "X", head, "dep") for at, head in enumerate(heads))
    with pytest.raises(CorpusError) as raised:
        Sentence("x" * len(heads), words, "round")
    assert str(raised.value) == (
        f"sentence 'round', words[{way[0]}]: its heads lead back to it ({way}), expected a tree: from every word, "
        f"heads must lead to a root (a word whose head is None)"
    )


@settings(deadline=None)
@given(n_words=st.integers(1, 12), seed=st.integers(0, 10**6), rewired=st.integers(0, 3))
def test_sentence_takes_forests_only(n_words: int, seed: int, rewired: int) -> None:
    rng = random.Random(seed)
    heads = tiny.heads(n_words, rng)
    for _ in range(rewired if n_words > 1 else 0):
        word = rng.randrange(n_words)
        heads[word] = rng.choice([other for other in range(n_words) if other != word])

    def ends(word: int) -> bool:  # a path of n steps among n words must be a circle
        above: int | None = word
        for _ in range(n_words):
            above = None if above is None else heads[above]
        return above is None

    words = tuple(Word(at, at + 1, "X", head, "dep") for at, head in enumerate(heads))
    if all(ends(word) for word in range(n_words)):
        assert Sentence("x" * n_words, words, "forest").words == words
    else:
        with pytest.raises(CorpusError, match="lead back"):
            Sentence("x" * n_words, words, "forest")


@pytest.mark.parametrize("field", ["upos", "deprel"])
@pytest.mark.parametrize(
    "label", ["", " ", "X\0", "X\n", "\u200b", "\ud800", ":", ":poss", "none", "none:x", None, 1, ["X"]]
)
def test_sentence_label_that_is_none(field: str, label: Any) -> None:
    with pytest.raises(CorpusError) as raised:
        Sentence("a cat.", changed(1, **{field: label}), "cat")
    assert str(raised.value) == (
        f"sentence 'cat', words[1]: {field}={label!r}, expected a printable string that does not start "
        f"with a colon; 'none' is reserved for tokens that belong to no word"
    )


@pytest.mark.parametrize("label", ["nmod:poss", "PROPN", "名詞", "a b", "-PUNCT-", "$"])
def test_sentence_takes_labels_of_any_scheme(label: str) -> None:
    assert Sentence("a cat.", changed(1, upos=label, deprel=label), "cat").words[1].deprel == label


@pytest.mark.parametrize("field", ["text", "name"])
@pytest.mark.parametrize("value", [None, 1, b"a cat.", ["a cat."]])
def test_sentence_string_that_is_none(field: str, value: Any) -> None:
    with pytest.raises(CorpusError) as raised:
        replace(CAT, words=(), **{field: value})
    name = repr(value) if field == "name" else "'cat'"
    assert str(raised.value) == f"sentence {name}: {field}={value!r}, expected a string"


@pytest.mark.parametrize("field", ["text", "name"])
def test_sentence_lone_surrogate(field: str) -> None:
    with pytest.raises(CorpusError, match=rf": {field} has a lone surrogate \('\\udce9'\) at 3, which is not a"):
        replace(CAT, words=(), **{field: "caf\udce9"})


@pytest.mark.parametrize("number", [-1, True, 1.0, None, "1", 2**63])
def test_sentence_number(number: Any) -> None:
    with pytest.raises(CorpusError) as raised:
        replace(CAT, number=number)
    assert str(raised.value) == f"sentence 'cat': number={number!r}, expected a non-negative integer"


@pytest.mark.parametrize("words", [list(WORDS), None, "abc"])
def test_sentence_words_that_are_no_tuple(words: Any) -> None:
    with pytest.raises(CorpusError, match=rf"words: got {type(words).__name__}, expected a tuple of Word"):
        replace(CAT, words=words)


def test_sentence_word_that_is_none() -> None:
    with pytest.raises(CorpusError, match=r"sentence 'cat', words\[0\]: got \(0, 1\), expected a Word"):
        replace(CAT, words=((0, 1),))


def test_numbered_changes_the_number_only() -> None:
    digest = CAT.digest
    other = CAT.numbered(7)
    assert (other.number, CAT.number) == (7, 0)
    assert replace(other, number=0) == CAT
    assert other.digest == digest


def test_sentence_check_is_linear() -> None:
    """A chain of 200,000 heads. Following it from every word would take 2·10¹⁰ steps."""
    n = 200_000
    words = tuple(Word(at, at + 1, "X", at + 1 if at + 1 < n else None, "dep") for at in range(n))
    began = time.process_time()
    Sentence("x" * n, words, "chain")
    assert time.process_time() - began < 20
