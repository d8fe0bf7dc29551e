from __future__ import annotations

import itertools
from typing import Any

import matplotlib as mpl
import matplotlib.pyplot as plt
import numpy as np
import pytest
from matplotlib.collections import LineCollection

import tl_attnstats as ta
from tests import tiny
from tests.plotting.made import collected, null_heads
from tl_attnstats.errors import FigureError, MetricError
from tl_attnstats.plotting import heatmap


@pytest.fixture(scope="module")
def stats() -> ta.AttentionStats:
    return collected()


def ticks(axis: Any) -> dict[float, str]:
    """Position and text of each tick label."""
    return {place: label.get_text() for place, label in zip(axis.get_ticklocs(), axis.get_ticklabels(), strict=True)}


def drawn_row(ax: Any, row: int) -> float:
    """The height on the page of the middle of an image row, in pixels."""
    return float(ax.transData.transform((0, row))[1])


@pytest.mark.parametrize(
    ("name", "labels"),
    [
        ("distance", {}),
        ("variability", {}),
        ("pos_to", {"tag": "NOUN"}),
        ("dependency_alignment", {"direction": "from_parent"}),
        ("offset_profile", {"offset": 1}),
    ],
)
def test_heatmap_draws_the_values(stats: ta.AttentionStats, name: str, labels: dict[str, Any]) -> None:
    _, ax = heatmap(stats, name, **labels)
    (image,) = ax.images
    np.testing.assert_array_equal(image.get_array(), stats[name].sel(labels).values)


def test_heatmap_has_layer_0_at_the_top_and_head_0_at_the_left(stats: ta.AttentionStats) -> None:
    figure, ax = heatmap(stats, "distance")
    figure.canvas.draw()
    (image,) = ax.images
    # Row 0 is drawn from -0.5 to 0.5, whatever the direction of the axis.
    assert image.origin == "upper"
    assert drawn_row(ax, 0) > drawn_row(ax, 1) > drawn_row(ax, 2)
    assert not ax.xaxis_inverted()
    left, right, *_ = image.get_extent()
    assert (left, right) == (-0.5, 3.5)


def test_heatmap_names_axes_and_ticks(stats: ta.AttentionStats) -> None:
    _, ax = heatmap(stats, "distance")
    assert (ax.get_xlabel(), ax.get_ylabel()) == ("head", "layer")
    assert ticks(ax.xaxis) == {0: "0", 1: "1", 2: "2", 3: "3"}
    assert ticks(ax.yaxis) == {0: "0", 1: "1", 2: "2"}


def test_heatmap_names_the_model_s_layers(tiny_encoder: Any) -> None:
    stats = ta.collect(tiny_encoder, ta.Corpus(tiny.sentences(3)), ["distance"], layers=[1, 2], progress=False)
    _, ax = heatmap(stats, "distance")
    assert ticks(ax.yaxis) == {0: "1", 1: "2"}


@pytest.mark.parametrize(
    ("name", "labels", "title", "unit"),
    [
        ("distance", {}, "attention distance", "tokens"),
        ("entropy", {}, "attention entropy", "nats"),
        ("null_share", {}, "attention on null tokens", "share"),
        ("pos_to", {"tag": "NOUN"}, "attention to part of speech: NOUN", "share"),
        ("offset_profile", {"offset": 1}, "attention by offset: 1", "share"),
    ],
)
def test_heatmap_has_title_and_unit(
    stats: ta.AttentionStats, name: str, labels: dict[str, Any], title: str, unit: str
) -> None:
    figure, ax = heatmap(stats, name, **labels)
    assert ax.get_title() == title
    (colour_bar,) = [other for other in figure.axes if other is not ax]
    assert colour_bar.get_ylabel() == unit


@pytest.mark.parametrize("name", ["distance", "null_share", "entropy"])
def test_heatmap_colours_run_from_0_to_the_largest(stats: ta.AttentionStats, name: str) -> None:
    _, ax = heatmap(stats, name)
    assert stats[name].min() > 0
    assert ax.images[0].get_clim() == (0, pytest.approx(stats[name].max().item()))


def test_heatmap_uses_the_axes_given(stats: ta.AttentionStats) -> None:
    figure, (left, right) = plt.subplots(1, 2)
    before = plt.get_fignums()
    returned = heatmap(stats, "distance", ax=right)
    assert returned[0] is figure
    assert returned[1] is right
    assert plt.get_fignums() == before
    assert (len(left.images), len(right.images)) == (0, 1)


def test_heatmap_uses_axes_of_a_subfigure(stats: ta.AttentionStats) -> None:
    figure = plt.figure()
    ax = figure.subfigures(1, 2)[1].subplots()
    assert heatmap(stats, "distance", ax=ax) == (figure, ax)


def test_heatmap_makes_one_figure(stats: ta.AttentionStats) -> None:
    figure, ax = heatmap(stats, "distance")
    assert len(plt.get_fignums()) == 1
    assert ax.figure is figure


def test_heatmap_leaves_the_style_alone(stats: ta.AttentionStats) -> None:
    before = dict(mpl.rcParams)
    figure, _ = heatmap(stats, "distance")
    figure.canvas.draw()
    assert dict(mpl.rcParams) == before


def test_heatmap_leaves_the_statistics_alone() -> None:
    stats = collected(metrics=["distance"])
    before = stats.dataset.copy(deep=True)
    heatmap(stats, "distance")
    assert stats.dataset.identical(before)


def test_heatmap_thins_out_the_ticks_of_many_heads() -> None:
    figure, ax = heatmap(collected(48, 64, ["distance"]), "distance")
    figure.canvas.draw()
    across, down = ticks(ax.xaxis), ticks(ax.yaxis)
    assert 8 <= len(across) <= 16
    assert 16 <= len(down) <= 32
    for labels in (across, down):
        assert all(text == str(int(place)) for place, text in labels.items())
        assert labels[0] == "0"


def test_heatmap_ticks_do_not_overlap() -> None:
    figure, ax = heatmap(collected(48, 64, ["distance"]), "distance")
    figure.canvas.draw()
    across = [label.get_window_extent() for label in ax.get_xticklabels()]
    down = [label.get_window_extent() for label in ax.get_yticklabels()]
    assert all(a.x1 < b.x0 for a, b in itertools.pairwise(across))
    assert all(a.y0 > b.y1 for a, b in itertools.pairwise(down))


@pytest.mark.parametrize("n_heads", [1, 4])
def test_heatmap_draws_undetermined_heads_without_a_warning(n_heads: int) -> None:
    stats = null_heads(n_heads)
    figure, ax = heatmap(stats, "distance")
    figure.canvas.draw()
    array = ax.images[0].get_array()
    np.testing.assert_array_equal(np.ma.getmaskarray(array)[0], np.arange(4) < n_heads)


def test_heatmap_asks_for_the_label(stats: ta.AttentionStats) -> None:
    with pytest.raises(MetricError, match="pos_to has a value for each tag: pass tag=…, one of ADJ, NOUN"):
        heatmap(stats, "pos_to")
    assert not plt.get_fignums()


def test_heatmap_refuses_labels_and_names_that_are_not_there(stats: ta.AttentionStats) -> None:
    with pytest.raises(MetricError, match="tag='NUON': expected one of ADJ, NOUN"):
        heatmap(stats, "pos_to", tag="NUON")
    with pytest.raises(MetricError, match="distance has no tag; it takes no labels"):
        heatmap(stats, "distance", tag="NOUN")
    with pytest.raises(MetricError, match="no statistic 'distnace' here; there are: "):
        heatmap(stats, "distnace")
    with pytest.raises(MetricError, match="pos_frequency has no value for each head"):
        heatmap(stats, "pos_frequency", tag="NOUN")
    assert not plt.get_fignums()


def test_heatmap_side_bar_draws_layer_means(stats: ta.AttentionStats) -> None:
    figure, ax = heatmap(stats, "distance", side_bar=True)
    figure.canvas.draw()
    (side,) = [other for other in figure.axes if other.patches]
    values, errors = stats["distance"].values, stats["distance_se"].values
    assert [bar.get_width() for bar in side.patches] == pytest.approx([sum(row) / len(row) for row in values])
    (error_bars,) = side.collections
    for (left, right), row, of_heads in zip(error_bars.get_segments(), values, errors, strict=True):
        assert (right - left)[0] / 2 == pytest.approx(sum(of_heads) / len(of_heads))
        assert (right + left)[0] / 2 == pytest.approx(sum(row) / len(row))
    # Each bar is at the height of its layer.
    for row, bar in enumerate(side.patches):
        middle = side.transData.transform((0, bar.get_y() + bar.get_height() / 2))[1]
        assert middle == pytest.approx(drawn_row(ax, row))
    assert side.get_position().x0 > ax.get_position().x1


def test_heatmap_side_bar_leaves_out_undetermined_heads() -> None:
    stats = null_heads(2)
    figure, _ = heatmap(stats, "distance", side_bar=True)
    (side,) = [other for other in figure.axes if other.patches]
    assert side.patches[0].get_width() == pytest.approx(stats["distance"].values[0, 2:].mean())


def test_heatmap_side_bar_stays_in_the_place_of_the_axes_given(stats: ta.AttentionStats) -> None:
    figure, (left, right) = plt.subplots(1, 2, layout="constrained")
    heatmap(stats, "distance", ax=right, side_bar=True)
    figure.canvas.draw()
    assert len(figure.axes) == 4
    assert all(other.get_position().x0 > left.get_position().x1 for other in figure.axes if other is not left)


def test_heatmap_side_bar_needs_axes_of_a_grid(stats: ta.AttentionStats) -> None:
    ax = plt.figure().add_axes((0.1, 0.1, 0.8, 0.8))
    with pytest.raises(FigureError, match="side_bar=True: got axes placed by hand, expected axes of a grid"):
        heatmap(stats, "distance", ax=ax, side_bar=True)


def struck(ax: Any) -> set[tuple[int, int]]:
    """Row and column of the cells that are struck out."""
    lines = [c.get_segments() for c in ax.collections if isinstance(c, LineCollection)]
    return {(round(float(s[:, 1].mean())), round(float(s[:, 0].mean()))) for segments in lines for s in segments}


def test_heatmap_strikes_out_doubtful_heads() -> None:
    stats = collected()
    null = stats.dataset["null_share"]
    null.values[1, 2] = 0.95
    figure, ax = heatmap(stats, "distance", max_error=0.1)
    values, errors = stats["distance"].values, stats["distance_se"].values
    uncertain = {(i, j) for i in range(3) for j in range(4) if errors[i, j] > 0.1 * values[i, j]}
    assert (1, 2) not in uncertain
    assert 0 < len(uncertain) < 11
    assert struck(ax) == uncertain | {(1, 2)}
    np.testing.assert_array_equal(ax.images[0].get_array(), values)
    assert ax.get_legend().get_texts()[0].get_text() == "doubtful: null share above 0.9 or\nerror above 10%"
    figure.canvas.draw()
    legend = ax.get_legend().get_window_extent()
    assert legend.y0 >= 0
    assert legend.y1 < ax.xaxis.label.get_window_extent().y0


def test_heatmap_strikes_out_nothing_where_nothing_is_doubtful(stats: ta.AttentionStats) -> None:
    for arguments in ({"doubtful": False, "max_error": 0.0}, {"max_error": 100.0}):
        _, ax = heatmap(stats, "distance", **arguments)
        assert struck(ax) == set()
        assert ax.get_legend() is None


def test_heatmap_of_variability_has_no_error_bars_and_names_its_bound() -> None:
    stats = collected()
    stats.dataset["variability_error"].values[1, 2] = stats["variability"].values[1, 2]
    figure, ax = heatmap(stats, "variability", side_bar=True)
    (side,) = [other for other in figure.axes if other.patches]
    assert not np.isfinite([s for bars in side.collections for s in bars.get_segments()]).any()
    assert (1, 2) in struck(ax)
    assert ax.get_legend().get_texts()[0].get_text() == "doubtful: null share above 0.9 or\nbinning error above 50%"


def test_heatmap_null_share_itself_is_not_doubtful_for_being_large() -> None:
    stats = collected(metrics=["null_share"])
    stats.dataset["null_share"].values[0, 0] = 0.99
    assert struck(heatmap(stats, "null_share", max_error=10)[1]) == set()


def test_heatmap_of_undetermined_heads_strikes_out_none() -> None:
    assert struck(heatmap(null_heads(2), "distance", max_error=100)[1]) == set()


def test_heatmap_draws_a_dollar_sign_as_it_is() -> None:
    stats = collected()
    stats.dataset = stats.dataset.assign_coords(tag=["$a$", *stats["tag"].values[1:]])
    figure, ax = heatmap(stats, "pos_to", tag="$a$")
    figure.canvas.draw()
    assert ax.get_title() == r"attention to part of speech: \$a\$"
