"""The unit that statistics are computed from: attention weights of one layer for some query rows of one batch."""

from __future__ import annotations

from collections.abc import Sequence
from functools import cached_property

import torch
from einops import rearrange
from jaxtyping import Bool, Float, Int
from torch import Tensor

from tl_attnstats.attention.scope import Scope


class AttentionBlock:
    """Attention weights of one layer for `query` rows of a batch, from row `first_row` on, over all keys.

    `batch` are the tokens that look, `keys` those that are looked at: the same, but in cross-attention.

    A collector reads the reductions below, each computed once and shared. They are sums over content only: columns
    of null keys, rows that do not count and padding are zero, whatever the pattern held there.
    """

    def __init__(self, pattern: Float[Tensor, "batch head query key"], scope: Scope, layer: int, first_row: int = 0):
        self.pattern = pattern.detach()
        self._place(scope, layer, first_row, first_row + pattern.shape[2])

    def _place(self, scope: Scope, layer: int, first_row: int, end_row: int) -> None:
        self.scope, self.batch, self.keys = scope, scope.batch, scope.keys
        self.layer, self.first_row, self._rows = layer, first_row, slice(first_row, end_row)

    @property
    def rows(self) -> Bool[Tensor, "batch query"]:
        """Which rows of this block count."""
        return self.scope.rows[:, self._rows]

    @cached_property
    def weights(self) -> Float[Tensor, "batch head query key"]:
        """The w of the definitions: the pattern at content pairs, 0 elsewhere; never renormalised. Do not modify."""
        # A bitwise "and" with all or no bits: as fast as a product, and rid of NaN in rows that do not count.
        bits = self.pattern.float().view(torch.int32) & self.scope.bit_mask[:, None, self._rows]
        return bits.view(torch.float32)

    @cached_property
    def row_mass(self) -> Float[Tensor, "batch head query"]:
        """Attention of each row on content keys."""
        # Summed in float64: the entropy of a row that is nearly one-hot hangs on the digits that float32 drops.
        return self.weights.sum(-1, dtype=torch.float64)

    @cached_property
    def null_mass(self) -> Float[Tensor, "batch head query"]:
        """Attention of each counted row on null keys."""
        if self.scope.null_rule != "special":  # at most the first column: spare the walk over the others
            return torch.where(self.scope.first_is_null[..., self._rows], self.pattern[..., 0], 0)
        mask = self.rows[:, None, :, None] & self.scope.null[:, None, None, :]
        return torch.where(mask, self.pattern, 0).sum(-1, dtype=torch.float64)

    @cached_property
    def column_mass(self) -> Float[Tensor, "batch head key"]:
        """Attention that each key receives from the counted rows of this block."""
        return self.weights.sum(-2)

    @cached_property
    def row_max(self) -> Float[Tensor, "batch head query"]:
        """Largest content weight of each row."""
        return self.weights.amax(-1)

    @cached_property
    def row_max_others(self) -> Float[Tensor, "batch head query"]:
        """Largest content weight of each row on a key that is not the query itself."""
        others = self.weights.clone()
        others.diagonal(self.first_row, -2, -1).zero_()
        return others.amax(-1)

    @cached_property
    def row_log_mass(self) -> Float[Tensor, "batch head query"]:
        """Σ w ln(w / row_max) of each row, from which `row_entropy` follows."""
        # Ratios below 1e-30 add nothing; they are kept from the logarithm, which is several times slower on zeros.
        logs = (self.weights / self.row_max.clamp_min(TINY)[..., None]).clamp_min_(TINY).log_()
        return logs.mul_(self.weights).sum(-1)

    @cached_property
    def offset_mass(self) -> Float[Tensor, "batch head offset"]:
        """Attention by offset i - j, for each of `scope.offsets`: sums over the diagonals of the pattern."""
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
    def pair_mass(self) -> Float[Tensor, "batch head query set"]:
        """Attention of each row on its keys in each of `scope.pair_sets`; see `mass_on`."""
        n_batch, n_heads, n_rows, _ = self.weights.shape
        mass = self.weights.new_zeros(len(self.scope.pair_sets), n_batch * n_rows, n_heads)
        for of_set, name in zip(mass, self.scope.pair_sets, strict=True):
            sequence, query, key = self.scope.pairs(name).expand(self.first_row, self.first_row + n_rows)
            row = query - self.first_row
            of_set.index_add_(0, sequence * n_rows + row, self.weights[sequence, :, row, key])
        return rearrange(mass, "set (batch row) head -> batch head row set", batch=n_batch)

    def mass_on(self, name: str) -> Float[Tensor, "batch head query"]:
        """Attention of each row on its keys in a named set of pairs, which the collector has among its `pairs`."""
        self.scope.pairs(name)
        return self.pair_mass[..., list(self.scope.pair_sets).index(name)]

    @cached_property
    def content_mass(self) -> Float[Tensor, "batch head"]:
        """M of the definitions, for the rows of this block: the denominator of most statistics."""
        return self.row_mass.sum(-1)

    @property
    def attention(self) -> Float[Tensor, "batch head query"]:
        """All attention of each counted row: 1 within rounding, less in models with attention sinks."""
        return self.row_mass + self.null_mass

    @cached_property
    def row_entropy(self) -> Float[Tensor, "batch head query"]:
        """Entropy in nats of each row renormalised over content keys; 0 where it has no attention on content."""
        # -Σ p ln p = ln(mass / top) - Σ w ln(w / top) / mass. Relative to the row's largest weight, whose own term is
        # exactly 0, the entropy of a row that is nearly one-hot keeps its digits.
        top, mass = self.row_max.clamp_min(TINY), self.row_mass.clamp_min(TINY)
        return (mass / top).log() - self.row_log_mass / mass

    def peak(
        self, exclude_self: bool = False
    ) -> tuple[Float[Tensor, "batch head"], Int[Tensor, "batch head"], Int[Tensor, "batch head"]]:
        """The largest content weight of each sequence, and the first (query, key) in row order that has it.

        Weights are compared as `comparable` makes them.
        """
        # Of equal ones, max() takes the first.
        row = comparable(self.row_max_others if exclude_self else self.row_max).max(-1, keepdim=True).indices
        strongest = self.row_weights(row)[:, :, 0]
        if exclude_self:
            strongest.scatter_(-1, row + self.first_row, 0)
        key = comparable(strongest).max(-1, keepdim=True).indices
        return strongest.gather(-1, key)[..., 0], row[..., 0] + self.first_row, key[..., 0]

    def row_weights(self, rows: Int[Tensor, "batch head row"]) -> Float[Tensor, "batch head row key"]:
        """Content weights of some rows, other ones for each head."""
        return self.weights.gather(2, rows[..., None].expand(*rows.shape, self.weights.shape[-1]))

    def corner(self, n: int) -> Float[Tensor, "batch head query key"]:
        """Weights among the first `n` positions, as far as their rows are in this block."""
        return self.weights[:, :, : max(0, n - self.first_row), :n]


class JoinedLayers(AttentionBlock):
    """Reductions of whole sequences, in float64; the head dimension runs over heads of several layers, one by one.

    No statistic mixes heads, and one operation for thirty layers takes hardly longer than for one. The place for all
    layers is taken at once: what is kept layer by layer would come to lie in the gaps that larger arrays leave in
    memory, and these would need new room each time.

    Args:
        scope: what counts.
        n_layers: how many layers.
        names: the reductions.
    """

    def __init__(self, scope: Scope, n_layers: int, names: Sequence[str]):
        self._place(scope, -1, 0, scope.rows.shape[1])
        self._n_layers, self._names = n_layers, names

    def add(self, place: int, block: AttentionBlock) -> None:
        """Add some rows of the layer that is to stand at `place`."""
        for name in self._names:
            new = getattr(block, name)
            if name not in self.__dict__:  # where a cached property looks first
                shape = [*new.shape]
                shape[1] *= self._n_layers
                if name in BY_ROW:
                    shape[2] = self.rows.shape[1]
                self.__dict__[name] = new.new_zeros(shape, dtype=torch.float64)
            n_heads = new.shape[1]
            whole = self.__dict__[name][:, place * n_heads : (place + 1) * n_heads]
            if name in BY_ROW:
                whole[:, :, block._rows] = new
            else:
                whole += new


BY_ROW = ("row_mass", "null_mass", "row_max", "row_max_others", "row_log_mass", "row_entropy", "attention", "pair_mass")
"""Reductions with an entry for each row; the others are sums over rows."""

TINY = 1e-30


def comparable(weights: Tensor) -> Tensor:
    """Weights to five decimals, for ranking.

    Sentences that begin alike have equal weights there, but for rounding, which depends on the batch; left in, it
    would decide between them.
    """
    return (weights * 1e5).round_()
