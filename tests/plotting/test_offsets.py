from __future__ import annotations

import itertools
from typing import Any

import matplotlib.pyplot as plt
import numpy as np
import pytest

import tl_attnstats as ta
from tests.plotting.made import collected, null_heads
from tl_attnstats.collectors.baselines import Baselines
from tl_attnstats.collectors.offsets import OffsetProfile
from tl_attnstats.errors import MetricError
from tl_attnstats.plotting import offset_profile

D = 4


def made(causal: bool = True, max_distance: int = D) -> ta.AttentionStats:
    return collected(metrics=[OffsetProfile(D), Baselines(max_distance)], causal=causal, n_sentences=30)


def ticks(ax: Any) -> dict[float, str]:
    return dict(zip(ax.get_xticks(), (label.get_text() for label in ax.get_xticklabels()), strict=True))


def drawn(lines: Any) -> dict[float, float]:
    """Value by position for one head: its profile, and the point for all larger offsets."""
    return {x: y for line in lines for x, y in zip(line.get_xdata(), line.get_ydata(), strict=True)}


def main_lines(ax: Any) -> list[Any]:
    """The lines without the caps of error bars."""
    return [line for line in ax.lines if line.get_marker() not in ("_", "|")]


def test_offset_profile_draws_larger_offsets_apart_from_the_line() -> None:
    stats = made()
    _, ax = offset_profile(stats, "L1H2")
    shares = stats["offset_profile"].sel(layer=1, head=2).values
    assert len(shares) == D + 2
    assert shares[-1] > 0
    values = drawn(main_lines(ax))
    assert [values[place] for place in sorted(values)] == pytest.approx(list(shares))
    assert sorted(values) == [0, 1, 2, 3, 4, 6]
    line, *_ = main_lines(ax)
    assert list(line.get_xdata()) == [0, 1, 2, 3, 4]  # larger offsets are not on the line
    assert ticks(ax)[6] == ">4"
    assert {place: text for place, text in ticks(ax).items() if place < 5 and text != str(int(place))} == {}
    assert ax.get_xlabel() == "offset, in tokens back (1: the previous token)"
    assert ax.get_ylabel() == "share of content attention"
    assert ax.get_legend().get_texts()[0].get_text() == "L1H2"
    assert (ax.get_xscale(), ax.get_yscale()) == ("function", "log")
    low, high = ax.get_ylim()
    assert low < shares[shares > 0].min() < shares.max() < high
    across = ax.transData.transform([(place, shares.max()) for place in (0, 1, 3)])[:, 0]
    assert across[1] - across[0] == pytest.approx(across[2] - across[1])  # 0, 1 and 3 are at equal steps


def test_offset_profile_leaves_out_tiny_shares() -> None:
    stats = made()
    stats.dataset["offset_profile"].loc[{"layer": 1, "head": 2, "offset": 2}] = 0
    stats.dataset["offset_profile"].loc[{"layer": 1, "head": 2, "offset": 3}] = 1e-9
    figure, ax = offset_profile(stats, "L1H2")
    figure.canvas.draw()
    shares = stats["offset_profile"].sel(layer=1, head=2).values
    assert 1e-9 < ax.get_ylim()[0] < shares[shares > 1e-4].min()


def test_dependencies_at_larger_offsets_are_not_drawn_at_an_octave() -> None:
    stats = collected(metrics=[OffsetProfile(D, octaves=1), Baselines(D)], n_sentences=30)
    figure, ax = offset_profile(stats, "L1H2")
    assert list(ticks(ax).values())[-2:] == ["5–", ">8"]
    shares = drawn(figure.axes[-1].lines)
    assert np.isfinite([shares[place] for place in range(1, D + 1)]).all()
    assert np.isnan([share for place, share in shares.items() if place > D]).all()


def test_offset_profile_bands_are_standard_errors() -> None:
    stats = made()
    _, ax = offset_profile(stats, "L1H2")
    shares, errors = (stats[name].sel(layer=1, head=2).values for name in ("offset_profile", "offset_profile_se"))
    vertices = ax.collections[0].get_paths()[0].vertices
    for offset in range(D + 1):
        here = vertices[vertices[:, 0] == offset, 1]
        assert here.max() == pytest.approx(shares[offset] + errors[offset])
        assert here.min() == pytest.approx(shares[offset] - errors[offset])


def test_offset_profile_of_an_encoder_has_both_sides() -> None:
    stats = made(causal=False)
    _, ax = offset_profile(stats, "L0H1")
    values = drawn(main_lines(ax))
    assert sorted(values) == [-6, -4, -3, -2, -1, 0, 1, 2, 3, 4, 6]
    expected = stats["offset_profile"].sel(layer=0, head=1).values
    assert [values[place] for place in sorted(values)] == pytest.approx(list(expected))
    assert ticks(ax)[-6] == "<−4"
    assert ticks(ax)[6] == ">4"
    assert ax.get_xlabel() == "offset, in tokens back (1: the previous token, −1: the next)"


@pytest.mark.parametrize("causal", [True, False])
def test_offset_profile_draws_dependencies_by_distance_at_the_right(causal: bool) -> None:
    stats = made(causal)
    figure, ax = offset_profile(stats, "L0H1")
    (right,) = [other for other in figure.axes if other is not ax]
    assert right.get_ylabel() == "P(dependency | distance)"
    assert ax.get_legend().get_texts()[-1].get_text() == "dependencies (right axis)"
    shares = stats["dependency_by_distance"].values
    assert shares[1:].min() > 0
    for place, value in drawn(right.lines).items():
        if place == 0:
            assert np.isnan(value)  # no token depends on itself
        else:
            assert value == shares[min(abs(int(place)), D + 1)]
    assert right.get_yscale() == "log"


@pytest.mark.parametrize("max_distance", [2, 9])
def test_offset_profile_leaves_out_distances_that_are_not_the_same(max_distance: int) -> None:
    stats = made(max_distance=max_distance)
    figure, ax = offset_profile(stats, "L0H1")
    (right,) = [other for other in figure.axes if other is not ax]
    known = {place: value for place, value in drawn(right.lines).items() if not np.isnan(value)}
    shares = stats["dependency_by_distance"].values
    assert known == {place: shares[place] for place in range(1, min(max_distance, D) + 1)}


def test_offset_profile_without_baselines_has_one_axis() -> None:
    figure, _ = offset_profile(collected(metrics=["offset_profile"]), "L0H1")
    assert len(figure.axes) == 1


def test_offset_profile_tells_several_heads_apart_without_colour() -> None:
    heads = ["L0H0", "L1H1", "L2H2", "L0H3"]
    _, ax = offset_profile(made(), heads)
    lines = [line for line in ax.lines if line.get_label() in heads]
    assert [line.get_label() for line in lines] == heads
    assert len({line.get_linestyle() for line in lines}) == len({line.get_marker() for line in lines}) == 4
    assert len({line.get_color() for line in lines}) == 4


@pytest.mark.parametrize("causal", [True, False])
@pytest.mark.parametrize("width", [1, 2, 3, 64, 200])
def test_offset_profile_ticks_do_not_collide(width: int, causal: bool) -> None:
    stats = collected(metrics=[OffsetProfile(width)], causal=causal)
    figure, ax = offset_profile(stats, "L0H0")
    figure.canvas.draw()
    boxes = sorted((b.x0, b.x1) for b in (label.get_window_extent() for label in ax.get_xticklabels()))
    assert len(boxes) >= 3
    assert all(a[1] < b[0] for a, b in itertools.pairwise(boxes))
    assert max(ticks(ax).items())[1] == f">{width}"


def test_offset_profile_draws_a_head_without_value() -> None:
    figure, ax = offset_profile(null_heads(2, metrics=["offset_profile"]), ["L0H0", "L0H3"])
    figure.canvas.draw()
    assert all(np.isnan(value) for value in drawn(main_lines(ax)[:1]).values())


def test_offset_profile_uses_the_axes_given() -> None:
    figure, (left, right) = plt.subplots(1, 2)
    assert offset_profile(made(), "L0H0", ax=right) == (figure, right)
    assert not left.lines
    assert plt.get_fignums() == [figure.number]


def test_offset_profile_refuses_what_it_cannot_draw() -> None:
    with pytest.raises(MetricError, match="head='L9H0': expected a name from L0H0 to L2H3"):
        offset_profile(made(), ["L0H0", "L9H0"])
    with pytest.raises(MetricError, match="heads=\\[\\]: expected one or more names"):
        offset_profile(made(), [])
    with pytest.raises(MetricError, match="no statistic 'offset_profile' here"):
        offset_profile(collected(metrics=["distance"]), "L0H0")
    assert not plt.get_fignums()
