"""How far a head looks."""

from __future__ import annotations

from jaxtyping import Float
from torch import Tensor

from tl_attnstats.attention.reductions import Reductions
from tl_attnstats.collectors.ratio import RatioCollector


class Distance(RatioCollector):
    """Mean distance in tokens between query and key, weighted by content attention."""

    name = "distance"
    long_name = "attention distance"
    unit = "tokens"
    formula = "Σ w[i,j]·|i-j| / Σ w[i,j]"
    reference = "Vig & Belinkov 2019, eq. 6, fig. 11"
    reads: tuple[str, ...] = ("offset_mass",)
    within_sequence = True

    def terms(self, block: Reductions) -> tuple[Float[Tensor, "batch head"], Float[Tensor, "batch head"]]:
        # Sum over diagonals: Σ i·w and Σ j·w nearly cancel in long texts.
        return block.offset_mass @ block.scope.offsets.abs().double(), block.content_mass
