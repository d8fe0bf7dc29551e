"""Weights times the norm of what they carry into the residual stream, after Kobayashi et al. (2020)."""

from __future__ import annotations

import torch
from einops import rearrange
from jaxtyping import Float
from torch import Tensor

from tl_attnstats.attention.pairs import DEPENDENCIES
from tl_attnstats.attention.reductions import Reductions
from tl_attnstats.collectors.dependency import DependencyAlignment, DepTo
from tl_attnstats.collectors.distance import Distance
from tl_attnstats.collectors.null import NullShare
from tl_attnstats.collectors.pos import PosTo
from tl_attnstats.collectors.ratio import RatioCollector

REFERENCE = "after Kobayashi et al. 2020"
READS = ("column_mass", "key_norm")
Terms = tuple[Float[Tensor, "batch head *dim"], Float[Tensor, "batch head"]]


class PosToNorm(PosTo):
    """Share of what content attention carries that comes from tokens of each part of speech."""

    name = "pos_to_norm"
    long_name = "norm-weighted attention to part of speech"
    formula = "pos_to with w[i,j]·‖v_j W_O‖ for w[i,j]"
    reference = REFERENCE
    reads = READS

    def terms(self, block: Reductions) -> Terms:
        _, one_hot = block.keys.one_hot(self.labels)
        carried = block.column_mass * block.key_norm
        return carried @ one_hot, carried.sum(-1)


class DepToNorm(PosToNorm):
    """Share of what content attention carries that comes from tokens in each dependency relation to their head."""

    name = "dep_to_norm"
    long_name = "norm-weighted attention to dependency relation"
    formula = "dep_to with w[i,j]·‖v_j W_O‖ for w[i,j]"
    dim = DepTo.dim
    labels = "relation"


class DependencyAlignmentNorm(DependencyAlignment):
    """Share of what content attention carries between words that are head and dependent of each other."""

    name = "dependency_alignment_norm"
    long_name = "norm-weighted attention along dependencies"
    formula = "dependency_alignment with w[i,j]·‖v_j W_O‖ for w[i,j]"
    reference = REFERENCE
    reads = (*READS, "pair_column_mass")

    def terms(self, block: Reductions) -> Terms:
        carried = [(block.column_mass_on(name) * block.key_norm).sum(-1) for name in DEPENDENCIES]
        one_way = torch.stack(carried, -1)
        total = (block.column_mass * block.key_norm).sum(-1)
        return torch.cat([one_way, one_way.sum(-1, keepdim=True)], -1), total


class DistanceNorm(Distance):
    """Mean distance in tokens between query and key, weighted by what content attention carries."""

    name = "distance_norm"
    long_name = "norm-weighted attention distance"
    formula = "distance with w[i,j]·‖v_j W_O‖ for w[i,j]"
    reference = REFERENCE
    reads = (*READS, "column_distance")

    def terms(self, block: Reductions) -> Terms:
        return (block.column_distance * block.key_norm).sum(-1), (block.column_mass * block.key_norm).sum(-1)


class NullShareNorm(NullShare):
    """Share of what attention carries that comes from null keys, over the rows of `null_share`."""

    name = "null_share_norm"
    long_name = "norm-weighted null share"
    formula = "Σ_i Σ_{j∈N} α[i,j]·‖v_j W_O‖ / Σ_i Σ_j α[i,j]·‖v_j W_O‖"
    reference = REFERENCE
    reads = (*READS, "null_column_mass")

    def terms(self, block: Reductions) -> Terms:
        null = (block.null_column_mass * block.key_norm).sum(-1)
        return null, null + (block.column_mass * block.key_norm).sum(-1)


class OutputNorm(RatioCollector):
    """Mean over rows of the norm of what a head adds to the residual stream, null keys included."""

    name = "output_norm"
    long_name = "norm of what the head adds"
    unit = "norm"
    formula = "mean over rows i of ‖Σ_j α[i,j] v_j W_O‖"
    reference = REFERENCE
    attention = "all"
    reads = ("output_norm",)

    def terms(self, block: Reductions) -> Terms:
        norm = block.output_norm.sum(-1)
        return norm, block.rows.sum(-1, keepdim=True).double().expand_as(norm)


class OutputNormRelative(OutputNorm):
    """`output_norm` over its mean over the heads of the layer: near 0, a head adds nothing, whatever it looks at."""

    name = "output_norm_relative"
    long_name = "what the head adds, relative to its layer"
    unit = "ratio"
    formula = "output_norm / mean of output_norm over the heads of the layer"

    def terms(self, block: Reductions) -> Terms:
        by_layer = rearrange(
            block.output_norm.sum(-1), "batch (layer head) -> batch layer head", head=self.shape.n_heads
        )
        mean = by_layer.mean(-1, keepdim=True).expand_as(by_layer)
        return by_layer.flatten(1), mean.flatten(1)
