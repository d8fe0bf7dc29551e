"""Read the number of heads and the sliding windows of layers from a model's configuration."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

from tl_attnstats.errors import ModelError
from tl_attnstats.models.options import Stream

# Attributes that list the number of heads per layer (Laguna, OpenELM).
HEADS_BY_LAYER = ("num_attention_heads_per_layer", "num_query_heads")


def text_config(model: Any, stream: Stream = "self") -> Any:
    """The configuration of the part of the model that reads text."""
    source = model.original_model if hasattr(model, "original_model") else model
    config = getattr(source, "config", None) or model.cfg
    config = getattr(config, stream, config)  # T5Gemma has one for each stack
    return config.get_text_config() if hasattr(config, "get_text_config") else config


def windows_by_layer(model: Any, stream: Stream, layers: Mapping[int, str]) -> dict[int, int]:
    """Sliding windows by layer. If the configuration has only a size, it applies to all layers."""
    if stream == "cross":
        return {}
    config = text_config(model, stream)
    kinds = next(
        (k for name in ("layer_types", "attention_layers", "attn_types") if (k := getattr(config, name, None))), None
    )
    windows = {}
    for layer in layers:
        own = of_layer(config, layer)
        size = getattr(own, "sliding_window", None) or (kinds and getattr(own, "window_size", None))
        if isinstance(size, int) and (kinds is None or kinds[layer] in ("sliding_attention", "local")):
            windows[layer] = size
    return windows


def of_layer(config: Any, layer: int) -> Any:
    """The configuration of one layer, for models whose layers differ (`per_layer_config` in transformers 5)."""
    return config.per_layer_config[layer] if getattr(config, "is_heterogeneous", False) else config


def heads_by_layer(model: Any, stream: Stream, layers: Mapping[int, str]) -> dict[int, int]:
    """Number of heads by layer. Most configurations have one number for all layers, some a list."""
    config = text_config(model, stream)
    by_layer = next((found for name in HEADS_BY_LAYER if (found := getattr(config, name, None))), None)
    if by_layer is not None:
        return {layer: by_layer[layer] for layer in layers}
    if getattr(config, "is_heterogeneous", False):
        return {layer: of_layer(config, layer).num_attention_heads for layer in layers}
    return dict.fromkeys(layers, model.cfg.n_heads)


def number_of_heads(name: str, heads: Mapping[int, int]) -> int:
    """The number of heads of every layer. Raises `ModelError` if layers differ."""
    layers_with: dict[int, list[int]] = {}
    for layer, n_heads in heads.items():
        layers_with.setdefault(n_heads, []).append(layer)
    if len(layers_with) == 1:
        return next(iter(layers_with))
    counts = "; ".join(f"{n_heads} heads: layers {ranges(some)}" for n_heads, some in layers_with.items())
    one = max(layers_with.values(), key=len)
    raise ModelError(
        f"model: not all layers of {name} have the same number of heads ({counts}), but statistics have one value "
        f"per layer and head; choose layers with the same number: layers={one} (--layers {','.join(map(str, one))})"
    )


def ranges(layers: Sequence[int]) -> str:
    """Layers in words: "0 to 11", or a list if there are gaps."""
    contiguous = list(layers) == list(range(layers[0], layers[-1] + 1))
    return f"{layers[0]} to {layers[-1]}" if contiguous and len(layers) > 1 else ", ".join(map(str, layers))
