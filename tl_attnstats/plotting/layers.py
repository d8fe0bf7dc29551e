"""Figures of means over the heads of each layer."""

from __future__ import annotations

from collections.abc import Iterable

import numpy as np
from matplotlib.axes import Axes
from matplotlib.figure import Figure

from tl_attnstats.errors import FigureError
from tl_attnstats.plotting.common import SMALL, axes_of, grid_of, layer_image, layer_means, number_ticks, title_of
from tl_attnstats.results.character import EDGE
from tl_attnstats.results.stats import AttentionStats

DIRECTIONS = {
    "from_parent": "from parent to dependent",
    "to_parent": "from dependent to parent",
    "either": "either direction",
}


def alignment_by_layer(stats: AttentionStats, *, axes: Iterable[Axes] | None = None) -> tuple[Figure, list[Axes]]:
    """Draw how much attention follows dependencies, layer by layer (Vig & Belinkov 2019, fig. 8).

    Points are means over the heads of a layer. Error bars are the mean of the heads' standard errors. This is an upper
    bound on the standard error of the mean, because heads see the same sentences and their errors may be correlated.
    The dashed line, if its statistic was collected, is the share of token pairs in a relation, regardless of attention.

    Args:
        stats: the statistics.
        axes: where to draw, one each for "from_parent", "to_parent" and "either"; None creates a figure in which all
            three share a scale.

    Returns:
        The figure and the three axes.

    Raises:
        MetricError: `dependency_alignment` was not collected.
        FigureError: there are not three axes.
    """
    name = "dependency_alignment"
    layers = stats[name]["layer"].values
    figure, panels = grid_of(axes, 3, 3, (3.2, 3), sharey=True)
    for panel, (direction, words) in zip(panels, DIRECTIONS.items(), strict=True):
        means, errors = layer_means(stats, name, direction=direction)
        panel.errorbar(range(len(layers)), means, yerr=errors, fmt="o-", markersize=3, linewidth=1, capsize=2)
        if "dependency_baseline" in stats.dataset:
            baseline = float(stats["dependency_baseline"].sel(direction=direction))
            panel.axhline(baseline, color="tab:orange", linestyle="--", label="share of token pairs (baseline)")
        number_ticks(panel.xaxis, layers, 12)
        panel.set(xlabel="layer", title=words)
    panels[0].set(ylabel="share of content attention")
    if "dependency_baseline" in stats.dataset:
        panels[0].legend(fontsize="small", frameon=False)
    for panel in panels:  # after all are drawn, because panels may share a scale
        panel.set_ylim(bottom=0)
    if axes is None:
        figure.suptitle(f"{title_of(stats, name)}, mean over heads")
    return figure, panels


def alignment_excess(stats: AttentionStats, *, axes: Iterable[Axes] | None = None) -> tuple[Figure, list[Axes]]:
    """Draw how much of the alignment with dependencies is more than position, layer by layer.

    All lines are means over the heads of a layer, in shares of content attention: alignment; alignment by position,
    which a head would have if it looked at offsets alone; and the excess, alignment less that by position. Error bars
    of the excess are the mean of the heads' standard errors, an upper bound on the standard error of the mean. The
    grey band is 0.003 up and down: even a purely positional head can have such an excess.

    Args:
        stats: the statistics, each `[layer, head, direction]`.
        axes: where to draw, one each for "from_parent", "to_parent" and "either"; None creates a figure in which all
            three share a scale.

    Returns:
        The figure and the three axes.

    Raises:
        MetricError: `dependency_alignment`, `alignment_by_position` or `alignment_excess` is not in the statistics.
        FigureError: there are not three axes.
    """
    lines = {
        "dependency_alignment": ("alignment", "tab:blue", "o-"),
        "alignment_by_position": ("by position alone", "tab:orange", "s--"),
        "alignment_excess": ("excess", "tab:green", "D-"),
    }
    for name in lines:
        layers = stats[name]["layer"].values  # raises for any that is missing, before there is a figure
    figure, panels = grid_of(axes, 3, 3, (3.4, 3.2), sharey=True)
    for panel, (direction, words) in zip(panels, DIRECTIONS.items(), strict=True):
        panel.axhspan(-EDGE, EDGE, color="0.8", linewidth=0)
        for name, (label, colour, style) in lines.items():
            means, errors = layer_means(stats, name, direction=direction)
            panel.errorbar(
                range(len(layers)), means, yerr=errors if name == "alignment_excess" else None, fmt=style,
                color=colour, markersize=3, linewidth=1, capsize=2, label=label,
            )  # fmt: skip
        number_ticks(panel.xaxis, layers, 12)
        panel.set(xlabel="layer", title=words)
    panels[0].set(ylabel="share of content attention")
    panels[0].legend(fontsize="small", frameon=False)
    if axes is None:
        figure.suptitle("Attention along dependencies and beyond position, mean over heads")
    return figure, panels


def relations_by_layer(
    stats: AttentionStats, *, n: int = 16, share_scale: bool = False, ax: Axes | None = None
) -> tuple[Figure, Axes]:
    """Draw attention to each dependency relation by layer, as means over heads (Vig & Belinkov 2019, fig. 9).

    Relations are those of the receiving tokens. They are sorted by attention, the largest on the left; layers go down.
    Each column has its own scale, from 0 to its largest mean, which is written above it, because a few relations take
    nearly all the attention.

    Args:
        stats: the statistics.
        n: number of relations to draw, those with most attention.
        share_scale: use one scale for all columns, without numbers above them.
        ax: where to draw; None creates a figure of suitable size.

    Returns:
        The figure and the axes.

    Raises:
        MetricError: `dep_to` was not collected.
        FigureError: `n` is below 1.
    """
    if n < 1:
        raise FigureError(f"n={n}: expected a number of relations from 1")
    means = stats["dep_to"].mean("head").transpose("layer", "relation")
    order = np.argsort(-means.mean("layer").values, kind="stable")[:n]
    means = means.isel(relation=order)
    largest = means.max("layer")
    figure, ax = axes_of(ax, (2.2 + 0.32 * max(8, len(order)), 2.6 + 0.16 * max(10, means.sizes["layer"])))
    image = layer_image(ax, means if share_scale else means / largest.where(largest > 0, 1), most=(len(order), 32))
    ax.tick_params(axis="x", rotation=90)
    title = title_of(stats, "dep_to") + ", mean over heads"
    ax.set(xlabel="relation of the token attended to", ylabel="layer")
    ax.set_title(title, pad=6 if share_scale else 30)
    label = "share" if share_scale else "share / largest of its column"
    figure.colorbar(image, ax=ax, label=label)
    if not share_scale:
        for column, value in enumerate(largest.values):
            ax.annotate(
                f"{value:.2g}", (column, 1), (0, 3), xycoords=ax.get_xaxis_transform(), textcoords="offset points",
                ha="center", va="bottom", fontsize=SMALL, rotation=90,
            )  # fmt: skip
    return figure, ax
