"""The data for the page's script: statistics as plain lists, with two digits more than are shown."""

from __future__ import annotations

import math
from typing import Any

import matplotlib as mpl
import numpy as np
from matplotlib.colors import to_hex
from scipy.stats import rankdata

from tl_attnstats.results.character import character
from tl_attnstats.results.marking import kept, pieces, sides
from tl_attnstats.results.numbers import carried, rounded_error
from tl_attnstats.results.ranking import DOUBT, headline, strongest, tied_words
from tl_attnstats.results.stats import HEAD_DIMS, AttentionStats, head_name

N_COLOURS = 64
BASELINES = {
    "pos_to": "pos_frequency",
    "dependency_alignment": "dependency_baseline",
    "behaviour": "behaviour_baseline",
}


def contents(stats: AttentionStats) -> dict[str, Any]:
    """Everything the script needs, ready for JSON. Values are listed by label, then by head, layer by layer."""
    layers, heads = (stats[dim].values.tolist() if dim in stats.dataset else [] for dim in HEAD_DIMS)
    names = [head_name(layer, head) for layer in layers for head in heads]
    statistics = [_statistic(stats, name) for name in stats.statistics if _has_heads(stats, name)]
    return {
        "model": stats.subject,
        "layers": layers,
        "heads": heads,
        "names": names,
        "statistics": statistics,
        "doubt": DOUBT,
        "columns": [[name, *labels.values()] for name, labels in headline(stats)],
        # For each column, how many heads cannot be told apart from the strongest one, in words.
        "tied": [tied_words(strongest(stats, name, **labels).n_tied) for name, labels in headline(stats)],
        "traits": [_traits(stats, name) for name in names],
        "pattern": _pattern(stats),
        "exemplars": _exemplars(stats, names),
        "colours": [to_hex(colour) for colour in mpl.colormaps["viridis"](np.linspace(0, 1, N_COLOURS))],
    }


def _has_heads(stats: AttentionStats, name: str) -> bool:
    """Whether a statistic has one value per head, or one per head and label."""
    dims = stats[name].dims
    return set(HEAD_DIMS) <= set(dims) and len(dims) <= 3


def _statistic(stats: AttentionStats, name: str) -> dict[str, Any]:
    values = stats[name]
    dims = [str(dim) for dim in values.dims if dim not in HEAD_DIMS]
    error = stats.error_of(name)
    is_bound = error is not None and not error.endswith("_se")
    by_label = _by_label(values)
    errors = np.full_like(by_label, np.nan) if error is None else _by_label(stats[error])
    baseline = stats.dataset.get(BASELINES.get(name, ""))
    baseline_error = stats.dataset.get(f"{BASELINES.get(name, '')}_se")
    return {
        "name": name,
        "title": values.attrs.get("long_name", name),
        "unit": values.attrs.get("units", ""),
        "formula": values.attrs.get("formula", ""),
        "dim": dims[0] if dims else "",
        "labels": values[dims[0]].values.tolist() if dims else [""],
        "values": rounded(by_label, errors, bound=is_bound),
        "errors": None if error is None else rounded_errors(errors, by_label, bound=is_bound),
        "is_bound": is_bound,
        # For each label, the indices of the heads whose value is doubtful.
        "doubtful": [np.flatnonzero(mask).tolist() for mask in _by_label(stats.doubtful(name))],
        # As in `head_table`, but for all heads at once.
        "ranks": [
            [None if np.isnan(rank) else int(rank) for rank in ranks]
            for ranks in rankdata(-by_label, method="min", nan_policy="omit", axis=1)
        ],
        "means": rounded(np.atleast_1d(values.mean(HEAD_DIMS))),
        "baseline": None if baseline is None else rounded(baseline, baseline_error),
        "baseline_errors": None if baseline_error is None else rounded_errors(baseline_error, baseline),
    }


def _by_label(values: Any) -> np.ndarray:
    """`[label, layer * head]`."""
    labels_first = values.transpose(..., *HEAD_DIMS)
    return np.asarray(labels_first.values.reshape(-1, values["layer"].size * values["head"].size))


def _traits(stats: AttentionStats, head: str) -> list[tuple[str, str, int]]:
    """What stands out about a head: each part of the sentence, its statistic, and the index of its label."""
    found = []
    for said, name, label in character(stats, head):
        (dim,) = (dim for dim in stats[name].dims if dim not in HEAD_DIMS) if label else ("",)
        found.append((said, name, stats[name][dim].values.tolist().index(label) if label else 0))
    return found


def _pattern(stats: AttentionStats) -> list[Any] | None:
    """The mean pattern of each head, `[head, query, key]`."""
    if "mean_pattern" not in stats.dataset:
        return None
    patterns = stats["mean_pattern"].values
    return list(rounded(patterns.reshape(-1, *patterns.shape[2:])))


def _exemplars(stats: AttentionStats, names: list[str]) -> dict[str, Any] | None:
    """Each sentence once, and for each head its exemplars: weight, sentence number and `_stretches`."""
    if "exemplar_weight" not in stats.dataset:
        return None
    sentences: dict[int, str] = {}
    by_head = []
    for name in names:
        table = stats.exemplars(name)
        rows = table.to_dict("records")
        sentences.update((row["sentence"], row["text"]) for row in rows)
        by_head.append([[rounded(row["weight"]), row["sentence"], _stretches(row)] for row in rows])
    by_number = {str(number): sentences[number] for number in sorted(sentences)}
    return {"sentences": by_number, "heads": by_head, "sides": sides(table)}


def _stretches(row: dict[Any, Any]) -> list[int]:
    """How to cut an exemplar's text, as triples of start, end and marks.

    Marks are 1 for the attending token plus 2 for the receiving one. Text outside the triples is elided.
    """
    stretches: list[int] = []
    start = 0
    for piece in pieces(row):
        end = start + len(piece.text)
        for left, right in kept(row):
            if max(start, left) < min(end, right):
                stretches += [max(start, left), min(end, right), piece.query + 2 * piece.key]
        start = end
    return stretches


def rounded(values: Any, errors: Any = None, *, bound: bool = False) -> Any:
    """The numbers, or nested lists of them, as `results.numbers.carried` rounds them. None replaces missing values."""
    if np.ndim(values):
        known = np.full(np.shape(values), np.nan) if errors is None else np.asarray(errors)
        return [rounded(value, error, bound=bound) for value, error in zip(np.asarray(values), known, strict=True)]
    return carried(float(values), math.nan if errors is None else float(errors), bound=bound)


def rounded_errors(errors: Any, values: Any, *, bound: bool = False) -> Any:
    """The errors of these values as they are shown; None replaces those that are not known."""
    if np.ndim(errors):
        pairs = zip(np.asarray(errors), np.asarray(values), strict=True)
        return [rounded_errors(error, value, bound=bound) for error, value in pairs]
    return None if np.isnan(errors) else float(rounded_error(float(errors), float(values), bound=bound))
