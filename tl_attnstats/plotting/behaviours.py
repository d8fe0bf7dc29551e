"""Heads that look at the previous token, at a repeated one, or at what followed it."""

from __future__ import annotations

from collections.abc import Iterable

import numpy as np
from matplotlib.axes import Axes
from matplotlib.figure import Figure

from tl_attnstats.plotting.common import grid_of, layer_image, title_of
from tl_attnstats.plotting.heatmap import note_doubt, strike_out
from tl_attnstats.results.stats import AttentionStats

KINDS = ("previous", "duplicate", "induction")
NAME = "behaviour"


def behaviours(stats: AttentionStats, *, axes: Iterable[Axes] | None = None) -> tuple[Figure, list[Axes]]:
    """Draw three maps of layers by heads: attention on the previous token, on duplicates, on induction keys.

    Values are shares of content attention, from 0 to 1, over the rows that have such a key. All maps have one colour
    scale, from 0 to the largest value of the three. Above each map is its baseline, the share that evenly spread
    attention would give. Doubtful heads (`AttentionStats.doubtful`) are grey and struck out, heads without a value
    white.

    Args:
        stats: the statistics; `behaviour` is `[layer, head, kind]`.
        axes: where to draw, one each for "previous", "duplicate" and "induction"; None creates a figure.

    Returns:
        The figure and the three axes.

    Raises:
        MetricError: `behaviour` or `behaviour_baseline` is not in the statistics.
        FigureError: there are not three axes.
    """
    values, baselines = stats[NAME], stats["behaviour_baseline"]
    n_layers, n_heads = values.sizes["layer"], values.sizes["head"]
    size = (1.4 + 0.19 * max(8, n_heads), 1.6 + 0.14 * max(12, n_layers))
    figure, panels = grid_of(axes, len(KINDS), len(KINDS), size)
    largest = float(values.fillna(0).max())
    doubtful = stats.doubtful(NAME)
    for panel, kind in zip(panels, KINDS, strict=True):
        # Without any attention all colours are those of 0.
        image = layer_image(panel, values.sel(kind=kind), largest or 1, most=(16, 16))
        strike_out(panel, doubtful.sel(kind=kind).values)
        chance = float(baselines.sel(kind=kind))
        known = "no row has such a key" if np.isnan(chance) else f"baseline {chance:.2g}"
        panel.set_title(f"{kind}\n{known}", fontsize="medium")
        panel.set(xlabel="head", ylabel="layer")
    figure.colorbar(image, ax=panels, label="share of content attention")
    if doubtful.any():
        note_doubt(panels[1], stats, NAME)
    if axes is None:
        figure.suptitle(title_of(stats, NAME))
    return figure, panels
