"""Hypothesis strategies for corpora."""

from __future__ import annotations

import itertools

from hypothesis import strategies as st

from tests import tiny
from tl_attnstats import Sentence, Word

ODD_STRINGS = [
    *("", " ", "\0", "\x07", "\x1f", "\x85", "\u2028", "\u200b", "\ufeff", "\ud800", "a\udfffb", "\u0301"),
    *("😀", "👩\u200d👩\u200d👧", "日本語", "e\u0301\u0302", "عربي", "\u202eabc", "ﬁ", "İ", "\U0010ffff"),
    *("_", "#", "=", "none", ":", "a:", ":a", "\t", "\n", "\r\n", "1-2", "2-1", "1-99", "3-3", "1.1", "0", "-1", "01"),
    *("²", "1e9", "9" * 5000, "SpaceAfter=No", "don't", "(((", '"""'),
]
WORDS = [
    *("The", "cat", "sat", "on", "it", ".", "don't", "U.S.", "http://a.b/c?d=e", "x@y.org", "...", "3,000.5", "A", "I"),
]


def any_texts() -> st.SearchStrategy[str]:
    """Words, odd strings, characters of every kind, lone surrogates and long runs, with and without spaces between."""
    any_character = st.characters(exclude_categories=()) | st.characters(max_codepoint=0x3000)
    parts = st.one_of(
        st.sampled_from(WORDS),
        st.sampled_from(ODD_STRINGS),
        st.text("ab .,'\"()-\n\tÉ日😀\u0301\u200d\x00\x85", min_size=1, max_size=12),
        st.text(any_character, max_size=3),
        st.builds(lambda character, n: character * n, st.sampled_from("()😀\"'.-=a1"), st.integers(1, 60)),
    )
    pieces = st.tuples(parts, st.sampled_from(["", " ", " ", "  "])).map("".join)
    return st.lists(pieces, min_size=1, max_size=25).map("".join)


@st.composite
def sentences(draw: st.DrawFn) -> Sentence:
    text = draw(st.text(max_size=20))
    cuts = sorted(draw(st.lists(st.integers(0, len(text)), max_size=6)))
    spans = list(itertools.pairwise(cuts))
    heads = tiny.heads(len(spans), draw(st.randoms(use_true_random=False)))
    labels = st.text(st.characters(exclude_categories=("C", "Z"), exclude_characters=":"), min_size=1, max_size=4)
    labels = labels.filter(lambda label: label.isprintable() and label != "none")
    made = [Word(*span, draw(labels), head, draw(labels)) for span, head in zip(spans, heads, strict=True)]
    return Sentence(text, tuple(made), draw(st.text(max_size=8)))
