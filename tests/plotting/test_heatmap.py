from __future__ import annotations

import itertools
from collections.abc import Iterator
from typing import Any

import matplotlib as mpl
import matplotlib.pyplot as plt
import numpy as np
import pytest

import tl_attnstats as ta
from tests import tiny
from tl_attnstats.errors import MetricError
from tl_attnstats.plotting import heatmap


@pytest.fixture(autouse=True)
def figures(monkeypatch: pytest.MonkeyPatch) -> Iterator[None]:
    """Nothing may be shown; what was drawn is closed after each test."""

    def show(*args: Any, **kwargs: Any) -> None:
        raise AssertionError("a figure was shown")

    plt.switch_backend("agg")
    monkeypatch.setattr(plt, "show", show)
    yield
    plt.close("all")


def collected(n_layers: int = 3, n_heads: int = 4, metrics: Any = None, causal: bool = True) -> ta.AttentionStats:
    sentences = tiny.sentences(6, seed=2, most_words=9)
    patterns = [tiny.patterns(n_layers, n_heads, len(s.words), causal, s.number) for s in sentences]
    return ta.collect_patterns(zip(patterns, sentences, strict=True), metrics, causal=causal)


def null_heads(n_heads: int) -> ta.AttentionStats:
    """One layer of four heads, of which so many look at the first token alone."""
    sentence = next(s for s in tiny.sentences(30) if len(s.words) == 6)
    pattern = tiny.patterns(1, 4, 6, True, 1)
    pattern[0, :n_heads] = 0
    pattern[0, :n_heads, :, 0] = 1
    return ta.collect_patterns([(pattern, sentence)], ["distance"])


@pytest.fixture(scope="module")
def stats() -> ta.AttentionStats:
    return collected()


def ticks(axis: Any) -> dict[float, str]:
    """Place and text of each tick label."""
    return {place: label.get_text() for place, label in zip(axis.get_ticklocs(), axis.get_ticklabels(), strict=True)}


def drawn_row(ax: Any, row: int) -> float:
    """How high on the page, in pixels, the middle of a row of the image lies."""
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
    # Row 0 of the array is drawn from -0.5 to 0.5, whichever way the axis runs.
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
