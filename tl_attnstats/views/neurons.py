"""Query and key vectors of one input, as used in the dot product, checked against the pattern."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

import numpy as np
import torch
from jaxtyping import Float
from torch import Tensor

from tl_attnstats.errors import HookError

# Use rotated vectors if the model has hooks for them, else the plain ones, rotated here if it has hooks for the angles.
HOOKS = ("hook_rot_q", "hook_rot_k", "hook_q", "hook_k", "hook_cos", "hook_sin")
TOLERANCE = 1e-4


@dataclass(frozen=True)
class Neurons:
    """Query and key vectors of every head and token after rotation, and the scale of their products.

    `pattern[l, h, i] = softmax over j of scale[l] · (queries[l, h, i] · keys[l, h, j])`, over the keys that i can
    reach. With grouped queries, a key vector is repeated for each of its query heads.
    """

    queries: Float[np.ndarray, "layer head token d_head"]
    keys: Float[np.ndarray, "layer head token d_head"]
    scale: Float[np.ndarray, " layer"]


def hook_names(model: Any, pattern_hook: str) -> list[str]:
    """The hooks of a layer that may give vectors. The architecture decides which of them fire."""
    prefix = pattern_hook.removesuffix("hook_pattern")
    return [prefix + name for name in HOOKS if prefix + name in model.hook_dict]


def read(
    cache: Mapping[str, Tensor], pattern_hooks: Mapping[int, str], pattern: Float[np.ndarray, "layer head query key"]
) -> Neurons:
    """Read the vectors of one input from a cache.

    Args:
        cache: tensors by hook name.
        pattern_hooks: the name of each layer's pattern hook.
        pattern: the attention of these layers.

    Raises:
        HookError: a layer's vectors are missing, or do not reproduce its attention.
    """
    queries, keys, scales = [], [], []
    for (layer, name), weights in zip(pattern_hooks.items(), pattern, strict=True):
        q, k = _vectors(cache, layer, name.removesuffix("hook_pattern"))
        k = k.repeat_interleave(len(q) // len(k), 0)
        products = (q.double() @ k.double().transpose(1, 2)).numpy()
        scale = _scale(products, weights, default=q.shape[-1] ** -0.5)
        off = np.abs(softmax(scale * products, weights > 0) - weights).max()
        if not off <= TOLERANCE:
            raise HookError(
                f"layer {layer}: the softmax of query–key products differs from the pattern by up to {off:.2g}, "
                f"expected at most {TOLERANCE:g}; the model adds something that this view cannot show (a position "
                f"bias, a soft cap, a sink, half precision)"
            )
        queries.append(q.numpy())
        keys.append(k.numpy())
        scales.append(scale)
    return Neurons(np.stack(queries), np.stack(keys), np.array(scales))


def softmax(scores: Float[np.ndarray, "*row key"], reached: np.ndarray) -> Float[np.ndarray, "*row key"]:
    """Softmax over the reached keys on the last axis; 0 elsewhere."""
    scores = np.where(reached, scores, -np.inf)
    weights = np.exp(scores - scores.max(-1, keepdims=True))
    return np.asarray(weights / weights.sum(-1, keepdims=True))


def _vectors(cache: Mapping[str, Tensor], layer: int, prefix: str) -> tuple[Tensor, Tensor]:
    """Queries and keys, each `[head, token, d_head]`."""

    def tensor(name: str, n_dims: int) -> Tensor | None:
        if prefix + name not in cache:
            return None
        found = cache[prefix + name].detach().float().cpu()
        return found[0] if found.ndim > n_dims else found  # drop the batch dimension, if present

    rotated = "hook_rot_q" if prefix + "hook_rot_q" in cache else "hook_q"
    q, k = tensor(rotated, 3), tensor(rotated[:-1] + "k", 3)
    if q is None or k is None:
        raise HookError(
            f"layer {layer}: no query and key vectors at {prefix}hook_q and hook_k (or hook_rot_q and hook_rot_k); "
            f"this architecture or this cache does not provide them"
        )
    q, k = q.transpose(0, 1), k.transpose(0, 1)
    cos, sin = tensor("hook_cos", 2), tensor("hook_sin", 2)
    if rotated == "hook_q" and cos is not None and sin is not None:
        return _rotate(q, cos, sin), _rotate(k, cos, sin)
    return q, k


def _rotate(x: Tensor, cos: Tensor, sin: Tensor) -> Tensor:
    """Apply rotary position embedding to the first dimensions, as many as there are angles."""
    turned, kept = x[..., : cos.shape[-1]], x[..., cos.shape[-1] :]
    first, second = turned.chunk(2, -1)
    return torch.cat([turned * cos + torch.cat([-second, first], -1) * sin, kept], -1)


def _scale(products: np.ndarray, weights: np.ndarray, default: float) -> float:
    """Recover the scale of the products before the softmax from the pattern: 1/√d_head, or the model's own.

    Within a row, differences of ln(weight) equal the scale times differences of products. Reading it from the
    configuration would need a different name for every architecture, and some vary it by layer.
    """
    reached = weights > 0
    weights = weights.astype(np.float64)
    logs = np.log(np.where(reached, weights, 1))
    x, y = (v - (weights * v).sum(-1, keepdims=True) / weights.sum(-1, keepdims=True) for v in (products, logs))
    spread = (weights * x * x).sum()
    return float((weights * x * y).sum() / spread) if spread > 0 else default
