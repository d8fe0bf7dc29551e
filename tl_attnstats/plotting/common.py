"""Helpers shared by all figures: axes, layer-by-head images, ticks, titles, layer means."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from typing import Any

import matplotlib.pyplot as plt
import numpy as np
import xarray as xr
from matplotlib.axes import Axes
from matplotlib.axis import Axis
from matplotlib.figure import Figure
from matplotlib.image import AxesImage

from tl_attnstats.errors import FigureError
from tl_attnstats.plotting.text import plain
from tl_attnstats.results.stats import AttentionStats

SMALL = 7
"""Font size in small panels, in points."""


def axes_of(ax: Axes | None, size: tuple[float, float]) -> tuple[Figure, Axes]:
    """The given axes, or those of a new figure of `size` inches, and their figure (the whole one for a subfigure)."""
    if ax is None:
        _, ax = plt.subplots(figsize=size, layout="constrained")
    figure = ax.get_figure()
    assert figure is not None
    return figure.figure, ax


def grid_of(
    axes: Iterable[Axes] | None, n: int, columns: int, size: tuple[float, float], **shared: Any
) -> tuple[Figure, list[Axes]]:
    """The `n` given axes, or new ones in a grid with `columns` columns and panels of `size` inches."""
    if axes is not None:
        given = list(np.ravel(np.asarray(axes, dtype=object)))
        if len(given) != n:
            raise FigureError(f"axes: got {len(given)}, expected {n}, one per panel")
        return axes_of(given[0], size)[0], given
    columns = min(n, columns)
    rows = -(-n // columns)
    figsize = (columns * size[0], rows * size[1])
    figure, made = plt.subplots(rows, columns, figsize=figsize, layout="constrained", squeeze=False, **shared)
    for unused in made.flat[n:]:
        unused.remove()
    return figure, list(made.flat[:n])


def layer_image(
    ax: Axes, values: xr.DataArray, vmax: float | None = None, most: tuple[int, int] = (16, 32)
) -> AxesImage:
    """Draw layers (down, 0 at the top) by the other dimension of `values`, with at most `most` ticks across and down.

    Colours start at 0, so that two figures can be compared by eye.
    """
    image = ax.imshow(values.values, cmap="viridis", vmin=0, vmax=vmax, aspect="auto", interpolation="nearest")
    across, down = (values[dim].values for dim in (values.dims[1], "layer"))
    number_ticks(ax.xaxis, across, most[0])
    number_ticks(ax.yaxis, down, most[1])
    return image


def number_ticks(axis: Axis, labels: Sequence[Any] | np.ndarray, most: int) -> None:
    """Put labels at 0, 1, 2 …; thin them out to at most `most`, so that they do not overlap."""
    step = -(-len(labels) // most)
    axis.set_ticks(range(0, len(labels), step), labels=[plain(str(label)) for label in labels[::step]])


def title_of(stats: AttentionStats, name: str, labels: Iterable[Any] = ()) -> str:
    """The title of a statistic with its labels: "attention to part of speech: NOUN"."""
    title = str(stats[name].attrs.get("long_name", name))
    chosen = ", ".join(str(label) for label in labels)
    return plain(f"{title}: {chosen}" if chosen else title)


def unit_of(stats: AttentionStats, name: str) -> str:
    """The unit of a statistic; "" if it has none."""
    return plain(str(stats[name].attrs.get("units", "")))


def layer_means(stats: AttentionStats, name: str, **labels: Any) -> tuple[np.ndarray, np.ndarray]:
    """Mean over the heads of each layer, and an upper bound on its standard error: the mean of the heads' errors.

    The heads of a layer see the same sentences, so their errors are correlated by an unknown amount. At most, the
    standard error of the mean is the mean of their standard errors. NaN if heads have no standard error (a bound of
    binning does not count).
    """
    means = stats.head_values(name, **labels).mean("head").values
    if f"{name}_se" not in stats.dataset:
        return means, np.full_like(means, np.nan)
    return means, stats.head_values(f"{name}_se", **labels).mean("head").values
