"""Attention from the pattern hook points of TransformerLens models."""

from __future__ import annotations

from typing import Any

import torch
from einops import rearrange
from torch import Tensor

from tl_attnstats.attention.kernels.projections import Consumer
from tl_attnstats.attention.kernels.torch_blocks import reductions_of
from tl_attnstats.attention.reductions import Reductions
from tl_attnstats.attention.scope import Scope
from tl_attnstats.corpus.batches import Batch
from tl_attnstats.errors import HookError
from tl_attnstats.models import hooked
from tl_attnstats.models.describe import ModelInfo


class HookSource:
    """Listens at the model's pattern hooks. Checks on the first batch that rows are probabilities.

    Args:
        model: a model of TransformerLens.
        info: what `describe` says of it.
        allow_unnormalised: accept rows that do not sum to 1.
    """

    name = "hooks"

    def __init__(self, model: Any, info: ModelInfo, *, allow_unnormalised: bool = False):
        self.model, self.info = model, info
        self._allow_unnormalised = allow_unnormalised
        self._unchecked = set(info.layers)

    def read(self, batch: Batch, scope: Scope, consumer: Consumer) -> None:
        """Run the model on a batch and hand the attention of each layer to the consumer."""
        hooked.run(
            self.model,
            self.info,
            batch,
            lambda layer, pattern: self.take(layer, pattern, scope, consumer),
            None
            if consumer.values is None
            else lambda layer, value, mixed: self.take_values(layer, value, mixed, scope, consumer),
        )

    def take(self, layer: int, pattern: Tensor, scope: Scope, consumer: Consumer) -> None:
        """Hand a pattern from a hook to the consumer.

        Raises:
            HookError: if the shape does not match the batch, or rows are not probabilities.
        """
        check_shape(pattern, scope, self.info, layer)
        block = reductions_of(pattern, scope.on(pattern.device), layer)
        if layer in self._unchecked:
            check_block(block, pattern, self.info, allow_unnormalised=self._allow_unnormalised)
            self._unchecked.discard(layer)
        consumer.take(block)

    def take_values(self, layer: int, value: Tensor, mixed: Tensor, scope: Scope, consumer: Consumer) -> None:
        """Hand values and mixed values from hooks, `[batch, token, head, d_head]`, to the consumer if it reads them."""
        if consumer.values is not None:
            by_head = "batch token head d -> batch head token d"
            consumer.values(scope, layer, rearrange(value.detach(), by_head), rearrange(mixed.detach(), by_head))


def check_block(block: Reductions, pattern: Tensor, info: ModelInfo, *, allow_unnormalised: bool = False) -> None:
    """Raise `HookError` unless the rows of a pattern are probabilities over reachable keys.

    Heads with a sink of their own keep a part of each row to themselves: there nothing may be on what is out of reach,
    and no row may sum to more than 1. With `allow_unnormalised` rows may have any sum, and weights none below 0.
    """
    # Half precision rounds coarsely.
    tolerance = 1e-3 if pattern.dtype in (torch.float32, torch.float64) else 2e-2
    off = (block.attention - block.rows[:, None].float()).abs()
    if off.isnan().any() or (info.sums_to_one and off.max() <= tolerance and block.weights.min() >= 0):
        return  # NaN is reported at the end of the batch, with the sentence
    where = f"layer {block.layer} ({info.hook_of_layer[block.layer]})"
    rows = torch.where(block.rows[:, None, :, None], pattern.detach().float(), 0)
    on_pads = rows.masked_fill(block.scope.real_keys[:, None, None], 0).sum(-1).max().item()
    if on_pads > tolerance:
        raise HookError(f"{where}: weight {on_pads:.4f} of a row is on padding, expected none; is the mask passed on?")
    ahead = rows.triu(1).sum(-1).max().item() if info.causal else 0
    if ahead > tolerance:
        raise HookError(f"{where}: weight {ahead:.4f} of a row is on later tokens, expected none in a causal model")
    total = rows.sum(-1).transpose(0, 1)[:, block.rows]
    if rows.min() >= 0 and (allow_unnormalised or (not info.sums_to_one and total.max() <= 1 + tolerance)):
        return
    raise HookError(
        f"{where}: rows are not probabilities: they sum to {total.min():.4f} to {total.max():.4f}, the least weight is "
        f"{rows.min():.4g}. If a hook of yours changes them on purpose, as an ablation does, pass "
        f"allow_unnormalised=True, or leave the layer out with layers="
    )


def check_shape(pattern: Tensor, scope: Scope, info: ModelInfo, layer: int) -> None:
    """Raise `HookError` unless the shape is `[batch, head, query, key]`."""
    expected = (len(scope.batch), info.n_heads, scope.real.shape[1], scope.real_keys.shape[1])
    if tuple(pattern.shape) != expected:
        raise HookError(
            f"layer {layer} ({info.hook_of_layer[layer]}): the pattern has shape {tuple(pattern.shape)}, "
            f"expected {expected}, [batch, head, query, key]"
        )
