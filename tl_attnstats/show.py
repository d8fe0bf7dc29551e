"""Statistics in the terminal: tables, and exemplars with their two tokens marked."""

from __future__ import annotations

import re
from contextlib import suppress
from typing import Any

import numpy as np
import pandas as pd
from rich import box
from rich.console import Console
from rich.table import Table
from rich.text import Text

from tl_attnstats.errors import MetricError
from tl_attnstats.marking import elided, sides, spans
from tl_attnstats.stats import AttentionStats, Correlation

CORRELATIONS = (("distance", "entropy"), ("distance", "dependency_alignment"), ("entropy", "variability"))
# An exemplar of a head that looks away from the first tokens, at content, tells more than those of a positional head.
MOST_NULL = 0.5


def overview(stats: AttentionStats, console: Console) -> None:
    """The headline table: where from, null share, the strongest heads, correlations, three exemplars."""
    sizes = stats.dataset.sizes
    console.print(
        f"{stats.subject}: {sizes.get('layer', 0)} layers × {sizes.get('head', 0)} heads, {stats.extent} "
        f"({stats.provenance['corpus']})",
        highlight=False,
    )
    if "null_share" in stats.dataset:
        values = stats["null_share"].values
        console.print(f"Attention on null tokens: mean over heads {values.mean():.3f}, largest {values.max():.3f}\n")
    console.print(_strongest(stats))
    _print_correlations(stats, console)
    head = interesting_head(stats)
    if head:
        variability = stats.head_values("variability").sel(
            dict(zip(("layer", "head"), stats.find_head(head), strict=True))
        )
        console.print(
            f"\n{head}, the most content-driven head (variability {float(variability):.3f}):", highlight=False
        )
        exemplars(stats, head, console, n=3)


def _strongest(stats: AttentionStats) -> Table:
    table = _table("statistic", "strongest heads, value ± error")
    for name, labels in strongest_of(stats):
        top = stats.top_heads(name, n=3, **labels)
        cells = [f"{row['head']} {row[name]:.3f} ± {_error(row)}" for _, row in top.iterrows()]
        chosen = f" {' '.join(map(str, labels.values()))}" if labels else ""
        table.add_row(f"{name}{chosen}", "   ".join(cells))
    return table


def strongest_of(stats: AttentionStats) -> list[tuple[str, dict[str, Any]]]:
    """What the overview names the best heads of: head-level statistics, alignment, and a few common tags."""
    chosen: list[tuple[str, dict[str, Any]]] = [(name, {}) for name in stats.head_statistics]
    if "dependency_alignment" in stats.dataset:
        chosen.append(("dependency_alignment", {"direction": "either"}))
    if "pos_to" in stats.dataset:
        tags = [tag for tag in ("NOUN", "VERB", "PROPN", "PUNCT") if tag in stats["tag"].values]
        chosen += [("pos_to", {"tag": tag}) for tag in tags]
    return chosen


def _print_correlations(stats: AttentionStats, console: Console) -> None:
    for x, y, (r, p, n) in correlations(stats):
        console.print(f"r({x}, {y}) = {r:+.2f} over {n} heads, p = {p:.2g}", highlight=False)


def correlations(stats: AttentionStats) -> list[tuple[str, str, Correlation]]:
    """The correlations over heads worth a line: pairs of statistics that are there, where heads are enough."""
    found = []
    for x, y in CORRELATIONS:
        if x in stats.dataset and y in stats.dataset:
            labels = {"direction": "either"} if y == "dependency_alignment" else {}
            with suppress(MetricError):  # too few heads to say
                found.append((x, y, stats.correlation(x, y, **labels)))
    return found


def interesting_head(stats: AttentionStats) -> str | None:
    """The head of highest variability among those with less than half their attention on null tokens."""
    if not {"variability", "null_share", "exemplar_weight"} <= set(stats.dataset):
        return None
    top = stats.top_heads("variability", n=stats["variability"].size)
    content = top[top["null_share"] < MOST_NULL]
    return str((content if len(content) else top).iloc[0]["head"]) if len(top) else None


def head_page(stats: AttentionStats, head: str, console: Console) -> None:
    """Everything about one head: its numbers, with errors and ranks, and its exemplars."""
    layer, number = stats.find_head(head)
    table = _table("statistic", "value", "± error", f"rank of {stats['layer'].size * stats['head'].size}")
    for name, labels in strongest_of(stats):
        top = stats.top_heads(name, n=stats["layer"].size * stats["head"].size, **labels)
        row = top[top["head"] == head]
        chosen = " ".join(map(str, labels.values()))
        if len(row):
            found = row.iloc[0]
            table.add_row(f"{name} {chosen}".strip(), f"{found[name]:.4f}", _error(found), str(row.index[0] + 1))
        else:
            table.add_row(f"{name} {chosen}".strip(), "undetermined", "", "")
    console.print(f"{head}: layer {layer}, head {number} of {stats.subject}", highlight=False)
    console.print(table)
    if "exemplar_weight" in stats.dataset:
        exemplars(stats, head, console)


def exemplars(stats: AttentionStats, head: str, console: Console, n: int = 10) -> None:
    """The head's strongest sentences, a line each, with the two tokens marked in brackets and by style."""
    table = stats.exemplars(head)
    query, key = sides(table)
    console.print(Text(f"weight  [{query}] {{{key}}}", style="dim"))
    for _, row in table.head(n).iterrows():
        console.print(Text(f"{row['weight']:.3f}   ") + marked(row), soft_wrap=True)


def marked(row: pd.Series) -> Text:
    """The text of an exemplar with its two tokens in brackets: [attending], {receiving}, [{both}]. Long ones elided."""
    short = elided(dict(row))
    # rich drops these characters, which would move everything behind them.
    result = Text(str(short["text"]).translate(dict.fromkeys((7, 8, 11, 12, 13), " ")))
    marks = []
    places = spans(short)
    for token, left, right, style in (("query", "[", "]", "bold"), ("key", "{", "}", "underline")):
        start, end = places[token]
        if start < end:
            result.stylize(style, start, end)
            marks.append((start, end, left, right))
    outer_first = sorted(marks, key=lambda span: span[0] - span[1])
    # Inserted from the right, so that the places further left stay true. Of several at one place the one inserted last
    # stands first: closing before opening ones, and the inner pair within the outer.
    openings = [(start, rank, left) for rank, (start, _, left, _) in enumerate(reversed(outer_first))]
    closings = [(end, 2 + rank, right) for rank, (_, end, _, right) in enumerate(outer_first)]
    for place, _, bracket in sorted(openings + closings, key=lambda b: (-b[0], b[1])):
        result = result[:place] + Text(bracket) + result[place:]
    return result


def _error(row: pd.Series) -> str:
    """The standard error, or the bound of the error, where there is one."""
    return next((f"{row[kind]:.4f}" for kind in ("se", "error") if kind in row), "")


def top(stats: AttentionStats, name: str, console: Console, *, n: int = 10, label: str | None = None) -> None:
    """The strongest heads of a statistic; `label` is the tag, relation, direction or offset it is wanted for."""
    extra = [str(dim) for dim in stats[name].dims if dim not in ("layer", "head")]
    labels: dict[str, Any] = {}
    if label is not None:
        numeric = extra and stats[extra[0]].dtype.kind == "i" and re.fullmatch(r"-?\d+", label, re.ASCII)
        labels = {extra[0] if extra else "label": int(label) if numeric else label}
    frame = stats.top_heads(name, n=n, **labels)
    table = _table(*frame.columns)
    for values in frame.itertuples(index=False):
        table.add_row(*(f"{v:.4f}" if isinstance(v, (float, np.floating)) else str(v) for v in values))
    console.print(table)


def _table(*columns: str) -> Table:
    table = Table(box=box.SIMPLE_HEAD, pad_edge=False)
    for column in columns:
        table.add_column(column, no_wrap=True)
    return table
