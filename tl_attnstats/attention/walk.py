"""Attention computed by blocks of query rows, with its reductions taken on the way: no pattern is ever whole."""

from __future__ import annotations

import math
from collections.abc import Callable, Collection
from dataclasses import dataclass
from functools import lru_cache

import torch
from jaxtyping import Float, Int
from torch import Tensor

from tl_attnstats.attention.block import AttentionBlock, Scope

# Scores of a block, as many as stay in cache while they are read a few times; and how few and how many rows at once.
BLOCK_ELEMENTS, LEAST_ROWS, MOST_ROWS = 900_000, 16, 64
MASKED = -1e30  # finite, for 0 · MASKED is 0
LN2 = math.log(2)
MOST_BITS = 120  # 2 to this and times a few is still a float32


@dataclass(frozen=True)
class Projections:
    """What attention is computed from, in one layer, and how.

    Scores are in bits: a softmax of them takes powers of 2. On a CPU exp is 30 times as slow on what is masked as
    elsewhere, and exp2 is not.

    Args:
        query: `[batch, head, query, d]`, scaled: products with keys are scores in bits.
        key, value: `[batch, key_head, key, d]`; grouped queries share them without their being repeated.
        window: keys a query can look back on, its own included; None for all.
        softcap: scores are squeezed into ± so many bits; None for none.
        sinks: a score in bits for each head that takes part in the softmax and is no token; None for none.
    """

    query: Float[Tensor, "batch head query d"]
    key: Float[Tensor, "batch key_head key d"]
    value: Float[Tensor, "batch key_head key d_value"]
    window: int | None = None
    softcap: float | None = None
    sinks: Float[Tensor, " head"] | None = None

    def scores(self, query: Float[Tensor, "batch head row d"], first: int, end: int) -> Tensor:
        """Scores of some query vectors on keys from `first` to `end`: `[batch, head, row, key]`, unmasked."""
        n_batch, n_heads, n_rows, width = query.shape
        groups = self.key.shape[:2]
        # The queries that share a key head are rows of one product.
        grouped = query.reshape(n_batch * groups[1], -1, width)
        scores = torch.bmm(grouped, self.key[:, :, first:end].flatten(0, 1).transpose(1, 2))
        scores = scores.view(n_batch, n_heads, n_rows, end - first)
        return scores if self.softcap is None else scores.div_(self.softcap).tanh_().mul_(self.softcap)

    def mix(self, weights: Float[Tensor, "batch head row key"], first: int, end: int) -> Tensor:
        """Values of keys from `first` to `end` weighted: `[batch, head, row, d_value]`."""
        n_batch, n_heads, n_rows, n_keys = weights.shape
        grouped = weights.reshape(n_batch * self.value.shape[1], -1, n_keys)
        return torch.bmm(grouped, self.value[:, :, first:end].flatten(0, 1)).view(n_batch, n_heads, n_rows, -1)


OnRows = Callable[[AttentionBlock], None]


def walk(
    given: Projections,
    scope: Scope,
    layer: int,
    wanted: Collection[str],
    *,
    on_rows: OnRows | None = None,
    block_elements: int = BLOCK_ELEMENTS,
    most_rows: int = MOST_ROWS,
) -> tuple[Float[Tensor, "batch query head d_value"], ReducedLayer]:
    """The output of causal attention, and its reductions.

    With e = 2^(s - max) over content keys and t the sum of all of a row's exponentials, a row's weights are e/t. They
    are never formed: row_mass is Σ e / t, row_max 1/t, and the sums over rows are products of the vector of 1/t with e.

    Args:
        given: queries, keys and values.
        scope: what counts. Its null rule is "first" or "none".
        layer: the layer's number.
        wanted: names of the reductions to take, besides those that come of themselves.
        on_rows: is given the weights of each block of rows, for statistics that the reductions do not carry.
        block_elements: how many scores to hold at once.
        most_rows: how many rows, at most.
    """
    n_batch, n_heads, n_tokens, _ = given.query.shape
    output = given.value.new_empty(n_batch, n_tokens, n_heads, given.value.shape[-1])
    null_value = given.value[:, :, :1].repeat_interleave(n_heads // given.value.shape[1], 1)
    layer_sums = ReducedLayer(given, scope, layer, wanted)
    for first, end in _cuts(n_tokens, max(1, block_elements // (n_batch * n_heads)), most_rows):
        block = _Rows(given, scope, first, end)
        block.output(null_value, output[:, first:end].transpose(1, 2))
        layer_sums.add(block)
        if on_rows is not None:
            on_rows(AttentionBlock(block.pattern(), scope, layer, first))
        del block  # so that the next one finds its memory free, and in cache
    return output, layer_sums.finish()


def _cuts(n_tokens: int, most: int, most_rows: int) -> list[tuple[int, int]]:
    """First row and end of each block: so many rows that rows times keys in reach is `most`, within limits."""
    cuts, first = [], 0
    while first < n_tokens:
        # The root of rows · (first + rows) = most.
        n_rows = math.isqrt(first * first // 4 + most) - first // 2
        end = min(first + min(max(n_rows, LEAST_ROWS), most_rows), n_tokens)
        cuts.append((first, end))
        first = end
    return cuts


@lru_cache(maxsize=64)
def _future(n_rows: int, device: torch.device) -> Float[Tensor, "row key"]:
    """What to add to scores among a block's own rows: MASKED at keys that lie ahead."""
    return torch.full((n_rows, n_rows), MASKED, device=device).triu_(1)


class _Rows:
    """Exponentials of some rows, `[batch, head, row, key]`, over the keys that they can reach."""

    def __init__(self, given: Projections, scope: Scope, first: int, end: int):
        self.given, self.scope, self.first, self.end = given, scope, first, end
        self.first_key = 0 if given.window is None else max(0, first - given.window + 1)
        scores = given.scores(given.query[:, :, first:end], self.first_key, end)
        # Only the corners of a block are out of reach: keys after its first row, and before the window of its last.
        scores[..., first - self.first_key :] += _future(end - first, scores.device)
        if given.window is not None:
            rows = torch.arange(first, end, device=scores.device)
            mask_reach(scores[..., : max(0, end - given.window - self.first_key)], rows, self.first_key, given.window)
        self.null_score = None
        if scope.null_rule == "first" and self.first_key == 0:
            self.null_score = scores[..., 0].clone()
            scores[..., 0] = MASKED
        top = scores.amax(-1)
        if self.null_score is not None and first == 0:
            top[:, :, 0] = self.null_score[:, :, 0]  # it reaches nothing else
        self.scores = scores.sub_(top[..., None])  # relative to the largest on content
        self.e = scores.exp2()
        self.content = _sum(self.e)
        # A null key or a sink may outweigh all content by more than floats can hold; the rest then rounds to nothing.
        total = self.content.to(top.dtype)
        self.null: Tensor | None = None
        if self.null_score is not None:
            self.null = self.null_score.sub_(top).clamp_(max=MOST_BITS).exp2_()
            total = total + self.null
        if given.sinks is not None:
            total = total + (given.sinks[:, None] - top).clamp_(max=MOST_BITS).exp2_()
        self.inverse = 1 / total
        self.counted = self.inverse * scope.rows[:, None, first:end]

    def output(self, null_value: Float[Tensor, "batch head 1 d_value"], into: Tensor) -> None:
        """Values weighted by the pattern, put `into` a tensor `[batch, head, row, d_value]`."""
        mixed = self.given.mix(self.e, self.first_key, self.end)
        if self.null is not None:
            mixed.addcmul_(self.null[..., None], null_value)
        torch.mul(mixed, self.inverse[..., None], out=into)

    def pattern(self) -> Float[Tensor, "batch head row key"]:
        """The attention weights over all keys of the sequence."""
        n_tokens = self.scope.rows.shape[1]
        whole = self.e.new_zeros(*self.e.shape[:3], n_tokens)
        whole[..., self.first_key : self.end] = self.e * self.inverse[..., None]
        if self.null is not None:
            whole[..., 0] = self.null * self.inverse
        return whole


class ReducedLayer(AttentionBlock):
    """All rows of a layer, of which only reductions were kept; single rows are worked out again where needed."""

    def __init__(self, given: Projections, scope: Scope, layer: int, wanted: Collection[str]):
        n_batch, n_heads, n_tokens, _ = given.query.shape
        self._place(scope, layer, 0, n_tokens)
        self._given, self._wanted = given, wanted
        # Of each row, still to be divided by the sum of all its exponentials.
        names = ["null_mass", "row_max", *({"row_log_mass", "row_max_others"} & set(wanted))]
        self._by_row = {name: given.query.new_zeros(n_batch, n_heads, n_tokens) for name in names}
        self._by_row["row_mass"] = given.query.new_empty(n_batch, n_heads, n_tokens, dtype=torch.float64)
        self._columns = given.query.new_zeros(n_batch, n_heads, n_tokens, dtype=torch.float64)
        self._by_offset = given.query.new_zeros(n_batch, n_heads, n_tokens + 1, dtype=torch.float64)
        self._relations: list[Tensor] = []
        self._e: Tensor | None = None  # of all rows, where one block holds them

    def add(self, rows: _Rows) -> None:
        """Reduce some rows."""
        here, counted = slice(rows.first, rows.end), rows.counted
        if rows.e.shape[2] == self.rows.shape[1]:
            self._e = rows.e
        n_batch, n_heads, n_rows, n_keys = rows.e.shape
        self._by_row["row_mass"][:, :, here] = rows.content
        if rows.null is not None:
            self._by_row["null_mass"][:, :, here] = rows.null
        self._by_row["row_max"][:, :, here] = counted  # e is 1 at the largest
        vector = counted.reshape(-1, 1, n_rows)
        if "column_mass" in self._wanted:
            e = rows.e.view(-1, n_rows, n_keys)
            self._columns[:, :, rows.first_key : rows.end] += torch.bmm(vector, e).view(n_batch, n_heads, n_keys)
        if "offset_mass" in self._wanted:
            self._add_diagonals(rows, vector)
        if "relation_weights" in self._wanted:
            self._relations.append(self._gather(rows))
        if "row_log_mass" in self._wanted:  # Σ w ln(w / row_max); in place, for nothing reads the scores after it
            self._by_row["row_log_mass"][:, :, here] = rows.scores.mul_(rows.e).sum(-1).mul_(LN2)
        if "row_max_others" in self._wanted:
            own = rows.e.diagonal(rows.first - rows.first_key, -2, -1)
            kept = own.clone()
            own.zero_()
            self._by_row["row_max_others"][:, :, here] = rows.e.amax(-1)
            own.copy_(kept)

    def _add_diagonals(self, rows: _Rows, vector: Float[Tensor, "row_of_heads 1 row"]) -> None:
        """Sums over diagonals as one product: read as rows one element longer, e has its diagonals in columns.

        Column c of row i is key c + i. Where that is less than 0 it falls into the end of the row before, which
        is zero there, for it lies in that row's future; only the first row has none before it and goes by itself.
        """
        n_batch, n_heads, n_rows, n_keys = rows.e.shape
        span = n_keys - n_rows + 1  # keys that the first row can reach
        largest = rows.first - rows.first_key
        first_row = (rows.e[:, :, 0, :span] * rows.counted[:, :, :1]).flip(-1)
        self._by_offset[..., : largest + 1] += first_row
        if n_rows > 1:
            start = n_keys - (n_rows - 1) + 1  # of row 1, the column of its key 1 - (n_rows - 1)
            skewed = rows.e.as_strided(
                (n_batch * n_heads, n_rows - 1, n_keys),
                (n_rows * n_keys, n_keys + 1, 1),
                rows.e.storage_offset() + start,
            )
            diagonals = torch.bmm(vector[..., 1:], skewed).view(n_batch, n_heads, n_keys)
            self._by_offset[..., :n_keys] += diagonals.flip(-1)

    def _gather(self, rows: _Rows) -> Float[Tensor, "pair head"]:
        sentence, query, key = self.scope.relations_of_rows(rows.first, rows.end).unbind(1)
        row, place = query - rows.first, key - rows.first_key
        reached = (place >= 0)[:, None]
        return rows.e[sentence, :, row, place.clamp_min(0)] * rows.counted[sentence, :, row] * reached

    def finish(self) -> ReducedLayer:
        """Hand the sums out under their names."""
        # Only what was wanted: a reduction that was not taken must not pass for one of zeros.
        sums = {}
        if "column_mass" in self._wanted:
            sums["column_mass"] = self._columns
        if "offset_mass" in self._wanted:
            sums["offset_mass"] = self._by_offset[..., self.scope.offsets]
        if "relation_weights" in self._wanted:
            sums["relation_weights"] = torch.cat(self._relations)
        for name, unscaled in self._by_row.items():
            if name != "row_max":
                unscaled.mul_(self._by_row["row_max"])
        self.__dict__ |= {**self._by_row, **sums}
        return self

    def row_weights(self, rows: Int[Tensor, "batch head row"], n_keys: int | None = None) -> Tensor:
        """Content weights of some rows, on all keys or on the first `n_keys` where no more are in reach."""
        n_keys = n_keys or self.rows.shape[1]
        e = self._again(rows, n_keys) if self._e is None else _rows_of(self._e[..., :n_keys], rows)
        return e * self.row_max.gather(2, rows)[..., None]

    def _again(self, rows: Int[Tensor, "batch head row"], n_keys: int) -> Tensor:
        """The exponentials of some rows, worked out again."""
        scores = self._given.scores(_rows_of(self._given.query, rows), 0, n_keys)
        mask_reach(scores, rows, 0, self._given.window)
        if self.scope.null_rule == "first":
            scores[..., 0] = MASKED
        return scores.sub_(scores.amax(-1, keepdim=True)).exp2_()

    def corner(self, n: int) -> Float[Tensor, "batch head query key"]:
        n_batch, n_heads, n_tokens, _ = self._given.query.shape
        rows = torch.arange(min(n, n_tokens), device=self.rows.device).expand(n_batch, n_heads, -1)
        return self.row_weights(rows, rows.shape[-1])


def _rows_of(x: Float[Tensor, "batch head token any"], rows: Int[Tensor, "batch head row"]) -> Tensor:
    return x.gather(2, rows[..., None].expand(*rows.shape, x.shape[-1]))


def _sum(e: Float[Tensor, "*row key"]) -> Float[Tensor, "*row"]:
    """Σ e of each row, in float64 where nearly all of it is a single 1: the entropy hangs on the digits after it."""
    total = e.sum(-1)
    close = total < 1.01
    total = total.double()
    total[close] = e[close].sum(-1, dtype=torch.float64)
    return total


def mask_reach(scores: Tensor, rows: Tensor, first_key: int, window: int | None) -> None:
    """Take keys behind a causal query or before its window out of `scores`, in place."""
    n_keys = scores.shape[-1]
    key = torch.arange(first_key, first_key + n_keys, device=scores.device)
    ahead = key > rows[..., None]
    if window is not None:
        ahead |= key <= rows[..., None] - window
    scores.masked_fill_(ahead, MASKED)
