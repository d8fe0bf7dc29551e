"""The best head of each dependency relation, against the best fixed offset."""

from __future__ import annotations

from typing import Any

import pandas as pd
from matplotlib.axes import Axes
from matplotlib.figure import Figure

from tl_attnstats.errors import FigureError
from tl_attnstats.plotting.common import axes_of
from tl_attnstats.plotting.text import plain
from tl_attnstats.results.relations import LEAST_PAIRS
from tl_attnstats.results.stats import AttentionStats

ROW = 0.21
"""Inches."""
COLUMNS = {"head": "head", "best_offset": "offset (words)", "pairs": "pairs"}
"""What stands beside the axes, and its titles."""
CHARACTER, GAP = 5.0, 10.0
"""Points, of the small font."""


def relations(stats: AttentionStats, *, ax: Axes | None = None) -> tuple[Figure, Axes]:
    """Draw how often the best head finds the other end of a relation, and how often the best fixed offset does.

    One row for each relation and direction with at least 20 pairs in either half of the corpus, sorted by what the head
    gains over the offset, the largest on top. Head and offset are chosen on one half and scored on the other
    (`AttentionStats.best_relation_heads`). Accuracies are shares of pairs, from 0 to 1; bars are standard errors.
    Beside each row are the head, the offset in words, and the number of pairs; there are two heads or offsets where the
    halves chose different ones.

    Args:
        stats: the statistics.
        ax: where to draw; None creates a figure of suitable size.

    Returns:
        The figure and the axes.

    Raises:
        MetricError: `relation_accuracy` was not collected.
        FigureError: no relation has enough pairs.
    """
    table = scored_relations(stats)
    if table.empty:
        raise FigureError(
            f"relations: no relation has {LEAST_PAIRS} pairs in either half of the corpus, got {stats.extent}; "
            "collect over more sentences"
        )
    n_rows = len(table)
    figure, ax = axes_of(ax, (7.4, 1.4 + ROW * n_rows))
    rows = range(n_rows)
    ax.hlines(rows, table["offset_accuracy"], table["accuracy"], color="0.75", linewidth=2, zorder=1)
    style: dict[str, Any] = {"linestyle": "", "capsize": 2, "elinewidth": 1, "markersize": 5}
    ax.errorbar(table["offset_accuracy"], rows, xerr=table["offset_se"], marker="D", color="tab:orange",
                markerfacecolor="white", label="best fixed offset", zorder=2, **style)  # fmt: skip
    ax.errorbar(table["accuracy"], rows, xerr=table["se"], marker="o", color="tab:blue", label="best head", zorder=3,
                **style)  # fmt: skip
    names = [f"{row.relation} {str(row.direction).replace('_', ' ')}" for row in table.itertuples()]
    ax.set_yticks(rows, labels=[plain(name) for name in names])
    ax.set(xlim=(-0.02, 1.02), ylim=(n_rows - 0.4, -0.6), xlabel="accuracy, held out (share of pairs)")
    ax.grid(axis="x", color="0.9", linewidth=0.6)
    ax.set_axisbelow(True)
    ax.spines[["top", "right"]].set_visible(False)
    place = GAP
    for column, title in COLUMNS.items():
        cells = [title, *(str(cell).replace("-", "−") for cell in table[column])]
        for row, cell in enumerate(cells, -1):
            ax.annotate(
                cell, (1, row), (place, 0), xycoords=ax.get_yaxis_transform(), textcoords="offset points",
                va="center", fontsize="small", color="0.35" if row < 0 else "black", annotation_clip=False,
            )  # fmt: skip
        place += GAP + CHARACTER * max(len(cell) for cell in cells)
    ax.set_title("Best head of each relation against the best fixed offset", pad=22)
    ax.legend(loc="lower center", bbox_to_anchor=(0.5, 1), ncols=2, frameon=False, fontsize="small", borderaxespad=0.1)
    return figure, ax


def scored_relations(stats: AttentionStats) -> pd.DataFrame:
    """The rows of `best_relation_heads` that have accuracies, the largest gain over the offset first."""
    table = stats.best_relation_heads().dropna(subset=["accuracy", "offset_accuracy"])
    gain = table["accuracy"] - table["offset_accuracy"]
    return table.loc[gain.sort_values(ascending=False, kind="stable").index].reset_index(drop=True)
