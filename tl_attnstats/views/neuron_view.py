"""One head, one input, one attending token: how its attention is computed (Vig & Belinkov 2019, fig. 3)."""

from __future__ import annotations

from collections.abc import Sequence

import matplotlib.pyplot as plt
import numpy as np
from matplotlib.axes import Axes
from matplotlib.colors import LinearSegmentedColormap
from matplotlib.figure import Figure

from tl_attnstats.errors import FigureError
from tl_attnstats.plotting.text import plain_token
from tl_attnstats.views.head_view import check_one_text, find_head, find_token
from tl_attnstats.views.neurons import softmax
from tl_attnstats.views.text_attention import TextAttention

NEGATIVE, POSITIVE = "#d95f02", "#1f5fa8"
SIGNED = LinearSegmentedColormap.from_list("orange_blue", [NEGATIVE, "white", POSITIVE])
N_PANELS = 5


def neuron_view(
    attention: TextAttention,
    head: str,
    query: int | str | None = None,
    *,
    axes: Sequence[Axes] | np.ndarray | None = None,
) -> tuple[Figure, np.ndarray]:
    """Draw query vector, key vectors, their products, scores and softmax. Each key is a row; positive values are blue.

    Vectors are shown after rotary embedding, if the model has one. Keys that the token cannot reach are left out.

    Args:
        attention: the attention of one input, made with `neurons=True`.
        head: "L8H6".
        query: the attending token, given by position or text; None for the last one that is not null.
        axes: five axes to draw in, left to right; None creates a figure of suitable size.

    Returns:
        The figure and the five axes: `q`, `k`, `q × k`, score and softmax.

    Raises:
        FigureError: there are no vectors, or not five axes, or it is the attention between two texts.
        MetricError: the head or token does not exist.
    """
    check_one_text(attention)
    if attention.neurons is None:
        raise FigureError("neuron_view: no query and key vectors here; pass neurons=True to attention_of")
    layer, number = find_head(attention, head)
    row = int(np.flatnonzero(~attention.null)[-1]) if query is None else find_token(attention, query)
    reached = np.flatnonzero(attention.pattern[layer, number, row] > 0)
    q = attention.neurons.queries[layer, number, row]
    k = attention.neurons.keys[layer, number, reached]
    scores = attention.neurons.scale[layer] * (k @ q)
    panels = _axes(axes, len(reached))
    tokens = [plain_token(attention.tokens[key]) for key in reached]
    _image(
        panels[0],
        q[None],
        [int(np.searchsorted(reached, row))],
        [plain_token(attention.tokens[row])],
        f"{head}: query q",
    )
    _image(panels[1], k, range(len(reached)), tokens, "keys k")
    _image(panels[2], q * k, [], [], "products q × k")
    _bars(panels[3], scores, f"sum × {attention.neurons.scale[layer]:.3g}")
    _bars(panels[4], softmax(scores, np.full(len(scores), True)), "softmax")
    panels[4].set(xlim=(0, 1.35), xticks=(0, 1))
    for ax in panels:
        ax.set_ylim(len(reached) - 0.5, -0.5)
        ax.spines[:].set_visible(ax in panels[1:3])
        ax.spines[:].set_color("0.85")
    figure = panels[0].get_figure()
    assert figure is not None
    return figure.figure, panels  # for a subfigure, the whole figure


def _axes(axes: Sequence[Axes] | np.ndarray | None, n_rows: int) -> np.ndarray:
    if axes is None:
        size = (9.5, 1.5 + 0.2 * max(4, n_rows))
        axes = plt.subplots(1, N_PANELS, figsize=size, width_ratios=(3, 3, 3, 2, 2), layout="constrained")[1]
    panels = np.asarray(axes, dtype=object).ravel()
    if len(panels) != N_PANELS:
        raise FigureError(f"axes: got {len(panels)}, expected {N_PANELS}: q, k, q × k, score, softmax")
    return panels


def _image(ax: Axes, values: np.ndarray, rows: Sequence[int], labels: Sequence[str], title: str) -> None:
    """Draw vectors as rows of colours, white at 0, starting at the first of `rows`, or at the top."""
    top = (rows[0] if rows else 0) - 0.5
    most = float(np.abs(values).max()) or 1.0
    extent = (-0.5, values.shape[1] - 0.5, top + len(values), top)
    image = ax.imshow(values, cmap=SIGNED, vmin=-most, vmax=most, aspect="auto", interpolation="nearest", extent=extent)
    ax.set_yticks(rows, labels)
    ax.tick_params(length=0)
    ax.set(xticks=(), title=title)
    figure = ax.get_figure()
    assert figure is not None
    figure.colorbar(image, ax=ax, orientation="horizontal", ticks=(-most, 0, most), format="%.3g", aspect=30)


def _bars(ax: Axes, values: np.ndarray, title: str) -> None:
    bars = ax.barh(range(len(values)), values, color=np.where(values < 0, NEGATIVE, POSITIVE))
    ax.bar_label(bars, fmt="{:.2f}", padding=2, fontsize="x-small")
    ax.margins(x=0.3)  # room for the numbers
    ax.set(yticks=(), title=title)
