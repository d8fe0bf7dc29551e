"""Words to model tokens, by the characters they share."""

from __future__ import annotations

from collections import Counter
from collections.abc import Sequence

from tl_attnstats.corpus.sentence import Word


def align(words: Sequence[Word], spans: Sequence[tuple[int, int]]) -> list[int]:
    """For each token, given as a (start, end) character span, the index of its word, or -1 for none.

    Words are those of a `Sentence`: in order, none overlapping another.

    A token belongs to the word it shares most characters with, the first one where several share as many. Tokens
    of white space only, and special tokens (empty span), belong to no word. Spans of tokens may overlap: the
    pieces of one multi-byte character all carry that character's span.
    """
    owner = [-1] * max((word.end for word in words), default=0)
    for index, word in enumerate(words):
        owner[word.start : word.end] = [index] * (word.end - word.start)
    return [_majority(owner[start:end]) for start, end in spans]


def _majority(owners: list[int]) -> int:
    shares = Counter(owner for owner in owners if owner >= 0)
    # max() keeps the first of equals, and a Counter keeps the order of first appearance: the earlier word wins.
    return max(shares, key=shares.__getitem__) if shares else -1
