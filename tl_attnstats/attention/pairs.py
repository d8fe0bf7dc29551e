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
"""Makes a set for a batch."""


def from_parent(scope: Scope) -> Pairs:
    """The query's word is the parent of the key's."""
    sequence, child, parent = scope.batch.dependencies.unbind(1)
    return Pairs.listed(torch.stack([sequence, parent, child], 1), *scope.rows.shape)


def to_parent(scope: Scope) -> Pairs:
    """The key's word is the parent of the query's."""
    return Pairs.listed(scope.batch.dependencies, *scope.rows.shape)


DEPENDENCIES: Mapping[str, MakePairs] = {"from_parent": from_parent, "to_parent": to_parent}
