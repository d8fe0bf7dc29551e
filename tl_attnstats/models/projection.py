"""The output projection of each head: what a value contributes to the residual stream."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any
from weakref import WeakKeyDictionary

import torch
from einops import einsum, rearrange
from jaxtyping import Float
from torch import Tensor

from tl_attnstats.corpus.batches import Batch
from tl_attnstats.corpus.devices import exact_products, home_of
from tl_attnstats.errors import ModelError
from tl_attnstats.models import hooked
from tl_attnstats.models.describe import ModelInfo, probe
from tl_attnstats.models.fingerprint import digest

TOLERANCE = {torch.float16: 0.02, torch.bfloat16: 0.1}
"""Relative; half precision rounds values and sums of them. Elsewhere 1e-3."""


class Norms:
    """‖x W_O^h‖ of each head, from a square factor L: W_O^h (W_O^h)ᵀ = L Lᵀ, so the norm is ‖x L‖.

    The factor is as small as the head, where W_O^h is as wide as the model.

    Args:
        projections: W_O of each layer, `[head, d_head, d_model]`.
    """

    def __init__(self, projections: Mapping[int, Float[Tensor, "head d_head d_model"]]):
        self._factors = {layer: _factor(projection) for layer, projection in projections.items()}

    def __call__(
        self, layer: int, x: Float[Tensor, "batch key_head token d_head"]
    ) -> Float[Tensor, "batch head token"]:
        """The norms of values or of mixed values. Heads may share those of a key head (grouped queries)."""
        factor = self._factors[layer]
        grouped = rearrange(factor, "(key_head shared) d r -> key_head shared d r", key_head=x.shape[1])
        product = einsum(
            x.float(), grouped, "batch key_head token d, key_head shared d r -> batch key_head shared token r"
        )
        norms: Tensor = rearrange(product.norm(dim=-1), "batch key_head shared token -> batch (key_head shared) token")
        return norms


def _factor(projection: Float[Tensor, "head d_head d_model"]) -> Float[Tensor, "head d_head d_head"]:
    wide = projection.detach().to(home_of(projection.device)).double()
    product = wide @ wide.mT
    factor, failed = torch.linalg.cholesky_ex(product)
    if failed.any():  # a head that cannot write in all directions, or in none
        values, vectors = torch.linalg.eigh(product[failed > 0])
        factor[failed > 0] = vectors * values.clamp_min(0).sqrt()[:, None]
    found: Tensor = factor.float().to(projection.device)
    return found


_KNOWN: WeakKeyDictionary[Any, tuple[Any, Norms]] = WeakKeyDictionary()
"""The latest norms of each model, with what they depend on."""


def norms_of(model: Any, info: ModelInfo) -> Norms:
    """The norms of what the heads of a TransformerLens model write.

    A short text is run to see that `hook_z` is the pattern times `hook_v`, and that W_O projects it: gates, norms or
    mixing between them would give the norms another meaning.

    Raises:
        ModelError: where they are not defined, or cannot be found; with the reason.
    """
    if not info.hooked:
        raise ModelError(f"{info.name} is read without a bridge, which tells where values and output projection are")
    projections = {layer: _projection(model, info, layer) for layer in info.layers}
    key = info.stream, [(layer, digest(_as_stored(projection))) for layer, projection in projections.items()]
    known = _KNOWN.get(model)
    if known is not None and known[0] == key:
        return known[1]
    norms = Norms(projections)
    if not hooked.has_hooks(model):  # the user's may change what the check compares, on purpose
        with exact_products():
            _check(model, info, projections)
        _KNOWN[model] = key, norms
    return norms


def _projection(model: Any, info: ModelInfo, layer: int) -> Float[Tensor, "head d_head d_model"]:
    where = f"layer {layer} of {info.name}"
    missing = [name for name in info.value_hooks(layer) if name not in model.hook_dict]
    if missing:
        raise ModelError(f"{where} has no hook {missing[0]}")
    attention = _attention(model, info, layer)
    block = model.get_submodule(info.hook_of_layer[layer].rsplit(".", 2)[0])
    if getattr(model.cfg, "use_normalization_before_and_after", False) or hasattr(block, "ln1_post"):
        raise ModelError(f"{where} normalises the sum of its heads, so that the norm of one says little")
    try:
        projection: Tensor = attention.W_O
    except Exception as error:  # bridges raise errors of any kind for weights that they cannot read
        raise ModelError(f"the output projection of {where} cannot be read ({type(error).__name__})") from None
    if projection.ndim != 3 or len(projection) != info.n_heads:
        raise ModelError(f"the output projection of {where} has shape {tuple(projection.shape)}")
    return projection


def _as_stored(projection: Tensor) -> Tensor:
    """The dimensions in the order of memory, so that hashing needs no copy."""
    return projection.permute(sorted(range(3), key=projection.stride, reverse=True))


def _attention(model: Any, info: ModelInfo, layer: int) -> Any:
    return model.get_submodule(info.hook_of_layer[layer].removesuffix(".hook_pattern"))


def _check(model: Any, info: ModelInfo, projections: Mapping[int, Tensor]) -> None:
    """Raise `ModelError` unless the pattern mixes values into what W_O projects."""
    seen: dict[str, Tensor] = {}
    names = [name for layer in info.layers for name in (info.hook_of_layer[layer], *info.value_hooks(layer))]
    outputs = {layer: info.hook_of_layer[layer].replace("hook_pattern", "o.hook_out") for layer in info.layers}
    names += [name for name in outputs.values() if name in model.hook_dict]

    def keep(name: str) -> Any:
        def hook(tensor: Tensor, hook: Any) -> None:
            seen[name] = tensor.detach().float()

        return name, hook

    batch: Batch = probe(info)
    with hooked.evaluating(model), torch.no_grad(), hooked.attached(model, list(map(keep, names))):
        model(batch.input_ids, **info.arguments(batch), return_type=None)
    tolerance = TOLERANCE.get(next(iter(model.parameters())).dtype, 1e-3)
    for layer, projection in projections.items():
        pattern_name, value_names = info.hook_of_layer[layer], info.value_hooks(layer)
        if any(name not in seen or seen[name].ndim != 4 for name in (pattern_name, *value_names)):
            raise ModelError(f"layer {layer} of {info.name} does not show its values at {' and '.join(value_names)}")
        pattern = seen[pattern_name]
        value, mixed = (rearrange(seen[name], "batch token head d -> batch head token d") for name in value_names)
        if value.shape[1] == 0 or pattern.shape[1] % value.shape[1] or mixed.shape[1] != pattern.shape[1]:
            raise ModelError(f"layer {layer} of {info.name} has {value.shape[1]} value heads for {pattern.shape[1]}")
        value = value.repeat_interleave(pattern.shape[1] // value.shape[1], 1)
        if value.shape[-1] != mixed.shape[-1] or not _off(pattern @ value, mixed) <= tolerance:
            raise ModelError(f"layer {layer} of {info.name} changes what attention mixes before it is projected")
        if outputs[layer] in seen:
            written = einsum(
                mixed, projection.detach().float(), "batch head token d, head d model -> batch token model"
            )
            bias = getattr(_attention(model, info, layer), "b_O", None)
            written = written if bias is None else written + bias.detach()
            if not _off(written, seen[outputs[layer]]) <= tolerance:
                raise ModelError(f"the output projection of layer {layer} of {info.name} is more than a matrix")


def _off(found: Tensor, expected: Tensor) -> float:
    """The largest difference, relative to the largest entry; NaN is a difference too."""
    return float((found - expected).abs().max() / expected.abs().max().clamp_min(1e-30))
