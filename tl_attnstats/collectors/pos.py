"""Which parts of speech attention goes to, and which it comes from."""

from __future__ import annotations

from collections.abc import Sequence

from jaxtyping import Float
from torch import Tensor

from tl_attnstats.attention.reductions import Reductions
from tl_attnstats.attention.scope import Scope
from tl_attnstats.collectors.ratio import RatioCollector


class PosTo(RatioCollector):
    """Share of content attention that tokens of each part of speech receive."""

    name = "pos_to"
    long_name = "attention to part of speech"
    formula = "Σ w[i,j]·1[pos(j)=tag] / Σ w[i,j]"
    reference = "Vig & Belinkov 2019, eq. 3, fig. 6"
    dim = "tag"
    reads: tuple[str, ...] = ("column_mass",)
    needs_words = True
    labels: str = "upos"  # which labels of the tokens: see TokenizedSentence.labels

    def coordinate(self, scope: Scope) -> Sequence[str]:
        return scope.keys.one_hot(self.labels)[0]

    def terms(self, block: Reductions) -> tuple[Float[Tensor, "batch head tag"], Float[Tensor, "batch head"]]:
        _, one_hot = block.keys.one_hot(self.labels)
        # Divide by the sum of the same columns, so that shares add up to 1: float32 sums of rows round differently.
        return block.column_mass @ one_hot, block.column_mass.sum(-1)


class PosFrom(PosTo):
    """Share of content attention that tokens of each part of speech give."""

    name = "pos_from"
    long_name = "attention from part of speech"
    formula = "Σ w[i,j]·1[pos(i)=tag] / Σ w[i,j]"
    reference = "Vig & Belinkov 2019, fig. 7"
    reads = ()

    def coordinate(self, scope: Scope) -> Sequence[str]:
        return scope.batch.one_hot(self.labels)[0]

    def terms(self, block: Reductions) -> tuple[Float[Tensor, "batch head tag"], Float[Tensor, "batch head"]]:
        _, one_hot = block.batch.one_hot(self.labels)
        return block.row_mass @ one_hot, block.content_mass
