"""The reference kernel: blocks of query rows in plain torch. Covers everything, on any device."""

from __future__ import annotations

from collections.abc import Iterator
from functools import cached_property

import torch
from einops import rearrange
from jaxtyping import Bool, Float, Int
from torch import Tensor

from tl_attnstats.attention.kernels.projections import Job, Projections
from tl_attnstats.attention.reductions import TINY, Reductions
from tl_attnstats.attention.scope import Scope
from tl_attnstats.corpus.devices import sum_dtype

LEAST_ROWS = 128


def covers(job: Job) -> bool:
    """Any job."""
    return True


def attend(job: Job) -> Float[Tensor, "batch query head d_value"]:
    """The output of attention, computed in blocks of rows; each block's reductions and weights go to the consumer."""
    outputs = []
    for first, pattern in _patterns(job):
        outputs.append(job.given.mix(pattern, 0, pattern.shape[-1]))
        if job.scope is not None:
            job.consumer.take(reductions_of(pattern, job.scope, job.layer, first))
    return rearrange(torch.cat(outputs, 2), "batch head query d -> batch query head d")


def reductions_of(
    pattern: Float[Tensor, "batch head query key"], scope: Scope, layer: int, first_row: int = 0
) -> Reductions:
    """The reductions of some rows of a pattern, each computed when it is first asked for.

    Args:
        pattern: attention weights of the rows from `first_row` on, over all keys.
        scope: what counts.
        layer: the layer's number.
        first_row: the query position of the first row.
    """
    return Reductions(scope, layer, first_row, first_row + pattern.shape[2], PatternMaker(pattern, scope, first_row))


def rows_at_once(job: Job) -> int:
    """How many rows of weights a block has."""
    n_batch, _, n_keys = job.given.sizes
    n_heads = job.given.query.shape[1]
    return min(max(LEAST_ROWS, job.block_elements // (n_batch * n_heads * n_keys)), job.most_rows)


def _patterns(job: Job) -> Iterator[tuple[int, Float[Tensor, "batch head row key"]]]:
    """First row and pattern of block after block."""
    given = job.given
    n_batch, n_queries, n_keys = given.sizes
    n_rows = rows_at_once(job)
    queries = torch.arange(n_queries, device=given.query.device)
    for first in range(0, n_queries, n_rows):
        rows = slice(first, first + n_rows)
        allowed = job.real_keys[:, None, None, :] & job.reach.allowed(n_batch, queries[rows], n_keys)
        bias = None if given.bias is None else given.bias[:, :, rows]
        yield first, weights_of(given, given.query[:, :, rows], bias, allowed)


def weights_of(
    given: Projections,
    query: Float[Tensor, "batch head row d"],
    bias: Float[Tensor, "#batch head row key"] | None,
    allowed: Bool[Tensor, "#batch #head #row key"],
) -> Float[Tensor, "batch head row key"]:
    """Weights of some query vectors on all keys, given their rows of the bias and of the mask."""
    scores = given.scores(query, 0, given.sizes[2])
    if bias is not None:
        scores += bias
    scores.masked_fill_(~allowed, torch.finfo(scores.dtype).min)
    if given.sinks is None:
        return scores.softmax(-1)
    sinks = given.sinks.float()[:, None, None].expand(*scores.shape[:3], 1)
    return torch.cat([scores, sinks], -1).softmax(-1)[..., :-1]


class PatternMaker:
    """Makes the reductions of some rows of a pattern, under their names; see `Reductions` for what they are."""

    def __init__(self, pattern: Float[Tensor, "batch head query key"], scope: Scope, first_row: int):
        self.pattern, self.scope, self.first_row = pattern.detach(), scope, first_row
        self._rows = slice(first_row, first_row + pattern.shape[2])

    def reduce(self, name: str) -> Tensor:
        """A reduction by its name."""
        made: Tensor = getattr(self, name)
        return made

    def row_weights(self, rows: Int[Tensor, "batch head row"], n_keys: int) -> Float[Tensor, "batch head row key"]:
        """Content weights of some rows on the first `n_keys` keys."""
        return self.weights[..., :n_keys].gather(2, rows[..., None].expand(*rows.shape, n_keys))

    @cached_property
    def weights(self) -> Tensor:
        # A bitwise "and" with all or no bits: as fast as a product, and rid of NaN in rows that do not count.
        bits = self.pattern.float().view(torch.int32) & self.scope.bit_mask[:, None, self._rows]
        return bits.view(torch.float32)

    @cached_property
    def row_mass(self) -> Tensor:
        # In float64: the entropy of a row that is nearly one-hot depends on digits that float32 drops.
        return self.weights.sum(-1, dtype=sum_dtype(self.weights.device))

    @cached_property
    def null_mass(self) -> Tensor:
        scope = self.scope
        if scope.null_rule != "special":  # only the first column can be null: spare the walk over the others
            return torch.where(scope.first_is_null[..., self._rows], self.pattern[..., 0], 0)
        mask = scope.rows[:, None, self._rows, None] & scope.null[:, None, None, :]
        return torch.where(mask, self.pattern, 0).sum(-1, dtype=sum_dtype(mask.device))

    @cached_property
    def column_mass(self) -> Tensor:
        return self.weights.sum(-2)

    @cached_property
    def column_distance(self) -> Tensor:
        self.scope.check_one_sequence()
        n_rows, n_keys = self.weights.shape[2:]
        query = torch.arange(self.first_row, self.first_row + n_rows, device=self.weights.device)
        away = (query[:, None] - torch.arange(n_keys, device=query.device)).abs().float()
        return torch.einsum("bhqk,qk->bhk", self.weights, away)

    @cached_property
    def null_column_mass(self) -> Tensor:
        scope = self.scope
        if scope.null_rule != "special":
            dtype = sum_dtype(self.weights.device)
            received = self.weights.new_zeros(*self.weights.shape[:2], self.weights.shape[3], dtype=dtype)
            received[..., 0] = self.null_mass.sum(-1, dtype=dtype)
            return received
        mask = scope.rows[:, None, self._rows, None] & scope.null[:, None, None, :]
        return torch.where(mask, self.pattern, 0).sum(-2, dtype=sum_dtype(mask.device))

    @cached_property
    def row_max(self) -> Tensor:
        return self.weights.amax(-1)

    @cached_property
    def row_max_others(self) -> Tensor:
        others = self.weights.clone()
        others.diagonal(self.first_row, -2, -1).zero_()
        return others.amax(-1)

    @cached_property
    def row_log_mass(self) -> Tensor:
        # Ratios below 1e-30 add nothing; they are kept from the logarithm, which is several times slower on zeros.
        logs = (self.weights / self.row_max.clamp_min(TINY)[..., None]).clamp_min_(TINY).log_()
        return logs.mul_(self.weights).sum(-1)

    @cached_property
    def self_mass(self) -> Tensor:
        return self.weights.diagonal(self.first_row, -2, -1)

    @cached_property
    def offset_mass(self) -> Tensor:
        *lead, n_rows, n_keys = self.weights.shape
        if self.scope.causal and n_rows == n_keys > 1:
            # Read as rows one element longer, a lower triangle has its diagonals in columns: offset 0 in the first,
            # and 1, 2, … from the last one back. The very last element, at offset 0, is left over.
            flat = self.weights.flatten(-2)
            columns = flat[..., :-1].view(*lead, n_rows - 1, n_keys + 1).sum(-2)
            columns[..., 0] += flat[..., -1]
            return columns
        # Written at the end of rows with room before them, and read back as rows one element longer.
        width = n_keys + n_rows
        skewed = self.weights.new_zeros(*lead, n_rows * (width + 1))
        skewed[..., : n_rows * width].view(*lead, n_rows, width)[..., n_rows:] = self.weights
        diagonals = skewed.view(*lead, n_rows, width + 1).sum(-2)[..., 1:width]
        largest = self.first_row + n_rows - 1
        offsets = torch.arange(largest, largest - (width - 1), -1, device=diagonals.device)
        place = -offsets.clamp_min(0) % (n_keys + 1) if self.scope.causal else n_keys - 1 - offsets
        return diagonals.new_zeros(*lead, len(self.scope.offsets)).index_add_(-1, place, diagonals)

    @cached_property
    def pair_mass(self) -> Tensor:
        return self._pair_mass(by_key=False)

    @cached_property
    def pair_column_mass(self) -> Tensor:
        return self._pair_mass(by_key=True)

    def _pair_mass(self, by_key: bool) -> Tensor:
        n_batch, n_heads, n_rows, n_keys = self.weights.shape
        n_places = n_keys if by_key else n_rows
        mass = self.weights.new_zeros(len(self.scope.pair_sets), n_batch * n_places, n_heads)
        for of_set, name in zip(mass, self.scope.pair_sets, strict=True):
            sequence, query, key = self.scope.listed_pairs(name, self.first_row, self.first_row + n_rows)
            row = query - self.first_row
            of_set.index_add_(0, sequence * n_places + (key if by_key else row), self.weights[sequence, :, row, key])
        return rearrange(mass, "set (batch place) head -> batch head place set", batch=n_batch)
