"""Small made-up statistics to draw."""

from __future__ import annotations

import copy
from typing import Any

import numpy as np
import xarray as xr

import tl_attnstats as ta
from tests import tiny

DIRECTIONS = ["from_parent", "to_parent", "either"]


def collected(
    n_layers: int = 3, n_heads: int = 4, metrics: Any = None, causal: bool = True, n_sentences: int = 6
) -> ta.AttentionStats:
    sentences = tiny.sentences(n_sentences, seed=2, most_words=9)
    patterns = [tiny.patterns(n_layers, n_heads, len(s.words), causal, s.number) for s in sentences]
    return ta.collect_patterns(zip(patterns, sentences, strict=True), metrics, causal=causal)


def null_heads(n_heads: int, metrics: Any = ("distance",)) -> ta.AttentionStats:
    """One layer of four heads, of which `n_heads` attend only to the first token."""
    sentence = next(s for s in tiny.sentences(30) if len(s.words) == 6)
    pattern = tiny.patterns(1, 4, 6, True, 1)
    pattern[0, :n_heads] = 0
    pattern[0, :n_heads, :, 0] = 1
    return ta.collect_patterns([(pattern, sentence)], None if metrics is None else list(metrics))


def planted(
    n_layers: int = 7, n_heads: int = 4, n_replicates: int = 20, layers: Any = None, seed: int = 0, **variables: Any
) -> ta.AttentionStats:
    """Random statistics, except for those given: arrays `[layer, head]`, or `[replicate, layer, head]` for replicates.

    Replicates that are not given repeat the values.
    """
    rng = np.random.default_rng(seed)
    dataset = xr.Dataset(coords={"layer": range(n_layers) if layers is None else layers, "head": range(n_heads)})
    for name in ("null_share", "distance", "entropy", "dependency_alignment"):
        values = np.asarray(variables.pop(name, rng.uniform(size=(dataset.sizes["layer"], n_heads))))
        dataset[f"{name}_replicates"] = (
            ("replicate", "layer", "head"),
            variables.pop(f"{name}_replicates", np.stack([values] * n_replicates)),
        )
        if name == "dependency_alignment":
            other = np.full_like(values, 0.5)
            dataset[name] = (("layer", "head", "direction"), np.stack([other, other, values], -1))
        else:
            dataset[name] = (("layer", "head"), values)
    dataset = dataset.assign_coords(direction=DIRECTIONS).assign(variables)
    stats = copy.copy(collected(n_layers=1, n_heads=1, metrics=["null_share"], n_sentences=2))
    dataset.attrs = {**stats.provenance, "model_layers": n_layers}
    stats.dataset = dataset
    return stats


def by_layer(*means: float, n_heads: int = 4) -> np.ndarray:
    """Values of heads, spread around the mean of each layer."""
    return np.array(means)[:, None] + np.linspace(-0.1, 0.1, n_heads)


def worth(n_layers: int = 3, n_heads: int = 4, tokens: tuple[str, ...] = (" the", " ", "$x")) -> ta.AttentionStats:
    """Made-up values of what random patterns of short sentences have not: behaviours, sinks and norms."""
    stats = collected(n_layers, n_heads)
    rng = np.random.default_rng(5)
    heads = ("layer", "head")
    size = (n_layers, n_heads)
    kinds, ids = ["previous", "duplicate", "induction"], [*map(str, range(7, 7 + len(tokens))), "other"]
    taken = rng.dirichlet([1.0] * (len(ids) + 1), size)[..., :-1]
    norm = rng.uniform(0, 2, size)
    made = {
        "behaviour": xr.DataArray(rng.uniform(0, 1, (*size, 3)), dims=(*heads, "kind")),
        "behaviour_se": xr.DataArray(np.full((*size, 3), 1e-4), dims=(*heads, "kind")),
        "behaviour_baseline": xr.DataArray([0.25, 0.125, 0.0625], dims="kind"),
        "sink_tokens": xr.DataArray(taken, dims=(*heads, "token")),
        "sink_share": xr.DataArray(taken.sum(-1), dims=heads),
        "sink_share_se": xr.DataArray(rng.uniform(0.01, 0.1, size), dims=heads),
        "null_share_norm": xr.DataArray(stats["null_share"].values * rng.uniform(0.1, 0.9, size), dims=heads),
        "output_norm_relative": xr.DataArray(norm / norm.mean(1, keepdims=True), dims=heads),
    }
    attrs = {name: stats.dataset[name].attrs for name in made if name in stats.dataset}
    attrs["null_share_norm"] = {"long_name": "null share by norm", "units": "share", "attention": "all"}
    attrs["output_norm_relative"] = {"long_name": "relative norm of the output", "units": "ratio"}
    coords = {"kind": kinds, "token": ids, "token_text": ("token", [*tokens, "other"])}
    rest = stats.dataset.drop_dims(["kind", "token"])
    stats.dataset = rest.assign({name: value.assign_attrs(attrs[name]) for name, value in made.items()})
    stats.dataset = stats.dataset.assign_coords(coords)
    return stats


def without(stats: ta.AttentionStats, name: str) -> ta.AttentionStats:
    """The same statistics, as if this one had not been collected."""
    rest = ta.AttentionStats(stats.run)
    rest.dataset = stats.dataset.drop_vars(name)
    return rest
