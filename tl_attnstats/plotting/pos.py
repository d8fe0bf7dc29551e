"""A small map of all heads for each part of speech."""

from __future__ import annotations

from collections.abc import Iterable

import numpy as np
from matplotlib.axes import Axes
from matplotlib.figure import Figure

from tl_attnstats.errors import MetricError
from tl_attnstats.plotting.common import SMALL, grid_of, layer_image, title_of, unit_of
from tl_attnstats.plotting.text import plain
from tl_attnstats.results.stats import AttentionStats

COLUMNS = 5
LEAST_SCALE = 0.01
"""Minimum upper end of a panel's scale, so that a tag with hardly any attention stays dark."""


def pos_grid(
    stats: AttentionStats,
    name: str = "pos_to",
    *,
    tags: str | Iterable[str] | None = None,
    share_scale: bool = False,
    axes: Iterable[Axes] | None = None,
) -> tuple[Figure, list[Axes]]:
    """Draw a heatmap of layers by heads for each part of speech (Vig & Belinkov 2019, figs. 6, 7, A.1 and A.2).

    The maps are too small to mark doubtful heads. Check a tag with `heatmap` before naming a head.

    Args:
        stats: the statistics.
        name: "pos_to" or "pos_from".
        tags: one tag or several, in the order of the panels; None for all.
        share_scale: use one colour scale for all panels. By default each panel's scale ends at its largest value, or at
            0.01 if that is larger.
        axes: where to draw, one per tag; None creates a figure of suitable size.

    Returns:
        The figure and the axes, one per tag.

    Raises:
        MetricError: the statistic or tag is unknown, or the statistic has no tags.
        FigureError: the number of axes is not the number of tags.
    """
    if "tag" not in stats[name].dims:
        raise MetricError(f"{name} has no tag; expected pos_to or pos_from")
    chosen = [tags] if isinstance(tags, str) else list(stats[name]["tag"].values if tags is None else tags)
    if not chosen:
        raise MetricError("tags=[]: expected one or more tags")
    maps = [stats.head_values(name, tag=tag) for tag in chosen]
    n_layers, n_heads = maps[0].shape
    size = (0.65 + float(np.clip(0.05 * n_heads, 1, 2.4)), 0.45 + float(np.clip(0.04 * n_layers, 1, 2)))
    figure, panels = grid_of(axes, len(chosen), COLUMNS, size)
    largest = float(stats[name].sel(tag=chosen).fillna(0).max()) if share_scale else None
    for panel, tag, values in zip(panels, chosen, maps, strict=True):
        own = max(LEAST_SCALE, float(values.fillna(0).max()))
        image = layer_image(panel, values, largest if share_scale else own, most=(6, 8))
        panel.set_title(plain(str(tag)), fontsize=SMALL + 2, pad=3)
        panel.tick_params(labelsize=SMALL, length=2, pad=1.5)
        if axes is not None:
            panel.set(xlabel="head", ylabel="layer")
        if not share_scale:
            bar = figure.colorbar(image, ax=panel, ticks=image.get_clim(), format="%.2g", pad=0.02)
            bar.ax.tick_params(labelsize=SMALL, length=2, pad=1.5)
    if share_scale:
        figure.colorbar(image, ax=panels, label=unit_of(stats, name), aspect=40)
    if axes is None:
        figure.suptitle(f"{title_of(stats, name)} ({unit_of(stats, name)})")
        figure.supxlabel("head", fontsize="medium")
        figure.supylabel("layer", fontsize="medium")
    return figure, panels
