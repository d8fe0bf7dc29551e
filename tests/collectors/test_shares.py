"""Bounds for any attention: shares lie between 0 and 1, and the shares of a distribution sum to 1."""

from __future__ import annotations

import itertools
import random
from dataclasses import replace
from typing import Any

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

import tl_attnstats as ta
from tests import tiny

ROUNDING = 1e-9
# Each of these divides all content attention of a head.
DISTRIBUTIONS = ("pos_to", "pos_from", "dep_to", "offset_profile", "pos_frequency")


def cut_into_tokens(sentence: ta.Sentence, rng: random.Random, *, framed: bool, context: bool) -> ta.TokenizedSentence:
    """Words of one to three pieces, some pieces of two words, and some of white space."""
    ends = sorted({at for word in sentence.words for at in (word.start, word.end) if rng.random() < 0.9})
    ends += [rng.randrange(1, len(sentence.text) + 1) for _ in range(rng.randint(0, 4))]
    edges = sorted({0, *ends, len(sentence.text)})
    spans = list(itertools.pairwise(edges))
    before, after = (rng.randint(0, 2), rng.randint(0, 2)) if framed else (0, 0)
    shares = [[max(0, min(end, word.end) - max(start, word.start)) for word in sentence.words] for start, end in spans]
    owners = [share.index(max(share)) if max(share) else -1 for share in shares]
    n_tokens = before + len(spans) + after
    return ta.TokenizedSentence(
        sentence,
        [rng.randrange(20) for _ in range(n_tokens)],
        [(0, 0)] * before + spans + [(0, 0)] * after,
        [-1] * before + owners + [-1] * after,
        [True] * before + [False] * len(spans) + [True] * after,
        rng.randint(0, n_tokens - 1) if context else 0,
    )


@settings(max_examples=25, deadline=None, derandomize=True)
@given(
    seed=st.integers(0, 10**6),
    n_sentences=st.integers(1, 5),
    causal=st.booleans(),
    null=st.sampled_from(["first", "special", "none"]),
    framed=st.booleans(),
    context=st.booleans(),
)
def test_shares_lie_between_0_and_1(
    seed: int, n_sentences: int, causal: bool, null: Any, framed: bool, context: bool
) -> None:
    rng = random.Random(seed)
    data = []
    for sentence in tiny.sentences(n_sentences, seed):
        heads = tiny.heads(len(sentence.words), rng)  # may have several roots
        words = tuple(replace(word, head=head) for word, head in zip(sentence.words, heads, strict=True))
        tokens = cut_into_tokens(replace(sentence, words=words), rng, framed=framed, context=context)
        data.append((tiny.patterns(2, 3, len(tokens), causal, seed + sentence.number), tokens))
    stats = ta.collect_patterns(data, causal=causal, null=null)
    assert_within_bounds(stats)


def assert_within_bounds(stats: ta.AttentionStats) -> None:
    values = {str(name): array for name, array in stats.dataset.data_vars.items() if not str(name).endswith("_se")}
    shares = [name for name, array in values.items() if array.attrs.get("units") == "share"]
    assert {*DISTRIBUTIONS, "null_share", "dependency_alignment", "variability", "exemplar_weight"} <= set(shares)
    shares.remove("alignment_excess")  # a difference of two shares
    excess = values["alignment_excess"].values
    assert (np.abs(excess[~np.isnan(excess)]) <= 1 + ROUNDING).all()
    for name in shares:
        known = values[name].values[~np.isnan(values[name].values)]
        assert ((known >= -ROUNDING) & (known <= 1 + ROUNDING)).all(), (name, known.min(), known.max())
    for name in ("distance", "entropy"):
        known = values[name].values[~np.isnan(values[name].values)]
        assert (known >= -ROUNDING).all(), (name, known.min())
    for name in DISTRIBUTIONS:
        total = values[name].sum(values[name].dims[-1], skipna=False).values
        np.testing.assert_allclose(total[~np.isnan(total)], 1, rtol=0, atol=ROUNDING, err_msg=name)
    for name in ("dependency_alignment", "dependency_baseline"):
        either, *directions = (values[name].sel(direction=d).values for d in ("either", "from_parent", "to_parent"))
        np.testing.assert_allclose(sum(directions), either, rtol=0, atol=ROUNDING, err_msg=name)


@pytest.mark.parametrize("heads", [(1, 0), (1, 2, 0), (0,), (1, 2, 3, 1)])
def test_a_circle_of_heads_gives_no_share_above_1(heads: tuple[int, ...]) -> None:
    """Two words that are each other's head would count twice, which once gave an alignment of 4/3."""
    words = tuple(ta.Word(i, i + 1, "X", head, "dep") for i, head in enumerate(heads))
    with pytest.raises(
        ta.errors.CorpusError, match=r"sentence 'round', words\[\d\]: (its heads lead back|head=0, exp)"
    ):
        ta.Sentence("abcd"[: len(heads)], words, "round")
