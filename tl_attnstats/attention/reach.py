"""Which keys each query reaches, by the rule from which transformers makes a model's masks."""

from __future__ import annotations

from collections.abc import Callable
from typing import NamedTuple

import torch
from jaxtyping import Bool, Int
from torch import Tensor

Rule = Callable[[Tensor, Tensor, Tensor, Tensor], Tensor]
"""Whether a query reaches a key, from the indices of sequence, head, query and key, which broadcast."""

EVERY_ROW = 128  # `is_window` checks every row of sequences up to this length, and this many of longer ones


AT_ONCE = 2**24  # how many pairs of query and key `stretches` looks at together


class Stretches(NamedTuple):
    """Reach in which each query reaches one stretch of keys, the same in all sequences and heads, and not empty.

    From each query to the next, neither its first nor its end moves back. So the queries that reach a key are a stretch
    too.

    Args:
        first: int32 `[query]`, the first key that a query reaches.
        end: int32 `[query]`, one after the last key.
        first_query, end_query: int32 `[key]`, likewise the queries that reach a key.
        lowest, highest: the least and the greatest offset (query - key) of all pairs.
    """

    first: Int[Tensor, " query"]
    end: Int[Tensor, " query"]
    first_query: Int[Tensor, " key"]
    end_query: Int[Tensor, " key"]
    lowest: int
    highest: int


class Reach:
    """Replaces a query-by-key mask, which does not fit into memory for long texts: applies the rule to a block of rows.

    Args:
        rule: the rule, without padding.
        window: the number of keys a query reaches back, including its own, if the rule is a window; None for all.
    """

    def __init__(self, rule: Rule, window: int | None):
        self.rule, self.window = rule, window
        self._is_window: dict[tuple[int, int, int], bool] = {}
        self._stretches: dict[tuple[int, int, int], Stretches | None] = {}

    def allowed(self, n_batch: int, rows: Int[Tensor, " row"], n_keys: int) -> Bool[Tensor, "#batch #head #row #key"]:
        """The mask of some rows; dimensions of size 1 broadcast."""
        keys = torch.arange(n_keys, device=rows.device)
        sequences = torch.arange(n_batch, device=rows.device)
        head = torch.zeros(1, dtype=torch.long, device=rows.device)
        return self.rule(
            sequences[:, None, None, None], head[None, :, None, None], rows[None, None, :, None], keys[None, None, None]
        )

    def is_window(self, n_batch: int, n_queries: int, n_keys: int) -> bool:
        """Whether the rule is exactly causal attention within `window`. Found by applying it."""
        sizes = (n_batch, n_queries, n_keys)
        if sizes not in self._is_window:
            self._is_window[sizes] = n_queries == n_keys and self._matches(n_batch, n_keys)
        return self._is_window[sizes]

    def _matches(self, n_batch: int, n_tokens: int) -> bool:
        window = self.window or n_tokens
        rows = torch.arange(n_tokens)
        if n_tokens > EVERY_ROW:  # evenly spaced rows, and those at the borders of the first windows
            spaced = torch.linspace(0, n_tokens - 1, EVERY_ROW).long()
            borders = torch.tensor([window * n + step for n in (1, 2) for step in (-1, 0, 1)])
            rows = torch.cat([spaced, borders.clamp(max=n_tokens - 1)])
        behind = rows[:, None] - torch.arange(n_tokens)
        return bool((self.allowed(n_batch, rows, n_tokens) == ((behind >= 0) & (behind < window))).all())

    def stretches(self, n_batch: int, n_queries: int, n_keys: int, device: torch.device) -> Stretches | None:
        """The stretch of keys of each query; None if the rule is not of that form. Found by applying it to all pairs.

        It holds for windows, chunks and both directions. A mask would need a place for each pair instead.
        """
        sizes = (n_batch, n_queries, n_keys)
        if sizes not in self._stretches:
            self._stretches[sizes] = self._find_stretches(n_batch, n_queries, n_keys, device)
        return self._stretches[sizes]

    def _find_stretches(self, n_batch: int, n_queries: int, n_keys: int, device: torch.device) -> Stretches | None:
        query, key = torch.arange(n_queries, device=device), torch.arange(n_keys, device=device)
        firsts, ends, holds = [], [], []
        n_rows = max(1, AT_ONCE // (n_batch * n_keys))
        for start in range(0, n_queries, n_rows):
            rows = query[start : start + n_rows]
            allowed = self.allowed(n_batch, rows, n_keys)
            allowed = allowed.expand(*allowed.shape[:2], len(rows), n_keys)
            one = allowed[0, 0].int()
            firsts.append(one.argmax(-1))
            ends.append(firsts[-1] + one.sum(-1))
            holds.append((allowed == ((key >= firsts[-1][:, None]) & (key < ends[-1][:, None]))).all())
        first, end = torch.cat(firsts), torch.cat(ends)
        holds += [(first < end).all(), (first.diff() >= 0).all(), (end.diff() >= 0).all()]
        # Ask the device once for everything.
        found = torch.stack([torch.stack(holds).all().long(), (query - end + 1).min(), (query - first).max()])
        held, lowest, highest = found.tolist()
        if not held:
            return None
        # A query reaches a key if its first is not after the key and its end is.
        first_query, end_query = (torch.searchsorted(x, key, right=True) for x in (end, first))
        return Stretches(first.int(), end.int(), first_query.int(), end_query.int(), lowest, highest)
