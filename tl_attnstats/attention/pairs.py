"""Named sets of (query, key) pairs of a batch: dependencies, or a set of one's own."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import TYPE_CHECKING, NamedTuple

import torch
from jaxtyping import Int
from torch import Tensor

if TYPE_CHECKING:  # a scope makes pairs
    from tl_attnstats.attention.scope import Scope


class Pairs(NamedTuple):
    """A set of pairs. The keys of each query are a stretch of one list, which queries may share.

    So a set whose size is quadratic in the length of a sequence, such as "every earlier occurrence of the token", takes
    linear memory: sort the positions by token, and give each query the stretch of its own token that lies before it.

    Pairs that do not count (null keys, padding, keys out of reach) may be in the set; their weight is 0.
    """

    keys: Int[Tensor, " entry"]
    """Positions of keys."""
    start: Int[Tensor, "batch query"]
    """Where the keys of each query begin in `keys`."""
    end: Int[Tensor, "batch query"]
    """Where they end."""

    @classmethod
    def listed(cls, pairs: Int[Tensor, "pair 3"], n_batch: int, n_queries: int) -> Pairs:
        """The set of these pairs, each (sequence of the batch, query, key)."""
        sequence, query, key = pairs.unbind(1)
        row = sequence * n_queries + query
        order = row.argsort(stable=True)
        borders = torch.searchsorted(row[order], torch.arange(n_batch * n_queries + 1, device=row.device))
        return cls(key[order], borders[:-1].view(n_batch, n_queries), borders[1:].view(n_batch, n_queries))

    def expand(self, first: int = 0, end: int | None = None) -> tuple[Tensor, Tensor, Tensor]:
        """Sequence, query and key of each pair whose query lies between `first` and `end`."""
        start, size = self.start[:, first:end], (self.end - self.start)[:, first:end]
        sequence, row = (size > 0).nonzero().repeat_interleave(size[size > 0], 0).unbind(1)
        before = size.flatten().cumsum(0).view(size.shape) - size
        nth = torch.arange(len(sequence), device=row.device) - before[sequence, row]
        return sequence, row + first, self.keys[start[sequence, row] + nth]


MakePairs = Callable[["Scope"], Pairs]
"""Makes a set for a batch, from a scope whose tensors are on the CPU."""


def from_parent(scope: Scope) -> Pairs:
    """The query's word is the parent of the key's."""
    sequence, child, parent = scope.batch.dependencies.unbind(1)
    return Pairs.listed(torch.stack([sequence, parent, child], 1), *scope.rows.shape)


def to_parent(scope: Scope) -> Pairs:
    """The key's word is the parent of the query's."""
    return Pairs.listed(scope.batch.dependencies, *scope.rows.shape)


def previous(scope: Scope) -> Pairs:
    """The token before the query, if it is a content key."""
    content = scope.content
    n_batch, n_tokens = content.shape
    positions = torch.arange(n_tokens, device=content.device)
    start = (positions - 1).clamp_min(0).expand(n_batch, -1)
    size = torch.zeros_like(content)
    size[:, 1:] = content[:, :-1]
    return Pairs(positions, start, start + (size & scope.rows))


def duplicate(scope: Scope) -> Pairs:
    """Earlier content keys with the query's token (Olsson et al. 2022)."""
    return _occurrences(scope, scope.batch.input_ids, before=True)


def induction(scope: Scope) -> Pairs:
    """Content keys up to the query whose previous token is the query's token (Olsson et al. 2022)."""
    before = scope.batch.input_ids.roll(1, 1)
    before[:, 0] = -1  # no token is before the first
    return _occurrences(scope, before, before=False)


def _occurrences(scope: Scope, marks: Int[Tensor, "batch token"], before: bool) -> Pairs:
    """Content keys whose mark is the query's token, before the query or up to it.

    Sorted by mark, then position, the keys of a query are a stretch of one list.
    """
    n_batch, n_tokens = marks.shape
    ids = scope.batch.input_ids
    # One number for sequence, mark and position, in that order; a mark of -1 is below all tokens.
    n_marks = int(max(ids.max(), marks.max())) + 2
    sequence = torch.arange(n_batch, device=ids.device)[:, None] * n_marks
    position = torch.arange(n_tokens, device=ids.device)
    keys = ((sequence + marks + 1) * n_tokens + position)[scope.content].sort().values
    query = (sequence + ids + 1) * n_tokens
    start = torch.searchsorted(keys, query)
    end = torch.searchsorted(keys, query + position, right=not before)
    return Pairs(keys % n_tokens, start, torch.where(scope.rows, end, start))


BEHAVIOURS: Mapping[str, MakePairs] = {"previous": previous, "duplicate": duplicate, "induction": induction}
DEPENDENCIES: Mapping[str, MakePairs] = {"from_parent": from_parent, "to_parent": to_parent}
