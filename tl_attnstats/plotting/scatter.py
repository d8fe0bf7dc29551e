"""Scatter plots of two statistics, one point per head."""

from __future__ import annotations

import itertools
from typing import Any

import numpy as np
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from matplotlib.text import Annotation
from matplotlib.ticker import MaxNLocator

from tl_attnstats.errors import FigureError
from tl_attnstats.plotting.common import axes_of, title_of, unit_of
from tl_attnstats.results.ranking import DOUBT
from tl_attnstats.results.stats import AttentionStats, Correlation, head_name

DIRECTIONS = [(x, y) for x, y in itertools.product((-1, 0, 1), repeat=2) if (x, y) != (0, 0)]
RADII = (3, 12, 24, 40)
"""Distances of a name from its point to try, in points."""


def scatter(
    stats: AttentionStats, x: str, y: str, *, ax: Axes | None = None, n_named: int = 5, **labels: Any
) -> tuple[Figure, Axes]:
    """Draw two statistics against each other, one point per head, coloured by layer, with Pearson's r over heads.

    Heads that are doubtful in either statistic (`AttentionStats.doubtful`) are crossed out, but count in r.

    Names are placed in the current layout, so create all neighbouring axes first.

    Args:
        stats: the statistics.
        x: the statistic on the x axis.
        y: the statistic on the y axis.
        ax: where to draw; None creates a figure.
        n_named: number of outlying heads to name, by Mahalanobis distance.
        labels: `tag="NOUN"`, `direction="either"` and so on; they apply to whichever of the two has them.

    Returns:
        The figure and the axes.

    Raises:
        MetricError: a statistic or label is unknown, or fewer than three heads have both values.
        FigureError: `n_named` is below 0.
    """
    if n_named < 0:
        raise FigureError(f"n_named={n_named}: expected 0 or more heads")
    correlation = stats.correlation(x, y, **labels)
    own = [{dim: label for dim, label in labels.items() if dim in stats[name].dims} for name in (x, y)]
    values = [stats.head_values(name, **chosen) for name, chosen in zip((x, y), own, strict=True)]
    points = np.stack([array.values.flatten() for array in values], 1)
    heads = np.array(list(itertools.product(values[0]["layer"].values, values[0]["head"].values)))
    there = np.isfinite(points).all(1)
    points, heads = points[there], heads[there]

    figure, ax = axes_of(ax, (5.6, 4.4))
    drawn = ax.scatter(
        points[:, 0], points[:, 1], c=heads[:, 0], cmap="viridis", s=16, edgecolors="0.3", linewidths=0.3
    )
    doubtful = [stats.doubtful(name, **chosen).values for name, chosen in zip((x, y), own, strict=True)]
    crossed = points[(doubtful[0] | doubtful[1]).flatten()[there]]
    if len(crossed):
        ax.plot(crossed[:, 0], crossed[:, 1], "x", color="tab:red", markersize=5, markeredgewidth=0.8,
                label=f"doubtful: {DOUBT}")  # fmt: skip
        ax.legend(loc="upper center", bbox_to_anchor=(0.5, -0.14), frameon=False, fontsize="small", handletextpad=0.2)
    figure.colorbar(drawn, ax=ax, label="layer", ticks=MaxNLocator(integer=True, nbins=10))
    titles = [title_of(stats, name, chosen.values()) for name, chosen in zip((x, y), own, strict=True)]
    ax.set(xlabel=f"{titles[0]} ({unit_of(stats, x)})", ylabel=f"{titles[1]} ({unit_of(stats, y)})")
    ax.set_title(_summary(correlation))
    furthest = np.argsort(-_distances(points), kind="stable")[:n_named]
    _name(ax, points, {int(i): head_name(*heads[i]) for i in furthest})
    return figure, ax


def _summary(correlation: Correlation) -> str:
    r, p, n = correlation
    if np.isnan(r):
        return f"no correlation: one of the two is constant, {n} heads"
    return f"r = {r:.2f}, {f'p = {p:.3f}' if p >= 0.001 else 'p < 0.001'}, {n} heads".replace("-", "−")


def _distances(points: np.ndarray) -> np.ndarray:
    """Squared Mahalanobis distance of each point from the mean; directions without spread contribute 0."""
    spread = points.std(0)
    centred = (points - points.mean(0)) / np.where(spread > 0, spread, 1)
    return np.asarray((centred @ np.linalg.pinv(np.cov(centred.T)) * centred).sum(1))


def _name(ax: Axes, points: np.ndarray, names: dict[int, str]) -> None:
    """Write names beside their points: inside the axes, over no other name, and over as few points as possible."""
    figure = ax.get_figure()
    assert figure is not None
    figure.figure.draw_without_rendering()  # settles the layout, so that positions are known
    pixels = ax.transData.transform(points)
    frame = ax.get_window_extent()
    scale = figure.figure.dpi / 72
    taken: list[tuple[float, float, float, float]] = []
    for index, name in names.items():
        note = Annotation(
            name, points[index], (0, 0), textcoords="offset points", ha="center", va="center", fontsize="small",
            arrowprops={"arrowstyle": "-", "linewidth": 0.5, "color": "0.4", "shrinkA": 0, "shrinkB": 2},
        )  # fmt: skip
        ax.add_artist(note)
        size = note.get_window_extent()
        width, height = size.width + 2 * scale, size.height
        best: tuple[float, tuple[float, float, float, float], tuple[float, float]] | None = None
        for radius, (dx, dy) in itertools.product(RADII, DIRECTIONS):
            x, y = (
                float(pixels[index, 0] + dx * (radius * scale + width / 2)),
                float(pixels[index, 1] + dy * (radius * scale + height / 2)),
            )
            box = (x - width / 2, y - height / 2, x + width / 2, y + height / 2)
            outside = box[0] < frame.x0 or box[1] < frame.y0 or box[2] > frame.x1 or box[3] > frame.y1
            covered = ((pixels > box[:2]) & (pixels < box[2:])).all(1).sum()
            cost = 1000 * sum(_overlap(box, other) for other in taken) + 100 * outside + covered + radius / 20
            if best is None or cost < best[0]:
                best = (cost, box, ((x - pixels[index, 0]) / scale, (y - pixels[index, 1]) / scale))
        assert best is not None
        taken.append(best[1])
        note.set_position(best[2])


def _overlap(a: tuple[float, float, float, float], b: tuple[float, float, float, float]) -> bool:
    return a[0] < b[2] and b[0] < a[2] and a[1] < b[3] and b[1] < a[3]
