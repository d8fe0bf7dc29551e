"""Every head on one input: small multiples of the head view (Vig & Belinkov 2019, fig. 2)."""

from __future__ import annotations

from typing import Any

import matplotlib.pyplot as plt
import numpy as np
from matplotlib.axes import Axes
from matplotlib.collections import LineCollection
from matplotlib.colors import to_rgba
from matplotlib.figure import Figure

from tl_attnstats.views.head_view import check_one_text, lines
from tl_attnstats.views.text_attention import TextAttention

CELL = 0.8
"""Share of a cell's width and height that its lines take."""


def model_view(attention: TextAttention, *, hide_null: bool = True, ax: Axes | None = None) -> tuple[Figure, Axes]:
    """Draw a small head view of every head: layers down (0 at the top), heads across, the first token on top.

    Args:
        attention: the attention of one input.
        hide_null: leave out lines to null tokens.
        ax: where to draw; None creates a figure of suitable size.

    Returns:
        The figure and the axes.

    Raises:
        FigureError: it is the attention between two texts.
    """
    check_one_text(attention)
    n_layers, n_heads, n, _ = attention.pattern.shape
    if ax is None:
        _, ax = plt.subplots(figsize=(0.9 + 0.5 * n_heads, 0.9 + 0.42 * n_layers), layout="constrained")
    figure = ax.get_figure()
    assert figure is not None
    weights = np.where(attention.null, 0, attention.pattern) if hide_null else attention.pattern
    ends, opacities = [], []
    for layer, head in np.ndindex(n_layers, n_heads):
        cell, opacity = lines(weights[layer, head])
        cell = cell / (1, max(n - 1, 1)) - 0.5
        ends.append(cell * CELL + (head, layer))
        opacities.append(opacity)
    colors = np.tile(to_rgba("C0"), (sum(map(len, opacities)), 1))
    colors[:, 3] = np.concatenate(opacities)
    every: Any = np.concatenate(ends)
    # A single collection draws quickly. Rasterize it, because vector files would grow by megabytes.
    ax.add_collection(LineCollection(every, colors=colors, linewidths=0.8, rasterized=True))
    ax.set(xlim=(-0.5, n_heads - 0.5), ylim=(n_layers - 0.5, -0.5), xlabel="head", ylabel="layer")
    ax.set_xticks(range(n_heads))
    ax.set_yticks(range(n_layers), [str(layer) for layer in attention.layers])
    ax.set_xticks(np.arange(n_heads - 1) + 0.5, minor=True)
    ax.set_yticks(np.arange(n_layers - 1) + 0.5, minor=True)
    ax.tick_params(length=0, which="both")
    ax.grid(which="minor", color="0.85", linewidth=0.6)
    ax.spines[:].set_color("0.85")
    return figure.figure, ax  # for a subfigure, the whole figure
