from __future__ import annotations

import itertools
from collections.abc import Sequence
from typing import Any

import matplotlib.pyplot as plt
import numpy as np
import pytest

import tl_attnstats as ta
from tests.plotting.made import collected, null_heads, without
from tl_attnstats.errors import FigureError, MetricError
from tl_attnstats.plotting import alignment_by_layer, alignment_excess, relations_by_layer

DIRECTIONS = ("from_parent", "to_parent", "either")


@pytest.fixture(scope="module")
def stats() -> ta.AttentionStats:
    return collected()


def mean(values: Sequence[float]) -> float:
    return sum(values) / len(values)


def test_alignment_by_layer_draws_means_errors_and_baseline(stats: ta.AttentionStats) -> None:
    figure, axes = alignment_by_layer(stats)
    assert len(figure.axes) == 3
    for ax, direction in zip(axes, DIRECTIONS, strict=True):
        values = stats["dependency_alignment"].sel(direction=direction).values
        errors = stats["dependency_alignment_se"].sel(direction=direction).values
        points, baseline = ax.lines[0], ax.lines[-1]
        np.testing.assert_array_equal(points.get_xdata(), [0, 1, 2])
        assert points.get_ydata() == pytest.approx([mean(row) for row in values])
        (bars,) = ax.collections
        heights = [(upper - lower)[1] / 2 for lower, upper in bars.get_segments()]
        assert heights == pytest.approx([mean(row) for row in errors])
        expected = float(stats["dependency_baseline"].sel(direction=direction))
        assert expected > 0
        assert list(baseline.get_ydata()) == [expected, expected]
        assert baseline.get_linestyle() == "--"
        assert ax.get_ylim()[0] == 0
    assert len({ax.get_ylim() for ax in axes}) == 1
    assert axes[0].get_legend().get_texts()[0].get_text() == "share of token pairs (baseline)"


def test_alignment_by_layer_names_directions_and_layers(tiny_encoder: Any) -> None:
    from tests import tiny

    corpus = ta.Corpus(tiny.sentences(3))
    stats = ta.collect(tiny_encoder, corpus, ["dependency_alignment"], layers=[1, 2], progress=False)
    _, axes = alignment_by_layer(stats)
    titles = ["from parent to dependent", "from dependent to parent", "either direction"]
    assert [ax.get_title() for ax in axes] == titles
    assert [label.get_text() for label in axes[0].get_xticklabels()] == ["1", "2"]
    assert axes[0].get_xlabel() == "layer"


def test_alignment_by_layer_without_baselines_has_no_line(stats: ta.AttentionStats) -> None:
    alone = collected()
    alone.dataset = alone.dataset.drop_vars("dependency_baseline")
    _, axes = alignment_by_layer(alone)
    assert all(line.get_linestyle() != "--" for ax in axes for line in ax.lines)
    assert axes[0].get_legend() is None


def test_alignment_by_layer_uses_the_axes_given(stats: ta.AttentionStats) -> None:
    figure, given = plt.subplots(3)
    returned, axes = alignment_by_layer(stats, axes=given)
    assert returned is figure
    assert axes == list(given)
    assert plt.get_fignums() == [figure.number]
    with pytest.raises(FigureError, match="axes: got 2, expected 3, one per panel"):
        alignment_by_layer(stats, axes=given[:2])


def test_alignment_by_layer_asks_for_the_statistic() -> None:
    with pytest.raises(MetricError, match="no statistic 'dependency_alignment' here; there are: "):
        alignment_by_layer(collected(metrics=["distance"]))
    assert not plt.get_fignums()


EXCESS = {
    "dependency_alignment": "alignment",
    "alignment_by_position": "by position alone",
    "alignment_excess": "excess",
}


def test_alignment_excess_draws_three_lines_and_the_error_of_the_excess(stats: ta.AttentionStats) -> None:
    _, axes = alignment_excess(stats)
    for ax, direction in zip(axes, DIRECTIONS, strict=True):
        drawn = {container.get_label(): container for container in ax.containers}
        assert {*drawn} == {*EXCESS.values()}
        for name, label in EXCESS.items():
            values = stats[name].sel(direction=direction).values
            line, _, bars = drawn[label]
            assert list(line.get_xdata()) == [0, 1, 2]
            assert line.get_ydata() == pytest.approx([mean(row) for row in values])
            assert len(bars) == (name == "alignment_excess")
        heights = [(upper - lower)[1] / 2 for lower, upper in drawn["excess"][2][0].get_segments()]
        errors = stats["alignment_excess_se"].sel(direction=direction).values
        assert heights == pytest.approx([mean(row) for row in errors])
        edge = ax.patches[0].get_extents().transformed(ax.transData.inverted())
        assert (edge.y0, edge.y1) == pytest.approx((-0.003, 0.003))
    titles = ["from parent to dependent", "from dependent to parent", "either direction"]
    assert [ax.get_title() for ax in axes] == titles
    assert len({ax.get_ylim() for ax in axes}) == 1
    assert [text.get_text() for text in axes[0].get_legend().get_texts()] == [*EXCESS.values()]


def test_alignment_excess_uses_the_axes_given(stats: ta.AttentionStats) -> None:
    figure, given = plt.subplots(3)
    assert alignment_excess(stats, axes=given) == (figure, list(given))
    assert plt.get_fignums() == [figure.number]
    with pytest.raises(FigureError, match="axes: got 2, expected 3, one per panel"):
        alignment_excess(stats, axes=given[:2])


@pytest.mark.parametrize("name", EXCESS)
def test_alignment_excess_names_what_is_missing(stats: ta.AttentionStats, name: str) -> None:
    with pytest.raises(MetricError, match=f"no statistic '{name}' here; there are: "):
        alignment_excess(without(stats, name))
    assert not plt.get_fignums()


def by_relation(stats: ta.AttentionStats) -> dict[str, list[float]]:
    """Means over heads by layer, the relation with most attention first."""
    found = {r: [mean(row) for row in stats["dep_to"].sel(relation=r).values] for r in stats["relation"].values}
    return dict(sorted(found.items(), key=lambda item: -mean(item[1])))


@pytest.mark.parametrize("n", [2, 16])
def test_relations_by_layer_draws_the_most_frequent_first(stats: ta.AttentionStats, n: int) -> None:
    expected = dict(list(by_relation(stats).items())[:n])
    assert len(expected) == min(n, stats["relation"].size) > 1
    figure, ax = relations_by_layer(stats, n=n, share_scale=True)
    assert [label.get_text() for label in ax.get_xticklabels()] == list(expected)
    np.testing.assert_allclose(ax.images[0].get_array(), np.transpose(list(expected.values())), rtol=1e-12)
    (bar,) = [other for other in figure.axes if other is not ax]
    assert bar.get_ylabel() == "share"
    assert not ax.texts


def test_relations_by_layer_scales_each_column_by_its_largest() -> None:
    stats = collected(n_sentences=30)
    figure, ax = relations_by_layer(stats)
    expected = by_relation(stats)
    drawn = np.asarray(ax.images[0].get_array())
    for column, values in enumerate(expected.values()):
        np.testing.assert_allclose(drawn[:, column], np.array(values) / max(values), rtol=1e-12)
    assert [float(text.get_text()) for text in ax.texts] == pytest.approx([max(v) for v in expected.values()], rel=0.06)
    figure.canvas.draw()
    top = ax.title.get_window_extent().y0
    assert all(text.get_window_extent().y1 < top for text in ax.texts)
    # Layer 0 is at the top.
    assert ax.transData.transform((0, 0))[1] > ax.transData.transform((0, 1))[1]


def test_relations_by_layer_keeps_forty_relations_apart() -> None:
    stats = collected(metrics=["dep_to"])
    names = [f"relation{n}" for n in range(40)]
    stats.dataset = stats.dataset.isel(relation=[n % stats["relation"].size for n in range(40)])
    stats.dataset = stats.dataset.assign_coords(relation=names)
    figure, ax = relations_by_layer(stats, n=40)
    figure.canvas.draw()
    boxes = [label.get_window_extent() for label in ax.get_xticklabels()]
    assert len(boxes) == 40
    assert all(a.x1 < b.x0 for a, b in itertools.pairwise(boxes))


def test_relations_by_layer_leaves_out_heads_without_value_and_draws_layers_without_any() -> None:
    stats = null_heads(2, metrics=["dep_to"])
    _, ax = relations_by_layer(stats, share_scale=True)
    most = stats["dep_to"].values[0, 2:].mean(0).max()
    assert ax.images[0].get_array()[0, 0] == pytest.approx(most)
    figure, ax = relations_by_layer(null_heads(4, metrics=["dep_to"]))
    figure.canvas.draw()
    assert np.ma.getmaskarray(ax.images[0].get_array()).all()


def test_relations_by_layer_draws_a_relation_without_attention_as_zero() -> None:
    stats = collected(metrics=["dep_to"])
    stats.dataset["dep_to"].loc[{"relation": "obj"}] = 0
    _, ax = relations_by_layer(stats)
    assert [label.get_text() for label in ax.get_xticklabels()][-1] == "obj"
    assert np.all(ax.images[0].get_array()[:, -1] == 0)


def test_relations_by_layer_uses_the_axes_given_and_refuses_no_relations(stats: ta.AttentionStats) -> None:
    figure, (left, right) = plt.subplots(1, 2)
    assert relations_by_layer(stats, ax=right) == (figure, right)
    assert (len(left.images), len(right.images)) == (0, 1)
    with pytest.raises(FigureError, match="n=0: expected a number of relations from 1"):
        relations_by_layer(stats, n=0)
