from __future__ import annotations

import matplotlib.pyplot as plt
import numpy as np
import pytest

import tl_attnstats as ta
from tests.plotting.made import without, worth
from tl_attnstats.errors import FigureError, MetricError
from tl_attnstats.plotting import norms


@pytest.fixture(scope="module")
def stats() -> ta.AttentionStats:
    return worth()


def test_norms_draws_null_shares_against_their_twins(stats: ta.AttentionStats) -> None:
    _, (left, _) = norms(stats)
    points, twins = stats["null_share"].values, stats["null_share_norm"].values
    expected = [(points[i, j], twins[i, j]) for i in range(3) for j in range(4)]
    np.testing.assert_array_equal(left.collections[0].get_offsets(), expected)
    np.testing.assert_array_equal(left.collections[0].get_array(), np.repeat(np.arange(3), 4))
    assert left.get_xlabel() == "attention on null tokens (share)"
    assert left.get_ylabel() == "null share by norm (share)"
    assert len(left.texts) == 5  # heads named


def test_norms_has_the_diagonal_in_view(stats: ta.AttentionStats) -> None:
    figure, (left, _) = norms(stats)
    diagonal = left.lines[0]
    assert (diagonal.get_slope(), diagonal.get_xy1()) == (1, (0, 0))
    for low, high in (left.get_xlim(), left.get_ylim()):
        assert low < 0
        assert high > 1
    figure.canvas.draw()
    frame = left.get_window_extent()
    for note in left.texts:
        box = plt.Text.get_window_extent(note)
        assert frame.x0 <= box.x0 < box.x1 <= frame.x1
        assert frame.y0 <= box.y0 < box.y1 <= frame.y1


def test_norms_draws_outputs_by_layer(stats: ta.AttentionStats) -> None:
    figure, (_, right) = norms(stats)
    values = stats["output_norm_relative"].values
    expected = [(i, values[i, j]) for i in range(3) for j in range(4)]
    np.testing.assert_array_equal(right.collections[0].get_offsets(), expected)
    assert list(right.lines[0].get_ydata()) == [1, 1]
    assert right.get_ylim()[0] == 0
    assert [label.get_text() for label in right.get_xticklabels()] == ["0", "1", "2"]
    figure.canvas.draw()
    assert right.get_legend().get_window_extent().y1 < right.xaxis.label.get_window_extent().y0


def test_norms_uses_the_axes_given(stats: ta.AttentionStats) -> None:
    figure, given = plt.subplots(1, 2)
    assert norms(stats, axes=given) == (figure, list(given))
    assert plt.get_fignums() == [figure.number]
    with pytest.raises(FigureError, match="axes: got 1, expected 2, one per panel"):
        norms(stats, axes=given[:1])


@pytest.mark.parametrize("name", ["null_share", "null_share_norm", "output_norm_relative"])
def test_norms_names_what_is_missing(stats: ta.AttentionStats, name: str) -> None:
    with pytest.raises(MetricError, match=f"no statistic '{name}' here; there are: "):
        norms(without(stats, name))
    assert not plt.get_fignums()


def test_norms_refuses_too_few_heads() -> None:
    stats = worth()
    stats.dataset["null_share_norm"].values.flat[2:] = np.nan
    with pytest.raises(MetricError, match="2 heads have both null_share and null_share_norm, expected 3"):
        norms(stats)
    assert not plt.get_fignums()
