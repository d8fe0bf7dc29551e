"""How much of a head's alignment with syntax its preference for some offsets explains."""

from __future__ import annotations

import numpy as np
import torch
import xarray as xr
from jaxtyping import Float, Int
from torch import Tensor

from tl_attnstats.attention.pairs import DEPENDENCIES
from tl_attnstats.attention.reductions import Reductions
from tl_attnstats.attention.scope import Scope
from tl_attnstats.collectors.base import Collector, Shape
from tl_attnstats.collectors.bootstrap import replicates
from tl_attnstats.collectors.dependency import DIRECTIONS
from tl_attnstats.corpus.devices import to_device
from tl_attnstats.errors import MetricError

HEADS = ("replicate", "layer", "head")


class Position(Collector):
    """Alignment with dependencies that a head would have if it looked at offsets alone, and what it has beyond that.

    Sums are kept for the corpus and for Poisson bootstrap replicates of it, whose spread is the standard error.

    Args:
        max_offset: offsets beyond this are pooled, on each side by itself.
        n_replicates: how many replicates. Memory: about 1 kB a head and replicate.
    """

    name = "position"
    reads = ("offset_mass", "pair_mass")
    pairs = DEPENDENCIES
    within_sequence = True
    needs_words = True

    def __init__(self, max_offset: int = 64, n_replicates: int = 100):
        if max_offset < 1:
            raise MetricError(f"max_offset={max_offset}: expected at least 1, or the position baseline says nothing")
        self.settings = {"max_offset": max_offset, "n_replicates": n_replicates}
        self.max_offset, self.n_replicates = max_offset, n_replicates

    def begin(self, shape: Shape) -> None:
        super().begin(shape)
        n, n_heads = 1 + self.n_replicates, len(shape.layers) * shape.n_heads
        self._lowest = 0 if shape.causal else -self.max_offset - 1
        self._n_bins = self.max_offset + 2 - self._lowest
        sizes = {
            "mass": (n, n_heads, self._n_bins),
            "aligned": (n, n_heads, len(DIRECTIONS)),
            "related": (n, len(DIRECTIONS), self._n_bins),
            "pairs": (n, self._n_bins),
        }
        self._sums = {key: torch.zeros(size, dtype=torch.float64) for key, size in sizes.items()}

    def end_batch(self, whole: Reductions) -> None:
        scope, device = whole.scope, whole.rows.device
        drawn = replicates(whole.batch, self.n_replicates)
        times = np.concatenate([np.ones((1, drawn.shape[1])), drawn])  # [replicate, batch]
        one_way = [whole.mass_on(name).sum(-1) for name in DEPENDENCIES]
        found = {
            "mass": self._binned(whole.offset_mass, scope.offsets),
            "aligned": torch.stack([*one_way, one_way[0] + one_way[1]], -1),
            "related": self._related(scope),
            "pairs": self._binned(scope.pairs_at_offset, _signed(scope)),
        }
        for key, value in found.items():
            self._sums[key] = to_device(self._sums[key], device)
            self._sums[key] += torch.tensordot(to_device(torch.from_numpy(times), device), value.double(), 1)

    def _bin(self, offsets: Int[Tensor, " offset"]) -> Int[Tensor, " offset"]:
        return offsets.clamp(self._lowest, self.max_offset + 1) - self._lowest

    def _binned(
        self, values: Float[Tensor, "batch *head offset"], offsets: Int[Tensor, " offset"]
    ) -> Float[Tensor, "batch *head bin"]:
        binned = values.new_zeros(*values.shape[:-1], self._n_bins)
        return binned.index_add_(-1, self._bin(offsets), values)

    def _related(self, scope: Scope) -> Float[Tensor, "batch direction bin"]:
        """The number of content pairs in a relation, by direction and offset."""
        found = []
        for name in DEPENDENCIES:
            sequence, query, key = scope.listed_pairs(name)
            counts = scope.counts(sequence, query, key).double()
            at = counts.new_zeros(len(scope.rows), self._n_bins)
            found.append(at.index_put_((sequence, self._bin(query - key)), counts, accumulate=True))
        return torch.stack([*found, found[0] + found[1]], 1)

    def state_dict(self) -> xr.Dataset:
        by_head = (1 + self.n_replicates, len(self.shape.layers), self.shape.n_heads, -1)
        arrays = {key: value.cpu().numpy() for key, value in self._sums.items()}
        return xr.Dataset(
            {
                "mass": ((*HEADS, "offset"), arrays["mass"].reshape(by_head)),
                "aligned": ((*HEADS, "direction"), arrays["aligned"].reshape(by_head)),
                "related": (("replicate", "direction", "offset"), arrays["related"]),
                "pairs": (("replicate", "offset"), arrays["pairs"]),
            },
            coords={
                "layer": list(self.shape.layers),
                "head": list(range(self.shape.n_heads)),
                "direction": list(DIRECTIONS),
                "offset": np.arange(self._n_bins) + self._lowest,
            },
        )

    def load_state_dict(self, state: xr.Dataset) -> None:
        self._sums = {key: torch.from_numpy(state[key].values.copy()) for key in self._sums}
        for key in ("mass", "aligned"):
            self._sums[key] = self._sums[key].flatten(1, 2)

    @classmethod
    def compute(cls, state: xr.Dataset, n: int) -> xr.Dataset:
        mass, related, pairs = (state[key].values for key in ("mass", "related", "pairs"))
        with np.errstate(invalid="ignore", divide="ignore"):
            total = mass.sum(-1, keepdims=True)
            chance = np.where(pairs > 0, related.swapaxes(0, 1) / pairs, 0)  # [direction, replicate, offset]
            by_position = np.einsum("rlho,dro->rlhd", mass / total, chance)
            excess = state["aligned"].values / total - by_position
        variables = {}
        for name, values, long_name, formula in (
            ("alignment_by_position", by_position, "alignment by position alone", "Σ_δ p[δ]·P(dep | δ)"),
            ("alignment_excess", excess, "alignment beyond position", "dependency_alignment - alignment_by_position"),
        ):
            dims, reference = ("layer", "head", "direction"), "tl_attnstats"
            attrs = {"long_name": long_name, "units": "share", "formula": formula, "reference": reference}
            error_attrs = {"long_name": f"standard error of {name}, by bootstrap", "units": "share"}
            variables[name] = (dims, values[0], attrs)
            variables[f"{name}_se"] = (dims, _spread(values[1:]), error_attrs)
        return xr.Dataset(variables, coords={dim: state[dim] for dim in ("layer", "head", "direction")})


def _signed(scope: Scope) -> Int[Tensor, " offset"]:
    """The offset of each entry of `Scope.pairs_at_offset`."""
    n_tokens = scope.rows.shape[1]
    places = torch.arange(2 * n_tokens, device=scope.rows.device)
    return torch.where(places < n_tokens, places, places - 2 * n_tokens)


def _spread(values: Float[np.ndarray, "replicate *any"]) -> Float[np.ndarray, "*any"]:
    """Standard deviation over replicates; NaN where a head has a value in fewer than two."""
    known = np.isfinite(values)
    n = known.sum(0)
    mean = np.where(known, values, 0).sum(0) / np.maximum(n, 1)
    squares = np.where(known, (values - mean) ** 2, 0).sum(0)
    return np.sqrt(np.where(n > 1, squares / np.maximum(n - 1, 1), np.nan))
