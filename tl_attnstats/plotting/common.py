"""What all figures share: axes, images of layers by heads, their ticks and titles, means of layers."""

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
"""Font size, in points, of what is written in small panels."""


def axes_of(ax: Axes | None, size: tuple[float, float]) -> tuple[Figure, Axes]:
    """The axes given and their figure (of a subfigure the whole one), or those of a new figure, its size in inches."""
    if ax is None:
        _, ax = plt.subplots(figsize=size, layout="constrained")
    figure = ax.get_figure()
    assert figure is not None
    return figure.figure, ax


def grid_of(
    axes: Iterable[Axes] | None, n: int, columns: int, size: tuple[float, float], **shared: Any
) -> tuple[Figure, list[Axes]]:
    """The `n` axes given, or new ones in a grid of so many columns; `size` is that of a panel, in inches."""
    if axes is not None:
        given = list(np.ravel(np.asarray(axes, dtype=object)))
        if len(given) != n:
            raise FigureError(f"axes: got {len(given)}, expected {n}, one a panel")
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
    """An image of layers (down, layer 0 at the top) by the other dimension of `values`, with ticks, at `most` so many.

    Colours run from 0, so that those of two figures can be compared by eye.
    """
    image = ax.imshow(values.values, cmap="viridis", vmin=0, vmax=vmax, aspect="auto", interpolation="nearest")
    across, down = (values[dim].values for dim in (values.dims[1], "layer"))
    number_ticks(ax.xaxis, across, most[0])
    number_ticks(ax.yaxis, down, most[1])
    return image


def number_ticks(axis: Axis, labels: Sequence[Any] | np.ndarray, most: int) -> None:
    """A tick a label at 0, 1, 2 …, thinned out where there are more than `most`, so that they do not collide."""
    step = -(-len(labels) // most)
    axis.set_ticks(range(0, len(labels), step), labels=[plain(str(label)) for label in labels[::step]])


def title_of(stats: AttentionStats, name: str, labels: Iterable[Any] = ()) -> str:
    """What a statistic is called, with its labels: "attention to part of speech: NOUN"."""
    title = str(stats[name].attrs.get("long_name", name))
    chosen = ", ".join(str(label) for label in labels)
    return plain(f"{title}: {chosen}" if chosen else title)


def unit_of(stats: AttentionStats, name: str) -> str:
    """The unit of a statistic, "" where it has none."""
    return plain(str(stats[name].attrs.get("units", "")))


def layer_means(stats: AttentionStats, name: str, **labels: Any) -> tuple[np.ndarray, np.ndarray]:
    """Mean over the heads of each layer, and its error: the mean of the heads' standard errors.

    The heads of a layer see the same sentences, so that their errors go together in a degree that nobody kept. The
    mean of their standard errors is the most that the standard error of the mean can be. NaN where heads have none; a
    bound of binning is none.
    """
    means = stats.head_values(name, **labels).mean("head").values
    if f"{name}_se" not in stats.dataset:
        return means, np.full_like(means, np.nan)
    return means, stats.head_values(f"{name}_se", **labels).mean("head").values
