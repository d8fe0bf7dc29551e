"""Where heads look, relative to the attending token."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any, Literal

import numpy as np
from matplotlib.axes import Axes
from matplotlib.figure import Figure

from tl_attnstats.errors import MetricError
from tl_attnstats.plotting.common import axes_of
from tl_attnstats.results.stats import AttentionStats

STYLES = ("-", "--", "-.", ":")
MARKERS = "osD^v"
BASELINE = "0.35"
LEAST_SHARE = 1e-4
"""Smaller shares lie below the axis."""
MOST_TICKS = 12


def offset_profile(stats: AttentionStats, heads: str | Sequence[str], *, ax: Axes | None = None) -> tuple[Figure, Axes]:
    """Draw the share of a head's attention at each offset, and how often token pairs at that distance are dependencies.

    All axes are logarithmic, so that near offsets have room and shares down to 0.0001 are visible. Bands are one
    standard error up and down. The outermost offset (">64") covers all beyond, and an octave covers several offsets;
    these are drawn as separate points. The grey line on the right axis, if its statistic was collected, is the share of
    token pairs at this distance that are in a dependency relation.

    Args:
        stats: the statistics.
        heads: one head or several, such as "L10H10".
        ax: where to draw; None creates a figure.

    Returns:
        The figure and the axes of the heads. The axes of the dependencies are the figure's last.

    Raises:
        MetricError: `offset_profile` was not collected, a head is unknown, or `heads` is empty.
    """
    names = [heads] if isinstance(heads, str) else list(heads)
    if not names:
        raise MetricError("heads=[]: expected one or more names, such as 'L10H10'")
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
    ax.set_xscale("function", functions=(_stretched, _unstretched))
    _ticks(ax, offsets, x, single)
    _logarithmic(ax, profile.sel(layer=[p[0] for p in places], head=[p[1] for p in places]).values)
    handles, texts = ax.get_legend_handles_labels()
    if "dependency_by_distance" in stats.dataset:
        dependencies = _dependencies(ax, stats, offsets, x, single)
        handles, texts = [*handles, *dependencies.lines[:1]], [*texts, "dependencies (right axis)"]
    ax.legend(handles, texts, frameon=False, fontsize="small", loc="upper right")
    return figure, ax


def _stretched(offset: Any) -> np.ndarray:
    """Position of an offset on the axis: 0, 1, 3 and 7 are equally spaced, in both directions."""
    return np.asarray(np.sign(offset) * np.log2(1 + np.abs(offset)))


def _unstretched(place: Any) -> np.ndarray:
    return np.asarray(np.sign(place) * (2 ** np.abs(place) - 1))


def _logarithmic(ax: Axes, shares: np.ndarray, nonpositive: Literal["clip", "mask"] = "clip") -> None:
    """Set a logarithmic y axis from the smallest share worth showing to the largest, with some margin."""
    ax.set_yscale("log", nonpositive=nonpositive)
    there = shares[shares > LEAST_SHARE]
    least, largest = (float(there.min()), float(there.max())) if there.size else (LEAST_SHARE, 1)
    ax.set_ylim(least / 1.5, largest * 1.5)


def _positions(offsets: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """Where to draw each offset, and which ones cover several offsets. Those are set slightly apart."""
    distances = np.unique(np.abs(offsets))
    wide = distances[np.diff(distances, append=distances[-1] + 2) > 1]
    single = np.isin(np.abs(offsets), wide)
    return np.where(single, np.sign(offsets) * np.round(1.25 * np.abs(offsets)), offsets), single


def _ticks(ax: Axes, offsets: np.ndarray, x: np.ndarray, single: np.ndarray) -> None:
    ticks = {}
    for place, offset in zip(x[single].tolist(), offsets[single].tolist(), strict=True):
        outermost = abs(offset) == offsets[-1]
        sign, distance = "−" if offset < 0 else "", abs(offset)
        ticks[place] = f"{'<' if sign else '>'}{sign}{distance - 1}" if outermost else f"{sign}{distance}–"
    # Powers of two, unless their labels would overlap others.
    room = np.ptp(_stretched(x)) / MOST_TICKS
    for offset in (0, *(sign * 2**k for k in range(int(offsets[-1]).bit_length()) for sign in (1, -1))):
        if offset in offsets[~single] and np.abs(_stretched(list(ticks)) - _stretched(offset)).min() >= room:
            ticks[offset] = str(offset).replace("-", "−")
    ticks = dict(sorted(ticks.items()))
    # Of octaves each has a label, for which there is only room upright.
    ax.set_xticks(list(ticks), labels=list(ticks.values()), rotation=90 if single.sum() > 2 else 0)


def _dependencies(ax: Axes, stats: AttentionStats, offsets: np.ndarray, x: np.ndarray, single: np.ndarray) -> Axes:
    """Draw P(dependency | distance) on a right axis, for offsets that correspond to a single distance."""
    baseline = stats["dependency_by_distance"]
    last = int(baseline["token_distance"][-1])
    distances = np.abs(offsets)
    # The last distance covers all beyond, as does the outermost offset. They are comparable only if equal.
    known = (distances < last) & ~single | (distances == last) & (distances == distances.max())
    right = ax.twinx()
    shares = np.full(len(x), np.nan)
    shares[known] = baseline.sel(token_distance=distances[known]).values
    shares[offsets == 0] = np.nan  # no token is in a relation with itself
    right.plot(x[~single], shares[~single], color=BASELINE, linestyle=(0, (1, 1)), linewidth=1.2)
    right.plot(x[single], shares[single], "x", color=BASELINE, markersize=4)
    right.set_ylabel("P(dependency | distance)", color=BASELINE)
    right.tick_params(axis="y", labelcolor=BASELINE)
    _logarithmic(right, shares, "mask")
    return right
