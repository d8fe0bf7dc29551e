"""The data for the page's script: statistics as plain lists, with two digits more than are shown."""

from __future__ import annotations

import math
from typing import Any

import matplotlib as mpl
import numpy as np
from matplotlib.colors import to_hex
from scipy.stats import rankdata

from tl_attnstats.report.components import Components, components
from tl_attnstats.results.character import Trait, character
from tl_attnstats.results.marking import kept, pieces, sides
from tl_attnstats.results.numbers import carried, rounded_error
from tl_attnstats.results.ranking import DOUBT, headline, strongest, tied_words
from tl_attnstats.results.stats import HEAD_DIMS, AttentionStats, head_name
from tl_attnstats.results.whole import WholePatterns

N_COLOURS = 64
KINDS = {
    "behaviour": "",
    "alignment_excess": "dependencies",
    "sink_share": "sinks",
    "null_share": "null tokens",
}
"""Statistics of traits, the most specific first, and the words for them; "" for the trait's label."""
N_BINS = 10  # of typical exemplars
BASELINES = {
    "pos_to": "pos_frequency",
    "dependency_alignment": "dependency_baseline",
    "behaviour": "behaviour_baseline",
}


def contents(stats: AttentionStats, patterns: WholePatterns | None = None) -> dict[str, Any]:
    """Everything the script needs, ready for JSON. Values are listed by label, then by head, layer by layer."""
    layers, heads = (stats[dim].values.tolist() if dim in stats.dataset else [] for dim in HEAD_DIMS)
    names = [head_name(layer, head) for layer in layers for head in heads]
    found = components([stats]) if names else None
    return {
        **on_map(stats, None if found is None else found.scores[0]),
        "components": said_of(found),
        "doubt": DOUBT,
        "columns": [[name, *labels.values()] for name, labels in headline(stats)],
        # For each column, how many heads cannot be told apart from the strongest one, in words.
        "tied": [tied_words(strongest(stats, name, **labels).n_tied) for name, labels in headline(stats)],
        "pattern": _pattern(stats),
        **_exemplars(stats, names),
        "patterns": None if patterns is None else patterns.contents(names),
        "colours": colours(),
    }


def on_map(stats: AttentionStats, scores: Any) -> dict[str, Any]:
    """What the map of heads needs of a model, with the places of its heads on the principal components."""
    layers, heads = (stats[dim].values.tolist() if dim in stats.dataset else [] for dim in HEAD_DIMS)
    names = [head_name(layer, head) for layer in layers for head in heads]
    traits = [character(stats, name) for name in names]
    return {
        "model": stats.subject,
        "layers": layers,
        "heads": heads,
        "names": names,
        "statistics": [_statistic(stats, name) for name in stats.statistics if _has_heads(stats, name)],
        "traits": [_places(stats, of) for of in traits],
        "kinds": [_kind(of) for of in traits],
        "scores": None if scores is None else rounded(scores),
    }


def said_of(found: Components | None) -> dict[str, Any] | None:
    """The principal components, but for the places of heads."""
    return None if found is None else {"explained": found.explained, "loadings": found.loadings}


def colours() -> list[str]:
    """The colour map."""
    return [to_hex(colour) for colour in mpl.colormaps["viridis"](np.linspace(0, 1, N_COLOURS))]


def _kind(traits: list[Trait]) -> str:
    """What a head is, in a word or two: the most specific of its traits."""
    found = {trait.statistic: trait.label for trait in reversed(traits)}
    return next((word or found[name] for name, word in KINDS.items() if name in found), "none")


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


def _places(stats: AttentionStats, traits: list[Trait]) -> list[tuple[str, str, int]]:
    """What stands out about a head: each part of the sentence, its statistic, and the index of its label."""
    found = []
    for said, name, label in traits:
        (dim,) = (dim for dim in stats[name].dims if dim not in HEAD_DIMS) if label else ("",)
        found.append((said, name, stats[name][dim].values.tolist().index(label) if label else 0))
    return found


def _pattern(stats: AttentionStats) -> list[Any] | None:
    """The mean pattern of each head, `[head, query, key]`."""
    if "mean_pattern" not in stats.dataset:
        return None
    patterns = stats["mean_pattern"].values
    return list(rounded(patterns.reshape(-1, *patterns.shape[2:])))


def _exemplars(stats: AttentionStats, names: list[str]) -> dict[str, Any]:
    """The strongest and the typical exemplars of each head, and each of their sentences once.

    An exemplar is its weight, the number of its sentence, `_stretches`, and the positions of its two tokens; a typical
    one also has the index of its bin.
    """
    tables = {
        "exemplars": [stats.exemplars(name) for name in names] if "exemplar_weight" in stats.dataset else [],
        "typical": [stats.typical_exemplars(name) for name in names] if "typical_weight" in stats.dataset else [],
    }
    sentences = {row["sentence"]: row["text"] for of in tables.values() for table in of for row in _rows(table)}
    heads = {kind: [[_exemplar(row) for row in _rows(table)] for table in of] for kind, of in tables.items()}
    found: dict[str, Any] = {kind: {"heads": of} if of else None for kind, of in heads.items()}
    if found["typical"]:
        found["typical"]["edges"] = stats["row_max"].values.tolist()
        counts = stats["typical_rows"]
        found["typical"]["rows"] = counts.values.reshape(-1, counts.shape[-1]).astype(int).tolist()
    of = tables["exemplars"] or tables["typical"]
    return {
        "sentences": {str(number): sentences[number] for number in sorted(sentences)},
        "sides": sides(of[0]) if of else None,
        **found,
    }


def _rows(table: Any) -> list[dict[Any, Any]]:
    return list(table.to_dict("records"))


def _exemplar(row: dict[Any, Any]) -> list[Any]:
    exemplar = [rounded(row["weight"]), row["sentence"], _stretches(row), row["query"], row["key"]]
    return [*exemplar, round(row["row_max"] * N_BINS)] if "row_max" in row else exemplar


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
