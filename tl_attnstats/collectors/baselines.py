"""What attention would look like if it were spread evenly over every content pair within reach."""

from __future__ import annotations

from collections.abc import Mapping

import torch
import xarray as xr
from torch import Tensor

from tl_attnstats.attention.pairs import DEPENDENCIES
from tl_attnstats.attention.reductions import Reductions
from tl_attnstats.collectors.base import Collector, Shape
from tl_attnstats.collectors.dependency import DIRECTIONS
from tl_attnstats.collectors.ratio import RatioSums, ratio

DIM_OF: Mapping[str, str] = {
    "pos_frequency": "tag",
    "dependency_baseline": "direction",
    "dependency_by_distance": "token_distance",
}
FORMULAS = {
    "pos_frequency": "share of content pairs (i,j) with pos(j)=tag",
    "dependency_baseline": "share of content pairs (i,j) in a dependency relation",
    "dependency_by_distance": "share of content pairs with |i-j| = d in a relation; the last d holds all beyond",
}


class Baselines(Collector):
    """Statistics of the corpus in the model's tokens: each content pair has weight 1, whatever the attention.

    Args:
        max_distance: the largest distance of `dependency_by_distance` with its own entry; one more holds the rest.
    """

    name = "baselines"
    reads = ()
    pairs = DEPENDENCIES
    within_sequence = True
    needs_words = True

    def __init__(self, max_distance: int = 64):
        self.settings = {"max_distance": max_distance}
        self.max_distance = max_distance

    def begin(self, shape: Shape) -> None:
        super().begin(shape)
        self._sums = {name: RatioSums() for name in DIM_OF}

    def end_batch(self, whole: Reductions) -> None:
        scope = whole.scope
        pairs = scope.pairs_of_key
        n_pairs = pairs.sum(1)
        tags, one_hot = scope.batch.one_hot("upos")
        by_tag = (pairs[:, None] @ one_hot)[:, 0]
        self._sums["pos_frequency"].add(by_tag, n_pairs, tags)

        related: list[Tensor] = []
        beyond = self.max_distance + 1
        at_distance = pairs.new_zeros(len(pairs), beyond + 1)
        related_at = at_distance.clone()
        for name in DEPENDENCIES:
            sequence, query, key = scope.listed_pairs(name)
            counts = scope.counts(sequence, query, key).double()
            related.append(pairs.new_zeros(len(pairs)).index_add_(0, sequence, counts))
            distance = (query - key).abs().clamp(max=beyond)
            related_at.index_put_((sequence, distance), counts, accumulate=True)
        either = torch.stack([*related, torch.stack(related).sum(0)], 1)
        self._sums["dependency_baseline"].add(either, n_pairs, DIRECTIONS)
        distances = torch.arange(pairs.shape[1], device=pairs.device).clamp(max=beyond)
        at_distance.index_add_(1, distances, scope.pairs_at_distance)
        self._sums["dependency_by_distance"].add(related_at, at_distance, None)

    def state_dict(self) -> xr.Dataset:
        states = []
        for name, sums in self._sums.items():
            dim = DIM_OF[name]
            dims = (dim,) if name == "dependency_by_distance" else ()
            state = sums.state(dims, None if dims else dim, {dim: range(self.max_distance + 2)} if dims else {})
            states.append(state.rename({key: f"{name}_{key}" for key in state.data_vars}))
        heads = {"layer": list(self.shape.layers), "head": list(range(self.shape.n_heads))}
        return xr.merge(states).assign_coords(heads)  # baselines do not depend on heads; runs do

    def load_state_dict(self, state: xr.Dataset) -> None:
        for name, dim in DIM_OF.items():
            self._sums[name] = RatioSums.load(_part(state, name), None if name == "dependency_by_distance" else dim)

    @classmethod
    def compute(cls, state: xr.Dataset, n: int) -> xr.Dataset:
        results = []
        for name, formula in FORMULAS.items():
            attrs = {
                "long_name": name.replace("_", " "),
                "units": "share",
                "formula": formula,
                "reference": "Vig & Belinkov 2019, sec. 5",
            }
            results.append(ratio(_part(state, name), n, name, attrs))
        return xr.merge(results).assign_coords({dim: state[dim] for dim in ("layer", "head")})


def _part(state: xr.Dataset, name: str) -> xr.Dataset:
    prefix = f"{name}_"
    return xr.Dataset({str(k).removeprefix(prefix): v for k, v in state.data_vars.items() if str(k).startswith(prefix)})
