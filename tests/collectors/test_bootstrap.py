"""Bootstrap replicates: each is the statistics of a corpus in which sentences are left out or repeated."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest

import tl_attnstats as ta
from tests import tiny

STATISTICS = ("null_share", "distance", "entropy", "dependency_alignment")


def word_patterns(n: int, *, causal: bool, seed: int) -> list[tuple[np.ndarray, ta.Sentence]]:
    sentences = tiny.sentences(n, seed=seed)
    return [(tiny.patterns(2, 3, len(s.words), causal, seed + s.number), s) for s in sentences]


def value(stats: ta.AttentionStats, name: str) -> Any:
    values = stats[name]
    return (values.sel(direction="either") if "direction" in values.dims else values).values


@pytest.mark.parametrize("causal", [True, False])
def test_a_replicate_is_a_corpus_of_repeated_sentences(causal: bool) -> None:
    data = word_patterns(12, causal=causal, seed=3)
    stats = ta.collect_patterns(data, [ta.Bootstrap(7)], causal=causal)
    for replicate in range(7):
        times = [np.random.default_rng(sentence.digest).poisson(1, 7)[replicate] for _, sentence in data]
        repeated = [pair for pair, n in zip(data, times, strict=True) for _ in range(n)]
        assert max(times) > 1
        there = ta.collect_patterns(repeated, STATISTICS, causal=causal)
        for name in STATISTICS:
            found = stats[f"{name}_replicates"].sel(replicate=replicate).values
            np.testing.assert_allclose(found, value(there, name), rtol=1e-9, err_msg=name)


def test_replicates_spread_as_the_standard_error_says() -> None:
    data = word_patterns(150, causal=True, seed=4)
    stats = ta.collect_patterns(data, [*STATISTICS, ta.Bootstrap(400)])
    for name in STATISTICS:
        spread = stats[f"{name}_replicates"].std("replicate").values
        ratio = spread / value(stats, f"{name}_se")
        # 400 replicates give a standard deviation to 4 %; with 150 sentences the two estimates differ a little more.
        assert ratio.min() > 0.85, name
        assert ratio.max() < 1.15, name
        middle = stats[f"{name}_replicates"].mean("replicate").values
        assert (np.abs(middle - value(stats, name)) < spread).all(), name


def test_replicates_are_no_statistics_of_their_own() -> None:
    stats = ta.collect_patterns(word_patterns(4, causal=True, seed=1), ["distance", "bootstrap"])
    assert stats.statistics == ["distance"]
    assert stats["distance_replicates"].dims == ("replicate", "layer", "head")


def test_a_file_with_fewer_statistics_is_still_read() -> None:
    stats = ta.collect_patterns(word_patterns(12, causal=True, seed=3), [ta.Bootstrap(7)])
    state = stats.state["bootstrap"].isel(statistic=[2, 0])
    found = ta.Bootstrap.compute(state, 12)
    names = [f"{name}_replicates" for name in state["statistic"].values]
    assert set(found.data_vars) == set(names)
    for name in names:
        np.testing.assert_array_equal(found[name], stats[name])
