"""Rebuild the transformers model inside a `TransformerBridge` as it was before bridging."""

from __future__ import annotations

import copy
import itertools
from typing import Any

import torch
from accelerate import init_empty_weights
from accelerate.hooks import AlignDevicesHook, SequentialHook, add_hook_to_module

from tl_attnstats.errors import ModelError

WRAPPED = "._original_component"


def twin(bridge: Any, implementation: str) -> Any:
    """Build a transformers model that shares the weights of a bridge. The bridge is not changed.

    Booting a bridge replaces the model's modules with its own, which compute attention eagerly whatever the
    configuration says. The twin is built from the configuration and uses the same tensors.

    Args:
        bridge: the `TransformerBridge`, or a transformers model to rebuild with another attention implementation.
        implementation: name of the attention implementation, as registered with transformers.

    Raises:
        ModelError: the bridge lacks a weight of the new model.
    """
    original = getattr(bridge, "original_model", bridge)
    config = copy.deepcopy(original.config)
    config._attn_implementation = implementation
    try:
        with torch.device("meta"):  # four times faster than below
            model = type(original)(config)
        return _filled(model, original)
    except Exception:  # some models compute with buffers in their constructor, or create their own
        with init_empty_weights(include_buffers=False):
            model = type(original)(config)
        return _filled(model, original)


def structure(model: Any) -> tuple[Any, ...]:
    """What a twin, and a comparison with it, depend on besides the values of weights, which the two share.

    These are the configuration, where tensors are in memory, the modules and their `forward`, and torch hooks.
    """
    original = getattr(model, "original_model", model)
    tensors = itertools.chain(original.parameters(), original.buffers())
    places = [(tensor.data_ptr(), tensor.shape, tensor.dtype, tensor.device) for tensor in tensors]
    modules = {id(module): module for module in (*model.modules(), *original.modules())}
    parts = [
        (key, type(module), type(module).forward, module.__dict__.get("forward"), _n_hooks(module))
        for key, module in modules.items()
    ]
    return original.config.to_json_string(use_diff=False), places, parts


def _n_hooks(module: torch.nn.Module) -> tuple[int, int]:
    return len(module._forward_hooks), len(module._forward_pre_hooks)


def _filled(model: Any, original: Any) -> Any:
    """Fill an empty model with the weights and buffers of the original."""
    _check_not_offloaded(original)
    weights = {name.replace(WRAPPED, ""): value for name, value in original.state_dict().items()}
    wanted = model.state_dict().keys()
    missing = sorted(wanted - weights.keys())
    if missing:
        raise ModelError(f"source='streamed': the bridge has no weight {missing[0]}; use source='hooks'")
    # The bridge adds aliases that the model does not have.
    model.load_state_dict({name: weights[name] for name in wanted}, assign=True, strict=False)
    model.tie_weights()
    _copy_buffers(original, model)
    _copy_placement(original, model)
    return model.train(original.training).requires_grad_(False)


def _device_hooks(module: torch.nn.Module) -> list[AlignDevicesHook]:
    """What accelerate has put on a module to bring its inputs to the device of its weights (`device_map`)."""
    hook = getattr(module, "_hf_hook", None)
    hooks = hook.hooks if isinstance(hook, SequentialHook) else [hook]
    return [each for each in hooks if isinstance(each, AlignDevicesHook)]


def _check_not_offloaded(original: Any) -> None:
    if any(hook.offload for module in original.modules() for hook in _device_hooks(module)):
        raise ModelError(
            "source='streamed': accelerate keeps weights of the model off its device (device_map with cpu or disk), "
            "where they cannot be shared; use source='hooks'"
        )


def _copy_placement(original: Any, model: Any) -> None:
    """Bring inputs to the devices of the layers, where a model's layers are on several."""
    for name, module in original.named_modules():
        hooks = _device_hooks(module)
        if not hooks:
            continue
        try:
            place = model.get_submodule(name.replace(WRAPPED, ""))
        except AttributeError:
            continue  # this module is the bridge's own
        for hook in hooks:
            new = AlignDevicesHook(hook.execution_device, io_same_device=hook.io_same_device, skip_keys=hook.skip_keys)
            add_hook_to_module(place, new, append=True)


def _copy_buffers(original: Any, model: Any) -> None:
    """Copy buffers that state dicts omit, such as rotary frequencies, which depend on the precision."""
    for name, value in original.named_buffers():
        owner, _, leaf = name.replace(WRAPPED, "").rpartition(".")
        try:
            module = model.get_submodule(owner)
        except AttributeError:
            continue  # this buffer is the bridge's own
        if leaf in module._buffers:
            module._buffers[leaf] = value
    stray = [name for name, value in (*model.named_parameters(), *model.named_buffers()) if value.device.type == "meta"]
    if stray:
        raise ModelError(f"source='streamed': the bridge has no weight {stray[0]}; use source='hooks'")
