"""Figures that compare several models. Each model has the same colour in all of them."""

from __future__ import annotations

import math
from collections.abc import Callable, Iterable, Iterator
from functools import partial
from pathlib import Path
from typing import Any

import matplotlib as mpl
import matplotlib.pyplot as plt
import numpy as np
from matplotlib.axes import Axes
from matplotlib.figure import Figure

from tl_attnstats.corpus.untrusted import file_name
from tl_attnstats.errors import FigureError
from tl_attnstats.plotting.common import SMALL, axes_of, grid_of, title_of, unit_of
from tl_attnstats.plotting.save import save
from tl_attnstats.plotting.text import plain
from tl_attnstats.results.claims import Claim
from tl_attnstats.results.compare import Comparison
from tl_attnstats.results.counterparts import TITLE

N_ERRORS = 2
MOST_CHARACTERS = 24
CLAIM_SIZE = (3.5, 0.75)


def by_depth(comparison: Comparison, name: str, label: str = "", *, ax: Axes | None = None) -> tuple[Figure, Axes]:
    """Draw the mean of a statistic over the heads of each layer against relative depth, one line per model.

    Bands are two standard errors to either side, from bootstrap replicates of the corpus. Statistics without
    replicates have no band. A narrow band means that other sentences would hardly change the line; it says nothing
    about other models.

    Args:
        comparison: the result of `compare`.
        name: the statistic.
        label: its tag, relation or direction, if it has labels.
        ax: where to draw; None creates a figure.

    Returns:
        The figure and the axes.

    Raises:
        MetricError: the statistic or label is not in the comparison.
    """
    figure, ax = axes_of(ax, (5.2, 3.4))
    comparison.check_label(name, label)
    dataset = comparison.dataset
    values, errors = dataset[name], dataset.get(f"{name}_se")
    if label:
        values = values.sel({values.dims[-1]: label})
        errors = None if errors is None else errors.sel({errors.dims[-1]: label})
    banded = False
    for model, colour in _colours(comparison).items():
        line, own = values.sel(model=model).values, dataset["measured"].sel(model=model).values
        depth, there = dataset["depth"].values, np.isfinite(line)
        ax.plot(
            depth[there], line[there], color=colour, linewidth=1.5, marker="o", markersize=3.5,
            markevery=np.flatnonzero(own[there]).tolist(), label=_short(model),
        )  # fmt: skip
        if errors is not None and np.isfinite(band := N_ERRORS * errors.sel(model=model).values).any():
            ax.fill_between(depth, line - band, line + band, color=colour, alpha=0.25, linewidth=0)
            banded = True
    _title(ax, comparison, name, label)
    ax.set(
        xlabel="relative depth of the layer (0 first, 1 last)",
        ylabel=f"mean over heads ({_unit(comparison, name)})",
        xlim=(-0.02, 1.02),
    )
    if not (values < 0).any():
        ax.set_ylim(bottom=0)
    ax.legend(fontsize="small", frameon=False, title=f"band: ± {N_ERRORS} standard errors" if banded else None,
              title_fontsize=SMALL)  # fmt: skip
    return figure, ax


def head_strips(comparison: Comparison, name: str, label: str = "", *, ax: Axes | None = None) -> tuple[Figure, Axes]:
    """Draw a statistic of every head as one strip of points per model, with quartiles and mean.

    Points are coloured by the relative depth of their layer and spread across the strip in layer order, the first at
    the top. Doubtful heads are crossed out. The box spans the first to third quartile, its line is the median and the
    diamond the mean, all over all heads.

    Args:
        comparison: the result of `compare`.
        name: the statistic.
        label: its tag, relation or direction, if it has labels.
        ax: where to draw; None creates a figure.

    Returns:
        The figure and the axes.

    Raises:
        MetricError: the statistic or label is not in the comparison.
    """
    models = comparison.models
    figure, ax = axes_of(ax, (5.2, 1.3 + 0.75 * len(models)))
    comparison.check_label(name, label)
    heads = comparison.heads
    rows = heads[(heads["statistic"] == name) & (heads["label"] == label) & heads["value"].notna()]
    points = None
    crossed: list[tuple[float, float]] = []
    for place, model in enumerate(models):
        own = rows[rows["model"] == model]
        if own.empty:
            continue
        across = place - 0.36 + 0.72 * np.arange(len(own)) / max(1, len(own) - 1)
        points = ax.scatter(
            own["value"], across, c=own["depth"], cmap="viridis", vmin=0, vmax=1, s=9, linewidths=0, zorder=2
        )
        first, median, third = np.percentile(own["value"], (25, 50, 75))
        ax.barh(place, third - first, left=first, height=0.84, fill=False, edgecolor="0.35", linewidth=1, zorder=3)
        ax.plot([median] * 2, [place - 0.42, place + 0.42], color="0.35", linewidth=1.5, zorder=3)
        ax.plot(own["value"].mean(), place, marker="D", color="white", markeredgecolor="black", markersize=6, zorder=4)
        doubtful = own["doubtful"].to_numpy(dtype=bool)
        crossed += [*zip(own["value"][doubtful], across[doubtful], strict=True)]
    if points is not None:
        figure.colorbar(points, ax=ax, label="relative depth").ax.invert_yaxis()
    if crossed:
        ax.plot(*zip(*crossed, strict=True), "x", color="0.4", markersize=3, markeredgewidth=0.6, zorder=2)
    ax.set_yticks(range(len(models)), labels=[_short(model) for model in models])
    ax.set_ylim(len(models) - 0.5, -0.5)
    if len(rows) and rows["value"].min() >= 0:
        ax.set_xlim(left=-0.02 * rows["value"].max())  # so that points at 0 are not clipped
    _title(ax, comparison, name, label)
    ax.set_xlabel(_unit(comparison, name))
    return figure, ax


def label_means(comparison: Comparison, name: str, *, n: int = 20, ax: Axes | None = None) -> tuple[Figure, Axes]:
    """Draw a statistic with labels, such as `pos_to`: mean over heads and largest head for each label and model.

    Dots are means over all heads. The line from a dot ends at the largest value among heads that are not doubtful.
    Labels are sorted by mean, the largest at the top.

    Args:
        comparison: the result of `compare`.
        name: the statistic.
        n: number of labels to draw, those with the largest means.
        ax: where to draw; None creates a figure of suitable size.

    Returns:
        The figure and the axes.

    Raises:
        MetricError: the statistic is not in the comparison.
        FigureError: the statistic has no labels, or `n` is below 1.
    """
    if n < 1:
        raise FigureError(f"n={n}: expected a number of labels from 1")
    if comparison.labels_of(name) == [""]:
        raise FigureError(f"name={name!r}: has no labels, expected a statistic such as pos_to; draw it with by_depth")
    means = comparison.means[comparison.means["statistic"] == name]
    order = means.groupby("label", sort=False)["mean"].mean().sort_values(ascending=False, kind="stable").index[:n]
    heads = comparison.heads
    sure = heads[(heads["statistic"] == name) & ~heads["doubtful"]]
    largest = sure.groupby(["model", "label"])["value"].max()
    figure, ax = axes_of(ax, (5.2, 1.2 + 0.26 * max(4, len(order))))
    models = comparison.models
    for i, (model, colour) in enumerate(_colours(comparison).items()):
        own = means[means["model"] == model].set_index("label").loc[order]
        down = np.arange(len(order)) + 0.5 * ((i + 0.5) / len(models) - 0.5)
        ends = largest.reindex([(model, label) for label in order]).to_numpy()
        ax.hlines(down, own["mean"], np.fmax(ends, own["mean"]), color=colour, linewidth=1, alpha=0.6)
        ax.plot(own["mean"], down, "o", color=colour, markersize=4, label=_short(model))
    ax.set_yticks(range(len(order)), labels=[plain(str(label)) for label in order])
    ax.set_ylim(len(order) - 0.5, -0.5)
    ax.set_xlim(left=0)
    ax.grid(axis="y", linewidth=0.4, alpha=0.5)
    ax.set(xlabel=f"{_unit(comparison, name)}: mean over heads, to the largest head")
    _title(ax, comparison, name, "")
    ax.legend(fontsize="small", frameon=False, loc="lower right")
    return figure, ax


def claims(comparison: Comparison, *, axes: Iterable[Axes] | None = None) -> tuple[Figure, list[Axes]]:
    """Draw the quantities that decide the claims of Vig & Belinkov (2019), one panel per claim.

    Points are the models' values and bars span their bounds. A hollow diamond below a point is the claim's counterpart:
    the same quantity without sinks, or beyond position. The claim holds in the shaded range. The dashed line is GPT-2's
    value, if the paper gives a number.

    Args:
        comparison: the result of `compare`.
        axes: where to draw, one per claim; None creates a figure.

    Returns:
        The figure and the axes.

    Raises:
        FigureError: the number of axes is not the number of claims.
    """
    by_claim = list(zip(*comparison.claims.values(), strict=True))
    size = (CLAIM_SIZE[0], CLAIM_SIZE[1] + 0.22 * len(comparison.models))
    figure, panels = grid_of(axes, len(by_claim), 2, size)
    if axes is None:
        hollow = f" Hollow: {TITLE}." if any(comparison.counterparts.values()) else ""
        figure.suptitle(f"Shaded: the claim holds. Dashed: GPT-2 in the paper.{hollow}", fontsize=SMALL + 1)
    for panel, same in zip(panels, by_claim, strict=True):
        _claim(panel, comparison, same)
    return figure, panels


def comparison_figures(comparison: Comparison, directory: str | Path) -> dict[str, Path]:
    """Draw the claims and every statistic of the comparison, and save them as PNG.

    Args:
        comparison: the result of `compare`.
        directory: the output directory; it is created if necessary.

    Returns:
        The files by content: "claims", "distance_by_depth", "distance_heads", "pos_to" and so on.

    Raises:
        FigureError: a file cannot be written.
    """
    paths = {}
    with plt.ioff():  # interactive backends would open windows
        for name, draw in _drawings(comparison):
            figure, _ = draw()
            try:
                paths[name] = Path(directory) / f"{file_name(name)}.png"
                save(figure, paths[name])
            finally:
                plt.close(figure)
    return paths


def _drawings(comparison: Comparison) -> Iterator[tuple[str, Callable[[], tuple[Figure, Any]]]]:
    yield "claims", partial(claims, comparison)
    for name in comparison.statistics:
        drawn = stems(comparison, name)
        for label, stem in drawn.items():
            yield f"{stem}_by_depth", partial(by_depth, comparison, name, label)
            yield f"{stem}_heads", partial(head_strips, comparison, name, label)
        if not drawn:
            yield name, partial(label_means, comparison, name)


def stems(comparison: Comparison, name: str) -> dict[str, str]:
    """The labels of a statistic that have figures of their own, and how the names of their files begin.

    None of a statistic with many labels, such as `pos_to`, which is drawn in one figure.
    """
    if comparison.labels_of(name) != [""] and not {"direction", "kind"} & {*comparison.dataset[name].dims}:
        return {}
    return {label: f"{name}_{label}" if label else name for label in comparison.labels_of(name)}


def _claim(ax: Axes, comparison: Comparison, same: tuple[Claim, ...]) -> None:
    margin = 0.02 * (same[0].possible[1] - same[0].possible[0])
    lowest, highest = same[0].possible[0] - margin, same[0].possible[1] + margin
    ax.set_xlim(lowest, highest)
    ax.axvspan(max(lowest, same[0].within[0]), min(highest, same[0].within[1]), color="0.9", linewidth=0)
    if not math.isnan(same[0].paper_value):
        ax.axvline(same[0].paper_value, color="0.35", linestyle="--", linewidth=1)
    for place, (claim, (model, colour)) in enumerate(zip(same, _colours(comparison).items(), strict=True)):
        if math.isnan(claim.value):
            ax.text((lowest + highest) / 2, place, claim.verdict, ha="center", va="center", fontsize=SMALL)
            continue
        beyond = comparison.counterparts[model].get(claim.name)
        _point(ax, claim, place if beyond is None else place - 0.15, colour, filled=True)
        if beyond is not None:
            _point(ax, beyond, place + 0.2, colour, filled=False)
    ax.set_yticks(range(len(same)), labels=[_short(model) for model in comparison.models], fontsize=SMALL + 1)
    ax.set_ylim(len(same) - 0.4, -0.6)
    ax.tick_params(axis="x", labelsize=SMALL)
    ax.set_title(same[0].short, fontsize=SMALL + 1)


def _point(ax: Axes, claim: Claim, place: float, colour: tuple[float, float, float], *, filled: bool) -> None:
    """A claim's value, if it has one, over the bar of its bounds."""
    if not math.isnan(claim.low):
        ax.plot([claim.low, claim.high], [place, place], color=colour, linewidth=2 if filled else 1)
    marker, face = ("o", colour) if filled else ("D", "white")
    ax.plot(claim.value, place, marker, color=colour, markerfacecolor=face, markersize=5 if filled else 4)


def _short(model: str) -> str:
    """A model's name; long names lose their middle."""
    half = MOST_CHARACTERS // 2
    return plain(model if len(model) <= MOST_CHARACTERS else f"{model[:half]}…{model[-half:]}")


def _colours(comparison: Comparison) -> dict[str, tuple[float, float, float]]:
    """One colour per model, from a cycle of ten distinguishable ones."""
    palette = mpl.colormaps["tab10"].colors  # type: ignore[attr-defined]  # of listed colour maps
    return {model: palette[i % len(palette)] for i, model in enumerate(comparison.models)}


def _title(ax: Axes, comparison: Comparison, name: str, label: str) -> None:
    stats = comparison.stats[comparison.models[0]]
    ax.set_title(title_of(stats, name, [label.replace("_", " ")] if label else []), fontsize="medium")


def _unit(comparison: Comparison, name: str) -> str:
    return unit_of(comparison.stats[comparison.models[0]], name)
