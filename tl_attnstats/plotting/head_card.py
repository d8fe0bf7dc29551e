"""A one-page summary of a head."""

from __future__ import annotations

import textwrap
from typing import Any

import matplotlib.pyplot as plt
import numpy as np
import pandas as pd
from matplotlib.axes import Axes
from matplotlib.figure import Figure

from tl_attnstats.errors import FigureError, MetricError
from tl_attnstats.plotting.common import SMALL, number_ticks
from tl_attnstats.plotting.exemplar_text import ExemplarLines
from tl_attnstats.plotting.offsets import offset_profile
from tl_attnstats.plotting.text import plain
from tl_attnstats.results.character import character, sentence_of
from tl_attnstats.results.numbers import error_shown, number, to_error
from tl_attnstats.results.ranking import DOUBT, MARK
from tl_attnstats.results.stats import AttentionStats

# Inches. The page has the width of A4 and the height that its sections need.
WIDTH, MARGIN, GAP, HEADING, LINE = 8.27, 0.7, 0.65, 1.15, 0.19
HEIGHTS = {"numbers": 1.7, "parts": 1.4, "offsets": 1.4}
MOST_CHARS = 32
"""Maximum length of a statistic's name and label in the table of numbers."""
LINE_CHARS = 108
"""Maximum length of a line of the sentence at the top."""


def head_card(stats: AttentionStats, head: str, *, n_exemplars: int = 8) -> tuple[Figure, dict[str, Axes]]:
    """Draw a page about one head. Sections without statistics are left out.

    From the top: what stands out about it, in a sentence, or nothing if nothing does; its values with errors and ranks
    among all heads, beside its mean pattern over the first positions; attention to and from parts of speech against
    their frequency, sorted by how much attention to a tag exceeds its frequency; its offset profile; its strongest
    exemplars, with a frame around the attending token and a double underline below the receiving one. Characters
    without a glyph in any font are drawn as "□". The page is a figure of its own and cannot be drawn into axes.

    Args:
        stats: the statistics.
        head: such as "L10H10".
        n_exemplars: maximum number of exemplars.

    Returns:
        The figure, and its axes by section: "numbers", "pattern", "parts", "offsets", "exemplars".

    Raises:
        MetricError: the head is unknown, or no statistic has a value for each head.
        FigureError: `n_exemplars` is below 0.
    """
    if n_exemplars < 0:
        raise FigureError(f"n_exemplars={n_exemplars}: expected 0 or more")
    layer, number = stats.find_head(head)
    here = set(stats.dataset)
    exemplars = stats.exemplars(head).head(n_exemplars) if "exemplar_weight" in here else pd.DataFrame()
    sections = {
        "numbers": bool({*stats.head_statistics, "mean_pattern", "dependency_alignment"} & here),
        "parts": bool({"pos_to", "pos_from"} & here),
        "offsets": "offset_profile" in here,
        "exemplars": len(exemplars) > 0,
    }
    if not any(sections.values()):
        raise MetricError("head_card: no statistic here has a value for each head")

    figure = plt.figure(figsize=(WIDTH, 1))
    axes = {section: figure.add_subplot() for section, there in sections.items() if there}
    heights = dict(HEIGHTS)
    if "exemplars" in axes:
        lines = ExemplarLines(exemplars, (WIDTH - 2 * MARGIN) * 72)
        heights["exemplars"] = lines.height / 72
        lines.draw(axes["exemplars"])
    sentence = textwrap.wrap(sentence_of(character(stats, head)), LINE_CHARS)
    _stack(figure, axes, heights, HEADING + LINE * len(sentence))
    if "numbers" in axes:
        if "mean_pattern" in here:
            axes["pattern"] = _pattern(axes["numbers"], stats, layer, number)
        _numbers(axes["numbers"], stats, head)
    if "parts" in axes:
        _parts_of_speech(axes["parts"], stats, layer, number)
    if "offsets" in axes:
        offset_profile(stats, head, ax=axes["offsets"])
        axes["offsets"].get_legend().remove()  # type: ignore[union-attr]
        dotted = "; dotted: dependencies by distance" if "dependency_by_distance" in here else ""
        axes["offsets"].set_title(f"Attention by offset{dotted}", loc="left", fontsize="medium")
    for ax in figure.axes:
        ax.tick_params(labelsize=SMALL)
        for label in (ax.xaxis.label, ax.yaxis.label):
            label.set_fontsize(SMALL + 1)
    _head_line(figure, stats, f"{head}: layer {layer}, head {number}", sentence)
    return figure, axes


def _stack(figure: Figure, axes: dict[str, Axes], heights: dict[str, float], heading: float) -> None:
    """Stack the sections on a page high enough for all."""
    total = heading + sum(heights[section] for section in axes) + GAP * len(axes)
    figure.set_size_inches(WIDTH, total)
    top = total - heading
    for section, ax in axes.items():
        left = MARGIN if section in ("numbers", "exemplars") else MARGIN + 0.15  # room for ticks on both sides
        bottom, width, height = top - heights[section], WIDTH - 2 * left, heights[section]
        ax.set_position((left / WIDTH, bottom / total, width / WIDTH, height / total))
        top -= heights[section] + GAP


def _head_line(figure: Figure, stats: AttentionStats, title: str, sentence: list[str]) -> None:
    """Write title, model and corpus, and between them the lines of the sentence."""
    height = figure.get_figheight()
    figure.text(MARGIN / WIDTH, 1 - 0.45 / height, title, fontsize="x-large", weight="bold")
    lines = plain(stats.subject), plain(f"{stats.extent}: {stats.provenance['corpus']}")
    style: dict[str, Any] = {"fontsize": SMALL + 1, "color": "0.35", "va": "top", "linespacing": 1.4}
    below = 0.53 + LINE * len(sentence)
    figure.text(MARGIN / WIDTH, 1 - below / height, "\n".join(lines), **style)
    said = "\n".join(plain(line) for line in sentence)
    if said:
        figure.text(MARGIN / WIDTH, 1 - 0.54 / height, said, fontsize=SMALL + 2, va="top", linespacing=1.3)


def _numbers(ax: Axes, stats: AttentionStats, head: str) -> None:
    """Write one line per value: name, value with error, rank, mean over heads."""
    ax.axis("off")
    table = stats.head_table(head)
    shown = table[table["statistic"].isin([*stats.head_statistics, "dependency_alignment"])]
    n_heads = stats["layer"].size * stats["head"].size
    rows: list[tuple[str, ...]] = [("", "value", "± error", f"rank\nof {n_heads}", "mean\nof all")]
    notes = set()
    for row in shown.to_dict("records"):
        bound = row["error_kind"] == "bound"
        value, mean = to_error(row["value"], row["error"], bound=bound), number(row["mean"])
        error, rank = error_shown(row["error"], row["value"], bound=bound), f"{row['rank']:.0f}"
        if bound and error != "–":
            error = f"≤ {error}"
            notes.add("≤ bound of binning, no standard error")
        name = plain(f"{row['statistic']} {row['label']}".strip())
        name = name if len(name) <= MOST_CHARS else name[: MOST_CHARS - 1] + "…"
        if row["doubtful"]:
            name += f" {MARK}"
            notes.add(f"{MARK} doubtful: {DOUBT}")
        rows.append((name, value, error, rank.replace("nan", "–"), mean))
    ax.set(xlim=(0, 1), ylim=(max(len(rows), 8) + len(notes) - 0.5, -0.8))
    for y, cells in enumerate(rows):
        for x, cell in zip((0, 0.66, 0.81, 0.91, 1.02), cells, strict=True):
            colour = "black" if y else "0.35"
            ax.text(x, y or -0.3, cell, ha="right" if x else "left", va="center", fontsize=SMALL + 1, color=colour)
    for y, note in enumerate(sorted(notes), len(rows)):
        ax.annotate(note, (0, y), va="center", fontsize=SMALL, color="0.35")


def _pattern(beside: Axes, stats: AttentionStats, layer: int, head: int) -> Axes:
    """Draw the mean pattern as a square in the right part of `beside`, which shrinks to the left part."""
    figure, place = beside.get_figure(), beside.get_position()
    assert isinstance(figure, Figure)
    width, height = figure.get_size_inches()
    square = place.height * height / width
    bar = 0.5 / width
    beside.set_position((place.x0, place.y0, place.width - square - bar - 0.5 / width, place.height))
    ax = figure.add_axes((place.x1 - square - bar, place.y0, square, place.height))
    values = stats["mean_pattern"].sel(layer=layer, head=head)
    image = ax.imshow(values.values, cmap="viridis", vmin=0, interpolation="nearest")
    for axis, dim in ((ax.xaxis, "key_position"), (ax.yaxis, "query_position")):
        number_ticks(axis, range(values.sizes[dim]), 10)
    ax.set(xlabel="to position", ylabel="from position")
    ax.set_title("Mean pattern at the start", fontsize="medium")
    scale = figure.add_axes((place.x1 - bar * 0.8, place.y0, 0.09 / width, place.height))
    figure.colorbar(image, cax=scale)
    return ax


def _parts_of_speech(ax: Axes, stats: AttentionStats, layer: int, head: int) -> None:
    """Draw attention to and from each part of speech as bars with errors, and its frequency as a line across."""
    names = [name for name in ("pos_to", "pos_from") if name in stats.dataset]
    beyond = stats[names[0]].sel(layer=layer, head=head)
    if "pos_frequency" in stats.dataset:
        beyond = beyond - stats["pos_frequency"]
    tags = beyond["tag"].values[np.argsort(-beyond.values, kind="stable")]
    x = np.arange(len(tags))
    width = 0.8 / len(names)
    for place, name in enumerate(names):
        shares, errors = (stats[n].sel(layer=layer, head=head, tag=tags).values for n in (name, f"{name}_se"))
        left = x + width * (place - (len(names) - 1) / 2)
        colour, hatch = {"pos_to": ("tab:blue", ""), "pos_from": ("tab:orange", "////")}[name]
        ax.bar(left, shares, width, yerr=errors, color=colour, hatch=hatch, edgecolor="white", linewidth=0,
               error_kw={"elinewidth": 0.8}, label=name.removeprefix("pos_"))  # fmt: skip
    if "pos_frequency" in stats.dataset:
        frequency = stats["pos_frequency"].sel(tag=tags).values
        ax.hlines(frequency, x - 0.45, x + 0.45, color="black", linewidth=1.5, label="frequency among keys")
    ax.set_xticks(x, labels=[plain(str(tag)) for tag in tags], rotation=45, ha="right", rotation_mode="anchor")
    ax.tick_params(axis="x", length=0)
    ax.set(ylabel="share", xlim=(-0.6, len(tags) - 0.4))
    ax.set_ylim(bottom=0)
    ax.set_title("Attention to and from parts of speech", loc="left", fontsize="medium")
    ax.legend(frameon=False, fontsize="small", ncols=3, loc="lower right", bbox_to_anchor=(1, 1), borderaxespad=0.1)
    ax.spines[["top", "right"]].set_visible(False)
