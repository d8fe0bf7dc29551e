"""Layer by head, one colour a value."""

from __future__ import annotations

from typing import Any

import matplotlib.pyplot as plt
from matplotlib.axes import Axes
from matplotlib.figure import Figure

from tl_attnstats.stats import AttentionStats


def heatmap(stats: AttentionStats, name: str, *, ax: Axes | None = None, **labels: Any) -> tuple[Figure, Axes]:
    """Draw a statistic of every head: layers down, layer 0 at the top, heads across, a colour bar with the unit.

    Args:
        stats: the statistics.
        name: which one.
        ax: where to draw; None makes a figure of fitting size.
        labels: `tag="NOUN"`, `direction="either"` and so on, where the statistic has them.

    Returns:
        The figure and the axes.
    """
    values = stats.head_values(name, **labels)
    layers, heads = values["layer"].values, values["head"].values
    if ax is None:
        size = (2.2 + 0.28 * max(8, len(heads)), 1.2 + 0.22 * max(8, len(layers)))
        _, ax = plt.subplots(figsize=size, layout="constrained")
    figure = ax.get_figure()
    assert figure is not None
    # Shares start at 0, so that colours of two figures can be compared by eye.
    image = ax.imshow(values.values, cmap="viridis", vmin=0, aspect="auto", interpolation="nearest")
    attrs = stats[name].attrs
    chosen = ", ".join(str(label) for label in labels.values())
    title = attrs.get("long_name", name)
    ax.set(xlabel="head", ylabel="layer", title=f"{title}: {chosen}" if chosen else title)
    for axis, numbers, most in ((ax.xaxis, heads, 16), (ax.yaxis, layers, 32)):
        step = -(-len(numbers) // most)  # thinned out where labels would collide
        axis.set_ticks(range(0, len(numbers), step), labels=[str(number) for number in numbers[::step]])
    figure.colorbar(image, ax=ax, label=attrs.get("units", ""))
    return figure.figure, ax  # of a subfigure the whole one
