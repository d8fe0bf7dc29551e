"""Bootstrap replicates, from which quantities that compare heads get their errors."""

from __future__ import annotations

import numpy as np
import torch
import xarray as xr
from jaxtyping import Float

from tl_attnstats.attention.reductions import Reductions
from tl_attnstats.collectors.base import Collector, Shape
from tl_attnstats.collectors.dependency import DependencyAlignment
from tl_attnstats.collectors.distance import Distance
from tl_attnstats.collectors.entropy import Entropy
from tl_attnstats.collectors.null import NullShare
from tl_attnstats.collectors.ratio import RatioCollector
from tl_attnstats.corpus.batches import Batch
from tl_attnstats.corpus.devices import to_device

STATISTICS: tuple[type[RatioCollector], ...] = (NullShare, Distance, Entropy, DependencyAlignment)
SUFFIX = "_replicates"
DIMS = ("statistic", "replicate", "layer", "head")


class Bootstrap(Collector):
    """Null share, distance, entropy and alignment (either direction) in bootstrap replicates of the corpus.

    A standard error a head is not enough for what is computed across heads, such as a correlation: heads see the same
    sentences. Here each sentence counts Poisson(1) times in every replicate, a bootstrap over sentences that needs one
    pass. A quantity's spread over replicates is its error.

    How often a sentence counts is drawn from its text and annotation, so that it does not depend on order, batch or
    shard; equal sentences and windows of one document count together.

    Args:
        n_replicates: how many. Memory: 64 bytes a head and replicate.
    """

    name = "bootstrap"
    reads = tuple(dict.fromkeys(name for statistic in STATISTICS for name in statistic.reads))
    pairs = DependencyAlignment.pairs
    within_sequence = True

    def __init__(self, n_replicates: int = 100):
        self.settings = {"n_replicates": n_replicates}
        self.n_replicates = n_replicates

    def begin(self, shape: Shape) -> None:
        super().begin(shape)
        words = shape.sequence_kind != "tokens"
        self._statistics = [statistic() for statistic in STATISTICS if words or not statistic.needs_words]
        size = (len(self._statistics), self.n_replicates, len(shape.layers) * shape.n_heads)
        self._sums = {key: torch.zeros(size, dtype=torch.float64) for key in ("a", "b")}

    def end_batch(self, whole: Reductions) -> None:
        # [replicate, batch]
        times = to_device(torch.from_numpy(replicates(whole.batch, self.n_replicates)), whole.rows.device)
        for place, statistic in enumerate(self._statistics):
            a, b = statistic.terms(whole)
            either = a[..., -1] if a.ndim > b.ndim else a
            for key, terms in (("a", either), ("b", b)):
                self._sums[key] = to_device(self._sums[key], terms.device)
                self._sums[key][place] += times @ terms.double()

    def state_dict(self) -> xr.Dataset:
        shape = (len(self._statistics), self.n_replicates, len(self.shape.layers), self.shape.n_heads)
        coords = {
            "statistic": [statistic.name for statistic in self._statistics],
            "layer": list(self.shape.layers),
            "head": list(range(self.shape.n_heads)),
        }
        return xr.Dataset({key: (DIMS, x.cpu().numpy().reshape(shape)) for key, x in self._sums.items()}, coords)

    def load_state_dict(self, state: xr.Dataset) -> None:
        self._sums = {key: torch.from_numpy(state[key].values.copy()).flatten(2) for key in ("a", "b")}

    @classmethod
    def compute(cls, state: xr.Dataset, n: int) -> xr.Dataset:
        by_name = {statistic.name: statistic for statistic in STATISTICS}
        statistics = [by_name[name] for name in state["statistic"].values]
        a, b = state["a"].values, state["b"].values
        values = np.divide(a, b, out=np.full_like(a, np.nan), where=b > 0)
        variables = {
            f"{statistic.name}{SUFFIX}": (
                DIMS[1:],
                value,
                {"long_name": f"{statistic.long_name} in bootstrap replicates", "units": statistic.unit},
            )
            for statistic, value in zip(statistics, values, strict=True)
        }
        return xr.Dataset(variables, coords={dim: state[dim] for dim in ("layer", "head")})


def replicates(batch: Batch, n: int) -> Float[np.ndarray, "replicate batch"]:
    """How often each sentence of a batch counts in each of n replicates."""
    drawn = [np.random.default_rng(item.sentence.digest).poisson(1, n) for item in batch.items]
    return np.stack(drawn, 1).astype(float)
