from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

import tl_attnstats as ta
from tests import tiny
from tl_attnstats.corpus import tally
from tl_attnstats.corpus.tally import Numbers, Tally

sets = st.sets(st.integers(0, 30))


def members(numbers: Numbers) -> set[int]:
    return {n for first, stop in numbers.ranges.tolist() for n in range(first, stop)}


@given(sets, sets)
def test_numbers_are_sets(a: set[int], b: set[int]) -> None:
    one, other = Numbers.of(list(a)), Numbers.of([*b, *b])
    assert (members(one), len(one)) == (a, len(a))
    assert members(one | other) == a | b
    assert members(one & other) == a & b
    assert (one == other) is (a == b)
    assert one | other == Numbers.of(list(a | b))
    for numbers in (one, one | other, one & other):
        borders = numbers.ranges.flatten()
        assert (np.diff(borders) > 0).all()  # sorted, none empty, no two adjacent


def test_numbers_are_shown_as_ranges() -> None:
    assert str(Numbers.of([7, 0, 1, 2, 3, 4])) == "0 to 4, 7"
    assert str(Numbers.of(range(0, 20, 2))) == "0, 2, 4, …"
    assert str(Numbers()) == ""


def test_numbers_of_many_sentences_stay_small() -> None:
    assert Numbers.of(range(10**6)).ranges.tolist() == [[0, 10**6]]


@pytest.mark.parametrize("most", [0, 2, 10**6])
def test_tally_counts_batches(monkeypatch: pytest.MonkeyPatch, most: int) -> None:
    monkeypatch.setattr(tally, "MOST_WAITING", most)
    sentences, counted = tiny.sentences(9), Tally()
    items = [ta.TokenizedSentence(s, range(3), [(0, 0)] * 3, [-1] * 3, [False] * 3) for s in sentences]
    for batch in ([items[4], items[2]], [items[2]], [items[8]]):
        counted.add(ta.Batch(batch))
    assert (counted.sequences, counted.tokens, counted.next_number) == (4, 12, 9)
    assert members(counted.numbers) == {2, 4, 8}
    assert counted.digest == sum(sentences[n].digest for n in (4, 2, 2, 8)) % 2**63
