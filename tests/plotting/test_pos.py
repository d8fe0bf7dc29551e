from __future__ import annotations

import itertools

import matplotlib.pyplot as plt
import numpy as np
import pytest

import tl_attnstats as ta
from tests.plotting.made import collected, null_heads
from tl_attnstats.errors import FigureError, MetricError
from tl_attnstats.plotting import pos_grid


@pytest.fixture(scope="module")
def stats() -> ta.AttentionStats:
    return collected()


@pytest.mark.parametrize("name", ["pos_to", "pos_from"])
def test_pos_grid_draws_a_panel_a_tag(stats: ta.AttentionStats, name: str) -> None:
    figure, axes = pos_grid(stats, name)
    tags = stats["tag"].values.tolist()
    assert [ax.get_title() for ax in axes] == tags
    for ax, tag in zip(axes, tags, strict=True):
        expected = stats[name].sel(tag=tag).values
        (image,) = ax.images
        np.testing.assert_array_equal(image.get_array(), expected)
        assert image.origin == "upper"
        assert image.get_clim() == (0, pytest.approx(expected.max()))
    assert len(figure.axes) == 2 * len(tags)  # a colour bar for each


def test_pos_grid_gives_a_tag_with_next_to_no_attention_no_bright_colours() -> None:
    stats = collected(metrics=["pos_to"])
    stats.dataset["pos_to"].loc[{"tag": "X"}] = np.linspace(0, 0.0003, 12).reshape(3, 4)
    _, (panel,) = pos_grid(stats, tags="X")
    assert panel.images[0].get_clim() == (0, 0.01)


def test_pos_grid_has_layer_0_at_the_top(stats: ta.AttentionStats) -> None:
    figure, (ax, *_) = pos_grid(stats)
    figure.canvas.draw()
    heights = [ax.transData.transform((0, row))[1] for row in range(3)]
    assert heights[0] > heights[1] > heights[2]


def test_pos_grid_can_share_one_scale(stats: ta.AttentionStats) -> None:
    figure, axes = pos_grid(stats, share_scale=True)
    largest = stats["pos_to"].values.max()
    assert all(ax.images[0].get_clim() == (0, pytest.approx(largest)) for ax in axes)
    (bar,) = [ax for ax in figure.axes if ax not in axes]
    assert bar.get_ylabel() == "share"


def test_pos_grid_draws_the_tags_asked_for_in_their_order(stats: ta.AttentionStats) -> None:
    _, axes = pos_grid(stats, tags=("VERB", "NOUN"))
    assert [ax.get_title() for ax in axes] == ["VERB", "NOUN"]
    np.testing.assert_array_equal(axes[1].images[0].get_array(), stats["pos_to"].sel(tag="NOUN").values)
    _, (alone,) = pos_grid(stats, tags="ADJ")
    assert alone.get_title() == "ADJ"


def test_pos_grid_uses_the_axes_given(stats: ta.AttentionStats) -> None:
    figure, given = plt.subplots(1, 3)
    returned, axes = pos_grid(stats, tags=["NOUN", "VERB", "X"], axes=given)
    assert returned is figure
    assert axes == list(given)
    assert plt.get_fignums() == [figure.number]
    assert [len(ax.images) for ax in given] == [1, 1, 1]


@pytest.mark.parametrize("share_scale", [False, True])
def test_pos_grid_draws_tags_without_attention_and_heads_without_values(share_scale: bool) -> None:
    for n_heads in (2, 4):  # some heads without values, and all
        figure, axes = pos_grid(null_heads(n_heads, metrics=["pos_to"]), share_scale=share_scale)
        figure.canvas.draw()
        mask = np.ma.getmaskarray(axes[0].images[0].get_array())
        np.testing.assert_array_equal(mask[0], np.arange(4) < n_heads)
    stats = collected(metrics=["pos_to"])
    stats.dataset["pos_to"].loc[{"tag": "ADJ"}] = 0
    figure, axes = pos_grid(stats, share_scale=share_scale)
    figure.canvas.draw()
    assert not np.any(axes[0].images[0].get_array())


def test_pos_grid_of_seventeen_tags_and_many_heads_has_room_for_its_text() -> None:
    stats = collected(48, 64, ["pos_to"])
    wide = [f"{tag}{n}" for n in range(4) for tag in stats["tag"].values][:17]
    stats.dataset = stats.dataset.isel(tag=[n % stats["tag"].size for n in range(17)]).assign_coords(tag=wide)
    figure, axes = pos_grid(stats)
    figure.canvas.draw()
    assert len(axes) == 17
    for ax in axes:
        for labels, place in ((ax.get_xticklabels(), "x"), (ax.get_yticklabels(), "y")):
            extents = [label.get_window_extent() for label in labels]
            boxes = sorted((getattr(b, f"{place}0"), getattr(b, f"{place}1")) for b in extents)
            assert len(boxes) >= 4
            assert all(one[1] < next_one[0] for one, next_one in itertools.pairwise(boxes))
    boxes = [ax.get_tightbbox() for ax in figure.axes]
    assert not any(a.overlaps(b) for n, a in enumerate(boxes) for b in boxes[:n])


def test_pos_grid_refuses_what_it_cannot_draw(stats: ta.AttentionStats) -> None:
    with pytest.raises(MetricError, match="distance has no tag; expected pos_to or pos_from"):
        pos_grid(stats, "distance")
    with pytest.raises(MetricError, match="tag='NUON': expected one of ADJ, NOUN"):
        pos_grid(stats, tags=["NUON"])
    with pytest.raises(MetricError, match="tags=\\[\\]: expected one or more tags"):
        pos_grid(stats, tags=[])
    assert not plt.get_fignums()
    with pytest.raises(FigureError, match="axes: got 2, expected 1, one per panel"):
        pos_grid(stats, tags="NOUN", axes=plt.subplots(2)[1])
