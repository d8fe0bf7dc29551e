"""The reference kernel: blocks of query rows in plain torch. Covers everything, on any device."""

from __future__ import annotations

from collections.abc import Iterator
from functools import cached_property

import torch
from einops import rearrange
from jaxtyping import Bool, Float, Int
from torch import Tensor

from tl_attnstats.attention.kernels import fused
from tl_attnstats.attention.kernels.fused import Fused
from tl_attnstats.attention.kernels.projections import MOST_ROWS, Job, Projections
from tl_attnstats.attention.reductions import TINY, Reductions
from tl_attnstats.attention.scope import Scope
from tl_attnstats.corpus.devices import CPU, sum_dtype

LEAST_ROWS = 128
# A score takes 4 bytes, and its reductions up to 10 times as many for a while; some memory is left to the model.
BYTES = 4 * 10 * 2
MEMORY = 2**30  # assumed to be free where a device does not say


def covers(job: Job) -> bool:
    """Any job."""
    return True


def attend(job: Job) -> Float[Tensor, "batch query head d_value"]:
    """The output of attention, computed in blocks of rows; each block's reductions and weights go to the consumer."""
    outputs = []
    for first, first_key, pattern in _patterns(job):
        outputs.append(job.given.mix(pattern, first_key, first_key + pattern.shape[-1]))
        if job.scope is not None:
            job.consumer.take(reductions_of(pattern, job.scope, job.layer, first, first_key))
    return rearrange(torch.cat(outputs, 2), "batch head query d -> batch query head d")


def reductions_of(
    pattern: Float[Tensor, "batch head query key"], scope: Scope, layer: int, first_row: int = 0, first_key: int = 0
) -> Reductions:
    """The reductions of some rows of a pattern, each computed when it is first asked for.

    Args:
        pattern: attention weights of the rows from `first_row` on, over the keys from `first_key` on; on others they
            have none.
        scope: what counts.
        layer: the layer's number.
        first_row: the query position of the first row.
        first_key: the position of the first key.
    """
    maker = PatternMaker(pattern, scope, first_row, first_key)
    return Reductions(scope, layer, first_row, first_row + pattern.shape[2], maker)


def rows_at_once(job: Job) -> int:
    """How many rows of weights a block has."""
    n_batch, n_queries, n_keys = job.given.sizes
    n_heads = job.given.query.shape[1]
    in_row = n_batch * n_heads * n_keys
    device = job.given.query.device
    if device == CPU:  # as many scores as stay in cache
        return min(max(LEAST_ROWS, job.block_elements // in_row), job.most_rows)
    # Long texts in several blocks, for the keys that the first ones do not reach. Out of memory, `most_rows` is halved.
    most = max(MOST_ROWS, n_queries // 8) if job.most_rows == MOST_ROWS else job.most_rows
    return min(max(1, free_memory(device) // BYTES // in_row), most, n_queries)


def free_memory(device: torch.device) -> int:
    """How many bytes of a device's memory are free, or are assumed to be where it does not say."""
    if device.type != "cuda":
        return MEMORY
    kept = torch.cuda.memory_reserved(device) - torch.cuda.memory_allocated(device)  # by torch, and not in use
    return torch.cuda.mem_get_info(device)[0] + kept


def _patterns(job: Job) -> Iterator[tuple[int, int, Float[Tensor, "batch head row key"]]]:
    """First row, first key and pattern of block after block. Keys that no query of a block reaches are left out."""
    given = job.given
    n_batch, n_queries, n_keys = given.sizes
    n_rows = rows_at_once(job)
    within = job.scope is not None and not job.scope.crosses
    queries = torch.arange(n_queries, device=given.query.device)
    for first in range(0, n_queries, n_rows):
        rows = slice(first, min(first + n_rows, n_queries))
        first_key, end_key = job.reach.keys_of(*given.sizes, queries.device, rows.start, rows.stop)
        if within:  # reductions look at each row's own token
            first_key, end_key = min(first_key, rows.start), max(end_key, rows.stop)
        keys = slice(first_key, end_key)
        allowed = job.real_keys[:, None, None, keys] & job.reach.allowed(n_batch, queries[rows], n_keys, keys)
        bias = None if given.bias is None else given.bias[:, :, rows, keys]
        yield first, first_key, weights_of(given, given.query[:, :, rows], bias, allowed, keys)


def weights_of(
    given: Projections,
    query: Float[Tensor, "batch head row d"],
    bias: Float[Tensor, "#batch head row key"] | None,
    allowed: Bool[Tensor, "#batch #head #row key"],
    keys: slice | None = None,
) -> Float[Tensor, "batch head row key"]:
    """Weights of some query vectors on some keys (None: all), given their part of the bias and of the mask."""
    keys = keys or slice(0, given.sizes[2])
    scores = given.scores(query, keys.start, keys.stop)
    if bias is not None:
        scores += bias
    scores.masked_fill_(~allowed, torch.finfo(scores.dtype).min)
    if given.sinks is None:
        return scores.softmax(-1)
    sinks = given.sinks.float()[:, None, None].expand(*scores.shape[:3], 1)
    return torch.cat([scores, sinks], -1).softmax(-1)[..., :-1]


class PatternMaker:
    """Makes the reductions of some rows of a pattern, under their names; see `Reductions` for what they are.

    The pattern may be on some keys only, from `first_key` on: there is no weight on others.
    """

    def __init__(
        self, pattern: Float[Tensor, "batch head query key"], scope: Scope, first_row: int, first_key: int = 0
    ):
        self.scope, self.first_row, self.first_key = scope, first_row, first_key
        self._pattern = pattern.detach()
        self._rows = slice(first_row, first_row + pattern.shape[2])
        self._keys = slice(first_key, first_key + pattern.shape[3])
        self._n_keys = scope.real_keys.shape[1]
        self._own = first_row - first_key  # the diagonal of queries on themselves

    def reduce(self, name: str) -> Tensor:
        """A reduction by its name."""
        together = name in Fused._fields and self._weights.device.type in fused.DEVICES
        made: Tensor = getattr(self._fused if together else self, name)
        return made

    @cached_property
    def _fused(self) -> Fused:
        found = fused.reduce(self._weights, self._own)
        return found._replace(column_mass=self._on_all_keys(found.column_mass))

    def _on_all_keys(self, of_some: Float[Tensor, "*any key"]) -> Float[Tensor, "*any key"]:
        """Zeros for the keys that were left out."""
        if of_some.shape[-1] == self._n_keys:
            return of_some
        return torch.nn.functional.pad(of_some, (self._keys.start, self._n_keys - self._keys.stop))

    @property
    def pattern(self) -> Tensor:
        return self._on_all_keys(self._pattern)

    @property
    def weights(self) -> Tensor:
        return self._on_all_keys(self._weights)

    def row_weights(self, rows: Int[Tensor, "batch head row"], n_keys: int) -> Float[Tensor, "batch head row key"]:
        """Content weights of some rows on the first `n_keys` keys."""
        end = max(0, n_keys - self.first_key)
        some = self._weights[..., :end]
        found = some.gather(2, rows[..., None].expand(*rows.shape, some.shape[-1]))
        return torch.nn.functional.pad(found, (n_keys - end, end - some.shape[-1]))

    @cached_property
    def _weights(self) -> Tensor:
        # A bitwise "and" with all or no bits: as fast as a product, and rid of NaN in rows that do not count.
        mask = self.scope.bit_mask(self._rows.start, self._rows.stop, self._keys.start, self._keys.stop)
        bits = self._pattern.float().view(torch.int32) & mask[:, None]
        return bits.view(torch.float32)

    @cached_property
    def row_mass(self) -> Tensor:
        # In float64: the entropy of a row that is nearly one-hot depends on digits that float32 drops.
        return self._weights.sum(-1, dtype=sum_dtype(self._weights.device))

    @cached_property
    def _on_null(self) -> Tensor:
        mask = self.scope.rows[:, None, self._rows, None] & self.scope.null[:, None, None, self._keys]
        return torch.where(mask, self._pattern, 0)

    @cached_property
    def null_mass(self) -> Tensor:
        scope = self.scope
        if scope.null_rule != "special":  # only the first column can be null: spare the walk over the others
            first = self._pattern[..., 0] if self.first_key == 0 else torch.zeros_like(self._pattern[..., 0])
            return torch.where(scope.first_is_null[..., self._rows], first, 0)
        return self._on_null.sum(-1, dtype=sum_dtype(self._pattern.device))

    @cached_property
    def column_mass(self) -> Tensor:
        return self._on_all_keys(self._weights.sum(-2))

    @cached_property
    def column_distance(self) -> Tensor:
        self.scope.check_one_sequence()
        query = torch.arange(self._rows.start, self._rows.stop, device=self._weights.device)
        key = torch.arange(self._keys.start, self._keys.stop, device=query.device)
        away = (query[:, None] - key).abs().float()
        return self._on_all_keys(torch.einsum("bhqk,qk->bhk", self._weights, away))

    @cached_property
    def null_column_mass(self) -> Tensor:
        dtype = sum_dtype(self._pattern.device)
        if self.scope.null_rule != "special":
            received = self._weights.new_zeros(*self._weights.shape[:2], self._n_keys, dtype=dtype)
            received[..., 0] = self.null_mass.sum(-1, dtype=dtype)
            return received
        return self._on_all_keys(self._on_null.sum(-2, dtype=dtype))

    @cached_property
    def row_max(self) -> Tensor:
        return self._weights.amax(-1)

    @cached_property
    def row_max_others(self) -> Tensor:
        others = self._weights.clone()
        others.diagonal(self._own, -2, -1).zero_()
        return others.amax(-1)

    @cached_property
    def row_log_mass(self) -> Tensor:
        # Ratios below 1e-30 add nothing; they are kept from the logarithm, which is several times slower on zeros.
        logs = (self._weights / self.row_max.clamp_min(TINY)[..., None]).clamp_min_(TINY).log_()
        return logs.mul_(self._weights).sum(-1)

    @cached_property
    def self_mass(self) -> Tensor:
        return self._weights.diagonal(self._own, -2, -1)

    @cached_property
    def offset_mass(self) -> Tensor:
        *lead, n_rows, n_keys = self._weights.shape
        if self.scope.causal and n_rows == n_keys == self._n_keys > 1:
            # Read as rows one element longer, a lower triangle has its diagonals in columns: offset 0 in the first,
            # and 1, 2, … from the last one back. The very last element, at offset 0, is left over.
            flat = self._weights.flatten(-2)
            columns = flat[..., :-1].view(*lead, n_rows - 1, n_keys + 1).sum(-2)
            columns[..., 0] += flat[..., -1]
            return columns
        # Written at the end of rows with room before them, and read back as rows one element longer.
        width = n_keys + n_rows
        skewed = self._weights.new_zeros(*lead, n_rows * (width + 1))
        skewed[..., : n_rows * width].view(*lead, n_rows, width)[..., n_rows:] = self._weights
        diagonals = skewed.view(*lead, n_rows, width + 1).sum(-2)[..., 1:width]
        largest = self._own + n_rows - 1
        offsets = torch.arange(largest, largest - (width - 1), -1, device=diagonals.device)
        place = -offsets.clamp_min(0) % (self._n_keys + 1) if self.scope.causal else self._n_keys - 1 - offsets
        return diagonals.new_zeros(*lead, len(self.scope.offsets)).index_add_(-1, place, diagonals)

    @cached_property
    def pair_mass(self) -> Tensor:
        return self._pair_mass(by_key=False)

    @cached_property
    def pair_column_mass(self) -> Tensor:
        return self._pair_mass(by_key=True)

    def _pair_mass(self, by_key: bool) -> Tensor:
        n_batch, n_heads, n_rows, _ = self._weights.shape
        n_places = self._n_keys if by_key else n_rows
        mass = self._weights.new_zeros(len(self.scope.pair_sets), n_batch * n_places, n_heads)
        for of_set, name in zip(mass, self.scope.pair_sets, strict=True):
            sequence, query, key = self.scope.listed_pairs(name, self._rows, self._keys)
            row = query - self.first_row
            weights = self._weights[sequence, :, row, key - self.first_key]
            of_set.index_add_(0, sequence * n_places + (key if by_key else row), weights)
        return rearrange(mass, "set (batch place) head -> batch head place set", batch=n_batch)
