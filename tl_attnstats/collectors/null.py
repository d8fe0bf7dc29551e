"""How much attention falls on the null set."""

from __future__ import annotations

from jaxtyping import Float
from torch import Tensor

from tl_attnstats.attention.reductions import Reductions
from tl_attnstats.collectors.ratio import RatioCollector


class NullShare(RatioCollector):
    """Mean over rows of the attention on null keys. A row that can reach nothing else is left out."""

    name = "null_share"
    long_name = "attention on null tokens"
    formula = "mean over rows i of Σ_{j∈N} α[i,j]"
    reference = "Vig & Belinkov 2019, fig. 5"
    attention = "all"
    reads: tuple[str, ...] = ()

    def terms(self, block: Reductions) -> tuple[Float[Tensor, "batch head"], Float[Tensor, "batch head"]]:
        mass = block.null_mass.sum(-1)
        return mass, block.rows.sum(-1, keepdim=True).double().expand_as(mass)
