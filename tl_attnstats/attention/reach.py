"""Which keys each query reaches, by the rule from which transformers makes a model's masks."""

from __future__ import annotations

import math
from collections.abc import Callable
from types import FunctionType
from typing import Any, NamedTuple

import torch
from jaxtyping import Bool, Int
from torch import Tensor

from tl_attnstats.corpus.devices import to_device

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
        self._stretches: dict[tuple[int, int, int, torch.device], Stretches | None] = {}
        try:
            self._signature = _signature(rule)
        except TypeError:  # it depends on a tensor, which later forward passes may change
            self._signature = None
        self._kept = None if self._signature is None else _KNOWN.get(self._signature)

    def allowed(
        self, n_batch: int, rows: Int[Tensor, " row"], n_keys: int, some: slice | None = None
    ) -> Bool[Tensor, "#batch #head #row #key"]:
        """The mask of some rows, on some of the keys or all; dimensions of size 1 broadcast."""
        keys = torch.arange(n_keys, device=rows.device)[some or slice(None)]
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

        It holds for windows, chunks and both directions. A mask would need a place for each pair instead. What is found
        is kept on the CPU for shorter sequences and later forward passes, so that the host need not wait for a GPU.
        """
        sizes = (n_batch, n_queries, n_keys, device)
        if sizes not in self._stretches:
            if self._kept is None or not self._kept.covers(n_batch, n_queries, n_keys):
                self._keep(_find(self, n_batch, n_queries, n_keys, device))
            self._stretches[sizes] = None if self._kept is None else self._kept.cut(n_queries, n_keys, device)
        return self._stretches[sizes]

    def keys_of(
        self, n_batch: int, n_queries: int, n_keys: int, device: torch.device, first: int, end: int
    ) -> tuple[int, int]:
        """The first key that any of the queries from `first` to `end` reaches, and one after the last; or all keys."""
        if self.stretches(n_batch, n_queries, n_keys, device) is None or self._kept is None:
            return 0, n_keys
        return int(self._kept.first[first]), min(int(self._kept.end[end - 1]), n_keys)

    def _keep(self, found: _Found | None) -> None:
        self._kept = found
        if found is not None and self._signature is not None:
            _KNOWN[self._signature] = found


class _Found(NamedTuple):
    """The first key of each query and one after its last, on the CPU; for up to `n_batch` sequences and `n_keys`."""

    n_batch: float
    n_keys: int
    first: Int[Tensor, " query"]
    end: Int[Tensor, " query"]

    def covers(self, n_batch: int, n_queries: int, n_keys: int) -> bool:
        """Whether it says which pairs are allowed among so many. A rule does not depend on how many there are."""
        return n_batch <= self.n_batch and n_queries <= len(self.first) and n_keys <= self.n_keys

    def cut(self, n_queries: int, n_keys: int, device: torch.device) -> Stretches | None:
        """The stretches of the first queries and keys. None if a query reaches no key."""
        first, end = self.first[:n_queries], self.end[:n_queries].clamp(max=n_keys)
        if not (first < end).all():
            return None
        key, query = torch.arange(n_keys), torch.arange(n_queries)
        # A query reaches a key if its first is not after the key and its end is.
        first_query, end_query = (torch.searchsorted(x, key, right=True) for x in (end, first))
        lowest, highest = int((query - end + 1).min()), int((query - first).max())
        first, end, first_query, end_query = (to_device(x.int(), device) for x in (first, end, first_query, end_query))
        return Stretches(first, end, first_query, end_query, lowest, highest)


_KNOWN: dict[Any, _Found] = {}
"""The stretches of rules, by what they compute."""


def _find(reach: Reach, n_batch: int, n_queries: int, n_keys: int, device: torch.device) -> _Found | None:
    query, key = torch.arange(n_queries, device=device), torch.arange(n_keys, device=device)
    firsts, ends, holds = [], [], []
    n_rows = max(1, AT_ONCE // (n_batch * n_keys))
    of_any_sequence = True
    for start in range(0, n_queries, n_rows):
        rows = query[start : start + n_rows]
        allowed = reach.allowed(n_batch, rows, n_keys)
        of_any_sequence &= len(allowed) == 1
        allowed = allowed.expand(*allowed.shape[:2], len(rows), n_keys)
        one = allowed[0, 0].int()
        firsts.append(one.argmax(-1))
        ends.append(firsts[-1] + one.sum(-1))
        holds.append((allowed == ((key >= firsts[-1][:, None]) & (key < ends[-1][:, None]))).all())
    first, end = torch.cat(firsts), torch.cat(ends)
    holds += [(first.diff() >= 0).all(), (end.diff() >= 0).all()]
    # Ask the device once for everything.
    found = torch.cat([first, end, torch.stack(holds).all()[None].long()]).cpu()
    if not found[-1]:
        return None
    return _Found(math.inf if of_any_sequence else n_batch, n_keys, found[:n_queries], found[n_queries:-1])


def _signature(part: Any) -> Any:
    """What a rule computes, as code and numbers, which can be compared. Raises `TypeError` if it is made of more."""
    if part is None or isinstance(part, int | float | str):
        return part
    if isinstance(part, tuple | list):
        return tuple(map(_signature, part))
    if isinstance(part, FunctionType):
        cells = tuple(cell.cell_contents for cell in part.__closure__ or ())
        return part.__code__, _signature(part.__defaults__), _signature(cells)
    raise TypeError(part)
