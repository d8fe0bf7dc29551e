"""Test on any model what Vig & Belinkov (2019) found in GPT-2."""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping
from dataclasses import dataclass, replace
from typing import Any, Literal

import numpy as np
from jaxtyping import Float

from tl_attnstats.collectors.base import known
from tl_attnstats.corpus.batches import NO_LABEL
from tl_attnstats.results.numbers import with_error
from tl_attnstats.results.stats import AttentionStats

Verdict = Literal["holds", "does not hold", "undecided", "error unknown", "no value"]
PERCENTILES = (2.5, 97.5)
TIMES_MEAN = 2
NORMAL_95 = 1.96
OF_POSITION = ("alignment_by_position", "alignment_excess")
"""Statistics of the collector `position`, which has replicates of its own."""

Heads = Mapping[str, Float[np.ndarray, "layer head"]]


@dataclass(frozen=True)
class Claim:
    """A claim of the paper, tested on one model.

    Attributes:
        name: for tables and code, such as "deep_layers_look_far".
        statement: the claim in words.
        short: the measured quantity in a few words.
        quantity: the measured quantity in full.
        paper: the paper's result for GPT-2, in words or as a number.
        within: the claim holds if the quantity lies between these two.
        possible: smallest and largest possible value of the quantity.
        paper_value: the quantity in the paper; NaN if it gives none.
        value: the quantity for this model; NaN if it is undefined or its statistics were not collected.
        se: standard error of the value: standard deviation over bootstrap replicates; NaN without replicates.
        low: lower bound of the value: 2.5th percentile over replicates; NaN without replicates.
        high: upper bound: 97.5th percentile.
        detail: text to show if the value is not a plain number.
    """

    name: str
    statement: str
    short: str
    quantity: str
    paper: str
    within: tuple[float, float]
    possible: tuple[float, float] = (0, 1)
    paper_value: float = math.nan
    value: float = math.nan
    se: float = math.nan
    low: float = math.nan
    high: float = math.nan
    detail: str = ""

    @property
    def verdict(self) -> Verdict:
        """Whether the claim holds. Both bounds must lie on the same side of the border.

        "error unknown": the value has no bounds, so nothing can be decided. "no value": the quantity is undefined for
        this model, or its statistics were not collected.
        """
        lowest, highest = self.within
        if math.isnan(self.value):
            return "no value"
        if math.isnan(self.low):
            return "error unknown"
        if lowest < self.low and self.high < highest:
            return "holds"
        return "does not hold" if self.high <= lowest or self.low >= highest else "undecided"

    @property
    def shown(self) -> str:
        """The value for display, with its error if known: "0.574 ± 0.012"."""
        if math.isnan(self.value):
            return "–"
        if self.detail:
            return self.detail
        return with_error(self.value, self.se).replace("-", "−")


@dataclass(frozen=True)
class Test:
    """A claim decided by one number, which is computed over all heads and again in each replicate."""

    claim: Claim
    needs: tuple[str, ...]
    measure: Callable[[Heads], float]


def claims_of(stats: AttentionStats) -> list[Claim]:
    """Test the paper's claims on the model of these statistics.

    The error of a quantity computed across heads, such as a correlation, is its spread over the replicates of the
    `bootstrap` collector: it covers the choice of sentences, not of heads. Without replicates the error is unknown.

    Args:
        stats: the statistics of a model.

    Returns:
        All claims in the paper's order, even if their statistics were not collected: see `Claim.verdict`.
    """
    return [tested(stats, test) for test in _TESTS] + [
        count_tags(stats, name, claim) for name, claim in _TAG_CLAIMS.items()
    ]


def depths_of(stats: AttentionStats) -> Float[np.ndarray, " layer"]:
    """Relative depth of each layer in the file: 0 for the model's first (or only) layer, 1 for its last."""
    return np.asarray(stats["layer"].values / max(1, layer_count(stats) - 1))


def layer_count(stats: AttentionStats) -> int:
    """Number of layers of the model. If the provenance does not say, the last layer in the file counts as the last."""
    return int(stats.provenance.get("model_layers", stats["layer"].values.max() + 1))


def replicates_of(stats: AttentionStats, name: str, **labels: Any) -> Float[np.ndarray, "replicate layer head"] | None:
    """A statistic in each bootstrap replicate of the corpus, or None.

    `dependency_alignment` has replicates only for "either", which is also the direction if none is given.
    """
    replicates, direction = f"{name}_replicates", labels.get("direction", "either")
    if replicates not in stats.dataset and name in OF_POSITION and "position" in stats.state:
        return _position_replicates(stats, name, direction) if stats.state["position"].sizes["replicate"] > 1 else None
    if replicates not in stats.dataset or direction != "either":
        return None
    return np.asarray(stats[replicates].transpose("replicate", "layer", "head").values)


def _position_replicates(stats: AttentionStats, name: str, direction: str) -> Float[np.ndarray, "replicate layer head"]:
    """What `position` computes in each replicate of the corpus: it keeps their sums after those of the corpus."""
    state, compute = stats.state["position"], known("position").compute
    parts = (state.isel(replicate=[n]) for n in range(1, state.sizes["replicate"]))
    return np.stack([compute(part, 0)[name].sel(direction=direction).values for part in parts])


def tested(stats: AttentionStats, test: Test) -> Claim:
    """The claim with its value, error and bounds; unchanged if its statistics were not collected."""
    if not set(test.needs) <= set(stats.dataset):
        return test.claim
    labels = {name: {"direction": "either"} if "direction" in stats[name].dims else {} for name in test.needs}
    depth = {"depth": depths_of(stats)[:, None]}
    value = test.measure({name: stats.head_values(name, **labels[name]).values for name in test.needs} | depth)
    sampled = {name: replicates_of(stats, name, **labels[name]) for name in test.needs}
    there = {name: values for name, values in sampled.items() if values is not None}
    if len(there) < len(sampled):
        return _with(test.claim, value, [])
    n = min(len(values) for values in there.values())
    replicates = [test.measure({name: values[i] for name, values in there.items()} | depth) for i in range(n)]
    return _with(test.claim, value, replicates)


def _with(claim: Claim, value: float, replicates: list[float]) -> Claim:
    """The claim with its value, and its error if most replicates have a value."""
    finite = np.array(replicates)[np.isfinite(replicates)]
    if len(finite) <= max(1, len(replicates) / 2):
        return replace(claim, value=value)
    low, high = np.percentile(finite, PERCENTILES)
    return replace(claim, value=value, se=float(finite.std(ddof=1)), low=float(low), high=float(high))


def count_tags(stats: AttentionStats, name: str, claim: Claim) -> Claim:
    """The claim with the share of tags for which some head exceeds twice the mean, with and without its error.

    It is unchanged if the statistic was not collected.
    """
    if name not in stats.dataset:
        return claim
    tags = [tag for tag in stats["tag"].values if tag != NO_LABEL]
    if not tags:
        return claim
    certain, plain = count_twice_mean(stats, name), count_twice_mean(stats, name, n_errors=0)
    return replace(
        claim,
        value=plain / len(tags),
        low=certain / len(tags),
        high=plain / len(tags),
        detail=f"{plain} of {len(tags)}, {certain} beyond error",
    )


def count_twice_mean(stats: AttentionStats, name: str, n_errors: float = NORMAL_95) -> int:
    """Count the tags for which some head exceeds twice the mean over heads.

    Args:
        stats: the statistics.
        name: "pos_to", "pos_from" or "pos_to_without_sinks".
        n_errors: number of standard errors to subtract from each head's value first. The largest of many heads is
            partly large by chance, and this corrects for some of it; 0 gives the paper's count.
    """
    tags = [tag for tag in stats["tag"].values if tag != NO_LABEL]
    values = stats[name].sel(tag=tags)
    bound = values - n_errors * stats[f"{name}_se"].sel(tag=tags) if n_errors else values
    return int((bound > TIMES_MEAN * values.mean(("layer", "head"))).any(("layer", "head")).sum())


def _mean(values: np.ndarray) -> float:
    finite = values[np.isfinite(values)]
    return float(finite.mean()) if finite.size else math.nan


def _largest(values: np.ndarray) -> float:
    finite = values[np.isfinite(values)]
    return float(finite.max()) if finite.size else math.nan


def _layer_means(values: Float[np.ndarray, "layer head"]) -> Float[np.ndarray, " layer"]:
    return np.array([_mean(layer) for layer in values])


def pearson(x: np.ndarray, y: np.ndarray) -> float:
    """Pearson's r over the finite pairs; NaN for fewer than three, or for a constant."""
    both = np.isfinite(x) & np.isfinite(y)
    if both.sum() < 3 or min(np.ptp(x[both]), np.ptp(y[both])) == 0:
        return math.nan
    return float(np.corrcoef(x[both], y[both])[0, 1])


def _depth_of_distance(heads: Heads) -> float:
    from scipy.stats import rankdata  # takes half a second to import

    means = _layer_means(heads["distance"])
    there = np.isfinite(means)
    return pearson(heads["depth"][there, 0], rankdata(means[there]))


def peak_depth(heads: Heads, name: str) -> float:
    """Relative depth of the layer with the largest mean over its heads; NaN if there is none."""
    means = _layer_means(heads[name])
    return float(heads["depth"][np.nanargmax(means), 0]) if np.isfinite(means).any() else math.nan


MIDDLE = (1 / 3 - 1e-9, 2 / 3 + 1e-9)

_TESTS = (
    Test(
        Claim(
            "null_attention",
            "Null tokens take more than half of the attention",
            "mean null share",
            "null share, mean over heads",
            "0.57",
            (0.5, math.inf),
            paper_value=0.57,
        ),
        ("null_share",),
        lambda heads: _mean(heads["null_share"]),
    ),
    Test(
        Claim(
            "null_heads",
            "In some heads null tokens take over 97%",
            "largest null share",
            "largest null share of a head",
            "over 0.97",
            (0.97, math.inf),
        ),
        ("null_share",),
        lambda heads: _largest(heads["null_share"]),
    ),
    Test(
        Claim(
            "alignment_in_the_middle",
            "Attention follows dependencies most in the middle layers",
            "depth where alignment peaks",
            "relative depth of the layer with the largest dependency alignment (either direction), mean over its "
            "heads; the middle is the middle third",
            "middle layers",
            MIDDLE,
        ),
        ("dependency_alignment",),
        lambda heads: peak_depth(heads, "dependency_alignment"),
    ),
    Test(
        Claim(
            "deep_layers_look_far",
            "The deepest layers look furthest",
            "rank r(layer, distance)",
            "Spearman's rank correlation of layer and distance, mean over its heads",
            "deepest furthest",
            (0, math.inf),
            (-1, 1),
        ),
        ("distance",),
        _depth_of_distance,
    ),
    Test(
        Claim(
            "distance_and_entropy",
            "Heads that look further are more dispersed",
            "r(distance, entropy)",
            "Pearson's r of distance and entropy over heads",
            "0.61",
            (0, math.inf),
            (-1, 1),
            0.61,
        ),
        ("distance", "entropy"),
        lambda heads: pearson(heads["distance"].ravel(), heads["entropy"].ravel()),
    ),
    Test(
        Claim(
            "distance_and_alignment",
            "Heads that look further follow dependencies less",
            "r(distance, alignment)",
            "Pearson's r of distance and dependency alignment (either direction) over heads",
            "−0.73",
            (-math.inf, 0),
            (-1, 1),
            -0.73,
        ),
        ("distance", "dependency_alignment"),
        lambda heads: pearson(heads["distance"].ravel(), heads["dependency_alignment"].ravel()),
    ),
)

TAG_QUANTITY = (
    "share of tags for which the largest {} of a head exceeds twice the mean over heads; lower bound: the same after "
    f"subtracting {NORMAL_95} standard errors"
)
_TAG_CLAIMS = {
    "pos_to": Claim(
        "twice_mean_to",
        "Most tags have a head that attends to them more than twice as much as the mean head",
        "tags above twice the mean, to",
        TAG_QUANTITY.format("pos_to"),
        "13 of 16",
        (0.5, math.inf),
        paper_value=13 / 16,
    ),
    "pos_from": Claim(
        "twice_mean_from",
        "Most tags have no head that attends from them more than twice as much as the mean head",
        "tags above twice the mean, from",
        TAG_QUANTITY.format("pos_from"),
        "7 of 16",
        (-math.inf, 0.5),
        paper_value=7 / 16,
    ),
}

CLAIMS = {claim.name: claim for claim in (*(test.claim for test in _TESTS), *_TAG_CLAIMS.values())}
"""All claims by name, without values."""
