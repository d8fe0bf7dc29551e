"""Where a head looks, relative to the query."""

from __future__ import annotations

from collections.abc import Sequence

from jaxtyping import Float
from torch import Tensor

from tl_attnstats.attention.block import AttentionBlock, Scope
from tl_attnstats.collectors.base import RatioCollector, Shape


class OffsetProfile(RatioCollector):
    """Share of content attention at each offset i - j; 1 is the previous token.

    Args:
        max_offset: D. The offset D + 1 stands for all larger ones, in encoders -(D + 1) for all smaller ones.
    """

    name = "offset_profile"
    long_name = "attention by offset"
    formula = "Σ w[i,j]·1[i-j=d] / Σ w[i,j]; the outermost offsets stand for all beyond"
    source = "tl_attnstats"
    dim = "offset"
    reads = ("offset_mass",)

    def __init__(self, max_offset: int = 64):
        self.settings = {"max_offset": max_offset}
        self.max_offset = max_offset

    def begin(self, shape: Shape) -> None:
        super().begin(shape)
        beyond = self.max_offset + 1
        self._coordinate = list(range(0 if shape.causal else -beyond, beyond + 1))

    def coordinate(self, scope: Scope) -> Sequence[int]:
        return self._coordinate

    def terms(self, block: AttentionBlock) -> tuple[Float[Tensor, "batch head offset"], Float[Tensor, "batch head"]]:
        lowest, highest = self._coordinate[0], self._coordinate[-1]
        # In a causal model nothing lies below 0, and the zeros found there are added to offset 0.
        bins = block.scope.offsets.clamp(lowest, highest) - lowest
        profile = block.offset_mass.new_zeros(*block.offset_mass.shape[:2], len(self._coordinate))
        return profile.index_add_(-1, bins, block.offset_mass), block.content_mass
