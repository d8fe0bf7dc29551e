"""Attention and syntax: relations of the tokens attended to, and attention along dependencies."""

from __future__ import annotations

from collections.abc import Sequence

import torch
from jaxtyping import Float
from torch import Tensor

from tl_attnstats.attention.pairs import DEPENDENCIES
from tl_attnstats.attention.reductions import Reductions
from tl_attnstats.attention.scope import Scope
from tl_attnstats.collectors.pos import PosTo
from tl_attnstats.collectors.ratio import RatioCollector

DIRECTIONS = (*DEPENDENCIES, "either")


class DepTo(PosTo):
    """Share of content attention that goes to tokens in each dependency relation to their head.

    Args:
        subtypes: keep subtypes apart (`nmod:poss` and `nmod`).
    """

    name = "dep_to"
    long_name = "attention to dependency relation"
    formula = "Σ w[i,j]·1[deprel(j)=relation] / Σ w[i,j]"
    reference = "Vig & Belinkov 2019, fig. 9"
    dim = "relation"

    def __init__(self, subtypes: bool = False):
        self.settings = {"subtypes": subtypes}
        self.labels = "deprel" if subtypes else "relation"


class DependencyAlignment(RatioCollector):
    """Share of content attention between words that are head and dependent of each other."""

    name = "dependency_alignment"
    long_name = "attention along dependencies"
    formula = "Σ w[i,j]·dep(i,j) / Σ w[i,j]; from_parent: i is j's parent, to_parent: j is i's parent"
    reference = "Vig & Belinkov 2019, eq. 4, fig. 8"
    dim = "direction"
    reads: tuple[str, ...] = ("pair_mass",)
    pairs = DEPENDENCIES
    within_sequence = True
    needs_words = True

    def coordinate(self, scope: Scope) -> Sequence[str]:
        return DIRECTIONS

    def terms(self, block: Reductions) -> tuple[Float[Tensor, "batch head 3"], Float[Tensor, "batch head"]]:
        one_way = torch.stack([block.mass_on(name).sum(-1) for name in DEPENDENCIES], -1)
        return torch.cat([one_way, one_way.sum(-1, keepdim=True)], -1), block.content_mass
