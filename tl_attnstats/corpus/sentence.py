"""An annotated sentence, independent of any model and any tokenizer."""

from __future__ import annotations

import hashlib
import json
from dataclasses import dataclass
from functools import cached_property


@dataclass(frozen=True, slots=True)
class Word:
    """One syntactic word: a span of characters, its part of speech and its place in the dependency tree.

    `start == end` marks a word without characters of its own (the later parts of a CoNLL-U multi-word token).
    """

    start: int
    end: int
    upos: str
    head: int | None  # index of the head word in the same sentence; None for a root
    deprel: str


@dataclass(frozen=True)
class Sentence:
    """A text with its words. `number` is the place in the corpus it was read into, which breaks ties."""

    text: str
    words: tuple[Word, ...]
    name: str
    number: int = 0

    @cached_property
    def digest(self) -> int:
        """63 bits of a hash over text and annotation; sums of digests identify a set of sentences in any order."""
        content = json.dumps([self.text, [[w.start, w.end, w.upos, w.head, w.deprel] for w in self.words]])
        return int.from_bytes(hashlib.blake2b(content.encode(), digest_size=8).digest(), "big") >> 1
