"""Print statistics in the terminal: tables, and exemplars with their two tokens marked."""

from __future__ import annotations

import math
import re
from typing import Any

import numpy as np
import pandas as pd
from rich import box
from rich.console import Console
from rich.table import Table
from rich.text import Text

from tl_attnstats.results.character import character, sentence_of
from tl_attnstats.results.marking import elided, sides, spans
from tl_attnstats.results.numbers import error_shown, to_error
from tl_attnstats.results.ranking import (
    DOUBT,
    MARK,
    correlations,
    doubtful_heads,
    headline,
    interesting_head,
    mean_shown,
    row_shown,
    signed,
    strongest,
    tied,
    tied_words,
)
from tl_attnstats.results.stats import AttentionStats


def overview(stats: AttentionStats, console: Console) -> None:
    """Print model and corpus, null share, the strongest heads, correlations and three exemplars."""
    sizes = stats.dataset.sizes
    console.print(
        f"{stats.subject}: {sizes.get('layer', 0)} layers × {sizes.get('head', 0)} heads, {stats.extent} "
        f"({stats.provenance['corpus']})",
        highlight=False,
    )
    if "null_share" in stats.dataset:
        largest = row_shown(stats.top_heads("null_share", n=1).iloc[0], "null_share")
        console.print(
            f"Attention on null tokens: mean over heads {mean_shown(stats, 'null_share')}, largest {largest}\n",
            highlight=False,
        )
    _print_strongest(stats, console)
    _print_correlations(stats, console)
    head = interesting_head(stats)
    if head:
        at = dict(zip(("layer", "head"), stats.find_head(head), strict=True))
        variability = [float(stats[name].sel(at)) for name in ("variability", "variability_error")]
        console.print(
            f"\n{head}, the most content-driven head (variability {to_error(*variability, bound=True)}):",
            highlight=False,
        )
        exemplars(stats, head, console, n=3)


def _print_strongest(stats: AttentionStats, console: Console) -> None:
    table = _table("statistic", "strongest heads, with error", "not told apart", "doubtful")
    for name, labels in headline(stats):
        heads, n_doubtful, n_tied = strongest(stats, name, 3, **labels)
        cells = [f"{row['head']} {row_shown(row, name)}" for _, row in heads.iterrows()]
        chosen = f" {' '.join(map(str, labels.values()))}" if labels else ""
        table.add_row(f"{name}{chosen}", "   ".join(cells) or "none", str(n_tied or ""), str(n_doubtful or ""))
    console.print(table)
    console.print("Not told apart from the first: heads whose bounds, 95% for all at once, overlap", style="dim")
    console.print(f"Doubtful heads, left out: {DOUBT}", style="dim")


def _print_correlations(stats: AttentionStats, console: Console) -> None:
    for x, y, r, se, p, n in correlations(stats):
        console.print(f"r({x}, {y}) = {signed(r, se)} over {n} heads, p = {p:.2g}", highlight=False)


def head_page(stats: AttentionStats, head: str, console: Console) -> None:
    """Print a head's numbers with errors and ranks, and its exemplars."""
    layer, number = stats.find_head(head)
    table = _table("statistic", "value", f"rank of {stats['layer'].size * stats['head'].size}")
    marked_any = False
    for name, labels in headline(stats):
        top = stats.top_heads(name, n=stats["layer"].size * stats["head"].size, **labels)
        row = top[top["head"] == head]
        title = f"{name} {' '.join(map(str, labels.values()))}".strip()
        if not len(row):
            table.add_row(title, "undetermined", "")
            continue
        mark = f" {MARK}" if head in doubtful_heads(stats, name, **labels) else ""
        marked_any |= bool(mark)
        table.add_row(title, row_shown(row.iloc[0], name) + mark, str(row.index[0] + 1))
    console.print(f"{head}: layer {layer}, head {number} of {stats.subject}", highlight=False)
    if said := sentence_of(character(stats, head)):
        console.print(Text(said))
    console.print(table)
    if marked_any:
        _explain_mark(console)
    if "exemplar_weight" in stats.dataset:
        exemplars(stats, head, console)


def exemplars(stats: AttentionStats, head: str, console: Console, n: int = 10) -> None:
    """Print the head's strongest sentences, one per line, with the two tokens marked by brackets and style."""
    table = stats.exemplars(head)
    query, key = sides(table)
    console.print(Text(f"weight  [{query}] {{{key}}}", style="dim"))
    for _, row in table.head(n).iterrows():
        console.print(Text(f"{row['weight']:.3f}   ") + marked(row), soft_wrap=True)


def marked(row: pd.Series) -> Text:
    """The text of an exemplar, elided if long, with its tokens in brackets: [attending], {receiving}, [{both}]."""
    short = elided(dict(row))
    # rich drops these characters, which would shift all positions after them.
    result = Text(str(short["text"]).translate(dict.fromkeys((7, 8, 11, 12, 13), " ")))
    marks = []
    places = spans(short)
    for token, left, right, style in (("query", "[", "]", "bold"), ("key", "{", "}", "underline")):
        start, end = places[token]
        if start < end:
            result.stylize(style, start, end)
            marks.append((start, end, left, right))
    outer_first = sorted(marks, key=lambda span: span[0] - span[1])
    # Insert from the right, so that places further left stay valid. Of several brackets at one place, the last one
    # inserted comes first; this order puts closing before opening ones, and the inner pair inside the outer.
    openings = [(start, rank, left) for rank, (start, _, left, _) in enumerate(reversed(outer_first))]
    closings = [(end, 2 + rank, right) for rank, (_, end, _, right) in enumerate(outer_first)]
    for place, _, bracket in sorted(openings + closings, key=lambda b: (-b[0], b[1])):
        result = result[:place] + Text(bracket) + result[place:]
    return result


def _explain_mark(console: Console) -> None:
    console.print(f"{MARK} doubtful: {DOUBT}", style="dim")


def top(stats: AttentionStats, name: str, console: Console, *, n: int = 10, label: str | None = None) -> None:
    """Print the strongest heads of a statistic, for a tag, relation, direction or offset (`label`) if it has labels."""
    extra = [str(dim) for dim in stats[name].dims if dim not in ("layer", "head")]
    labels: dict[str, Any] = {}
    if label is not None:
        numeric = extra and stats[extra[0]].dtype.kind == "i" and re.fullmatch(r"-?\d+", label, re.ASCII)
        labels = {extra[0] if extra else "label": int(label) if numeric else label}
    ranked = stats.top_heads(name, n=stats["layer"].size * stats["head"].size, **labels)
    frame = ranked.head(n)
    doubtful = frame["head"].isin(doubtful_heads(stats, name, **labels))
    table = _table(*frame.columns)
    for (_, row), mark in zip(frame.iterrows(), np.where(doubtful, f" {MARK}", ""), strict=True):
        table.add_row(row["head"] + mark, str(row["layer"]), *_numbers(stats, row, name).values())
    console.print(table)
    if words := tied_words(tied(ranked)):
        console.print(f"{words} from {ranked['head'][0]}", highlight=False)
    if doubtful.any():
        _explain_mark(console)


def _numbers(stats: AttentionStats, row: pd.Series, name: str) -> dict[str, str]:
    """The numbers of a row of `AttentionStats.top_heads`, rounded to the error of the value, or to their own."""
    bound = "error_bound" in row
    error = row["error_bound"] if bound else row.get("se", math.nan)
    shown = {key: to_error(row[key], error, bound=bound) for key in (name, "low", "high") if key in row}
    if bound or "se" in row:
        shown["error_bound" if bound else "se"] = error_shown(error, row[name], bound=bound)
    if "null_share" in row and name != "null_share":
        layer, head = stats.find_head(row["head"])
        shown["null_share"] = to_error(row["null_share"], float(stats["null_share_se"].sel(layer=layer, head=head)))
    return {key: shown[key] for key in row.index if key in shown}


def _table(*columns: str) -> Table:
    table = Table(box=box.SIMPLE_HEAD, pad_edge=False)
    for column in columns:
        table.add_column(column, no_wrap=True)
    return table
