"""What attention weights carry: norms of values and of what a head adds."""

from __future__ import annotations

from collections.abc import Iterable

from matplotlib.axes import Axes
from matplotlib.figure import Figure

from tl_attnstats.plotting.common import grid_of, title_of
from tl_attnstats.plotting.scatter import scatter
from tl_attnstats.plotting.sinks import by_head
from tl_attnstats.results.stats import AttentionStats

MARGIN = 0.03


def norms(stats: AttentionStats, *, axes: Iterable[Axes] | None = None) -> tuple[Figure, list[Axes]]:
    """Draw null shares against their norm-weighted twins, and how much each head adds in its layer.

    Left, one point per head, coloured by layer: `null_share`, the share of weights on null tokens, and
    `null_share_norm`, the same with each weight multiplied by the norm of what it carries. Heads below the diagonal
    look at null tokens but take little from them; outlying heads are named. Right, one point per head:
    `output_norm_relative`, the mean norm of what the head adds, over the mean of its layer's heads. Near 0 it adds
    nothing, whatever it looks at.

    Args:
        stats: the statistics, each `[layer, head]`: `null_share` and `null_share_norm` are shares from 0 to 1,
            `output_norm_relative` is a ratio from 0.
        axes: where to draw, one for the null shares and one for the outputs; None creates a figure.

    Returns:
        The figure and the two axes.

    Raises:
        MetricError: `null_share`, `null_share_norm` or `output_norm_relative` is not in the statistics, or fewer than
            three heads have both null shares.
        FigureError: there are not two axes.
    """
    relative = stats["output_norm_relative"]
    stats.correlation("null_share", "null_share_norm")  # raises before there is a figure
    figure, (left, right) = grid_of(axes, 2, 2, (4.8, 4))
    by_head(right, relative)
    right.axhline(1, color="tab:orange", linestyle="--", linewidth=1, label="mean of the layer")
    right.set(ylabel="norm / mean over the layer's heads", title=title_of(stats, "output_norm_relative"))
    right.set_ylim(bottom=0)
    # Below, as there may be heads anywhere within.
    right.legend(loc="upper center", bbox_to_anchor=(0.5, -0.14), ncols=2, frameon=False, fontsize="small",
                 scatterpoints=1)  # fmt: skip

    left.axline((0, 0), slope=1, color="0.5", linestyle="--", linewidth=1, zorder=0)
    # Both from 0 to 1, so that the diagonal is in view; set first, because names are placed last.
    left.set(xlim=(-MARGIN, 1 + MARGIN), ylim=(-MARGIN, 1 + MARGIN))
    scatter(stats, "null_share", "null_share_norm", ax=left)
    return figure, [left, right]
