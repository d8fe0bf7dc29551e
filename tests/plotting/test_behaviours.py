from __future__ import annotations

from typing import Any

import matplotlib.pyplot as plt
import numpy as np
import pytest
from matplotlib.collections import LineCollection

import tl_attnstats as ta
from tests.plotting.made import collected, without, worth
from tl_attnstats.errors import FigureError, MetricError
from tl_attnstats.plotting import behaviours

KINDS = ("previous", "duplicate", "induction")


@pytest.fixture(scope="module")
def stats() -> ta.AttentionStats:
    return worth()


def struck(ax: Any) -> set[tuple[int, int]]:
    """Layer and head of the cells that are crossed by a line."""
    lines = [line for c in ax.collections if isinstance(c, LineCollection) for line in c.get_segments()]
    return {(round(float(line[:, 1].mean())), round(float(line[:, 0].mean()))) for line in lines}


def test_behaviours_draws_the_values_with_one_scale(stats: ta.AttentionStats) -> None:
    figure, axes = behaviours(stats)
    for ax, kind in zip(axes, KINDS, strict=True):
        (image,) = ax.images
        np.testing.assert_array_equal(image.get_array(), stats["behaviour"].sel(kind=kind).values)
        assert image.get_clim() == (0, float(stats["behaviour"].max()))
        assert (ax.get_xlabel(), ax.get_ylabel()) == ("head", "layer")
        assert struck(ax) == set()
    (bar,) = [ax for ax in figure.axes if ax not in axes]
    assert bar.get_ylabel() == "share of content attention"


def test_behaviours_names_each_baseline(stats: ta.AttentionStats) -> None:
    _, axes = behaviours(stats)
    expected = ["previous\nbaseline 0.25", "duplicate\nbaseline 0.12", "induction\nbaseline 0.062"]
    assert [ax.get_title() for ax in axes] == expected


def test_behaviours_of_tokens_that_never_repeat() -> None:
    stats = collected()  # no token comes twice
    assert np.isnan(stats["behaviour_baseline"].sel(kind=["duplicate", "induction"])).all()
    figure, axes = behaviours(stats)
    figure.canvas.draw()
    assert axes[0].get_title() == f"previous\nbaseline {float(stats['behaviour_baseline'][0]):.2g}"
    assert [ax.get_title().partition("\n")[2] for ax in axes[1:]] == ["no row has such a key"] * 2
    assert np.ma.getmaskarray(axes[2].images[0].get_array()).all()


def test_behaviours_strikes_out_doubtful_heads() -> None:
    stats = worth()
    stats.dataset["null_share"].values[:] = 0.5
    stats.dataset["null_share"].values[1, 2] = 0.95
    stats.dataset["behaviour_se"].loc[{"layer": 2, "head": 3, "kind": "induction"}] = 2.0
    figure, axes = behaviours(stats)
    assert [struck(ax) for ax in axes] == [{(1, 2)}, {(1, 2)}, {(1, 2), (2, 3)}]
    (note,) = [ax.get_legend() for ax in axes if ax.get_legend()]
    assert note.get_texts()[0].get_text() == "doubtful: null share above 0.9 or\nerror above 50%"
    figure.canvas.draw()
    assert note.get_window_extent().y0 >= 0
    assert note.get_window_extent().y1 < axes[1].xaxis.label.get_window_extent().y0


def test_behaviours_uses_the_axes_given(stats: ta.AttentionStats) -> None:
    figure, given = plt.subplots(1, 3)
    assert behaviours(stats, axes=given) == (figure, list(given))
    assert plt.get_fignums() == [figure.number]
    with pytest.raises(FigureError, match="axes: got 2, expected 3, one per panel"):
        behaviours(stats, axes=given[:2])


@pytest.mark.parametrize("name", ["behaviour", "behaviour_baseline"])
def test_behaviours_names_what_is_missing(stats: ta.AttentionStats, name: str) -> None:
    with pytest.raises(MetricError, match=f"no statistic '{name}' here; there are: "):
        behaviours(without(stats, name))
    assert not plt.get_fignums()
