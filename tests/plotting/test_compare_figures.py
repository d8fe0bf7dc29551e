from __future__ import annotations

import math
from pathlib import Path

import matplotlib.pyplot as plt
import numpy as np
import pytest
from matplotlib.colors import same_color

import tl_attnstats as ta
from tests.plotting.made import by_layer, collected, planted
from tl_attnstats.errors import FigureError, MetricError
from tl_attnstats.plotting import by_depth, claims, comparison_figures, head_strips, label_means


@pytest.fixture(scope="module")
def both() -> ta.Comparison:
    deep, flat = collected(5, 3, n_sentences=25), collected(3, 4, n_sentences=25)
    return ta.compare({"deep $5": deep, "flat": flat})


def test_by_depth_marks_a_models_own_layers_and_joins_them(both: ta.Comparison) -> None:
    _, ax = by_depth(both, "distance")
    for line, (model, stats) in zip(ax.lines, both.stats.items(), strict=True):
        own = stats["layer"].size
        marked = np.asarray(line.get_xydata())[line.get_markevery()]
        np.testing.assert_allclose(marked[:, 0], [layer / (own - 1) for layer in range(own)], err_msg=model)
        np.testing.assert_allclose(marked[:, 1], stats["distance"].mean("head").values)
    assert [text.get_text() for text in ax.get_legend().get_texts()] == [r"deep \$5", "flat"]
    assert ax.get_ylim()[0] == 0


def test_by_depth_has_bands_of_two_errors_where_there_are_replicates(both: ta.Comparison) -> None:
    _, ax = by_depth(both, "dependency_alignment", "either")
    assert len(ax.collections) == 2
    band = ax.collections[0].get_paths()[0].vertices
    line, error = (both.dataset[name].isel(model=0).sel(direction="either").values for name in
                   ("dependency_alignment", "dependency_alignment_se"))  # fmt: skip
    assert band[:, 1].max() == pytest.approx((line + 2 * error).max())
    assert band[:, 1].min() == pytest.approx((line - 2 * error).min())
    for name, label in (("variability", ""), ("dependency_alignment", "to_parent"), ("pos_to", "NOUN")):
        assert len(by_depth(both, name, label)[1].collections) == 0


def test_by_depth_ends_at_the_layers_that_were_collected() -> None:
    part = planted(9, layers=[2, 4, 6], distance=by_layer(1, 3, 7))
    _, ax = by_depth(ta.compare({"part": part, "whole": planted(9)}), "distance")
    assert ax.lines[0].get_xdata().tolist() == [0.25, 0.375, 0.5, 0.625, 0.75]
    assert ax.lines[0].get_markevery() == [0, 2, 4]


def test_head_strips_show_every_head_its_depth_and_quartiles(both: ta.Comparison) -> None:
    _, ax = head_strips(both, "null_share")
    assert [label.get_text() for label in ax.get_yticklabels()] == [r"deep \$5", "flat"]
    assert ax.yaxis_inverted()
    for place, (points, stats) in enumerate(zip(ax.collections, both.stats.values(), strict=True)):
        values = stats["null_share"].values
        offsets = np.asarray(points.get_offsets())
        np.testing.assert_allclose(offsets[:, 0], values.ravel())
        assert np.all(np.abs(offsets[:, 1] - place) < 0.5)
        assert np.all(np.diff(offsets[:, 1]) > 0)
        n = len(values)
        np.testing.assert_allclose(points.get_array(), np.repeat(np.arange(n) / (n - 1), values.shape[1]))
        box = ax.patches[place]
        first, third = np.percentile(values, (25, 75))
        assert (box.get_x(), box.get_x() + box.get_width()) == (pytest.approx(first), pytest.approx(third))
        assert ax.lines[2 * place].get_xdata()[0] == pytest.approx(np.median(values))
        assert ax.lines[2 * place + 1].get_xdata()[0] == pytest.approx(values.mean())


def test_head_strips_without_any_value_have_no_points() -> None:
    nothing = np.full((7, 4), math.nan)
    for other, n_strips in ((planted(), 1), (planted(distance=nothing), 0)):
        _, ax = head_strips(ta.compare({"a": planted(distance=nothing), "b": other}), "distance")
        assert len(ax.collections) == n_strips
        assert len(ax.get_yticklabels()) == 2


def test_label_means_go_from_the_mean_to_the_largest_head(both: ta.Comparison) -> None:
    _, ax = label_means(both, "pos_to", n=3)
    tags = [label.get_text() for label in ax.get_yticklabels()]
    means = [both.means[(both.means["statistic"] == "pos_to") & (both.means["label"] == tag)]["mean"] for tag in tags]
    assert [mean.mean() for mean in means] == sorted((mean.mean() for mean in means), reverse=True)
    assert len(tags) == 3
    for place, stats in enumerate(both.stats.values()):
        values = stats["pos_to"].sel(tag=tags)
        np.testing.assert_allclose(ax.lines[place].get_xdata(), values.mean(("layer", "head")))
        ends = [segment[1, 0] for segment in ax.collections[place].get_segments()]
        np.testing.assert_allclose(ends, values.where(~stats.doubtful("pos_to")).max(("layer", "head")))


def test_doubtful_heads_are_crossed_and_end_no_line() -> None:
    doubtful, sure = collected(4, 3, n_sentences=25), collected(3, 4, n_sentences=25)
    layer, head = np.unravel_index(doubtful["pos_to"].sel(tag="NOUN").values.argmax(), (4, 3))
    doubtful.dataset["null_share"].values[:] = 0.5
    doubtful.dataset["null_share"].values[layer, head] = 0.95
    sure.dataset["null_share"].values[:] = 0.5
    both = ta.compare({"doubtful": doubtful, "sure": sure})
    _, ax = label_means(both, "pos_to")
    place = [label.get_text() for label in ax.get_yticklabels()].index("NOUN")
    values = doubtful["pos_to"].sel(tag="NOUN").where(~doubtful.doubtful("pos_to", tag="NOUN"))
    assert ax.collections[0].get_segments()[place][1, 0] == pytest.approx(float(values.max()))
    assert float(values.max()) < float(doubtful["pos_to"].sel(tag="NOUN").max())
    _, ax = head_strips(both, "distance")
    crosses = [line for line in ax.lines if line.get_marker() == "x"]
    assert [line.get_xdata() for line in crosses] == [[pytest.approx(float(doubtful["distance"][layer, head]))]]
    assert not [line for line in head_strips(both, "null_share")[1].lines if line.get_marker() == "x"]


def test_a_model_has_one_colour(both: ta.Comparison) -> None:
    drawn = [by_depth(both, "entropy")[1], label_means(both, "pos_to")[1], claims(both)[1][0]]
    dots = [[line for line in ax.lines if line.get_marker() == "o"] for ax in drawn]
    for same in zip(*dots, strict=True):
        assert all(same_color(same[0].get_color(), other.get_color()) for other in same)
    assert not same_color(dots[0][0].get_color(), dots[0][1].get_color())


def test_long_names_of_models_leave_room_for_the_figure() -> None:
    comparison = ta.compare({"meta-llama/Llama-3.2-1B-Instruct": planted(), "b" * 24: planted()})
    _, panels = claims(comparison)
    names = [label.get_text() for label in panels[0].get_yticklabels()]
    assert names == ["meta-llama/L…-1B-Instruct", "b" * 24]


def test_claims_show_value_bounds_and_where_they_hold(both: ta.Comparison) -> None:
    _, panels = claims(both)
    for panel, *same in zip(panels, *both.claims.values(), strict=True):
        points = [line for line in panel.lines if line.get_marker() == "o"]
        assert [line.get_xdata()[0] for line in points] == [claim.value for claim in same if claim.value == claim.value]
        bounds = [(claim.low, claim.high) for claim in same if not math.isnan(claim.low)]
        assert [tuple(line.get_xdata()) for line in panel.lines if line.get_linewidth() == 2] == bounds
        shaded = panel.patches[0].get_extents().transformed(panel.transData.inverted())
        for claim in same:
            inside = shaded.x0 < claim.value < shaded.x1
            assert inside == (claim.within[0] < claim.value < claim.within[1])


def test_claims_show_their_counterparts_as_hollow_diamonds(both: ta.Comparison) -> None:
    figure, panels = claims(both)
    names = [claim.name for claim in both.claims["flat"]]
    assert "without sinks, or beyond position" in figure.get_suptitle()
    for panel, name in zip(panels, names, strict=True):
        hollow = [line for line in panel.lines if line.get_marker() == "D"]
        expected = [beyond[name].value for beyond in both.counterparts.values() if name in beyond]
        np.testing.assert_array_equal([line.get_xdata()[0] for line in hollow], expected)
        assert all(same_color(line.get_markerfacecolor(), "white") for line in hollow)
    with_counterpart = {"twice_mean_to", "alignment_in_the_middle", "distance_and_alignment"}
    assert {name for name in names if name in both.counterparts["flat"]} == with_counterpart


def test_claims_without_a_value_say_so() -> None:
    few = collected(4, metrics=["distance"])
    _, panels = claims(ta.compare({"a": few, "b": few}))
    assert [text.get_text() for text in panels[0].texts] == ["no value"] * 2
    assert [text.get_text() for text in panels[3].texts] == []


def test_axes_given_are_used(both: ta.Comparison) -> None:
    figure, axes = plt.subplots(3)
    assert by_depth(both, "distance", ax=axes[0]) == (figure, axes[0])
    assert head_strips(both, "distance", ax=axes[1]) == (figure, axes[1])
    assert label_means(both, "pos_from", ax=axes[2]) == (figure, axes[2])
    with pytest.raises(FigureError, match="axes: got 3, expected 8, one per panel"):
        claims(both, axes=axes)


@pytest.mark.parametrize("draw", [by_depth, head_strips])
def test_unknown_statistics_and_labels_are_answered(both: ta.Comparison, draw: object) -> None:
    assert callable(draw)
    with pytest.raises(MetricError, match="no statistic 'distanse' in this comparison"):
        draw(both, "distanse")
    with pytest.raises(MetricError, match="label='': pos_to takes one of ADJ"):
        draw(both, "pos_to")


def test_label_means_need_labels(both: ta.Comparison) -> None:
    with pytest.raises(FigureError, match="name='distance': has no labels, expected a statistic such as pos_to"):
        label_means(both, "distance")
    with pytest.raises(FigureError, match="n=0: expected a number of labels from 1"):
        label_means(both, "pos_to", n=0)


def test_figures_are_saved_closed_and_named(tmp_path: Path) -> None:
    few = collected(2, metrics=["distance", "dependency_alignment", "pos_to", "behaviour"], n_sentences=3)
    paths = comparison_figures(ta.compare({"a": few, "b": few}), tmp_path / "new")
    kinds = [f"{d}_{k}" for d in ("either", "from_parent", "to_parent") for k in ("by_depth", "heads")]
    expected = {
        "claims",
        "distance_by_depth",
        "distance_heads",
        "pos_to",
        *(f"dependency_alignment_{k}" for k in kinds),
        *(f"behaviour_{k}_{drawn}" for k in few["kind"].values for drawn in ("by_depth", "heads")),
    }
    assert set(paths) == expected
    assert {path.name for path in (tmp_path / "new").iterdir()} == {f"{name}.png" for name in expected}
    assert plt.get_fignums() == []
