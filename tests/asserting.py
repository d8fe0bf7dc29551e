"""What several test modules assert: two runs give the same statistics, or one gives those of the plain loops."""

from __future__ import annotations

from collections.abc import Collection
from typing import Any

import numpy as np
import xarray as xr

import tl_attnstats as ta
from tests.reference import Reference, expected
from tests.reference_cross import CrossReference
from tests.reference_worth import KINDS, Worth

TOLERANCE = 1e-5
# The streamed source and the hooks round float32 in different orders. A mean hides it, a single weight does not: after
# some thirty layers it differs by about 1e-5, enough to change the order of exemplars with nearly equal weights.
WEIGHT_TOLERANCE = 5e-5
# Compared by relative error; every other statistic is a share. Standard errors that should be 0 come out as up to 1e-8
# of the value, because they are computed from sums of squares: hence the absolute tolerance beside it.
RELATIVE = ("distance", "entropy")
EXEMPLARS = 10
# The statistics that are defined for cross-attention.
CROSS = ("null_share", "entropy", "pos_to", "pos_from", "dep_to")


def assert_equal(a: ta.AttentionStats, b: ta.AttentionStats) -> None:
    """Two passes over the same sentences agree to the rounding of float32 in the model: by other sources or batches."""
    assert set(a.dataset.data_vars) == set(b.dataset.data_vars)
    for name in map(str, a.dataset.data_vars):
        x, y = a[name].values, b[name].values
        if name.startswith("exemplar_") and a[name].dims[-1] == "rank" and name != "exemplar_weight":
            certain = told_apart(b["exemplar_weight"].values)
            np.testing.assert_array_equal(x[certain], y[certain], err_msg=name)
        elif x.dtype.kind == "f":
            tolerance = WEIGHT_TOLERANCE if name == "exemplar_weight" else TOLERANCE
            relative = TOLERANCE if name.removesuffix("_replicates") in RELATIVE else 0
            np.testing.assert_allclose(x, y, rtol=relative, atol=tolerance, err_msg=name)
        else:
            np.testing.assert_array_equal(x, y, err_msg=name)


def told_apart(weights: np.ndarray) -> np.ndarray:
    """Which exemplars have a place that rounding cannot change: neither neighbour has nearly the same weight."""
    ends = np.full_like(weights[..., :1], np.inf)
    gaps = np.abs(np.diff(np.nan_to_num(weights, nan=-1), axis=-1, prepend=ends, append=ends)) > WEIGHT_TOLERANCE
    certain: np.ndarray = gaps[..., :-1] & gaps[..., 1:]
    return certain


def assert_close(a: ta.AttentionStats, b: ta.AttentionStats, tolerance: float = 1e-6) -> None:
    """The same reductions, added up in another order, agree to `tolerance`, and have the same labels.

    The square of a standard error is a difference of sums of the size of the squared value, which rounding leaves exact
    to `tolerance` of the latter.
    """
    assert set(a.dataset) == set(b.dataset)
    for name in map(str, a.dataset):
        x, y = xr.align(a.dataset[name], b.dataset[name], join="exact")
        value = b.dataset.get(name.removesuffix("_se")) if name.endswith("_se") else None
        if value is not None:
            close = np.isclose(x, y, rtol=tolerance, atol=tolerance, equal_nan=True)
            assert (close | (abs(x**2 - y**2) <= tolerance * value**2)).all(), name
        elif x.dtype.kind == "f":
            np.testing.assert_allclose(x.values, y.values, rtol=tolerance, atol=tolerance, err_msg=name)
        else:
            assert x.equals(y), name


def assert_same(
    stats: ta.AttentionStats, truth: Reference, tolerance: float = 1e-4, *, binned: Collection[str] = ()
) -> None:
    """All statistics equal those of the loops; variability, if `binned`, only within the bound that it reports."""
    wanted = expected(truth)
    for name, (value, error) in wanted.items():
        if name in binned:
            continue
        base, _, label = name.rstrip("]").partition("[")
        measured, se = stats[base], stats.dataset.get(f"{base}_se")
        if label:
            dim = measured.dims[-1]
            where = {dim: int(label) if dim in ("offset", "token_distance") else label}
            measured, se = measured.sel(where), None if se is None else se.sel(where)
        scale = {"rtol": tolerance, "atol": 1e-9} if base in RELATIVE else {"rtol": 0, "atol": tolerance}
        np.testing.assert_allclose(measured.values, value, err_msg=name, **scale)
        if error is not None:
            np.testing.assert_allclose(se.values, error, err_msg=f"{name} standard error", **scale)
    bound = stats["variability_error"].values + 1e-6
    assert (np.abs(stats["variability"].values - wanted["variability"][0]) <= bound).all()
    np.testing.assert_allclose(stats["mean_pattern"].values, truth.mean_pattern(), rtol=0, atol=tolerance)
    # Shares sum to 1, so no label is missing from the reference.
    for name in ("pos_to", "pos_from", "dep_to", "offset_profile", "pos_frequency"):
        np.testing.assert_allclose(stats[name].sum(stats[name].dims[-1]).values, 1, atol=1e-9, err_msg=name)


def assert_same_exemplars(
    stats: ta.AttentionStats, truth: Reference, *, exclude_self: bool = False, exact: bool = True
) -> None:
    """The same positions in the same order; if not `exact`, as float32 rounds differently, ones of the same weight."""
    patterns = {tokens.number: pattern for pattern, tokens in truth.data}
    for index, layer in enumerate(stats["layer"].values):  # some layers of a hybrid have no attention
        for head in stats["head"].values:
            found = stats.exemplars(f"L{layer}H{head}")
            best = truth.exemplars(index, head, EXEMPLARS, exclude_self=exclude_self)
            places = list(zip(found["sentence"], found["query"], found["key"], strict=True))
            tolerance = 1e-5 if exact else WEIGHT_TOLERANCE
            np.testing.assert_allclose(found["weight"], [weight for weight, *_ in best], rtol=0, atol=tolerance)
            if exact:
                assert places == [tuple(place) for _, *place in best], (layer, head)
            else:
                assert len({sentence for sentence, *_ in places}) == len(places)
                truly = [patterns[sentence][index, head, query, key] for sentence, query, key in places]
                np.testing.assert_allclose(found["weight"], truly, rtol=0, atol=tolerance)


def assert_same_cross(stats: ta.AttentionStats, truth: CrossReference) -> None:
    assert sorted(stats.statistics) == sorted(CROSS)
    for name, labels in truth.labels().items():
        ratios = [truth.ratio(name, label) for label in labels]
        values, errors = ([getattr(ratio, part)() for ratio in ratios] for part in ("value", "error"))
        where = {stats[name].dims[-1]: labels} if labels != [""] else {}
        for measured, wanted in ((stats[name], values), (stats[f"{name}_se"], errors)):
            found = measured.sel(where).values.reshape(*wanted[0].shape, len(labels))
            np.testing.assert_allclose(found, np.stack(wanted, -1), rtol=0, atol=1e-4, err_msg=name)
        if where:
            np.testing.assert_allclose(stats[name].sum(stats[name].dims[-1]), 1, atol=1e-9, err_msg=name)


def assert_same_behaviour(stats: ta.AttentionStats, worth: Worth) -> None:
    for kind in KINDS:
        here = stats.dataset.sel(kind=kind)
        attention, baseline = worth.behaviour(kind), worth.behaviour_baseline(kind)
        np.testing.assert_allclose(here["behaviour"], attention.value(), rtol=0, atol=1e-4, err_msg=kind)
        np.testing.assert_allclose(here["behaviour_se"], attention.error(), rtol=0, atol=1e-4, err_msg=kind)
        np.testing.assert_allclose(here["behaviour_baseline"], baseline.value(), rtol=1e-12, err_msg=kind)
        np.testing.assert_allclose(here["behaviour_baseline_se"], baseline.error(), rtol=1e-9, err_msg=kind)
        assert here["behaviour_rows"] == worth.behaviour_rows(kind)


def assert_same_sinks(stats: ta.AttentionStats, worth: Worth) -> None:
    """The statistics of sinks that need no words."""
    share, rate = worth.sink_share(), worth.sink_rate()
    close("sink_share", stats["sink_share"], share.value())
    close("sink_share_se", stats["sink_share_se"], share.error())
    close("sink_rate", stats["sink_rate"], rate.value())
    close("sink_rate_se", stats["sink_rate_se"], rate.error())
    tokens = worth.sink_tokens()
    assert stats["token"].values.tolist() == [str(token) for token in tokens]
    for token, ratio in tokens.items():
        close("sink_tokens", stats["sink_tokens"].sel(token=str(token)), ratio.value())
    close("sink_tokens", stats["sink_tokens"].sum("token"), share.value())


def close(name: str, found: Any, expected: Any) -> None:
    np.testing.assert_allclose(found, expected, rtol=0, atol=1e-4, err_msg=name)


def assert_peaked(patterns: list[np.ndarray], peak: float) -> None:
    """In every layer, the median over rows of the largest weight is above `peak`."""
    largest = np.concatenate([pattern[:, :, 4:].max(-1) for pattern in patterns], -1)
    assert (np.median(largest, (1, 2)) > peak).all(), np.median(largest, (1, 2))
    assert max(pattern.shape[2] for pattern in patterns) > 20


def assert_resumed(found: ta.AttentionStats, undisturbed: ta.AttentionStats) -> None:
    """A run that was resumed gives the result of one that was not: to 1e-12, exemplars exactly, the same provenance."""
    assert_close(found, undisturbed, 1e-12)
    for name in found.dataset.data_vars:
        if str(name).startswith("exemplar"):
            np.testing.assert_array_equal(found[name].values, undisturbed[name].values, err_msg=str(name))
    assert found.provenance == undisturbed.provenance
