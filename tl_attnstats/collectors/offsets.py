"""Where a head looks, relative to the query."""

from __future__ import annotations

from collections.abc import Sequence

import torch
from jaxtyping import Float
from torch import Tensor

from tl_attnstats.attention.reductions import Reductions
from tl_attnstats.attention.scope import Scope
from tl_attnstats.collectors.base import Shape
from tl_attnstats.collectors.ratio import RatioCollector
from tl_attnstats.corpus.devices import to_device

OCTAVES = {"sentence": 0, "document": 7, "tokens": 0}


class OffsetProfile(RatioCollector):
    """Share of content attention at each offset i - j; 1 is the previous token.

    Args:
        max_offset: D, the largest offset with an entry of its own. D + 1 stands for all larger ones, in encoders
            -(D + 1) for all smaller ones.
        octaves: for long contexts, so many more entries beyond D, each from twice the offset of the one before:
            D + 1 stands for D + 1 to 2D, then 2D + 1 for 2D + 1 to 4D, and so on; the last for all beyond. None
            is 7 for documents, which reaches to 8192 with the D of 64, and none for sentences.
    """

    name = "offset_profile"
    long_name = "attention by offset"
    formula = "Σ w[i,j]·1[i-j=d] / Σ w[i,j]; the outermost offsets stand for all beyond"
    reference = "tl_attnstats"
    dim = "offset"
    reads = ("offset_mass",)
    within_sequence = True

    def __init__(self, max_offset: int = 64, octaves: int | None = None):
        self.max_offset, self.octaves = max_offset, octaves

    def begin(self, shape: Shape) -> None:
        super().begin(shape)
        octaves = OCTAVES[shape.sequence_kind] if self.octaves is None else self.octaves
        self.settings = {"max_offset": self.max_offset, "octaves": octaves}
        # The smallest distance of each entry.
        self._lowest = [
            *range(self.max_offset + 1),
            *(self.max_offset * 2**octave + 1 for octave in range(octaves + 1)),
        ]
        self._zero = 0 if shape.causal else len(self._lowest) - 1
        self._coordinate = [*(-distance for distance in self._lowest[self._zero : 0 : -1]), *self._lowest]

    def coordinate(self, scope: Scope) -> Sequence[int]:
        return self._coordinate

    def terms(self, block: Reductions) -> tuple[Float[Tensor, "batch head offset"], Float[Tensor, "batch head"]]:
        offsets = block.scope.offsets
        lowest = to_device(torch.tensor(self._lowest), offsets.device)
        entry = torch.searchsorted(lowest, offsets.abs(), right=True) - 1
        # In a causal model offsets below 0 have no weight; add these zeros to offset 0.
        bins = (self._zero + offsets.sign() * entry).clamp_min(0)
        profile = block.offset_mass.new_zeros(*block.offset_mass.shape[:2], len(self._coordinate))
        # Divide by the sum of the same diagonals, so that shares add up to 1: float32 sums of rows round differently.
        return profile.index_add_(-1, bins, block.offset_mass), block.offset_mass.sum(-1)
