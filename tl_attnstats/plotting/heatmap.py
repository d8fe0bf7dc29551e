"""A heatmap of a statistic by layer and head."""

from __future__ import annotations

from typing import Any

import numpy as np
from matplotlib.axes import Axes
from matplotlib.collections import LineCollection, PatchCollection
from matplotlib.figure import Figure
from matplotlib.patches import Patch, Rectangle
from matplotlib.transforms import ScaledTranslation

from tl_attnstats.errors import FigureError
from tl_attnstats.plotting.common import axes_of, layer_image, layer_means, title_of, unit_of
from tl_attnstats.results.stats import DOUBTFUL_ERROR, DOUBTFUL_NULL, AttentionStats

GREY = "#d0d0d0"


def heatmap(
    stats: AttentionStats,
    name: str,
    *,
    ax: Axes | None = None,
    side_bar: bool = False,
    doubtful: bool = True,
    max_error: float = DOUBTFUL_ERROR,
    **labels: Any,
) -> tuple[Figure, Axes]:
    """Draw a statistic of every head: layers down (0 at the top), heads across, and a colour bar with the unit.

    Heads without a value are white.

    Args:
        stats: the statistics.
        name: the statistic.
        ax: where to draw; None creates a figure of suitable size.
        side_bar: draw the mean of each layer as a bar on the right. Its error bar is the mean of the heads' standard
            errors, an upper bound on the standard error of the mean; `variability` has none.
        doubtful: grey and strike out heads whose value is ill-determined by `AttentionStats.doubtful`.
        max_error: the largest error that is not doubtful, as a share of the value.
        labels: `tag="NOUN"`, `direction="either"` and so on, if the statistic has them.

    Returns:
        The figure and the axes of the map.

    Raises:
        MetricError: the statistic or label is unknown, or the statistic has no value for each head.
        FigureError: a side bar is requested for axes that are not part of a grid.
    """
    values = stats.head_values(name, **labels)
    n_layers, n_heads = values.shape
    size = (2.2 + 0.28 * max(8, n_heads) + 1.2 * side_bar, 1.2 + 0.22 * max(8, n_layers))
    if side_bar and ax is not None and ax.get_subplotspec() is None:
        raise FigureError(
            "side_bar=True: got axes placed by hand, expected axes of a grid, such as those of plt.subplots"
        )
    figure, ax = axes_of(ax, size)
    image = layer_image(ax, values)
    ax.set(xlabel="head", ylabel="layer")
    ax.set_title(title_of(stats, name, labels.values()), wrap=True, fontsize="medium")
    beside = [ax, _side_bar(ax, *layer_means(stats, name, **labels))] if side_bar else [ax]
    figure.colorbar(image, ax=beside, label=unit_of(stats, name))
    if doubtful:
        mask = stats.doubtful(name, max_error=max_error, **labels)
        strike_out(ax, mask.values)
        if mask.any():
            note_doubt(ax, stats, name, max_error)
    return figure, ax


def _side_bar(ax: Axes, means: np.ndarray, errors: np.ndarray) -> Axes:
    """Draw layer means as bars in new axes, which take part of the space of `ax`."""
    place, figure = ax.get_subplotspec(), ax.get_figure()
    assert place is not None
    assert figure is not None
    grid = place.subgridspec(1, 2, width_ratios=(min(max(8, ax.images[0].get_size()[1]), 32), 4), wspace=0.08)
    ax.set_subplotspec(grid[0])
    side = figure.add_subplot(grid[1], sharey=ax)
    side.barh(range(len(means)), means, xerr=errors, color="tab:gray", error_kw={"elinewidth": 0.8})
    side.tick_params(left=False, labelleft=False)
    side.set_xlabel("layer mean")
    side.spines[["top", "right"]].set_visible(False)
    return side


def _reasons(stats: AttentionStats, name: str, max_error: float) -> list[str]:
    """The criteria by which this statistic can be doubtful."""
    reasons = [f"null share above {DOUBTFUL_NULL}"] if stats.judged_by_null(name) else []
    error = stats.error_of(name)
    if error is not None:
        reasons.append(f"{'error' if error.endswith('_se') else 'binning error'} above {max_error:.0%}")
    return reasons


def strike_out(ax: Axes, mask: np.ndarray) -> None:
    """Grey cells of a map and strike them out, which is visible in black-and-white print. `mask` is `[layer, head]`."""
    cells = [(float(x), float(y)) for y, x in np.argwhere(mask)]
    if not cells:
        return
    squares = [Rectangle((x - 0.5, y - 0.5), 1, 1) for x, y in cells]
    ax.add_collection(PatchCollection(squares, facecolor=GREY, alpha=0.7, linewidth=0), autolim=False)
    strokes = [((x - 0.5, y + 0.5), (x + 0.5, y - 0.5)) for x, y in cells]
    ax.add_collection(LineCollection(strokes, colors="0.3", linewidths=0.7), autolim=False)


def note_doubt(ax: Axes, stats: AttentionStats, name: str, max_error: float = DOUBTFUL_ERROR) -> None:
    """Say below a map what its struck-out heads are."""
    figure = ax.get_figure()
    assert figure is not None
    # Place the note below tick labels and axis label, which take about three lines.
    below = ScaledTranslation(
        0, -3.4 * ax.xaxis.label.get_fontproperties().get_size_in_points() / 72, figure.dpi_scale_trans
    )
    ax.legend(
        [Patch(facecolor=GREY, edgecolor="0.3", hatch="//", linewidth=0.5)],
        ["doubtful: " + " or\n".join(_reasons(stats, name, max_error))],
        loc="upper center",
        bbox_to_anchor=(0.5, 0),
        bbox_transform=ax.transAxes + below,
        borderaxespad=0,
        frameon=False,
        fontsize="small",
    )
