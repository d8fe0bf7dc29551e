"""What statistics are computed from: reductions of the attention of one layer over some query rows of a batch."""

from __future__ import annotations

from collections.abc import Callable, Collection, Sequence
from typing import Protocol

import torch
from jaxtyping import Bool, Float, Int
from torch import Tensor

from tl_attnstats.attention.scope import Scope
from tl_attnstats.errors import MetricError

BY_ROW = ("row_mass", "null_mass", "row_max", "row_max_others", "row_log_mass", "self_mass", "pair_mass")
"""Reductions with an entry for each row."""
SUMMED = ("column_mass", "offset_mass", "column_distance", "null_column_mass", "pair_column_mass")
"""Reductions that are sums over rows."""
WEIGHTS = "weights"
NORMS = ("key_norm", "output_norm")
"""What values carry; not sums of weights, and made once a batch."""
REDUCTIONS = (*BY_ROW, *SUMMED, *NORMS, WEIGHTS)
"""Everything that a statistic may name in its `reads`."""
ALWAYS = ("row_mass", "null_mass")
"""Reductions that every run takes; a statistic need not name them."""

TINY = 1e-30


class Maker(Protocol):
    """What a kernel leaves behind: it hands out reductions by name, and single rows of weights."""

    @property
    def pattern(self) -> Float[Tensor, "batch head query key"] | None:
        """The attention weights of the block as the model has them; None where they were not kept."""

    def reduce(self, name: str) -> Tensor:
        """A reduction of the block. Raises `KeyError` where it cannot be made any more."""

    def row_weights(self, rows: Int[Tensor, "batch head row"], n_keys: int) -> Float[Tensor, "batch head row key"]:
        """Content weights of some rows, counted from the block's first, on the first `n_keys` keys."""


class _Moved:
    """Hands out what a maker on another device makes."""

    def __init__(self, maker: Maker, origin: torch.device, device: torch.device):
        self._maker, self._origin, self._device = maker, origin, device

    @property
    def pattern(self) -> Float[Tensor, "batch head query key"] | None:
        return None if self._maker.pattern is None else self._maker.pattern.to(self._device)

    def reduce(self, name: str) -> Tensor:
        return self._maker.reduce(name).to(self._device)

    def row_weights(self, rows: Int[Tensor, "batch head row"], n_keys: int) -> Float[Tensor, "batch head row key"]:
        return self._maker.row_weights(rows.to(self._origin), n_keys).to(self._device)


class Joined:
    """Collects the reductions of whole sequences, in float64; its head dimension runs over the heads of all layers.

    No statistic mixes heads, and one operation on thirty layers takes hardly longer than on one.

    Args:
        scope: what counts.
        n_layers: how many layers.
        names: the reductions.
    """

    pattern = None

    def __init__(self, scope: Scope, n_layers: int, names: Sequence[str]):
        self.scope, self._n_layers, self._names = scope, n_layers, names
        self._arrays: dict[str, Tensor] = {}

    def add(self, place: int, block: Reductions) -> None:
        """Add some rows of the layer that comes at `place` among the layers."""
        for name in self._names:
            new = block[name]
            if name not in self._arrays:
                # Allocate all layers up front; per-layer allocation fragments memory.
                shape = [*new.shape]
                shape[1] *= self._n_layers
                if name in BY_ROW:
                    shape[2] = self.scope.rows.shape[1]
                self._arrays[name] = new.new_zeros(shape, dtype=torch.float64)
            n_heads = new.shape[1]
            whole = self._arrays[name][:, place * n_heads : (place + 1) * n_heads]
            if name in BY_ROW:
                whole[:, :, block.first_row : block.end_row] = new
            else:
                whole += new

    def add_norms(self, place: int, **norms: Tensor) -> None:
        """Add the norms of the layer that comes at `place`, each `[batch, head, token]`."""
        for name, new in norms.items():
            n_batch, n_heads, n_tokens = new.shape
            if name not in self._arrays:
                self._arrays[name] = new.new_zeros(n_batch, n_heads * self._n_layers, n_tokens, dtype=torch.float64)
            self._arrays[name][:, place * n_heads : (place + 1) * n_heads] = new

    def reductions(self) -> Reductions:
        """All layers as one block."""
        return Reductions(self.scope, -1, 0, self.scope.rows.shape[1], self)

    def reduce(self, name: str) -> Tensor:
        """A reduction by its name. Raises `KeyError` where it was not collected."""
        return self._arrays[name]

    def row_weights(self, rows: Int[Tensor, "batch head row"], n_keys: int) -> Float[Tensor, "batch head row key"]:
        """Not kept: raises `KeyError`."""
        raise KeyError(WEIGHTS)


class Reductions:
    """The attention of one layer from query row `first_row` to `end_row` of a batch, as sums and maxima.

    The reductions are of content only: null keys, rows that do not count and padding contribute nothing, whatever
    their weights are. Each is computed once, and shared by all statistics. Which kernel made them cannot be told.

    Attributes:
        scope: what counts.
        layer: the layer; -1 where the head dimension runs over the heads of several layers.
        first_row, end_row: the rows.
        batch: the tokens that look.
        keys: the tokens that are looked at: the same, except in cross-attention.
    """

    def __init__(
        self,
        scope: Scope,
        layer: int,
        first_row: int,
        end_row: int,
        maker: Maker,
        announced: Collection[str] | None = None,
    ):
        self.scope, self.batch, self.keys = scope, scope.batch, scope.keys
        self.layer, self.first_row, self.end_row = layer, first_row, end_row
        self._maker = maker
        self._announced = announced
        self._made: dict[str, Tensor] = {}

    def announced(self, names: Collection[str]) -> Reductions:
        """The same block for a statistic that reads these reductions: asking for another one is an error."""
        allowed = None if WEIGHTS in names else {*ALWAYS, *names}
        block = Reductions(self.scope, self.layer, self.first_row, self.end_row, self._maker, allowed)
        block._made = self._made
        return block

    def __getitem__(self, name: str) -> Tensor:
        """A reduction by its name.

        Raises:
            MetricError: where the statistic did not announce it in its `reads`.
        """
        if name not in self._made or self._announced is not None:
            self._check(name)
        if name not in self._made:
            try:
                self._made[name] = self._maker.reduce(name)
            except KeyError:
                raise _not_announced(name) from None
        return self._made[name]

    def _once(self, name: str, make: Callable[[], Tensor]) -> Tensor:
        if name not in self._made:
            self._made[name] = make()
        return self._made[name]

    def _check(self, name: str) -> None:
        if name not in REDUCTIONS:
            raise MetricError(f"reductions: got {name!r}, expected one of {', '.join(REDUCTIONS)}")
        if self._announced is not None and name not in self._announced:
            raise _not_announced(name)

    def at_home(self) -> Reductions:
        """The same block where the batch is added up. What has been computed elsewhere is copied there."""
        home = self.scope.home
        if home is self.scope:
            return self
        return Reductions(
            home, self.layer, self.first_row, self.end_row, _Moved(self._maker, self.rows.device, home.rows.device)
        )

    @property
    def rows(self) -> Bool[Tensor, "batch query"]:
        """Which rows of this block count."""
        return self.scope.rows[:, self.first_row : self.end_row]

    @property
    def pattern(self) -> Float[Tensor, "batch head query key"] | None:
        """The attention weights as the model has them, on null keys and padding too; None where they were not kept."""
        return self._maker.pattern

    @property
    def weights(self) -> Float[Tensor, "batch head query key"]:
        """The w of the definitions: the pattern at content pairs, 0 elsewhere; never renormalised. Do not modify."""
        return self[WEIGHTS]

    @property
    def row_mass(self) -> Float[Tensor, "batch head query"]:
        """Attention of each row on content keys."""
        return self["row_mass"]

    @property
    def null_mass(self) -> Float[Tensor, "batch head query"]:
        """Attention of each counted row on null keys."""
        return self["null_mass"]

    @property
    def column_mass(self) -> Float[Tensor, "batch head key"]:
        """Attention that each key receives from the counted rows of this block."""
        return self["column_mass"]

    @property
    def row_max(self) -> Float[Tensor, "batch head query"]:
        """Largest content weight of each row."""
        return self["row_max"]

    @property
    def row_max_others(self) -> Float[Tensor, "batch head query"]:
        """Largest content weight of each row on a key that is not the query itself."""
        return self["row_max_others"]

    @property
    def row_log_mass(self) -> Float[Tensor, "batch head query"]:
        """Σ w ln(w / row_max) of each row, from which `row_entropy` follows."""
        return self["row_log_mass"]

    @property
    def self_mass(self) -> Float[Tensor, "batch head query"]:
        """Attention of each row on its own token, if that is a content key."""
        return self["self_mass"]

    @property
    def offset_mass(self) -> Float[Tensor, "batch head offset"]:
        """Attention by offset i - j, for each of `scope.offsets`: sums over the diagonals of the pattern."""
        return self["offset_mass"]

    @property
    def pair_mass(self) -> Float[Tensor, "batch head query set"]:
        """Attention of each row on its keys in each of `scope.pair_sets`; see `mass_on`."""
        return self["pair_mass"]

    @property
    def column_distance(self) -> Float[Tensor, "batch head key"]:
        """Σ_i w[i,j]·|i - j| of each key: the attention that it receives, times how far that looks."""
        return self["column_distance"]

    @property
    def null_column_mass(self) -> Float[Tensor, "batch head key"]:
        """Attention that each null key receives from the counted rows of this block; 0 for content keys."""
        return self["null_column_mass"]

    @property
    def pair_column_mass(self) -> Float[Tensor, "batch head key set"]:
        """Attention that each key receives in each of `scope.pair_sets`; see `column_mass_on`."""
        return self["pair_column_mass"]

    @property
    def key_norm(self) -> Float[Tensor, "batch head key"]:
        """‖v_j W_O^h‖ of each key that is no padding: in `end_batch` only."""
        return self["key_norm"]

    @property
    def output_norm(self) -> Float[Tensor, "batch head query"]:
        """‖Σ_j α[i,j] v_j W_O^h‖ of each counted row: in `end_batch` only."""
        return self["output_norm"]

    def mass_on(self, name: str) -> Float[Tensor, "batch head query"]:
        """Attention of each row on its keys in a named set of pairs, which the collector has among its `pairs`."""
        self.scope.pairs(name)
        return self.pair_mass[..., list(self.scope.pair_sets).index(name)]

    def column_mass_on(self, name: str) -> Float[Tensor, "batch head key"]:
        """Attention that each key receives in a named set of pairs, which the collector has among its `pairs`."""
        self.scope.pairs(name)
        return self.pair_column_mass[..., list(self.scope.pair_sets).index(name)]

    @property
    def content_mass(self) -> Float[Tensor, "batch head"]:
        """M of the definitions, for the rows of this block: the denominator of most statistics."""
        return self._once("content_mass", lambda: self.row_mass.sum(-1))

    @property
    def attention(self) -> Float[Tensor, "batch head query"]:
        """All attention of each counted row: 1 within rounding, less in models with attention sinks."""
        return self.row_mass + self.null_mass

    @property
    def row_entropy(self) -> Float[Tensor, "batch head query"]:
        """Entropy in nats of each row renormalised over content keys; 0 where it has no attention on content."""
        # -Σ p ln p = ln(mass / top) - Σ w ln(w / top) / mass. Relative to the row's largest weight, whose own term is
        # exactly 0, the entropy of a row that is nearly one-hot keeps its digits.
        top, mass = self.row_max.clamp_min(TINY), self.row_mass.clamp_min(TINY)
        return self._once("row_entropy", lambda: (mass / top).log() - self.row_log_mass / mass)

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
            strongest = strongest.scatter(-1, row + self.first_row, 0)
        key = comparable(strongest).max(-1, keepdim=True).indices
        return strongest.gather(-1, key)[..., 0], row[..., 0] + self.first_row, key[..., 0]

    def row_weights(self, rows: Int[Tensor, "batch head row"]) -> Float[Tensor, "batch head row key"]:
        """Content weights of some rows of the block, other ones for each head."""
        return self._row_weights(rows, self.scope.real_keys.shape[1])

    def corner(self, n: int) -> Float[Tensor, "batch head query key"]:
        """Weights among the first `n` positions, as far as their rows are in this block."""
        n_rows = min(max(0, n - self.first_row), self.end_row - self.first_row)
        n_batch, n_heads = self.row_mass.shape[:2]
        rows = torch.arange(n_rows, device=self.rows.device).expand(n_batch, n_heads, -1)
        return self._row_weights(rows, min(n, self.scope.real_keys.shape[1]))

    def _row_weights(self, rows: Int[Tensor, "batch head row"], n_keys: int) -> Float[Tensor, "batch head row key"]:
        try:
            return self._maker.row_weights(rows, n_keys)
        except KeyError:
            raise MetricError("reads: rows of weights were asked for in end_batch; ask for them in `update`") from None


def _not_announced(name: str) -> MetricError:
    return MetricError(f"reads: {name} was asked for and not announced; add it to `reads` of the statistic's class")


def comparable(weights: Tensor) -> Tensor:
    """Weights to five decimals, for ranking.

    Sentences that begin alike have equal weights there, but for rounding, which depends on the batch; left in, it
    would decide between them.
    """
    return (weights * 1e5).round_()
