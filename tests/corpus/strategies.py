"""Hypothesis strategies for corpora."""

from __future__ import annotations

import itertools

from hypothesis import strategies as st

from tests import tiny
from tl_attnstats import Sentence, Word


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
