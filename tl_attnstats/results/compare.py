"""Compare the statistics of several models, with layers aligned by relative depth."""

from __future__ import annotations

import itertools
import json
from collections.abc import Iterable, Iterator, Mapping
from dataclasses import dataclass

import numpy as np
import pandas as pd
import xarray as xr

from tl_attnstats.errors import MetricError, StatsError, choices
from tl_attnstats.results.claims import Claim, claims_of, depths_of, layer_count, replicates_of
from tl_attnstats.results.counterparts import counterparts_of
from tl_attnstats.results.stats import HEAD_DIMS, AttentionStats


@dataclass(frozen=True, repr=False)
class Comparison:
    """The result of `compare`.

    Attributes:
        stats: the statistics of each model, by its name in this comparison.
        dataset: means over the heads of a layer, with dimensions `model`, `depth` and the statistic's label, if any.
            `depth` holds the relative depths of the layers of all models, from 0 (first layer) to 1 (last layer). A
            model's own layers are marked by `measured`; between them its values are interpolated linearly, and outside
            the layers in its file they are NaN. `distance_se` is the standard error of `distance` over bootstrap
            replicates of the corpus, NaN without replicates; the same goes for other statistics with replicates.
        heads: one row per value of a head: `model`, `layer`, `head`, `depth`, `statistic`, `label`, `value`, `error`
            (standard error; for variability the bound of binning), `doubtful` (see `AttentionStats.doubtful`).
        means: one row per model, statistic and label: `mean` over all heads, its standard error `se` from replicates
            (NaN without them), and `std`, `min` and `max` over heads.
        claims: the claims of Vig & Belinkov (2019), tested on each model.
        counterparts: by model and claim, the claims tested without sinks, or beyond position: see `counterparts_of`.
        notes: sentences on how the runs differ and what was left out.
    """

    stats: Mapping[str, AttentionStats]
    dataset: xr.Dataset
    heads: pd.DataFrame
    means: pd.DataFrame
    claims: Mapping[str, list[Claim]]
    counterparts: Mapping[str, dict[str, Claim]]
    notes: tuple[str, ...]

    def __repr__(self) -> str:
        return f"Comparison of {', '.join(self.models)}\n{', '.join(self.statistics)}"

    @property
    def models(self) -> list[str]:
        """The names of the models."""
        return list(self.stats)

    @property
    def statistics(self) -> list[str]:
        """The statistics that all models have."""
        return list(dict.fromkeys(self.heads["statistic"]))

    def labels_of(self, name: str) -> list[str]:
        """The labels of a statistic that all models share; [""] if it has none. Raises `MetricError`."""
        if name not in self.statistics:
            raise MetricError(f"no statistic {name!r} in this comparison; there are: {choices(self.statistics)}")
        return list(dict.fromkeys(self.heads.loc[self.heads["statistic"] == name, "label"]))

    def check_label(self, name: str, label: str) -> None:
        """Raise `MetricError` unless the statistic is here and has this label ("" for none)."""
        labels = self.labels_of(name)
        if label not in labels:
            expected = "no label" if labels == [""] else f"one of {choices(labels)}"
            raise MetricError(f"label={label!r}: {name} takes {expected}")

    def claims_table(self) -> pd.DataFrame:
        """One row per claim and model, as in `claims.csv`. Columns `beyond_…` are of the counterpart, if any."""
        tested = ("quantity", "value", "se", "low", "high", "verdict")
        fields = ("name", "statement", "quantity", "paper", *tested[1:])
        rows = []
        for model, claims in self.claims.items():
            for claim in claims:
                beyond = self.counterparts[model].get(claim.name)
                rows.append(
                    {"model": model}
                    | {field: getattr(claim, field) for field in fields}
                    | {f"beyond_{field}": getattr(beyond, field, None) for field in tested}
                )
        return pd.DataFrame(rows).rename(columns={"name": "claim"})


def compare(stats: Mapping[str, AttentionStats], *, allow_different: bool = False) -> Comparison:
    """Compare the statistics of several models.

    A statistic is compared if all models have it, collected with the same settings, and if it has one value per head,
    or one per head and label in words (part of speech, relation, direction). The notes list what was left out and what
    differs by nature, such as the null rules of a decoder and an encoder.

    Args:
        stats: the statistics by model name, which you choose: `{"gpt2": a, "pythia": b}`.
        allow_different: compare runs on different corpora too; the notes say so.

    Returns:
        The comparison.

    Raises:
        StatsError: there are fewer than two models, a name is empty, a value is not `AttentionStats`, corpora or
            annotations differ, or no statistic is common to all.
    """
    _check(stats)
    different = _different_corpora(stats)
    if different and not allow_different:
        raise StatsError(
            f"compare: {different} Collect on the same corpus (same sentences, same annotation), or pass "
            f"allow_different=True (--allow-different) to compare anyway"
        )
    shared, left_out = _shared(stats)
    if not shared:
        raise StatsError(f"compare: no statistic in common; {' '.join(left_out)} Collect with the same metrics")
    heads = pd.concat([_heads(model, of, shared) for model, of in stats.items()], ignore_index=True)
    return Comparison(
        stats=dict(stats),
        dataset=_by_depth(stats, shared),
        heads=heads,
        means=_means(stats, shared, heads),
        claims={model: claims_of(of) for model, of in stats.items()},
        counterparts={model: counterparts_of(of) for model, of in stats.items()},
        notes=(*([different] if different else []), *_notes(stats), *left_out),
    )


def _check(stats: Mapping[str, AttentionStats]) -> None:
    if not isinstance(stats, Mapping):
        raise StatsError(
            f'compare: got {type(stats).__name__}, expected statistics by name: {{"gpt2": a, "pythia": b}}'
        )
    if len(stats) < 2:
        raise StatsError(f"compare: got {len(stats)} model(s) ({', '.join(map(str, stats))}), expected two or more")
    for name, of in stats.items():
        if not isinstance(name, str) or not name.strip():
            raise StatsError(f"compare: got the name {name!r}, expected a non-empty name for the model")
        if not isinstance(of, AttentionStats):
            raise StatsError(
                f"compare: {name} is of type {type(of).__name__}, expected AttentionStats (ta.load reads one)"
            )


def _different_corpora(stats: Mapping[str, AttentionStats]) -> str:
    """A sentence on how the corpora differ, "" if they do not."""
    if len({of.provenance["corpus_fingerprint"] for of in stats.values()}) == 1:
        return ""
    corpora = (
        f"{name} saw {of.provenance['sequences']} sequences of {of.provenance['corpus']}" for name, of in stats.items()
    )
    return f"Different corpora or annotations: {'; '.join(corpora)}."


def _shared(stats: Mapping[str, AttentionStats]) -> tuple[dict[str, list[str]], list[str]]:
    """The labels ([""] for none) of each comparable statistic, and sentences about the others."""
    names = list(dict.fromkeys(name for of in stats.values() for name in _by_head(of)))
    settings = {model: json.loads(of.provenance["settings"]) for model, of in stats.items()}
    shared: dict[str, list[str]] = {}
    left_out = []
    statistics_of: dict[str, list[str]] = {}  # by the labels that some model lacks
    for name in names:
        without = [model for model, of in stats.items() if name not in _by_head(of)]
        if without:
            left_out.append(f"{name} is left out: {', '.join(without)} {'has' if len(without) == 1 else 'have'} none.")
            continue
        differing = {model: json.dumps(settings[model].get(name, {})) for model in stats}
        if len(set(differing.values())) > 1:
            said = "; ".join(f"{model} {value}" for model, value in differing.items())
            left_out.append(f"{name} is left out: collected with different settings ({said}).")
            continue
        labels = [_labels(of, name) for of in stats.values()]
        common = [label for label in labels[0] if all(label in these for these in labels)]
        others = [label for label in dict.fromkeys(itertools.chain(*labels)) if label not in common]
        if others:
            statistics_of.setdefault(", ".join(f"“{label}”" for label in others), []).append(name)
        if common:
            shared[name] = common
    for said, lacking in statistics_of.items():
        left_out.append(f"Left out because not all models have it: {said} of {', '.join(lacking)}.")
    return shared, left_out


def _by_head(stats: AttentionStats) -> list[str]:
    """Statistics with one value per head, or one per head and label in words."""
    return [name for name in stats.statistics if set(HEAD_DIMS) <= set(stats[name].dims) and _labels(stats, name)]


def _labels(stats: AttentionStats, name: str) -> list[str]:
    """The labels of a statistic; [""] if it has none; [] if they are numbers or of two kinds."""
    dims = [dim for dim in stats[name].dims if dim not in HEAD_DIMS]
    if not dims:
        return [""]
    labels = stats[name][dims[0]].values.tolist() if dims[0] in stats[name].coords else []
    if dims == ["token"]:  # each model has tokens of its own
        return []
    return labels if len(dims) == 1 and all(isinstance(label, str) for label in labels) else []


def _label_of(stats: AttentionStats, name: str, label: str) -> dict[str, str]:
    """`{"tag": "NOUN"}` for the label "NOUN" of `pos_to`."""
    return {str(dim): label for dim in stats[name].dims if dim not in HEAD_DIMS}


def _each(shared: Mapping[str, Iterable[str]]) -> Iterator[tuple[str, str]]:
    return ((name, label) for name, labels in shared.items() for label in labels)


def _heads(model: str, stats: AttentionStats, shared: Mapping[str, list[str]]) -> pd.DataFrame:
    layers, heads = (stats[dim].values for dim in HEAD_DIMS)
    depths = np.repeat(depths_of(stats), len(heads))
    frames = []
    for name, label in _each(shared):
        chosen = _label_of(stats, name, label)
        error = stats.error_of(name)
        frames.append(
            pd.DataFrame(
                {
                    "model": model,
                    "layer": np.repeat(layers, len(heads)),
                    "head": np.tile(heads, len(layers)),
                    "depth": depths,
                    "statistic": name,
                    "label": label,
                    "value": _values(stats, name, chosen).ravel(),
                    "error": np.nan if error is None else _values(stats, error, chosen).ravel(),
                    "doubtful": stats.doubtful(name).sel(chosen).transpose(*HEAD_DIMS).values.ravel(),
                }
            )
        )
    return pd.concat(frames, ignore_index=True)


def _values(stats: AttentionStats, name: str, labels: Mapping[str, str]) -> np.ndarray:
    return np.asarray(stats.head_values(name, **labels).transpose(*HEAD_DIMS).values)


def _means(stats: Mapping[str, AttentionStats], shared: Mapping[str, list[str]], heads: pd.DataFrame) -> pd.DataFrame:
    grouped = heads.groupby(["statistic", "label", "model"], sort=False)["value"]
    means = grouped.agg(["mean", "std", "min", "max"]).reset_index()
    errors = []
    for row in means.itertuples():
        of = stats[str(row.model)]
        sampled = replicates_of(of, str(row.statistic), **_label_of(of, str(row.statistic), str(row.label)))
        errors.append(np.nan if sampled is None else _spread(_mean_over(sampled.reshape(len(sampled), -1))))
    means.insert(4, "se", errors)
    return means


def _mean_over(values: np.ndarray) -> np.ndarray:
    """Mean of finite values over the last axis; NaN if there are none."""
    there = np.isfinite(values)
    return np.asarray(np.where(there, values, 0).sum(-1) / np.where(there.any(-1), there.sum(-1), np.nan))


def _spread(replicates: np.ndarray) -> np.ndarray:
    """Standard deviation over replicates (the first axis); NaN for fewer than two finite values."""
    n = np.isfinite(replicates).sum(0)
    mean = _mean_over(np.moveaxis(replicates, 0, -1))
    squares = np.where(np.isfinite(replicates), (replicates - mean) ** 2, 0).sum(0)
    return np.asarray(np.sqrt(squares / np.where(n > 1, n - 1, np.nan)))


def _by_depth(stats: Mapping[str, AttentionStats], shared: Mapping[str, list[str]]) -> xr.Dataset:
    own = {model: depths_of(of) for model, of in stats.items()}
    # Equal fractions are equal floats, so 1/3 is a single depth for models of 4 and 7 layers.
    depths = np.unique(np.concatenate(list(own.values())))
    any_stats = next(iter(stats.values()))
    measured = [np.isin(depths, own[model]) for model in stats]
    dataset = xr.Dataset(
        {"measured": (("model", "depth"), measured)},
        coords={"model": list(stats), "depth": ("depth", depths, {"long_name": "relative depth of the layer"})},
    )
    for name, labels in shared.items():
        arrays = {"": np.empty((len(stats), len(depths), len(labels)))}
        arrays["_se"] = np.full_like(arrays[""], np.nan)
        for i, (model, of) in enumerate(stats.items()):
            for k, label in enumerate(labels):
                chosen = _label_of(of, name, label)
                arrays[""][i, :, k] = _aligned(_mean_over(_values(of, name, chosen)), own[model], depths)
                sampled = replicates_of(of, name, **chosen)
                if sampled is not None:
                    lines = [_aligned(line, own[model], depths) for line in _mean_over(sampled)]
                    arrays["_se"][i, :, k] = _spread(np.array(lines))
        dims = [str(dim) for dim in any_stats[name].dims if dim not in HEAD_DIMS]
        if dims:
            dataset = dataset.assign_coords({dims[0]: labels})
        for suffix, array in arrays.items():
            if not suffix or np.isfinite(array).any():
                attrs = {key: any_stats[name].attrs.get(key, "") for key in ("long_name", "units")}
                if suffix:
                    attrs["long_name"] = f"standard error of the mean of {name} over the heads of a layer"
                dataset[name + suffix] = (
                    ("model", "depth", *dims),
                    array if dims else array[..., 0],
                    attrs,
                )
    return dataset


def _aligned(values: np.ndarray, own: np.ndarray, depths: np.ndarray) -> np.ndarray:
    """Interpolate a model's values linearly to all depths; NaN outside its layers. Its own depths keep their values."""
    there = np.isfinite(values)
    if not there.any():
        return np.full(len(depths), np.nan)
    line = np.interp(depths, own[there], values[there], left=np.nan, right=np.nan)
    line[np.searchsorted(depths, own)] = values
    return np.asarray(line)


def _notes(stats: Mapping[str, AttentionStats]) -> list[str]:
    """Sentences on how the runs differ, and what their files lack."""
    given = {model: of.provenance for model, of in stats.items()}
    notes = []
    if len({p.get("stream") for p in given.values()}) > 1:
        said = ", ".join(f"{model} {p.get('stream', 'unknown')}" for model, p in given.items())
        notes.append(f"Streams differ: {said}.")
    if len({p.get("attention") for p in given.values()}) > 1:
        ways = {"causal": "looks back only", "bidirectional": "looks both ways"}
        said = ", ".join(f"{model} {ways.get(str(p.get('attention')), 'is unknown')}" for model, p in given.items())
        notes.append(f"Direction differs: {said}. Looking both ways leaves more room for distance and alignment.")
    if len({p.get("null") for p in given.values()}) > 1:
        rules = {"first": "the first position", "special": "special tokens", "none": "none"}
        said = ", ".join(
            f"{model} {rules.get(str(p.get('null')), str(p.get('null')))} ({p.get('special_tokens', '…')})"
            for model, p in given.items()
        )
        notes.append(
            f"Null tokens differ: {said}. Null shares refer to different tokens, and all other statistics leave out "
            f"different tokens."
        )
    begins = {model: not str(p.get("special_tokens", "…")).startswith("…") for model, p in given.items()}
    if len(set(begins.values())) > 1:
        said = ", ".join(f"{model} {'does' if begin else 'does not'}" for model, begin in begins.items())
        notes.append(f"Not all sequences begin with a special token: {said}.")
    if len({p["tokens"] for p in given.values()}) > 1:
        said = ", ".join(f"{model} {p['tokens']:,}" for model, p in given.items())
        notes.append(f"The numbers of tokens differ, and distances are in tokens: {said} tokens.")
    if len({p.get("dtype") for p in given.values()}) > 1:
        said = ", ".join(f"{model} {p.get('dtype', 'unknown')}" for model, p in given.items())
        notes.append(f"Precision differs: {said}.")
    hooked = [f"{model} ({p['interventions']})" for model, p in given.items() if p.get("interventions")]
    if hooked:
        notes.append(f"The user's hooks may have changed attention: {', '.join(hooked)}.")
    return [*notes, *_gaps(stats)]


def _gaps(stats: Mapping[str, AttentionStats]) -> Iterator[str]:
    for model, of in stats.items():
        n, found = layer_count(of), of["layer"].size
        if found < n:
            yield (
                f"{model}: the file has {found} of {n} layers; means and claims cover only these, at their relative "
                f"depth in the whole model."
            )
        elif "model_layers" not in of.provenance:
            yield f"{model}: the file does not say how many layers the model has; {n} are assumed."
        if not any(str(name).endswith("_replicates") for name in of.dataset):
            yield f"{model}: no bootstrap replicates, so the errors of means and claims are unknown."
