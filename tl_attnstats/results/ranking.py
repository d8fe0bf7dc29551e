"""Choose the heads to name to readers, and estimate the errors of numbers computed across heads."""

from __future__ import annotations

import math
from collections.abc import Callable
from contextlib import suppress
from typing import Any, NamedTuple

import numpy as np
import pandas as pd

from tl_attnstats.errors import MetricError
from tl_attnstats.results.claims import pearson, replicates_of
from tl_attnstats.results.numbers import with_bound, with_error
from tl_attnstats.results.stats import DOUBTFUL_ERROR, DOUBTFUL_NULL, HEAD_DIMS, AttentionStats, head_name

CORRELATIONS = (("distance", "entropy"), ("distance", "dependency_alignment"), ("entropy", "variability"))
# Exemplars of a head that attends to content, rather than null tokens, tell more.
MOST_NULL = 0.5
MARK = "†"
"""Marks a doubtful value."""
BINNING = "binning ≤"
"""Stands before the bound of an error that binning makes."""
DOUBT = f"null share above {DOUBTFUL_NULL}, or error above {DOUBTFUL_ERROR:.0%} of the value"
"""What makes a value doubtful, in words."""


class Strongest(NamedTuple):
    """The heads to name, as rows of `AttentionStats.top_heads`.

    With the number of doubtful heads left out, and of those that cannot be told apart from the first (`tied`).
    """

    heads: pd.DataFrame
    n_doubtful: int
    n_tied: int


class Correlated(NamedTuple):
    """Pearson's r of two statistics over n heads, its standard error (NaN without replicates) and p-value."""

    x: str
    y: str
    r: float
    se: float
    p: float
    n: int


def strongest(
    stats: AttentionStats, name: str, n: int | None = 1, *, ascending: bool = False, **labels: Any
) -> Strongest:
    """The heads to name to readers: those with the largest (or smallest) value, without doubtful ones.

    A large relative error makes a largest value doubtful, but not a smallest one.

    Args:
        stats: the statistics.
        name: the statistic.
        n: number of heads; None for all.
        ascending: take the smallest values instead.
        labels: as in `AttentionStats.top_heads`.
    """
    ranked = stats.top_heads(name, n=stats["layer"].size * stats["head"].size, ascending=ascending, **labels)
    doubtful = doubtful_heads(stats, name, max_error=math.inf if ascending else DOUBTFUL_ERROR, **labels)
    kept = ranked[~ranked["head"].isin(doubtful)].reset_index(drop=True)
    return Strongest(kept if n is None else kept.head(n), len(ranked) - len(kept), tied(kept))


def tied(ranked: pd.DataFrame) -> int:
    """How many heads cannot be told apart from the first: their bounds, which hold for all heads at once, overlap.

    Heads without bounds do not count: `variability` has none, nor has any statistic of a single sequence.

    Args:
        ranked: all heads in question, as rows of `AttentionStats.top_heads`.
    """
    if ranked.empty or "low" not in ranked:
        return 0
    first, others = ranked.iloc[0], ranked.iloc[1:]
    return int(((others["low"] <= first["high"]) & (others["high"] >= first["low"])).sum())


def tied_words(n: int) -> str:
    """The number of `tied` heads in words; "" for none."""
    return f"{n} more cannot be told apart" if n else ""


def doubtful_heads(stats: AttentionStats, name: str, **arguments: Any) -> list[str]:
    """Names of the heads that `AttentionStats.doubtful` finds with the same arguments."""
    mask = stats.doubtful(name, **arguments).transpose(*HEAD_DIMS)
    layers, heads = (mask[dim].values for dim in HEAD_DIMS)
    return [head_name(layers[i], heads[j]) for i, j in np.argwhere(mask.values)]


def headline(stats: AttentionStats) -> list[tuple[str, dict[str, Any]]]:
    """The statistics, with labels, whose strongest heads overviews list: also alignment and common tags."""
    chosen: list[tuple[str, dict[str, Any]]] = [(name, {}) for name in stats.head_statistics]
    if "dependency_alignment" in stats.dataset:
        chosen.append(("dependency_alignment", {"direction": "either"}))
    if "pos_to" in stats.dataset:
        tags = [tag for tag in ("NOUN", "VERB", "PROPN", "PUNCT") if tag in stats["tag"].values]
        chosen += [("pos_to", {"tag": tag}) for tag in tags]
    return chosen


def interesting_head(stats: AttentionStats) -> str | None:
    """The head of highest variability that is not doubtful.

    Heads with less than half their attention on null tokens are preferred.
    """
    if not {"variability", "null_share", "exemplar_weight"} <= set(stats.dataset):
        return None
    heads = strongest(stats, "variability", None).heads
    content = heads[heads["null_share"] < MOST_NULL]
    return next(iter((content if len(content) else heads)["head"]), None)


def correlations(stats: AttentionStats) -> list[Correlated]:
    """The correlations over heads to report: pairs of collected statistics, if there are enough heads."""
    found = []
    for x, y in CORRELATIONS:
        if x in stats.dataset and y in stats.dataset:
            labels = {"direction": "either"} if y == "dependency_alignment" else {}
            with suppress(MetricError):  # too few heads
                r, p, n = stats.correlation(x, y, **labels)
                found.append(Correlated(x, y, r, _spread(stats, (x, y), pearson), p, n))
    return found


def mean_error(stats: AttentionStats, name: str, layer: int | None = None) -> float:
    """Standard error of the mean of a statistic over all heads, or those of a layer. NaN without replicates."""
    chosen = slice(None) if layer is None else stats["layer"].values == layer
    return _spread(stats, (name,), lambda values: float(np.nanmean(values)), chosen)


def _spread(
    stats: AttentionStats, names: tuple[str, ...], measure: Callable[..., float], layers: Any = slice(None)
) -> float:
    """Standard deviation over bootstrap replicates of a number computed across heads.

    NaN without replicates, and for a single sequence, because all replicates repeat it.
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
    """A correlation with its sign, and its error if known: "−0.064 ± 0.017"."""
    return f"{'−' if value < 0 else '+'}{with_error(abs(value), error)}"


def row_shown(row: pd.Series, name: str) -> str:
    """The value in a row of `AttentionStats.top_heads`, with its error or bound if it has one."""
    if "error_bound" in row:
        return with_bound(row[name], row["error_bound"], BINNING)
    return with_error(row[name], row.get("se", math.nan))


def mean_shown(stats: AttentionStats, name: str, layer: int | None = None) -> str:
    """The mean over all heads, or those of a layer, with its error from replicates, or else an upper bound."""
    chosen = {} if layer is None else {"layer": layer}
    mean, error = float(stats[name].sel(chosen).mean()), mean_error(stats, name, layer)
    if not math.isnan(error) or f"{name}_se" not in stats.dataset:
        return with_error(mean, error)
    # Heads see the same sentences, so their errors are correlated, by an unknown amount. At most, they add up.
    return with_bound(mean, float(stats[f"{name}_se"].sel(chosen).mean()), "± at most")
