"""A head's description in a sentence: it mentions only what stands out."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest

import tl_attnstats as ta
from tl_attnstats.results.character import character, sentence_of
from tl_attnstats.results.numbers import with_error

N = 24
RNG = np.random.default_rng(0)


def heads(ids: list[int]) -> np.ndarray:
    """Heads that attend to the previous token, to induction keys, to null, to a sink, and evenly to all keys."""
    n = len(ids)
    pattern = np.zeros((1, 5, n, n))
    for i in range(n):
        pattern[0, 0, i, max(i - 1, 0)] = 1
        followers = [j for j in range(1, i + 1) if ids[j - 1] == ids[i]]
        pattern[0, 1, i, (followers or [i])[-1]] = 1
        pattern[0, 2, i, [0, i]] += 0.95, 0.05
        pattern[0, 3, i, [min(3, i), i]] += 0.6, 0.4
        pattern[0, 4, i, : i + 1] = 1 / (i + 1)
    return pattern


@pytest.fixture(scope="module")
def stats() -> ta.AttentionStats:
    data: list[Any] = []
    for number in range(40):
        once = RNG.permutation(100)[: N // 2].tolist()
        ids = [*once, *once]
        sentence = ta.Sentence("abcdefghijklmnopqrstuvwx", (), f"{number}", number)
        spans = [(i, i + 1) for i in range(N)]
        tokens = ta.TokenizedSentence(sentence, ids, spans, [-1] * N, [False] * N)
        data.append((heads(ids), tokens))
    return ta.collect_patterns(data, ["behaviour", "sinks", "null_share"])


@pytest.mark.parametrize(
    ("head", "expected", "label"),
    [
        ("L0H0", "Attends to the previous token: 1.00 ± 0 where chance gives", "previous"),
        ("L0H1", "Attends to what followed an earlier copy of the token: 1.00 ± 0 where chance gives", "induction"),
        ("L0H2", "Gives 0.950 ± 0 of its attention to null tokens.", ""),
        ("L0H4", "", ""),
    ],
)
def test_the_description_mentions_what_stands_out(
    stats: ta.AttentionStats, head: str, expected: str, label: str
) -> None:
    said = sentence_of(character(stats, head))
    assert said.startswith(expected)
    assert bool(said) == bool(expected)
    assert said.count(";") == 0
    assert [trait.label for trait in character(stats, head)] == [label] * bool(said)


def test_a_sink_is_named_by_its_commonest_token(stats: ta.AttentionStats) -> None:
    (trait,) = character(stats, "L0H3")
    assert (trait.statistic, trait.label) == ("sink_share", "")
    share, error = (float(stats[name].sel(layer=0, head=3)) for name in ("sink_share", "sink_share_se"))
    assert trait.said.startswith(f"sinks take {with_error(share, error)} of its content attention, most of all 'd'")


def test_without_statistics_there_is_no_description() -> None:
    pattern = np.tri(4)[None, None] / 4
    words = tuple(ta.Word(i, i + 1, "X", None, "dep") for i in range(4))
    stats = ta.collect_patterns([(pattern, ta.Sentence("abcd", words, "a"))], ["distance"])
    assert character(stats, "L0H0") == []
