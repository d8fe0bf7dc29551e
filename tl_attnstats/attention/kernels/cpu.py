"""Causal attention on a CPU: scores become weights and reductions in one compiled pass, while a row is in cache."""

from __future__ import annotations

import math
from collections.abc import Iterator
from dataclasses import replace

import numpy as np
import torch
from einops import rearrange
from jaxtyping import Float, Int
from torch import Tensor

from tl_attnstats.attention.kernels import compiled
from tl_attnstats.attention.kernels.projections import Job
from tl_attnstats.attention.kernels.torch_blocks import reductions_of
from tl_attnstats.attention.reductions import SUMMED, Reductions
from tl_attnstats.attention.scope import Scope

LEAST_ROWS = 128
MASKED = -1e30  # finite, for 0 · MASKED is 0


def covers(job: Job) -> bool:
    """Causal attention within a window, if any, on a CPU with numba."""
    given, scope = job.given, job.scope
    return (
        scope is not None
        and compiled.available(given.query)
        and given.bias is None
        and scope.causal
        and scope.null_rule != "special"
        and job.reach.is_window(*given.sizes)
    )


def attend(job: Job) -> Float[Tensor, "batch query head d_value"]:
    """The output of attention; its reductions go to the consumer as one block, its weights in blocks of rows."""
    given, scope, consumer = job.given, job.scope, job.consumer
    assert scope is not None
    n_batch, n_heads, n_tokens, _ = given.query.shape
    # Heads that share keys are a group; a block holds some groups, many where sequences are short.
    sharing = n_heads // given.key.shape[1]
    grouped = "batch (key_head shared) row d -> (batch key_head) shared row d"
    query = rearrange(given.query, grouped, shared=sharing)
    key, value = (rearrange(x, grouped, shared=1) for x in (given.key, given.value))
    output = torch.empty(*query.shape[:3], value.shape[-1])
    walked = Walked(job, scope)
    for first, end, first_key in _cuts(n_tokens, job, sharing):
        at_once = max(1, job.block_elements // (sharing * (end - first) * (end - first_key)))
        if consumer.weights is not None:
            at_once = len(query)
        for start in range(0, len(query), at_once):
            some = slice(start, start + at_once)
            groups = replace(given, query=query[some, :, first:end], key=key[some], value=value[some])
            weights = walked.take(groups.scores(groups.query, first_key, end), start * sharing, first, first_key)
            output[some, :, first:end] = groups.mix(weights, first_key, end)
        if consumer.weights is not None:
            whole = weights.new_zeros(n_batch, n_heads, end - first, n_tokens)
            whole[..., first_key:end] = weights.view(n_batch, n_heads, end - first, -1)
            consumer.weights(reductions_of(whole, scope, job.layer, first))
    consumer.reduced(Reductions(scope, job.layer, 0, n_tokens, walked))
    return rearrange(output, "(batch key_head) shared row d -> batch row (key_head shared) d", batch=n_batch)


def _cuts(n_tokens: int, job: Job, sharing: int) -> Iterator[tuple[int, int, int]]:
    """First row, end row and first key of each block, so that a group's scores are at most `block_elements`."""
    most = max(1, job.block_elements // sharing)
    first = 0
    while first < n_tokens:
        # The root of rows · (first + rows) = most.
        n_rows = math.isqrt(first * first // 4 + most) - first // 2
        end = min(first + min(max(n_rows, LEAST_ROWS), job.most_rows), n_tokens)
        yield first, end, 0 if job.reach.window is None else max(0, first - job.reach.window + 1)
        first = end


class Walked:
    """Hands out the reductions that were taken on the way; computes single rows of weights again."""

    pattern = None  # never whole

    def __init__(self, job: Job, scope: Scope):
        given = job.given
        n_batch, n_heads, n_tokens, _ = given.query.shape
        self._given, self._scope, self._wanted = given, scope, job.consumer.wanted
        self._weights: Tensor | None = None  # of all rows, where one block holds them
        wanted = set(job.consumer.wanted)
        pairs = scope.all_pairs if wanted & {"pair_mass", "pair_column_mass"} else scope.no_pairs
        keys, start, end = (x.numpy() for x in pairs)
        sinks = np.full(n_heads, -np.inf, np.float32) if given.sinks is None else given.sinks.float().numpy()
        self._window = n_tokens if job.reach.window is None else job.reach.window
        null_first = scope.null_rule == "first"
        self._rules = compiled.Rules(self._window, null_first, sinks, scope.rows.numpy(), start, end, keys)
        self._sums = compiled.sums(
            n_batch, n_heads, n_tokens, len(start), "column_distance" in wanted, "pair_column_mass" in wanted
        )

    def take(
        self, scores: Float[Tensor, "group head row key"], first_head: int, first: int, first_key: int
    ) -> Float[Tensor, "group head row key"]:
        """Turn the scores of some rows into weights, in place, and add their reductions."""
        by_head = scores.flatten(0, 1)
        compiled.reduce_scores(by_head, first_head, first, first_key, self._rules, self._sums)
        n_batch, n_heads, n_tokens, _ = self._given.query.shape
        if by_head.shape[:2] == (n_batch * n_heads, n_tokens):
            self._weights = scores.view(n_batch, n_heads, n_tokens, n_tokens)
        return scores

    def reduce(self, name: str) -> Tensor:
        """A reduction by its name. Raises `KeyError` where it was not taken."""
        if name not in self._wanted:
            raise KeyError(name)
        if name == "null_column_mass":  # with these null rules, of the first key alone
            null_mass = torch.from_numpy(self._sums.null_mass)
            found = null_mass.new_zeros(null_mass.shape, dtype=torch.float64)
            found[:, 0] = null_mass.sum(-1, dtype=torch.float64)
            return found.view(*self._given.query.shape[:2], -1)
        found = torch.from_numpy(getattr(self._sums, name))
        if name in SUMMED:
            found = found.sum(0)
        if name == "offset_mass":
            found = found[:, self._scope.offsets]
        return found.view(*self._given.query.shape[:2], *found.shape[1:])

    def row_weights(self, rows: Int[Tensor, "batch head row"], n_keys: int) -> Float[Tensor, "batch head row key"]:
        """Content weights of some rows, on the first `n_keys` keys."""
        if self._weights is None:
            return self._again(rows, n_keys)
        weights = _rows_of(self._weights[..., :n_keys], rows)
        if self._scope.null_rule == "first":
            weights[..., 0] = 0
        return weights * self._scope.rows[:, None].expand(*rows.shape[:2], -1).gather(2, rows)[..., None]

    def _again(self, rows: Int[Tensor, "batch head row"], n_keys: int) -> Float[Tensor, "batch head row key"]:
        """Weights of some rows, computed again from their scores and their `row_max`."""
        scores = self._given.scores(_rows_of(self._given.query, rows), 0, n_keys)
        key = torch.arange(n_keys, device=scores.device)
        behind = rows[..., None] - key
        reached = (behind >= 0) & (behind < self._window)
        if self._scope.null_rule == "first":
            reached &= key > 0
        scores.masked_fill_(~reached, MASKED)
        # Powers of 2: on a CPU exp is 30 times as slow on what is masked as elsewhere.
        powers = scores.sub_(scores.amax(-1, keepdim=True)).mul_(1 / math.log(2)).exp2_()
        # Scale by row_max, which already includes the softmax denominator; it is 0 in rows that do not count.
        row_max = torch.from_numpy(self._sums.row_max).view(self._given.query.shape[:3])
        return powers * row_max.gather(2, rows)[..., None]


def _rows_of(x: Float[Tensor, "batch head token any"], rows: Int[Tensor, "batch head row"]) -> Tensor:
    return x.gather(2, rows[..., None].expand(*rows.shape, x.shape[-1]))
