"""How much content attention falls on sinks, and on which tokens."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterable

import numpy as np
import xarray as xr
from matplotlib.axes import Axes
from matplotlib.figure import Figure

from tl_attnstats.errors import FigureError
from tl_attnstats.plotting.common import grid_of, layer_means, number_ticks, title_of
from tl_attnstats.plotting.text import MAX_TOKEN_CHARS, plain
from tl_attnstats.results.stats import HEAD_DIMS, AttentionStats

OTHER = "other"
"""The label of `sink_tokens` for all tokens that have none of their own."""


def sinks(stats: AttentionStats, *, n: int = 12, axes: Iterable[Axes] | None = None) -> tuple[Figure, list[Axes]]:
    """Draw the share of content attention that falls on sinks by layer, and the tokens that take most of it.

    Sinks are content tokens that take more than 0.3 of the content attention of the rows that pass them. Left, in each
    layer: the heads as faint points, and their mean with the mean of their standard errors, an upper bound on the
    standard error of the mean. Right: the mean over all heads of the share of content attention that a token took as a
    sink; all other tokens together are the last bar, so that the bars add up to the mean sink share. Tokens are written
    as Python strings, in which spaces are seen.

    Args:
        stats: the statistics; `sink_share` is `[layer, head]`, `sink_tokens` is `[layer, head, token]`, both are shares
            from 0 to 1.
        n: number of tokens to draw.
        axes: where to draw, one for the layers and one for the tokens; None creates a figure.

    Returns:
        The figure and the two axes.

    Raises:
        MetricError: `sink_share` or `sink_tokens` is not in the statistics.
        FigureError: `n` is below 1, or there are not two axes.
    """
    if n < 1:
        raise FigureError(f"n={n}: expected a number of tokens from 1")
    share, tokens = stats["sink_share"], stats["sink_tokens"]
    figure, (left, right) = grid_of(axes, 2, 2, (4.4, 3.6))
    by_head(left, share)
    means, errors = layer_means(stats, "sink_share")
    left.errorbar(range(len(means)), means, yerr=errors, fmt="o-", markersize=4, linewidth=1.2, capsize=2,
                  label="mean over heads")  # fmt: skip
    left.set(ylabel="share of content attention", title=title_of(stats, "sink_share"))
    left.set_ylim(bottom=0)
    left.legend(fontsize="small", frameon=False, scatterpoints=1)

    shares = tokens.mean(HEAD_DIMS)
    names = [str(name) for name in shares["token"].values]
    own = [place for place in np.argsort(-shares.values, kind="stable") if names[place] != OTHER][:n]
    rest = float(shares.sum() - shares[own].sum())
    right.barh(range(len(own)), shares.values[own], color="tab:blue")
    right.barh(len(own), rest, color="tab:gray")
    right.set_yticks(range(len(own) + 1), labels=[*_texts(shares[own]), "all others"])
    right.invert_yaxis()
    right.set(xlabel="share of content attention, mean over heads", title="tokens that are sinks")
    right.spines[["top", "right"]].set_visible(False)
    return figure, [left, right]


def by_head(ax: Axes, values: xr.DataArray) -> None:
    """Draw a value of every head as a faint point, layers across."""
    layers = values["layer"].values
    across = np.repeat(np.arange(len(layers)), values.sizes["head"])
    ax.scatter(across, values.transpose(*HEAD_DIMS).values.flatten(), s=12, color="0.35", alpha=0.3, linewidths=0,
               label="head")  # fmt: skip
    number_ticks(ax.xaxis, layers, 12)
    ax.set_xlabel("layer")


def _texts(tokens: xr.DataArray) -> list[str]:
    """The text of each token as a Python string, with its id where several have the same text."""
    texts = [str(text) for text in tokens["token_text"].values]
    often = Counter(texts)
    return [
        plain(_quoted(text)) + (f" ({id_})" if often[text] > 1 else "")
        for text, id_ in zip(texts, tokens["token"].values, strict=True)
    ]


def _quoted(text: str) -> str:
    return repr(text if len(text) <= MAX_TOKEN_CHARS else text[: MAX_TOKEN_CHARS - 1] + "…")
