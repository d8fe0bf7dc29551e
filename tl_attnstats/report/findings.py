"""What stands out, in sentences, each number with its error where it has one."""

from __future__ import annotations

import math
from collections.abc import Iterator
from decimal import Decimal
from typing import Any

import pandas as pd
from markupsafe import Markup

from tl_attnstats.report.contents import DIGITS, ERROR_DIGITS
from tl_attnstats.show import correlations, interesting_head
from tl_attnstats.stats import AttentionStats

LINK = Markup('<a href="#{0}">{0}</a>')


def findings(stats: AttentionStats) -> list[Markup]:
    """A sentence or two for each statistic that has something to say, with links to the heads they name."""
    makers = {
        "null_share": _null_share,
        "distance": _distance,
        "dependency_alignment": _alignment,
        "variability": _variability,
    }
    found = [
        sentence
        for name, maker in makers.items()
        if name in stats.dataset and stats[name].notnull().any()
        for sentence in maker(stats)
    ]
    return [*found, *_correlations(stats), *_undetermined(stats)]


def _null_share(stats: AttentionStats) -> Iterator[Markup]:
    most, least = (_extreme(stats, "null_share", ascending) for ascending in (False, True))
    # Heads see the same sentences. How far their errors go together nobody kept: at the most, they add up.
    bound = float(stats["null_share_se"].mean())
    yield _sentence(
        "Null tokens, which say nothing, take {}{} of attention on average over heads: the most in {}, {}, the least "
        "in {}, {}.",
        _number(stats["null_share"].mean()),
        "" if math.isnan(bound) else f" (standard error at most {_number(bound, ERROR_DIGITS)})",
        *most,
        *least,
    )


def _distance(stats: AttentionStats) -> Iterator[Markup]:
    layers = stats.by_layer("distance")["mean"].dropna()
    yield _sentence(
        "{} looks furthest, {} tokens on average. Of the layers, layer {} does: the mean over its heads is {} tokens, "
        "that over all heads {}.",
        *_extreme(stats, "distance"),
        layers.idxmax(),
        _number(layers.max()),
        _number(stats["distance"].mean()),
    )


def _alignment(stats: AttentionStats) -> Iterator[Markup]:
    head, value = _extreme(stats, "dependency_alignment", direction="either")
    text = "{} follows dependencies most: {} of its attention runs along them, in either direction"
    if "dependency_baseline" not in stats.dataset:
        yield _sentence(text + ".", head, value)
        return
    chance, error = (float(stats[n].sel(direction="either")) for n in ("dependency_baseline", "dependency_baseline_se"))
    above = int((stats.head_values("dependency_alignment", direction="either") > chance).sum())
    yield _sentence(
        text + "; of all pairs of tokens {} are in a relation. {} of {} heads lie above that.",
        head,
        value,
        _plus_minus(chance, error),
        above,
        stats["layer"].size * stats["head"].size,
    )


def _variability(stats: AttentionStats) -> Iterator[Markup]:
    yield _sentence("{} depends on position most: variability {}.", *_extreme(stats, "variability", ascending=True))
    head = interesting_head(stats)
    if head:
        top = stats.top_heads("variability", n=stats["variability"].size)
        row = top[top["head"] == head].iloc[0]
        text = "Of the heads with little attention on null tokens, {} depends on content most: variability {}."
        yield _sentence(text, LINK.format(head), _of_row(row, "variability"))


def _correlations(stats: AttentionStats) -> Iterator[Markup]:
    found = [
        f"r({x.replace('_', ' ')}, {y.replace('_', ' ')}) = {_signed(r)} (p = {p:.2g}, {n} heads)"
        for x, y, (r, p, n) in correlations(stats)
        if not math.isnan(r)
    ]
    if found:
        yield _sentence("Over heads, {}.", "; ".join(found))


def _undetermined(stats: AttentionStats) -> Iterator[Markup]:
    if "distance" in stats.dataset:
        n = int(stats["distance"].isnull().sum())
        if n:
            yield _sentence(
                "{} {} no attention off null tokens; what cannot be determined there is left grey.",
                n,
                "head has" if n == 1 else "heads have",
            )


def _extreme(stats: AttentionStats, name: str, ascending: bool = False, **labels: Any) -> tuple[Markup, str]:
    """The head with the largest (or smallest) value, as a link, and its value with the error."""
    row = stats.top_heads(name, n=1, ascending=ascending, **labels).iloc[0]
    return LINK.format(row["head"]), _of_row(row, name)


def _of_row(row: pd.Series, name: str) -> str:
    return _plus_minus(row[name], row["se"] if "se" in row else row["error"])


def _plus_minus(value: float, error: float) -> str:
    return _number(value) if math.isnan(error) else f"{_number(value)} ± {_number(error, ERROR_DIGITS)}"


def _number(value: Any, digits: int = DIGITS) -> str:
    return f"{Decimal(f'{float(value):#.{digits}g}'):f}"  # digits after the point, whatever the magnitude


def _signed(value: float) -> str:
    return f"{value:+.2f}".replace("-", "−")


def _sentence(text: str, *parts: Any) -> Markup:
    return Markup(text).format(*parts)  # which escapes the parts
