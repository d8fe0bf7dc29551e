"""Does a head's attention depend on content, or only on position?"""

from __future__ import annotations

import math

import numpy as np
import torch
import xarray as xr
from torch import Tensor

from tl_attnstats.attention.reductions import Reductions
from tl_attnstats.collectors.base import Collector, Shape
from tl_attnstats.corpus.devices import to_device


class Variability(Collector):
    """Mean absolute deviation of weights from their mean over sequences, at pairs of the first positions.

    The deviations need the mean, which is known only at the end. A histogram of the weights for each pair of
    positions, with the count and the sum of each bin, makes one pass enough: bins below or above the mean
    contribute exactly, only the bin that holds the mean is uncertain. `variability_error` bounds what
    that can amount to.

    Null keys are left out; position 0 is counted. A pair counts in the sequences where it is a content pair.

    Args:
        n_positions: N of the definitions.
        n_bins: bins between 0 and 1, finer towards both ends; the lowest one is divided again, two bins to each halving
            of the weight, for heads with hardly any content mass. Memory: 16 bytes a head, pair of positions and bin.
    """

    name = "variability"
    reads = ()
    within_sequence = True

    def __init__(self, n_positions: int = 10, n_bins: int = 256):
        self.settings = {"n_positions": n_positions, "n_bins": n_bins}
        self.n_positions, self.n_bins = n_positions, N_SMALL + n_bins

    def begin(self, shape: Shape) -> None:
        super().begin(shape)
        n = self.n_positions
        reachable = torch.ones(n, n, dtype=torch.bool)
        self._cells = (reachable.tril() if shape.causal else reachable).nonzero()  # (query, key) of each cell
        size = len(shape.layers) * shape.n_heads * len(self._cells) * self.n_bins
        # numpy does not touch the memory before the first write; torch would fill all of it with zeros.
        self._count, self._total = (torch.from_numpy(np.zeros(size)) for _ in range(2))
        self.discard_batch()

    def discard_batch(self) -> None:
        self._batch: dict[int, list[Tensor]] = {}

    def update(self, block: Reductions) -> None:
        self._batch.setdefault(block.layer, []).append(block.corner(self.n_positions))

    def end_batch(self, whole: Reductions) -> None:
        scope = whole.scope
        n_tokens, device = scope.rows.shape[1], scope.rows.device
        self._count, self._total = (to_device(x, device) for x in (self._count, self._total))
        # Skip cells beyond the longest sentence of the batch.
        here = (self._cells < n_tokens).all(1).nonzero()[:, 0]
        query, key = to_device(self._cells[here], device).unbind(1)
        here = to_device(here, device)
        corners = torch.cat([torch.cat(self._batch[layer], 2) for layer in self.shape.layers], 1)
        weights = corners[:, :, query, key]  # [batch, layer * head, cell]
        n_heads = weights.shape[1]
        first_bin = (torch.arange(n_heads, device=device)[:, None] * len(self._cells) + here) * self.n_bins
        bins = bins_of(weights, self.n_bins).add_(first_bin).flatten()
        counted = (scope.rows[:, query] & scope.content[:, key])[:, None].double().expand(-1, n_heads, -1)
        self._count.scatter_add_(0, bins, counted.flatten())
        self._total.scatter_add_(0, bins, weights.double().flatten())
        self.discard_batch()

    def state_dict(self) -> xr.Dataset:
        shape = (len(self.shape.layers), self.shape.n_heads, len(self._cells), self.n_bins)
        dims = ("layer", "head", "cell", "bin")
        return xr.Dataset(
            {
                "count": (dims, self._count.cpu().numpy().reshape(shape)),
                "total": (dims, self._total.cpu().numpy().reshape(shape)),
            },
            coords={
                "layer": list(self.shape.layers),
                "head": list(range(self.shape.n_heads)),
                "cell": (self._cells @ torch.tensor([self.n_positions, 1])).tolist(),
            },
        )

    def load_state_dict(self, state: xr.Dataset) -> None:
        self._count = torch.from_numpy(state["count"].values.copy()).flatten()
        self._total = torch.from_numpy(state["total"].values.copy()).flatten()

    @classmethod
    def compute(cls, state: xr.Dataset, n: int) -> xr.Dataset:
        # Layer by layer: the bins of all layers do not fit into the cache, which takes ten times as long.
        layers = zip(state["count"].values, state["total"].values, strict=True)
        deviation, uncertain = map(np.stack, zip(*(absolute_deviation(*layer) for layer in layers), strict=True))
        mass = 2 * state["total"].values.sum((2, 3))
        with np.errstate(invalid="ignore"):
            value, error = deviation.sum(-1) / mass, uncertain.sum(-1) / mass
        attrs = {
            "long_name": "attention variability",
            "units": "share",
            "formula": "Σ |w[i,j] - w̄[i,j]| / (2 Σ w[i,j]) over the first positions; low = positional head",
            "reference": "Vig & Belinkov 2019, eq. 5, fig. 10",
        }
        error_attrs = {"long_name": "bound on the error of variability from binning", "units": "share"}
        coords = {"layer": state["layer"], "head": state["head"]}
        return xr.Dataset(
            {
                "variability": (("layer", "head"), value, attrs),
                "variability_error": (("layer", "head"), error, error_attrs),
                "mean_pattern": _mean_pattern(state),
            },
            coords=coords,
        )


def _mean_pattern(state: xr.Dataset) -> xr.DataArray:
    """The mean weight (w̄ of the definitions) of each pair of the first positions; NaN where no pair was seen."""
    cells = state["cell"].values  # numbered row by row of an N × N pattern, the lower triangle in causal models
    n = math.isqrt(int(cells[-1])) + 1
    count, total = (state[name].values.sum(-1) for name in ("count", "total"))
    mean = np.full((*count.shape[:2], n * n), np.nan)
    np.divide(total, count, out=total, where=count > 0)
    mean[..., cells] = np.where(count > 0, total, np.nan)
    return xr.DataArray(
        mean.reshape(*count.shape[:2], n, n),
        dims=("layer", "head", "query_position", "key_position"),
        attrs={
            "long_name": "mean pattern of the first positions",
            "units": "share",
            "formula": "w̄[i,j] = mean of w[i,j] over sequences that have both",
            "reference": "Vig & Belinkov 2019, eq. 5",
        },
    )


SMALLEST, SMALL = -40, -15
"""Powers of 2: weights below 2^SMALLEST share the first bin, weights below 2^SMALL lie in bins that halve."""
N_SMALL = 2 * (SMALL - SMALLEST)


def bins_of(weights: Tensor, n_bins: int) -> Tensor:
    """The bin of each weight."""
    # On the arcsine, shares near 0, 1/2 and 1 spread alike.
    even = (weights.sqrt().clamp_(max=1).asin_() * (2 / math.pi * (n_bins - N_SMALL))).long() + N_SMALL
    # The exponent of a float32, and the first digit after it, are its upper bits: they count half octaves.
    halves = (weights.float().view(torch.int32) >> 22) - 2 * (127 + SMALLEST)
    return torch.where(weights < 2.0**SMALL, halves.clamp_(min=0).long(), even.clamp_(max=n_bins - 1))


def bin_borders(n_bins: int) -> np.ndarray:
    """Lower borders of the bins of `bins_of`, and the upper border of the last."""
    small = [0, *(2.0 ** (SMALLEST + half // 2) * (1 + half % 2 / 2) for half in range(1, N_SMALL))]
    even = np.sin(np.linspace(0, np.pi / 2, n_bins - N_SMALL + 1)) ** 2
    return np.concatenate([small, [2.0**SMALL], even[1:]])


def absolute_deviation(count: np.ndarray, total: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """Σ |w - mean| and the most it can be off, from the counts and sums of bins (last axis) of weights w."""
    n_bins = count.shape[-1]
    borders = bin_borders(n_bins)
    n = count.sum(-1)
    mean = total.sum(-1) / np.maximum(n, 1)
    # The weights of a bin lie on one side of the mean, except in the mean's own bin.
    surplus = np.abs(total - mean[..., None] * count)
    own = np.clip(np.searchsorted(borders, mean, side="right") - 1, 0, n_bins - 1)[..., None]
    least = np.take_along_axis(surplus, own, -1)[..., 0]
    own_count = np.take_along_axis(count, own, -1)[..., 0]
    own_total = np.take_along_axis(total, own, -1)[..., 0]
    low = borders[own[..., 0]]
    width = borders[own[..., 0] + 1] - low
    # Within that bin, in units of its width: where the mean lies, and the mean of the bin's own weights.
    at = (mean - low) / width
    middle = np.clip((own_total / np.maximum(own_count, 1) - low) / width, 0, 1)
    # Most: all weights at the two edges. Likely: a density that is linear across the bin and has the same mean.
    most = own_count * width * ((1 - middle) * at + middle * (1 - at))
    slope = np.clip(middle - 0.5, -1 / 6, 1 / 6)
    likely = own_count * width * ((at**2 + (1 - at) ** 2) / 2 + slope * (4 * at**3 - 6 * at**2 + 1))
    several = own_count > 1  # a single weight is known: it is the sum
    most = np.where(several, np.maximum(most, least), least)
    likely = np.clip(likely, least, most)
    return surplus.sum(-1) - least + likely, np.maximum(most - likely, likely - least)
