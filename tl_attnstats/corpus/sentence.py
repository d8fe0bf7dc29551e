"""An annotated sentence, independent of models and tokenizers."""

from __future__ import annotations

import copy
import hashlib
import json
from collections.abc import Sequence
from dataclasses import dataclass
from functools import cached_property, lru_cache

from tl_attnstats.errors import CorpusError

NO_LABEL = "none"  # the tag and relation of tokens that belong to no word


@dataclass(frozen=True, slots=True)
class Word:
    """A syntactic word: its character span, part of speech and place in the dependency tree.

    `start == end` marks a word without characters of its own (a later part of a CoNLL-U multi-word token).
    `Sentence` checks its words.
    """

    start: int
    end: int
    upos: str
    head: int | None  # index of the head word in the same sentence; None for a root
    deprel: str


@dataclass(frozen=True)
class Sentence:
    """A text with its words. `number` is its index in the whole corpus, which breaks ties.

    Spans lie inside the text, in order and without overlap. Heads are indices of words in the same sentence and form
    trees. Tags and relations are printable and not empty.

    Raises:
        CorpusError: the text, a word or a tree breaks these rules; the message names the sentence and the word.
    """

    text: str
    words: tuple[Word, ...]
    name: str
    number: int = 0
    ids: tuple[int, ...] | None = None

    def __post_init__(self) -> None:
        check_string("name", self.name, f"sentence {self.name!r}")
        where = f"sentence {self.name!r}"
        check_string("text", self.text, where)
        if type(self.number) is not int or not 0 <= self.number < 2**63:
            raise CorpusError(f"{where}: number={self.number!r}, expected a non-negative integer")
        if not isinstance(self.words, tuple):
            raise CorpusError(f"{where}: words: got {type(self.words).__name__}, expected a tuple of Word")
        if self.ids is not None:
            _check_ids(self.ids, self.words, where)
        _check_words(self.words, len(self.text), where)
        if circle := _circle([word.head for word in self.words]):
            shown = circle if len(circle) < 9 else [*circle[:4], "…", circle[-1]]
            way = " → ".join(str(index) for index in [*shown, circle[0]])
            raise CorpusError(
                f"{where}, words[{circle[0]}]: its heads lead back to it ({way}), "
                f"expected a tree: from every word, heads must lead to a root (a word whose head is None)"
            )

    @cached_property
    def digest(self) -> int:
        """63-bit hash of text and annotation, or of token ids. A sum of digests identifies a set in any order."""
        if self.ids is None:
            content = json.dumps([self.text, [[w.start, w.end, w.upos, w.head, w.deprel] for w in self.words]])
        else:
            content = json.dumps({"ids": self.ids})
        return int.from_bytes(hashlib.blake2b(content.encode(), digest_size=8).digest(), "big") >> 1

    def numbered(self, number: int) -> Sentence:
        """The same sentence with another number, without checking it again."""
        return self._with("number", number)

    def decoded(self, text: str) -> Sentence:
        """The same token ids with a text for display, which does not change the digest."""
        return self._with("text", text)

    def _with(self, field: str, value: object) -> Sentence:
        same = copy.copy(self)
        object.__setattr__(same, field, value)  # the dataclass is frozen
        return same


def check_string(field: str, value: object, where: str) -> None:
    """Raise `CorpusError` unless `value` is a string that UTF-8 can encode."""
    if not isinstance(value, str):
        raise CorpusError(f"{where}: {field}={value!r}, expected a string")
    if not value.isascii():
        try:
            value.encode()
        except UnicodeEncodeError as error:
            raise CorpusError(
                f"{where}: {field} has a lone surrogate ({value[error.start]!r}) at {error.start}, which is not a "
                f"character; decode the text again, or replace it"
            ) from None


def _check_words(words: tuple[Word, ...], n_characters: int, where: str) -> None:
    """Raise unless every word is valid and comes after the previous one."""
    n_words = len(words)
    previous_end = 0
    for index, word in enumerate(words):
        if not isinstance(word, Word):
            raise CorpusError(f"{where}, words[{index}]: got {word!r}, expected a Word")
        start, end, head = word.start, word.end, word.head
        if not (type(start) is type(end) is int and previous_end <= start <= end <= n_characters):
            raise CorpusError(
                f"{where}, words[{index}]: start={start!r}, end={end!r}, expected integers with "
                f"{previous_end} ≤ start ≤ end ≤ {n_characters}: inside the text and after the previous word"
            )
        if head is not None and not (type(head) is int and 0 <= head < n_words and head != index):
            raise CorpusError(
                f"{where}, words[{index}]: head={head!r}, expected None or the index of another word, "
                f"0 to {n_words - 1}"
            )
        if not (_is_label(word.upos) and _is_label(word.deprel)):
            field = "deprel" if _is_label(word.upos) else "upos"
            raise CorpusError(
                f"{where}, words[{index}]: {field}={getattr(word, field)!r}, expected a printable string that does not "
                f"start with a colon; {NO_LABEL!r} is reserved for tokens that belong to no word"
            )
        previous_end = end


def _check_ids(ids: object, words: tuple[Word, ...], where: str) -> None:
    """Raise unless these are token ids, and there are no words."""
    if not isinstance(ids, tuple) or not ids:
        raise CorpusError(f"{where}: ids={ids!r}, expected a non-empty tuple of token ids")
    bad = next((index for index, id_ in enumerate(ids) if type(id_) is not int or not 0 <= id_ < 2**63), None)
    if bad is not None:
        raise CorpusError(f"{where}, ids[{bad}]: got {ids[bad]!r}, expected a token id (a non-negative integer)")
    if words:
        raise CorpusError(f"{where}: words: got {len(words)}, expected none beside token ids")


def _is_label(label: object) -> bool:
    return isinstance(label, str) and _reads_as_label(label)


@lru_cache(maxsize=4096)
def _reads_as_label(label: str) -> bool:
    # Relations are counted without their subtype, so the part before the colon must be a name.
    return label.isprintable() and label.split(":")[0].strip() not in ("", NO_LABEL)


def _circle(heads: Sequence[int | None]) -> list[int]:
    """Indices of the words on a cycle of heads, or an empty list. Visits every word once."""
    visited_from = [-1] * len(heads)
    for first in range(len(heads)):
        at: int | None = first
        while at is not None and visited_from[at] < 0:
            visited_from[at] = first
            at = heads[at]
        if at is not None and visited_from[at] == first:
            circle = [at]
            while (above := heads[circle[-1]]) is not None and above != at:
                circle.append(above)
            return circle
    return []
