"""How dispersed a head's attention is."""

from __future__ import annotations

import torch
from jaxtyping import Float
from torch import Tensor

from tl_attnstats.attention.reductions import Reductions
from tl_attnstats.collectors.ratio import RatioCollector

MOST_ON_NULL = 0.9


class Entropy(RatioCollector):
    """Mean entropy of rows renormalised over content keys; rows mostly on null keys are left out."""

    name = "entropy"
    long_name = "attention entropy"
    unit = "nats"
    formula = "mean over rows i of -Σ p ln p, p = w[i,:]/Σ_j w[i,j]; rows with over 0.9 of attention on N left out"
    reference = "Vig & Belinkov 2019, eq. 7, fn. 4, fig. 12"
    reads = ("row_max", "row_log_mass")

    def terms(self, block: Reductions) -> tuple[Float[Tensor, "batch head"], Float[Tensor, "batch head"]]:
        counted = (block.row_mass > 0) & (block.null_mass <= MOST_ON_NULL * block.attention)
        return torch.where(counted, block.row_entropy, 0).sum(-1), counted.sum(-1).double()
