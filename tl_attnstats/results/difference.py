"""What an intervention changed in each head: the difference of two runs over the same sentences."""

from __future__ import annotations

import xarray as xr

from tl_attnstats.errors import StatsError
from tl_attnstats.results.stats import HEAD_DIMS, AttentionStats

MAY_DIFFER = ("model_fingerprint", "interventions")


def difference(before: AttentionStats, after: AttentionStats) -> xr.Dataset:
    """The change in each statistic of each head by an intervention (an ablation, edited weights): after minus before.

    ```python
    clean = ta.collect(model, corpus)
    with model.hooks(fwd_hooks=[("blocks.3.attn.hook_z", zero)]):
        ablated = ta.collect(model, corpus)
    changed = ta.difference(clean, ablated)
    changed[["distance", "distance_se"]].to_dataframe().sort_values("distance", key=abs, ascending=False)
    ```

    Args:
        before: the run without the intervention.
        after: the run with it, over the same sentences and with the same settings.

    Returns:
        A data set with dimensions `layer` and `head`, and more if a statistic has labels. With the metric "bootstrap",
        null share, distance, entropy and alignment (direction "either") have a standard error such as `distance_se`:
        the spread of the difference over bootstrap replicates. Replicates are paired: a sentence occurs equally often
        in both runs, so common variation cancels. All other statistics have a bound such as `pos_to_error`: the sum of
        both runs' errors, which the standard error of the difference cannot exceed, whatever their correlation (for
        variability, the sum of the binning errors). NaN if either run has no value.

    Raises:
        StatsError: the runs have different models, settings or sequences.
    """
    for name, stats in (("before", before), ("after", after)):
        if not isinstance(stats, AttentionStats):
            raise StatsError(f"{name}: got {type(stats).__name__}, expected AttentionStats (ta.load reads one)")
    before.run.check_same_reading(after.run, "difference", but=MAY_DIFFER)
    _check_same_sequences(before, after)
    names = [name for name in before.statistics if set(HEAD_DIMS) <= set(before[name].dims)]
    changed: xr.Dataset = xr.merge([_changed(before, after, name) for name in names], join="outer", fill_value=0)
    kept = {key: before.provenance[key] for key in ("model", "corpus", "sequences", "tokens", "corpus_fingerprint")}
    for key in MAY_DIFFER:
        kept |= {f"{key}_{side}": of.provenance.get(key, "none") for side, of in (("before", before), ("after", after))}
    return changed.assign_attrs(kept)


def _check_same_sequences(before: AttentionStats, after: AttentionStats) -> None:
    for key in ("sequences", "tokens", "corpus_fingerprint"):
        here, there = before.provenance[key], after.provenance[key]
        if here != there:
            raise StatsError(
                f"difference: different {key.replace('_', ' ')}: {here} before, {there} after; "
                f"expected two runs over the same sentences"
            )


def _changed(before: AttentionStats, after: AttentionStats, name: str) -> xr.Dataset:
    """The difference of a statistic, with its standard error or a bound."""
    old, new = xr.align(before[name], after[name], join="outer", fill_value=0)  # a missing label has share 0
    long_name = old.attrs.get("long_name", name)
    units = {"units": old.attrs.get("units", "")}
    attrs = {"long_name": f"change of {long_name}", "formula": f"{name} after - {name} before", **units}
    found = xr.Dataset({name: new - old})
    found[name].attrs = attrs
    if f"{name}_replicates" in before.dataset:
        spread = _spread(after[f"{name}_replicates"] - before[f"{name}_replicates"])
        if "direction" in old.dims:  # replicates are for "either" only
            spread = spread.where(old["direction"] == "either").transpose(*old.dims)
        found[f"{name}_se"] = spread
        found[f"{name}_se"].attrs = {
            "long_name": f"standard error of {attrs['long_name']}, paired by sentence",
            **units,
        }
    error = before.error_of(name)
    if error is not None and (f"{name}_se" not in found or "direction" in old.dims):
        one, other = xr.align(before[error], after[error], join="outer", fill_value=0)
        found[f"{name}_error"] = one + other
        told = f"bound on the error of {attrs['long_name']}: sum of both runs' errors"
        found[f"{name}_error"].attrs = {"long_name": told, **units}
    return found


def _spread(replicates: xr.DataArray) -> xr.DataArray:
    """Standard deviation over the replicates that have a value; NaN for fewer than two."""
    n = replicates.notnull().sum("replicate")
    mean = replicates.sum("replicate") / n.where(n > 0)
    return (((replicates - mean) ** 2).sum("replicate") / (n - 1).where(n > 1)) ** 0.5
