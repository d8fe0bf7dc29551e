"""Which keys each query reaches, by the rule from which transformers makes a model's masks."""

from __future__ import annotations

from collections.abc import Callable

import torch
from jaxtyping import Bool, Int
from torch import Tensor

Rule = Callable[[Tensor, Tensor, Tensor, Tensor], Tensor]
"""Whether a query reaches a key, from the indices of sequence, head, query and key, which broadcast."""

EVERY_ROW = 128  # `is_window` checks every row of sequences up to this length, and this many of longer ones


class Reach:
    """Replaces a query-by-key mask, which does not fit into memory for long texts: applies the rule to a block of rows.

    Args:
        rule: the rule, without padding.
        window: the number of keys a query reaches back, including its own, if the rule is a window; None for all.
    """

    def __init__(self, rule: Rule, window: int | None):
        self.rule, self.window = rule, window
        self._is_window: dict[tuple[int, int, int], bool] = {}

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
