"""Attention computed by blocks of query rows, with its reductions taken on the way: no pattern is ever whole."""

from __future__ import annotations

import math
from collections.abc import Callable, Collection
from dataclasses import dataclass, replace

import numpy as np
import torch
from jaxtyping import Float, Int
from torch import Tensor

from tl_attnstats.attention.kernels import compiled as kernel
from tl_attnstats.attention.reductions import AttentionBlock
from tl_attnstats.attention.scope import Scope

# Scores of a block, as many as stay in cache while they are read a few times; and how few and how many rows at once.
BLOCK_ELEMENTS, LEAST_ROWS, MOST_ROWS = 900_000, 128, 256
MASKED = -1e30  # finite, for 0 · MASKED is 0


@dataclass(frozen=True)
class Projections:
    """What attention is computed from, in one layer, and how.

    Args:
        query: `[batch, head, query, d]`, scaled: products with keys are scores.
        key, value: `[batch, key_head, key, d]`; grouped queries share them without their being repeated.
        window: keys a query can look back on, its own included; None for all.
        softcap: scores are squeezed into ± so much; None for none.
        sinks: a score for each head that takes part in the softmax and is no token; None for none.
        bias: is added to scores, whole as the model makes it; None for none. `walk` knows none.
    """

    query: Float[Tensor, "batch head query d"]
    key: Float[Tensor, "batch key_head key d"]
    value: Float[Tensor, "batch key_head key d_value"]
    window: int | None = None
    softcap: float | None = None
    sinks: Float[Tensor, " head"] | None = None
    bias: Float[Tensor, "#batch head query key"] | None = None

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

    Args:
        given: queries, keys and values.
        scope: what counts. Its null rule is "first" or "none".
        layer: the layer's number.
        wanted: names of the reductions to hand out.
        on_rows: is given the weights of each block of rows, for statistics that the reductions do not carry.
        block_elements: how many scores to hold at once.
        most_rows: how many rows, at most.
    """
    n_batch, n_heads, n_tokens, width = given.query.shape
    # The heads that share keys are a group; a block is of some groups, many where sequences are short.
    sharing = n_heads // given.key.shape[1]
    query = given.query.reshape(-1, sharing, n_tokens, width)
    key, value = given.key.flatten(0, 1)[:, None], given.value.flatten(0, 1)[:, None]
    output = value.new_empty(*query.shape[:3], value.shape[-1])
    reduced = ReducedLayer(given, scope, layer, wanted)
    for first, end in _cuts(n_tokens, max(1, block_elements // sharing), most_rows):
        first_key = 0 if given.window is None else max(0, first - given.window + 1)
        at_once = max(1, block_elements // (sharing * (end - first) * (end - first_key)))
        if on_rows is not None:
            at_once = len(query)
        for start in range(0, len(query), at_once):
            some = slice(start, start + at_once)
            groups = replace(given, query=query[some, :, first:end], key=key[some], value=value[some])
            weights = reduced.take(groups.scores(groups.query, first_key, end), start * sharing, first, first_key)
            output[some, :, first:end] = groups.mix(weights, first_key, end)
        if on_rows is not None:
            whole = weights.new_zeros(n_batch, n_heads, end - first, n_tokens)
            whole[..., first_key:end] = weights.view(n_batch, n_heads, end - first, -1)
            on_rows(AttentionBlock(whole, scope, layer, first))
    return output.view(n_batch, n_heads, n_tokens, -1).transpose(1, 2), reduced.finish()


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


class ReducedLayer(AttentionBlock):
    """All rows of a layer, of which only reductions were kept; single rows are worked out again where needed."""

    def __init__(self, given: Projections, scope: Scope, layer: int, wanted: Collection[str]):
        n_batch, n_heads, n_tokens, _ = given.query.shape
        self._place(scope, layer, 0, n_tokens)
        self._given, self._wanted = given, wanted
        self._weights: Tensor | None = None  # of all rows, where one block holds them
        start, end, keys = _joined(scope, "pair_mass" in wanted)
        sinks = np.full(n_heads, -np.inf, np.float32) if given.sinks is None else given.sinks.numpy()
        window = n_tokens if given.window is None else given.window
        null_first = scope.null_rule == "first"
        self._rules = kernel.Rules(window, null_first, sinks, scope.rows.numpy(), start, end, keys)
        self._sums = kernel.sums(n_batch, n_heads, n_tokens, len(start))

    def take(
        self, scores: Float[Tensor, "group head row key"], first_head: int, first: int, first_key: int
    ) -> Float[Tensor, "group head row key"]:
        """Turn the scores of some rows into weights, in place, and add their reductions."""
        by_head = scores.flatten(0, 1)
        kernel.reduce_scores(by_head, first_head, first, first_key, self._rules, self._sums)
        n_batch, n_heads, n_tokens, _ = self._given.query.shape
        if by_head.shape[:2] == (n_batch * n_heads, n_tokens):
            self._weights = scores.view(n_batch, n_heads, n_tokens, n_tokens)
        return scores

    def finish(self) -> ReducedLayer:
        """Hand the sums out under their names."""
        lead = self._given.query.shape[:2]
        for name in self._wanted:
            found = torch.from_numpy(getattr(self._sums, name))
            if name in ("column_mass", "offset_mass"):
                found = found.sum(0)
            if name == "offset_mass":
                found = found[:, self.scope.offsets]
            self.__dict__[name] = found.view(*lead, *found.shape[1:])
        return self

    def row_weights(self, rows: Int[Tensor, "batch head row"], n_keys: int | None = None) -> Tensor:
        """Content weights of some rows, on all keys or on the first `n_keys` where no more are in reach."""
        n_keys = n_keys or self.rows.shape[1]
        if self._weights is None:
            return self._again(rows, n_keys)
        weights = _rows_of(self._weights[..., :n_keys], rows)
        if self.scope.null_rule == "first":
            weights[..., 0] = 0
        return weights * self.scope.rows[:, None].expand(*rows.shape[:2], -1).gather(2, rows)[..., None]

    def _again(self, rows: Int[Tensor, "batch head row"], n_keys: int) -> Tensor:
        """Weights of some rows, worked out again."""
        scores = self._given.scores(_rows_of(self._given.query, rows), 0, n_keys)
        key = torch.arange(n_keys, device=scores.device)
        behind = rows[..., None] - key
        reached = behind >= 0
        if self._given.window is not None:
            reached &= behind < self._given.window
        if self.scope.null_rule == "first":
            reached &= key > 0
        scores.masked_fill_(~reached, MASKED)
        # Powers of 2: on a CPU exp is 30 times as slow on what is masked as elsewhere.
        powers = scores.sub_(scores.amax(-1, keepdim=True)).mul_(1 / math.log(2)).exp2_()
        # As row_max has it, for the sum over all keys is known there; 0 in rows that do not count.
        return powers * self._row_max.gather(2, rows)[..., None]

    @property
    def _row_max(self) -> Float[Tensor, "batch head query"]:
        return torch.from_numpy(self._sums.row_max).view(self._given.query.shape[:3])

    def corner(self, n: int) -> Float[Tensor, "batch head query key"]:
        n_batch, n_heads, n_tokens, _ = self._given.query.shape
        rows = torch.arange(min(n, n_tokens), device=self.rows.device).expand(n_batch, n_heads, -1)
        return self.row_weights(rows, rows.shape[-1])


def _joined(scope: Scope, wanted: bool) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """The sets of pairs as the kernel takes them: starts and ends `[set, sequence, query]` in one list of keys."""
    sets = [scope.pairs(name) for name in scope.pair_sets] if wanted else []
    if not sets:
        none = np.zeros((0, *scope.rows.shape), np.int64)
        return none, none, np.zeros(0, np.int64)
    shifts = np.cumsum([0, *(len(pairs.keys) for pairs in sets[:-1])])[:, None, None]
    start, end = (np.stack([getattr(pairs, side).numpy() for pairs in sets]) + shifts for side in ("start", "end"))
    return start, end, np.concatenate([pairs.keys.numpy() for pairs in sets])


def _rows_of(x: Float[Tensor, "batch head token any"], rows: Int[Tensor, "batch head row"]) -> Tensor:
    return x.gather(2, rows[..., None].expand(*rows.shape, x.shape[-1]))
