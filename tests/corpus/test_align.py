from __future__ import annotations

import itertools
import re
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from tl_attnstats import Framing, Sentence, Word
from tl_attnstats.corpus.align import align


def words_at(*spans: tuple[int, int]) -> list[Word]:
    return [Word(start, end, "X", None, "dep") for start, end in spans]


def by_white_space(text: str) -> Sentence:
    return Sentence(text, tuple(words_at(*(match.span() for match in re.finditer(r"\S+", text)))), "a text")


def counted(words: list[Word], start: int, end: int) -> int:
    """The word of a token, by counting characters one by one."""
    shares = [sum(1 for at in range(start, end) if word.start <= at < word.end) for word in words]
    return shares.index(max(shares)) if max(shares, default=0) else -1


def pieces_of(tokenizer: Any, sentence: Sentence) -> list[str]:
    """Each word's pieces, decoded together."""
    tokenized = Framing(tokenizer).tokenize(sentence)
    owned: list[list[int]] = [[] for _ in sentence.words]
    for token, word in zip(tokenized.ids, tokenized.word_of_token, strict=True):
        if word >= 0:
            owned[word].append(token)
    return [tokenizer.decode(ids, clean_up_tokenization_spaces=False).strip() for ids in owned]


@pytest.mark.parametrize(
    ("spans", "token", "expected"),
    [
        ([(0, 3), (4, 7)], (0, 3), 0),  # the word itself
        ([(0, 3), (4, 7)], (3, 7), 1),  # with the space before it
        ([(0, 3), (4, 7)], (5, 6), 1),  # a piece of it
        ([(0, 2), (2, 5)], (0, 5), 1),  # more of the second
        ([(0, 3), (3, 5)], (0, 5), 0),  # more of the first
        ([(0, 2), (2, 4)], (0, 4), 0),  # a tie
        ([(0, 2), (2, 4), (4, 6)], (1, 5), 1),  # most of the one in the middle
        ([(0, 2), (2, 4)], (1, 3), 0),  # a tie of halves
        ([(0, 3), (4, 7)], (3, 4), -1),  # the space between
        ([(0, 3), (4, 7)], (7, 9), -1),  # after the last word
        ([(0, 3), (4, 7)], (0, 0), -1),  # a special token
        ([(0, 3), (4, 7)], (5, 5), -1),  # an empty span inside a word
        ([(0, 3), (3, 3), (4, 7)], (0, 4), 0),  # a word without characters gets none
        ([(0, 3), (3, 3), (4, 7)], (3, 4), -1),
        ([], (0, 3), -1),
    ],
)
def test_align_gives_the_word_most_shared(spans: list[tuple[int, int]], token: tuple[int, int], expected: int) -> None:
    assert align(words_at(*spans), [token]) == [expected]


def test_align_of_no_tokens_is_empty() -> None:
    assert align(words_at((0, 3)), []) == []


def test_align_of_an_end_far_beyond_the_words() -> None:
    """A list of that many characters would take 8 GB."""
    assert align(words_at((0, 3), (4, 7)), [(0, 3), (3, 10**9), (8, 10**9)]) == [0, 1, -1]


@settings(deadline=None)
@given(
    lengths=st.lists(st.tuples(st.integers(0, 2), st.integers(0, 4)), max_size=8),
    tokens=st.lists(st.tuples(st.integers(0, 30), st.integers(0, 8)), max_size=12),
)
def test_align_agrees_with_counting_characters(lengths: list[tuple[int, int]], tokens: list[tuple[int, int]]) -> None:
    spans, at = [], 0
    for gap, length in lengths:
        spans.append((at + gap, at + gap + length))
        at += gap + length
    words = words_at(*spans)
    offsets = [(start, start + length) for start, length in tokens]  # in any order, and overlapping
    assert align(words, offsets) == [counted(words, *span) for span in offsets]


TEXTS = [
    "The unbelievable antidisestablishmentarians sat",
    "日本 and 😀 ok",
    "日本語 👩‍👩‍👧 naïve 𓀀",
    "e\u0301\u0302 cafe\u0301s zu\u0308rich",
]


@pytest.mark.parametrize("text", TEXTS)
def test_align_byte_level_pieces_spell_their_word(smollm2_tokenizer: Any, text: str) -> None:
    sentence = by_white_space(text)
    assert pieces_of(smollm2_tokenizer, sentence) == text.split()


def test_align_byte_level_pieces_of_one_character_share_its_word(smollm2_tokenizer: Any) -> None:
    tokenized = Framing(smollm2_tokenizer).tokenize(by_white_space("a 😀 日 e\u0301 b"))
    spans = [span for span in tokenized.spans if span[1] - span[0] == 1]
    assert len(spans) > len(set(spans))  # or the text tests nothing
    assert sorted(set(tokenized.word_of_token)) == [0, 1, 2, 3, 4]
    assert list(tokenized.word_of_token) == sorted(tokenized.word_of_token)


def test_align_byte_level_space_goes_with_the_next_word(smollm2_tokenizer: Any) -> None:
    tokenized = Framing(smollm2_tokenizer).tokenize(by_white_space("The cat sat"))
    assert list(tokenized.spans) == [(0, 3), (3, 7), (7, 11)]
    assert tokenized.word_of_token == [0, 1, 2]


@pytest.mark.parametrize("text", ["a  b   c", "a\n\nb", "\t\ta", "a \n "])
def test_align_byte_level_white_space_belongs_to_no_word(smollm2_tokenizer: Any, text: str) -> None:
    tokenized = Framing(smollm2_tokenizer).tokenize(by_white_space(text))
    blank = [text[start:end].isspace() for start, end in tokenized.spans]
    assert any(blank)
    assert [word == -1 for word in tokenized.word_of_token] == blank


def test_align_white_space_inside_a_word_belongs_to_no_word(smollm2_tokenizer: Any) -> None:
    """CoNLL-U allows spaces in a form (French "10 000"), but a token of white space still belongs to no word."""
    text = "10 000 euros"
    tokenized = Framing(smollm2_tokenizer).tokenize(Sentence(text, tuple(words_at((0, 6), (7, 12))), "fr"))
    blank = [text[start:end].isspace() for start, end in tokenized.spans]
    assert any(blank)
    assert [word == -1 for word in tokenized.word_of_token] == blank


@pytest.mark.parametrize(
    ("text", "spelled"),
    [
        ("The unbelievable antidisestablishmentarians sat", "the unbelievable antidisestablishmentarians sat"),
        ("日本 and cafe\u0301s , ok", "日本 and cafes , ok"),  # this vocabulary knows no case and no accents
        ("  two  spaces\n\nZürich", "two spaces zurich"),
    ],
)
def test_align_wordpieces_spell_their_word(minilm_tokenizer: Any, text: str, spelled: str) -> None:
    pieces = [spelled.replace(" ", "") for spelled in pieces_of(minilm_tokenizer, by_white_space(text))]
    assert pieces == spelled.split()


def test_align_wordpiece_unknown_character_belongs_to_its_word(minilm_tokenizer: Any) -> None:
    tokenized = Framing(minilm_tokenizer).tokenize(by_white_space("a 😀 b"))
    assert tokenized.ids[1] == minilm_tokenizer.unk_token_id
    assert tokenized.word_of_token == [0, 1, 2]


@pytest.mark.parametrize("name", ["smollm2_tokenizer", "minilm_tokenizer"])
def test_align_of_clitics_splits_the_token_by_characters(name: str, request: pytest.FixtureRequest) -> None:
    """spaCy and UD split "don't" as do + n't, tokenizers as don + 't or don + ' + t."""
    sentence = Sentence("don't", tuple(words_at((0, 2), (2, 5))), "clitic")
    tokenized = Framing(request.getfixturevalue(name)).tokenize(sentence)
    assert tokenized.spans[0] == (0, 3)
    assert tokenized.word_of_token == [0] + [1] * (len(tokenized) - 1)


@pytest.mark.parametrize("name", ["smollm2_tokenizer", "minilm_tokenizer"])
def test_align_special_tokens_belong_to_no_word(name: str, request: pytest.FixtureRequest) -> None:
    tokenized = Framing(request.getfixturevalue(name), (1,), (2,)).tokenize(by_white_space("The cat"))
    assert (tokenized.word_of_token[0], tokenized.word_of_token[-1]) == (-1, -1)
    assert tokenized.word_of_token[1:-1] == [0, 1]


@pytest.mark.parametrize("name", ["smollm2_tokenizer", "minilm_tokenizer"])
def test_align_agrees_with_counting_characters_on_real_tokenizers(name: str, request: pytest.FixtureRequest) -> None:
    framing = Framing(request.getfixturevalue(name))

    @settings(max_examples=100, deadline=None)
    @given(text=st.text("abt'.,- \n\té日本😀\u0301\u200d", max_size=25), cuts=st.sets(st.integers(0, 24)))
    def check(text: str, cuts: set[int]) -> None:
        # Words as a treebank has them: runs without white space, cut further at arbitrary places.
        spans = [
            (start, end)
            for match in re.finditer(r"\S+", text)
            for edges in [sorted({*match.span(), *(cut for cut in cuts if match.start() < cut < match.end())})]
            for start, end in itertools.pairwise(edges)
        ]
        words = words_at(*spans)
        tokenized = framing.tokenize(Sentence(text, tuple(words), "random"))
        assert tokenized.word_of_token == [counted(words, *span) for span in tokenized.spans]
        for (start, end), word in zip(tokenized.spans, tokenized.word_of_token, strict=True):
            assert (word == -1) == (not text[start:end].strip())

    check()
