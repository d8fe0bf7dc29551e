from __future__ import annotations

import itertools
from typing import Any

import matplotlib.pyplot as plt
import numpy as np
import pytest
import scipy.spatial.distance

import tl_attnstats as ta
from tests.plotting.made import collected, null_heads
from tl_attnstats.errors import FigureError, MetricError
from tl_attnstats.plotting import scatter


@pytest.fixture(scope="module")
def stats() -> ta.AttentionStats:
    return collected(6, 8, n_sentences=30)


def points(ax: Any) -> np.ndarray:
    return np.asarray(ax.collections[0].get_offsets())


def names(ax: Any) -> list[str]:
    return [text.get_text() for text in ax.texts]


def test_scatter_draws_a_point_a_head_coloured_by_layer(stats: ta.AttentionStats) -> None:
    figure, ax = scatter(stats, "distance", "entropy")
    expected = [(stats["distance"].values[i, j], stats["entropy"].values[i, j]) for i in range(6) for j in range(8)]
    np.testing.assert_array_equal(points(ax), expected)
    np.testing.assert_array_equal(ax.collections[0].get_array(), np.repeat(np.arange(6), 8))
    (bar,) = [other for other in figure.axes if other is not ax]
    assert bar.get_ylabel() == "layer"
    assert ax.get_xlabel() == "attention distance (tokens)"
    assert ax.get_ylabel() == "attention entropy (nats)"


def test_scatter_gives_the_correlation_in_its_title(stats: ta.AttentionStats) -> None:
    r, p, n = stats.correlation("distance", "entropy")
    assert p > 0.001
    _, ax = scatter(stats, "distance", "entropy")
    assert ax.get_title() == f"r = {r:.2f}, p = {p:.3f}, {n} heads".replace("-", "−")
    _, ax = scatter(stats, "distance", "distance")
    assert ax.get_title() == "r = 1.00, p < 0.001, 48 heads"


def test_scatter_applies_a_label_to_the_statistic_that_has_it(stats: ta.AttentionStats) -> None:
    _, ax = scatter(stats, "distance", "dependency_alignment", direction="either")
    np.testing.assert_array_equal(
        points(ax)[:, 1], stats["dependency_alignment"].sel(direction="either").values.flatten()
    )
    assert ax.get_ylabel() == "attention along dependencies: either (share)"
    _, ax = scatter(stats, "pos_to", "pos_from", tag="NOUN")
    assert ax.get_xlabel() == "attention to part of speech: NOUN (share)"
    assert ax.get_ylabel() == "attention from part of speech: NOUN (share)"


def test_scatter_names_the_heads_furthest_out(stats: ta.AttentionStats) -> None:
    x, y = (stats[name].values.flatten() for name in ("distance", "entropy"))
    inverse = np.linalg.inv(np.cov(x, y))
    distance = [scipy.spatial.distance.mahalanobis(p, (x.mean(), y.mean()), inverse) for p in zip(x, y, strict=True)]
    furthest = sorted(range(48), key=lambda i: -distance[i])[:5]
    _, ax = scatter(stats, "distance", "entropy")
    assert names(ax) == [f"L{i // 8}H{i % 8}" for i in furthest]
    assert [note.xy for note in ax.texts] == [pytest.approx((x[i], y[i])) for i in furthest]


@pytest.mark.parametrize("n_named", [0, 3, 20, 100])
def test_scatter_names_overlap_neither_each_other_nor_the_frame(stats: ta.AttentionStats, n_named: int) -> None:
    figure, ax = scatter(stats, "distance", "entropy", n_named=n_named)
    figure.canvas.draw()
    assert len(ax.texts) == min(n_named, 48)
    if n_named > 20:
        return  # more names than there is room for
    # Boxes without the line to the point.
    boxes = [plt.Text.get_window_extent(note) for note in ax.texts]
    assert not any(a.overlaps(b) for a, b in itertools.combinations(boxes, 2))
    frame = ax.get_window_extent()
    assert all(frame.x0 <= b.x0 and b.x1 <= frame.x1 and frame.y0 <= b.y0 and b.y1 <= frame.y1 for b in boxes)


def test_scatter_leaves_out_heads_without_value() -> None:
    stats = null_heads(1, metrics=["distance", "null_share"])
    _, ax = scatter(stats, "null_share", "distance")
    assert len(points(ax)) == 3
    assert set(names(ax)) == {"L0H1", "L0H2", "L0H3"}
    with pytest.raises(MetricError, match="correlation: 2 heads have both distance and null_share, expected 3"):
        scatter(null_heads(2, metrics=["distance", "null_share"]), "distance", "null_share")


def test_scatter_of_a_constant_says_so() -> None:
    stats = collected()
    stats.dataset["entropy"][:] = 0.25
    figure, ax = scatter(stats, "distance", "entropy")
    figure.canvas.draw()
    assert ax.get_title() == "no correlation: one of the two is constant, 12 heads"
    values = stats["distance"].values.flatten()
    furthest = int(np.abs(values - values.mean()).argmax())
    assert names(ax)[0] == f"L{furthest // 4}H{furthest % 4}"


def test_scatter_uses_the_axes_given(stats: ta.AttentionStats) -> None:
    figure, (left, right) = plt.subplots(1, 2)
    assert scatter(stats, "distance", "entropy", ax=right) == (figure, right)
    assert (len(left.collections), len(right.collections)) == (0, 1)
    assert plt.get_fignums() == [figure.number]


def test_scatter_refuses_what_it_cannot_draw(stats: ta.AttentionStats) -> None:
    with pytest.raises(MetricError, match="neither distance nor entropy has tag"):
        scatter(stats, "distance", "entropy", tag="NOUN")
    with pytest.raises(MetricError, match="no statistic 'entropie' here"):
        scatter(stats, "distance", "entropie")
    with pytest.raises(FigureError, match="n_named=-1: expected 0 or more heads"):
        scatter(stats, "distance", "entropy", n_named=-1)
    assert not plt.get_fignums()
