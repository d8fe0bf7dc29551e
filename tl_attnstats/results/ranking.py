"""Which heads a reader is told of, and the errors of numbers that are computed across heads."""

from __future__ import annotations

import math
from collections.abc import Callable
from contextlib import suppress
from decimal import ROUND_CEILING, Context
from typing import Any, NamedTuple

import numpy as np
import pandas as pd

from tl_attnstats.errors import MetricError
from tl_attnstats.results.claims import pearson, plus_minus, replicates_of
from tl_attnstats.results.stats import DOUBTFUL_ERROR, DOUBTFUL_NULL, HEAD_DIMS, AttentionStats, head_name

CORRELATIONS = (("distance", "entropy"), ("distance", "dependency_alignment"), ("entropy", "variability"))
# An exemplar of a head that looks away from the first tokens, at content, tells more than those of a positional head.
MOST_NULL = 0.5
DIGITS, ERROR_DIGITS = 4, 2
"""Of the numbers that are shown."""
MARK = "†"
"""Stands beside a doubtful value."""
DOUBT = f"null share above {DOUBTFUL_NULL}, or error above {DOUBTFUL_ERROR:.0%} of the value"
"""What makes a value doubtful, in words."""


class Strongest(NamedTuple):
    """The heads to name, as rows of `AttentionStats.top_heads`, and how many doubtful ones were left out."""

    heads: pd.DataFrame
    n_doubtful: int


class Correlated(NamedTuple):
    """Pearson's r of two statistics over heads: its standard error (NaN without replicates), p-value and heads."""

    x: str
    y: str
    r: float
    se: float
    p: float
    n: int


def strongest(
    stats: AttentionStats, name: str, n: int | None = 1, *, ascending: bool = False, **labels: Any
) -> Strongest:
    """The heads with the largest (or smallest) value that are not doubtful: those to name to a reader.

    An error that is large against the value makes a largest value doubtful, not a smallest one.

    Args:
        stats: the statistics.
        name: the statistic.
        n: how many heads; None for all.
        ascending: the smallest ones instead.
        labels: as in `AttentionStats.top_heads`.
    """
    ranked = stats.top_heads(name, n=stats["layer"].size * stats["head"].size, ascending=ascending, **labels)
    doubtful = doubtful_heads(stats, name, max_error=math.inf if ascending else DOUBTFUL_ERROR, **labels)
    kept = ranked[~ranked["head"].isin(doubtful)].reset_index(drop=True)
    return Strongest(kept if n is None else kept.head(n), len(ranked) - len(kept))


def doubtful_heads(stats: AttentionStats, name: str, **arguments: Any) -> list[str]:
    """The names of the heads that `AttentionStats.doubtful` finds, given the same arguments."""
    mask = stats.doubtful(name, **arguments).transpose(*HEAD_DIMS)
    layers, heads = (mask[dim].values for dim in HEAD_DIMS)
    return [head_name(layers[i], heads[j]) for i, j in np.argwhere(mask.values)]


def headline(stats: AttentionStats) -> list[tuple[str, dict[str, Any]]]:
    """The statistics, with labels, that overviews name the strongest heads of: alignment and common tags among them."""
    chosen: list[tuple[str, dict[str, Any]]] = [(name, {}) for name in stats.head_statistics]
    if "dependency_alignment" in stats.dataset:
        chosen.append(("dependency_alignment", {"direction": "either"}))
    if "pos_to" in stats.dataset:
        tags = [tag for tag in ("NOUN", "VERB", "PROPN", "PUNCT") if tag in stats["tag"].values]
        chosen += [("pos_to", {"tag": tag}) for tag in tags]
    return chosen


def interesting_head(stats: AttentionStats) -> str | None:
    """The head of highest variability that is not doubtful, of those with less than half their attention on null tokens
    if there are any.
    """
    if not {"variability", "null_share", "exemplar_weight"} <= set(stats.dataset):
        return None
    heads = strongest(stats, "variability", None).heads
    content = heads[heads["null_share"] < MOST_NULL]
    return next(iter((content if len(content) else heads)["head"]), None)


def correlations(stats: AttentionStats) -> list[Correlated]:
    """The correlations over heads worth a line: pairs of statistics that are there, where heads are enough."""
    found = []
    for x, y in CORRELATIONS:
        if x in stats.dataset and y in stats.dataset:
            labels = {"direction": "either"} if y == "dependency_alignment" else {}
            with suppress(MetricError):  # too few heads to say
                r, p, n = stats.correlation(x, y, **labels)
                found.append(Correlated(x, y, r, _spread(stats, (x, y), pearson), p, n))
    return found


def mean_error(stats: AttentionStats, name: str, layer: int | None = None) -> float:
    """The standard error of the mean of a statistic over all heads, or those of a layer. NaN without replicates."""
    chosen = slice(None) if layer is None else stats["layer"].values == layer
    return _spread(stats, (name,), lambda values: float(np.nanmean(values)), chosen)


def _spread(
    stats: AttentionStats, names: tuple[str, ...], measure: Callable[..., float], layers: Any = slice(None)
) -> float:
    """The standard deviation over bootstrap replicates of a number that is computed across heads.

    NaN without replicates, and of one sequence, which all replicates repeat.
    """
    if int(stats.provenance["sequences"]) < 2:
        return math.nan
    sampled = [replicates_of(stats, name) for name in names]
    there = [values[:, layers].reshape(len(values), -1) for values in sampled if values is not None]
    if len(there) < len(sampled):
        return math.nan
    measured = np.array([measure(*values) for values in zip(*there, strict=True) if np.isfinite(values).any()])
    finite = measured[np.isfinite(measured)]
    return float(finite.std(ddof=1)) if len(finite) > 1 else math.nan


def signed(value: float, error: float) -> str:
    """A correlation with its sign, and its error where there is one: "−0.064 ± 0.017"."""
    text = f"{abs(value):.2f}" if math.isnan(error) else plus_minus(abs(value), error)
    return f"{'−' if value < 0 else '+'}{text}"


def upper(bound: float, digits: int = 2) -> str:
    """A bound to so many digits, rounded up, so that it stays one."""
    return f"{Context(prec=digits, rounding=ROUND_CEILING).create_decimal(float(bound)):f}"
