"""The strongest heads, and errors of values computed across heads."""

from __future__ import annotations

import math

import numpy as np
import pytest

import tl_attnstats as ta
from tests.plotting.made import collected
from tl_attnstats.results.ranking import (
    correlations,
    interesting_head,
    mean_error,
    signed,
    strongest,
    tied,
    tied_words,
)


def planted() -> ta.AttentionStats:
    """Heads L0H0, L0H1, … have distances 11, 10, … 0. Two are doubtful by null share, the third by its error."""
    stats = collected(metrics=["null_share", "distance"])
    stats.dataset["distance"].values[:] = np.arange(11, -1, -1).reshape(3, 4)
    stats.dataset["distance_se"].values[:] = 0.1
    stats.dataset["distance_se"].values[0, 2] = 4.6
    stats.dataset["null_share"].values[:] = 0.5
    stats.dataset["null_share"].values[0, :2] = 0.91, 0.99
    return stats


def test_strongest_leaves_doubtful_heads_out_and_counts_them() -> None:
    # The last head is doubtful too: its error, 0.1, is more than half of its value, 0.
    heads, n_doubtful, _ = strongest(planted(), "distance", 2)
    assert heads["head"].tolist() == ["L0H3", "L1H0"]
    assert heads["distance"].tolist() == [8, 7]
    assert n_doubtful == 4
    assert len(strongest(planted(), "distance", None).heads) == 8


def test_a_smallest_value_is_not_doubtful_because_of_its_error() -> None:
    heads, n_doubtful, _ = strongest(planted(), "distance", ascending=True)
    assert heads["head"].tolist() == ["L2H3"]
    assert n_doubtful == 2


# Bounds for 12 heads at once reach 2.86 errors to either side; distances are 1 apart, and 8 is the largest sure one.
@pytest.mark.parametrize(("error", "n"), [(0, 0), (0.17, 0), (0.18, 1), (0.4, 2), (0.6, 3)])
def test_heads_are_tied_if_their_bounds_overlap(error: float, n: int) -> None:
    stats = planted()
    stats.dataset["distance_se"].values[:] = error
    assert strongest(stats, "distance").n_tied == n
    assert strongest(stats, "distance", ascending=True).n_tied == n
    ranked = stats.top_heads("distance", n=12)
    ranked.loc[0, "distance":"high"] = 100  # nothing reaches the first
    assert tied(ranked) == 0


def test_no_head_is_tied_without_bounds() -> None:
    assert strongest(collected(metrics=["variability"]), "variability").n_tied == 0
    stats = planted()
    stats.dataset["distance_se"].values[:] = np.nan
    assert strongest(stats, "distance").n_tied == 0
    stats.dataset["null_share"].values[:] = 1
    assert strongest(stats, "distance").n_tied == 0  # no head at all


def test_tied_heads_in_words() -> None:
    assert [tied_words(n) for n in (0, 3)] == ["", "3 more cannot be told apart"]


def test_null_share_is_ranked_whole() -> None:
    stats = planted()
    stats.dataset["null_share_se"].values[:] = 0.01
    heads, n_doubtful, _ = strongest(stats, "null_share")
    assert heads["head"].tolist() == ["L0H1"]
    assert n_doubtful == 0


def test_no_head_is_named_if_all_are_doubtful() -> None:
    stats = collected(metrics=["null_share", "distance", "variability", "exemplars"])
    stats.dataset["null_share"].values[:] = 0.95
    heads, n_doubtful, _ = strongest(stats, "distance")
    assert heads.empty
    assert n_doubtful == 12
    assert interesting_head(stats) is None
    stats.dataset["null_share"].values[1, 3] = 0.8
    assert interesting_head(stats) == "L1H3"


def test_errors_across_heads_are_spreads_over_replicates() -> None:
    stats = collected(n_sentences=30)
    distance, entropy = (stats[f"{name}_replicates"].values for name in ("distance", "entropy"))
    assert np.isfinite([distance, entropy]).all()
    rs = [np.corrcoef(d.ravel(), e.ravel())[0, 1] for d, e in zip(distance, entropy, strict=True)]
    (found,) = [c for c in correlations(stats) if (c.x, c.y) == ("distance", "entropy")]
    assert found.se == pytest.approx(np.std(rs, ddof=1))
    (without,) = [c for c in correlations(stats) if (c.x, c.y) == ("entropy", "variability")]
    assert math.isnan(without.se)
    assert mean_error(stats, "distance") == pytest.approx(np.std(distance.mean((1, 2)), ddof=1))
    assert mean_error(stats, "distance", 2) == pytest.approx(np.std(distance[:, 2].mean(1), ddof=1))
    assert math.isnan(mean_error(stats, "variability"))


def test_one_sequence_has_no_error() -> None:
    stats = collected(n_sentences=1)
    assert math.isnan(mean_error(stats, "distance"))
    assert all(math.isnan(found.se) for found in correlations(stats))


def test_correlations_are_written_with_sign_and_error() -> None:
    assert signed(-0.7274, 0.0042) == "−0.727 ± 0.004"
    assert signed(0.5, math.nan) == "+0.500"
