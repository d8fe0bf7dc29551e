"""Where heads look, relative to the token that looks."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from matplotlib.ticker import MaxNLocator

from tl_attnstats.errors import MetricError
from tl_attnstats.plotting.common import axes_of
from tl_attnstats.stats import AttentionStats

STYLES = ("-", "--", "-.", ":")
MARKERS = "osD^v"
BASELINE = "0.35"


def offset_profile(stats: AttentionStats, heads: str | Sequence[str], *, ax: Axes | None = None) -> tuple[Figure, Axes]:
    """Draw which share of its attention a head gives to each offset, against how often dependencies have that length.

    The bands are one standard error up and down. The outermost offset stands for all beyond, as ">64" tells, and
    octaves, where there are any, for several: these are points of their own. The grey line, on an axis of its own at
    the right, is the share of the corpus's token pairs at this distance that are in a dependency relation, where the
    file has it.

    Args:
        stats: the statistics.
        heads: one head or several, such as "L10H10".
        ax: where to draw; None makes a figure.

    Returns:
        The figure and the axes of the heads; those of the dependencies are the figure's last.

    Raises:
        MetricError: no `offset_profile` here, an unknown head, or none at all.
    """
    names = [heads] if isinstance(heads, str) else list(heads)
    if not names:
        raise MetricError("heads=[]: expected one name or more, such as 'L10H10'")
    profile = stats["offset_profile"]
    places = [stats.find_head(name) for name in names]
    figure, ax = axes_of(ax, (6.4, 3.4))
    offsets = profile["offset"].values
    x, single = _positions(offsets)
    for number, (name, (layer, head)) in enumerate(zip(names, places, strict=True)):
        shares = profile.sel(layer=layer, head=head).values
        errors = stats["offset_profile_se"].sel(layer=layer, head=head).values
        colour = f"C{number % 10}"
        marker = MARKERS[number % len(MARKERS)]
        inner = ~single
        ax.plot(
            x[inner], shares[inner], STYLES[number % len(STYLES)], color=colour, label=name,
            marker=marker, markersize=3, linewidth=1.2,
        )  # fmt: skip
        ax.fill_between(x[inner], (shares - errors)[inner], (shares + errors)[inner], color=colour, alpha=0.25, lw=0)
        ax.errorbar(x[single], shares[single], yerr=errors[single], fmt=marker, color=colour, markersize=4, capsize=2)
    following = ", −1: the next" if offsets[0] < 0 else ""
    ax.set(xlabel=f"offset, in tokens back (1: the previous token{following})", ylabel="share of content attention")
    _ticks(ax, offsets, x, single)
    ax.set_ylim(bottom=0)
    handles, texts = ax.get_legend_handles_labels()
    if "dependency_by_distance" in stats.dataset:
        dependencies = _dependencies(ax, stats, offsets, x, single)
        handles, texts = [*handles, *dependencies.lines[:1]], [*texts, "dependencies (right axis)"]
    ax.legend(handles, texts, frameon=False, fontsize="small", loc="upper right")
    return figure, ax


def _positions(offsets: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """Where each offset is drawn, and which stand for several: these a little apart."""
    distances = np.unique(np.abs(offsets))
    wide = distances[np.diff(distances, append=distances[-1] + 2) > 1]
    single = np.isin(np.abs(offsets), wide)
    gap = max(1, len(offsets) // (40 if len(wide) == 1 else 16))
    apart = wide[0] + gap * (1 + np.searchsorted(wide, np.abs(offsets)))
    return np.where(single, np.sign(offsets) * apart, offsets), single


def _ticks(ax: Axes, offsets: np.ndarray, x: np.ndarray, single: np.ndarray) -> None:
    beyond = int(offsets[single & (offsets > 0)][0])
    lowest = -(beyond - 1) if offsets[0] < 0 else 0
    wanted = MaxNLocator(9, integer=True).tick_values(lowest, beyond - 1)
    apart = len(offsets) // 15  # ticks any closer to those at the ends would collide with them
    places = [int(t) for t in wanted if t <= beyond - 1 - apart and (lowest == 0 or t >= lowest + apart)]
    ticks = {place: str(place).replace("-", "−") for place in places}
    for place, offset in zip(x[single].tolist(), offsets[single].tolist(), strict=True):
        outermost = abs(offset) == offsets[-1]
        sign, distance = "−" if offset < 0 else "", abs(offset)
        ticks[place] = f"{'<' if sign else '>'}{sign}{distance - 1}" if outermost else f"{sign}{distance}–"
    # Of octaves each has a label, for which there is only room upright.
    ax.set_xticks(list(ticks), labels=list(ticks.values()), rotation=90 if single.sum() > 2 else 0)


def _dependencies(ax: Axes, stats: AttentionStats, offsets: np.ndarray, x: np.ndarray, single: np.ndarray) -> Axes:
    """P(dependency | distance) on an axis at the right, for the offsets that have a distance of their own."""
    baseline = stats["dependency_by_distance"]
    last = int(baseline["span"][-1])
    distances = np.abs(offsets)
    # The last distance stands for all beyond, as the outermost offset does: comparable where they are the same.
    known = (distances < last) & ~single | (distances == last) & (distances == distances.max())
    right = ax.twinx()
    shares = np.full(len(x), np.nan)
    shares[known] = baseline.sel(span=distances[known]).values
    shares[offsets == 0] = np.nan  # no token is in a relation with itself
    right.plot(x[~single], shares[~single], color=BASELINE, linestyle=(0, (1, 1)), linewidth=1.2)
    right.plot(x[single], shares[single], "x", color=BASELINE, markersize=4)
    right.set_ylabel("P(dependency | distance)", color=BASELINE)
    right.tick_params(axis="y", labelcolor=BASELINE)
    right.set_ylim(bottom=0)
    return right
