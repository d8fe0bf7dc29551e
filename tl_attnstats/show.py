"""Statistics in the terminal: tables, and exemplars with their two tokens marked."""

from __future__ import annotations

from typing import Any

import numpy as np
import pandas as pd
from rich import box
from rich.console import Console
from rich.table import Table
from rich.text import Text

from tl_attnstats.stats import AttentionStats

LEGEND = "[attending token] {receiving token}"
CORRELATIONS = (("distance", "entropy"), ("distance", "dependency_alignment"), ("entropy", "variability"))
# An exemplar of a head that looks away from the first tokens, at content, tells more than those of a positional head.
MOST_NULL = 0.5


def overview(stats: AttentionStats, console: Console) -> None:
    """The headline table: where from, null share, the strongest heads, correlations, three exemplars."""
    p = stats.provenance
    sizes = stats.dataset.sizes
    console.print(
        f"{p['model']}: {sizes['layer']} layers × {sizes['head']} heads, {p['sequences']} sentences, "
        f"{p['tokens']} tokens ({p['corpus']})",
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
        error = "se" if "se" in top else "error"
        cells = [f"{row['head']} {row[name]:.3f} ± {row[error]:.4f}" for _, row in top.iterrows()]
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
    for x, y in CORRELATIONS:
        if x in stats.dataset and y in stats.dataset:
            labels = {"direction": "either"} if y == "dependency_alignment" else {}
            r, p, n = stats.correlation(x, y, **labels)
            console.print(f"r({x}, {y}) = {r:+.2f} over {n} heads, p = {p:.2g}", highlight=False)


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
            error = row["se" if "se" in row else "error"].iloc[0]
            table.add_row(f"{name} {chosen}".strip(), f"{row[name].iloc[0]:.4f}", f"{error:.4f}", str(row.index[0] + 1))
        else:
            table.add_row(f"{name} {chosen}".strip(), "undetermined", "", "")
    console.print(f"{head}: layer {layer}, head {number} of {stats.provenance['model']}", highlight=False)
    console.print(table)
    if "exemplar_weight" in stats.dataset:
        exemplars(stats, head, console)


def exemplars(stats: AttentionStats, head: str, console: Console, n: int = 10) -> None:
    """The head's strongest sentences, a line each, with the two tokens marked in brackets and by style."""
    console.print(Text(f"weight  {LEGEND}", style="dim"))
    for _, row in stats.exemplars(head).head(n).iterrows():
        console.print(Text(f"{row['weight']:.3f}   ") + marked(row), soft_wrap=True)


def marked(row: pd.Series) -> Text:
    """The text of an exemplar with its two tokens in brackets: [attending], {receiving}, [{both}]."""
    text = str(row["text"])
    result = Text(text)
    brackets = []
    for token, left, right, style in (("key", "{", "}", "underline"), ("query", "[", "]", "bold")):
        start, end = _trimmed(text, int(row[f"{token}_start"]), int(row[f"{token}_end"]))
        result.stylize(style, start, end)
        brackets += [(start, left), (end, right)] if start < end else []
    # Inserted from the right, so that the places further left stay true; of two at one place the later stands first.
    for place, bracket in sorted(brackets, key=lambda b: (-b[0], "{[]}".index(b[1]))):
        result = result[:place] + Text(bracket) + result[place:]
    return result


def _trimmed(text: str, start: int, end: int) -> tuple[int, int]:
    """A token's characters without the space that many tokenizers put in front."""
    piece = text[start:end]
    return start + len(piece) - len(piece.lstrip()), end - (len(piece) - len(piece.rstrip()))


def top(stats: AttentionStats, name: str, console: Console, *, n: int = 10, label: str | None = None) -> None:
    """The strongest heads of a statistic; `label` is the tag, relation, direction or offset it is wanted for."""
    extra = [str(dim) for dim in stats[name].dims if dim not in ("layer", "head")]
    labels: dict[str, Any] = {}
    if extra and label is not None:
        labels = {extra[0]: int(label) if stats[extra[0]].dtype.kind == "i" and label.lstrip("-").isdigit() else label}
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
