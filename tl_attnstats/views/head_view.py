"""One or a few heads on one input: lines from each token to the tokens it attends to (Vig & Belinkov 2019, fig. 1)."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import matplotlib.pyplot as plt
import numpy as np
from jaxtyping import Float
from matplotlib.axes import Axes
from matplotlib.collections import LineCollection
from matplotlib.colors import to_rgba
from matplotlib.figure import Figure
from matplotlib.lines import Line2D

from tl_attnstats.errors import FigureError, MetricError
from tl_attnstats.plotting.text import plain_token
from tl_attnstats.results import stats
from tl_attnstats.views.text_attention import TextAttention

FAINTEST = 1 / 255
"""Lines of smaller weight are not drawn, because 8-bit opacity cannot show them."""
NULL_COLOR = "0.6"


def head_view(
    attention: TextAttention,
    heads: str | Sequence[str],
    *,
    query: int | str | None = None,
    hide_null: bool = True,
    ax: Axes | None = None,
) -> tuple[Figure, Axes]:
    """Draw attending tokens on the left and receiving tokens on the right; a line's opacity is its weight.

    Args:
        attention: the attention of one input.
        heads: "L8H6", or several heads, each in its own colour.
        query: draw only the lines of this token, given by position or text; None for all.
        hide_null: leave out lines to null tokens, and write these in grey.
        ax: where to draw; None creates a figure of suitable size.

    Returns:
        The figure and the axes.

    Raises:
        MetricError: a head or token does not exist.
        FigureError: it is the attention between two texts.
    """
    check_one_text(attention)
    names = [heads] if isinstance(heads, str) else list(heads)
    patterns = [attention.pattern[find_head(attention, name)] for name in names]
    if not names:
        raise MetricError("heads: got none, expected names such as L8H6")
    row = None if query is None else find_token(attention, query)
    n = len(attention.tokens)
    if ax is None:
        _, ax = plt.subplots(figsize=(4.2, 1.1 + 0.21 * n), layout="constrained")
    figure = ax.get_figure()
    assert figure is not None
    for index, pattern in enumerate(patterns):
        weights = pattern if row is None else np.where(np.arange(n)[:, None] == row, pattern, 0)
        weights = np.where(attention.null, 0, weights) if hide_null else weights
        ends, opacity = lines(weights)
        ends[..., 1] += (
            0.5 * (index - (len(names) - 1) / 2) / len(names)
        )  # draw heads side by side, not on top of each other
        color = f"C{index}"
        ax.add_collection(LineCollection(ends, colors=[(*to_rgba(color)[:3], alpha) for alpha in opacity]))
    _label(ax, attention, row, hide_null)
    colors = [Line2D([], [], color=f"C{index}") for index in range(len(names))]
    hidden = "grey on the right: null tokens, lines hidden" if hide_null and attention.null.any() else None
    ax.legend(
        colors,
        names,
        title=hidden,
        loc="upper center",
        bbox_to_anchor=(0.5, 0),
        ncols=3,
        frameon=False,
        fontsize="small",
    ).get_title().set(fontsize="small", color="0.4")
    return figure.figure, ax  # for a subfigure, the whole figure


def lines(weights: Float[np.ndarray, "query key"]) -> tuple[Any, np.ndarray]:
    """Lines from (0, query) to (1, key), faintest first, `[line, end, x and y]`, and their weights `[line]`."""
    query, key = np.nonzero(weights >= FAINTEST)
    weight = weights[query, key]
    order = np.argsort(weight, kind="stable")
    ends = np.stack([np.stack([np.zeros(len(query)), query], 1), np.stack([np.ones(len(key)), key], 1)], 1)
    return ends[order], weight[order].clip(0, 1)  # rounding may give 1.0000001


def check_one_text(attention: TextAttention) -> None:
    """Raise `FigureError` for cross-attention, which the figures cannot draw."""
    if attention.keys:
        raise FigureError(
            "attention: figures draw one text, not cross-attention; use attention.show(), or attention.others"
        )


def find_head(attention: TextAttention, head: str) -> tuple[int, int]:
    """Indices of a head such as "L8H6" in the pattern. Raises `MetricError`."""
    layer, number = stats.find_head(head, attention.layers, range(attention.pattern.shape[1]))
    return attention.layers.index(layer), number


def find_token(attention: TextAttention, token: int | str) -> int:
    """Position of a token given by position or text. Raises `MetricError`."""
    tokens = [text.strip() for text in attention.tokens]
    places = [token] if isinstance(token, int) else [i for i, text in enumerate(tokens) if text == token.strip()]
    if len(places) == 1 and 0 <= places[0] < len(tokens):
        return places[0]
    found = f"found {len(places)} times, at {', '.join(map(str, places))}" if len(places) > 1 else "not found"
    known = ", ".join(f"{i} {text}" for i, text in enumerate(tokens))
    raise MetricError(f"query={token!r}: {found}; expected a position from 0, or a token that occurs once: {known}")


def _label(ax: Axes, attention: TextAttention, row: int | None, hide_null: bool) -> None:
    n = len(attention.tokens)
    labels = [plain_token(token) for token in attention.tokens]
    ax.set(xlim=(0, 1), ylim=(n - 0.4, -0.6))
    ax.xaxis.tick_top()
    ax.set_xticks([0, 1], ["attending", "receiving"], color="0.4")
    ax.set_yticks(range(n), labels)
    right = ax.secondary_yaxis("right")
    right.set_yticks(range(n), labels)
    for side in (ax, right):
        side.tick_params(length=0)
        side.spines[:].set_visible(False)
    for place in np.flatnonzero(attention.null).tolist() if hide_null else []:
        right.get_yticklabels()[place].set_color(NULL_COLOR)
    for place, label in enumerate(ax.get_yticklabels()):
        if row is not None and place != row:
            label.set_color(NULL_COLOR)
