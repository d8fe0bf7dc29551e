"""Align model tokens with words by the characters they share."""

from __future__ import annotations

from collections import Counter
from collections.abc import Sequence

from tl_attnstats.corpus.sentence import Word


def align(words: Sequence[Word], spans: Sequence[tuple[int, int]]) -> list[int]:
    """Return, for each token's (start, end) character span, the index of its word, or -1 if it has none.

    A token belongs to the word with which it shares most characters; the first word wins ties. Whitespace tokens and
    special tokens (empty span) belong to no word. Words must be in order and must not overlap, as in a `Sentence`.
    Token spans may overlap: all pieces of a multi-byte character carry that character's span.
    """
    owner = [-1] * max((word.end for word in words), default=0)
    for index, word in enumerate(words):
        owner[word.start : word.end] = [index] * (word.end - word.start)
    return [_majority(owner[start:end]) for start, end in spans]


def _majority(owners: list[int]) -> int:
    shares = Counter(owner for owner in owners if owner >= 0)
    # The earlier word wins ties: max() returns the first maximum, and a Counter keeps insertion order.
    return max(shares, key=shares.__getitem__) if shares else -1
