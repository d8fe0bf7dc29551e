"""Attention patterns out of TransformerLens models, through their pattern hook points."""

from __future__ import annotations

import torch
from torch import Tensor

from tl_attnstats.attention.reductions import AttentionBlock
from tl_attnstats.attention.scope import Scope
from tl_attnstats.errors import HookError
from tl_attnstats.models.describe import ModelInfo


def check_block(block: AttentionBlock, pattern: Tensor, info: ModelInfo, *, allow_unnormalised: bool = False) -> None:
    """Raise `HookError` unless the rows of a pattern are probabilities over what they can reach.

    Heads with a sink of their own keep a part of each row to themselves: there nothing may be on what is out of reach,
    and no row may sum to more than 1. With `allow_unnormalised` rows may have any sum, and weights none below 0.
    """
    # Half precision rounds coarsely.
    tolerance = 1e-3 if pattern.dtype in (torch.float32, torch.float64) else 2e-2
    off = (block.attention - block.rows[:, None].double()).abs()
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
