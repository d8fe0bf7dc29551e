"""Run forward passes of TransformerLens models with hooks."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager, suppress
from typing import TYPE_CHECKING, Any

import torch
from torch import Tensor
from transformer_lens.model_bridge.exceptions import StopAtLayerException

from tl_attnstats.corpus.batches import Batch
from tl_attnstats.errors import HookError

if TYPE_CHECKING:  # describe imports this module to measure the direction of attention
    from tl_attnstats.models.describe import ModelInfo

OnPattern = Callable[[int, Tensor], None]
OnValues = Callable[[int, Tensor, Tensor], None]
OWN = ("transformer_lens.", "transformers.")


def run(model: Any, info: ModelInfo, batch: Batch, on_pattern: OnPattern, on_values: OnValues | None = None) -> None:
    """Run one forward pass, call `on_pattern(layer, pattern)` for each layer, and stop after the last layer.

    With `on_values(layer, value, mixed)`, also hand out values and their sums weighted by attention.

    The model's hooks, training mode and gradients are restored. The user's hooks stay active and run before ours; if
    there are any, the pass continues to its end, so that none is skipped.
    """
    last = max(info.layers)
    stop_after_last = not has_hooks(model)
    fired: dict[int, int] = dict.fromkeys(info.layers, 0)
    without_values = set() if on_values is None else set(info.layers)

    def stop_if_done(layer: int, tensor: Tensor) -> None:
        if layer == last and stop_after_last and fired[layer] and layer not in without_values:
            raise StopAtLayerException(tensor)

    def listen(layer: int) -> Callable[..., None]:
        def hook(pattern: Tensor, hook: Any) -> None:
            fired[layer] += 1
            on_pattern(layer, pattern)
            stop_if_done(layer, pattern)

        return hook

    def take_values(layer: int, value: Tensor, mixed: Tensor) -> None:
        assert on_values is not None
        on_values(layer, value, mixed)
        without_values.discard(layer)
        stop_if_done(layer, mixed)

    hooks = [(name, listen(layer)) for layer, name in info.hook_of_layer.items()]
    if on_values is not None:
        hooks += value_hooks(info, take_values)
    # A bridge catches the exception and cleans up; a HookedTransformer lets it through.
    with evaluating(model), torch.no_grad(), attached(model, hooks), suppress(StopAtLayerException):
        model(batch.input_ids, **info.arguments(batch), return_type=None)
    for layer, times in fired.items():
        if times != 1:
            raise HookError(
                f"layer {layer}: the hook {info.hook_of_layer[layer]} fired {times} times in one forward pass, "
                f"expected once; this model cannot be read through its hooks{_hint(model)}"
            )
    for layer in sorted(without_values):
        raise HookError(f"layer {layer}: the hooks {' and '.join(info.value_hooks(layer))} did not both fire")


def value_hooks(info: ModelInfo, on_values: OnValues) -> list[tuple[str, Callable[..., None]]]:
    """Hooks that call `on_values(layer, value, mixed)` for each layer, once both of its tensors are there."""

    def listen(layer: int, name: str, seen: dict[str, Tensor]) -> Callable[..., None]:
        def hook(tensor: Tensor, hook: Any) -> None:
            seen[name] = tensor
            if len(seen) == 2:
                value, mixed = (seen.pop(other) for other in info.value_hooks(layer))
                on_values(layer, value, mixed)

        return hook

    both: dict[int, dict[str, Tensor]] = {layer: {} for layer in info.layers}
    return [(name, listen(layer, name, both[layer])) for layer in info.layers for name in info.value_hooks(layer)]


def _hint(model: Any) -> str:
    """Advice for TransformerLens 3 bridges, which give no pattern unless the model was loaded with eager attention."""
    config = getattr(getattr(model, "original_model", None), "config", None)
    implementation = getattr(config, "_attn_implementation", None)
    if implementation in (None, "eager"):
        return ""
    return f"; it computes attention with {implementation}: load it with attn_implementation='eager' before bridging it"


@contextmanager
def attached(model: Any, hooks: Sequence[tuple[str, Callable[..., None]]]) -> Iterator[None]:
    """Attach our hooks after the user's, and remove only ours afterwards.

    `bridge.hooks()` of TransformerLens 3 would remove the user's too.
    """
    ours: list[tuple[Any, Any]] = []
    try:
        for name, hook in hooks:
            point = model.hook_dict[name]
            theirs = list(point.fwd_hooks)
            point.add_hook(hook)
            ours += [(point, handle) for handle in point.fwd_hooks if handle not in theirs]
        yield
    finally:
        for point, handle in ours:
            handle.hook.remove()
            point.fwd_hooks = [other for other in point.fwd_hooks if other is not handle]


def has_hooks(model: Any) -> bool:
    """Whether the user has a hook on the model. Hooks that come with some architectures do not count."""
    functions: Iterator[Any]
    if hasattr(model, "hook_dict"):
        # Skip points without hooks first: nearly all have none, and this runs for every batch.
        points = (point for point in model.hook_dict.values() if point.fwd_hooks or point.bwd_hooks)
        handles = (handle for point in points for handle in (*point.fwd_hooks, *point.bwd_hooks))
        functions = (getattr(handle, "user_hook", None) for handle in handles)
    else:
        modules = model.modules()
        functions = (f for m in modules for f in (*m._forward_hooks.values(), *m._forward_pre_hooks.values()))
    return any(not str(getattr(hook, "__module__", "")).startswith(OWN) for hook in functions)


@contextmanager
def evaluating(model: Any) -> Iterator[None]:
    """Switch to evaluation mode, because dropout changes patterns, then restore each module's mode."""
    original = getattr(model, "original_model", None)
    modules = [*model.modules(), *(original.modules() if isinstance(original, torch.nn.Module) else [])]
    training = [module for module in modules if module.training]
    try:
        if training:
            model.eval()
        yield
    finally:
        for module in training:
            module.training = True
