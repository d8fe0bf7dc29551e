"""Describe a model in the terminal."""

from __future__ import annotations

import re
from typing import Any

from rich.console import Console
from rich.table import Table

from tl_attnstats.attention.sources.choose import source_of
from tl_attnstats.models.configuration import ranges
from tl_attnstats.models.describe import ModelInfo, describe, streams


def page(model: Any, console: Console) -> None:
    """Print a table for each of the model's streams of attention."""
    for stream in streams(model):
        info = describe(model, stream=stream)
        table = Table("", "", box=None, show_header=False, pad_edge=False)
        for name, value in _properties(model, info):
            table.add_row(name, value)
        names = {"self": info.name, "cross": f"{info.name}, cross-attention"}
        console.print(names.get(stream, f"{info.name}, {stream}"), style="bold", highlight=False)
        console.print(table, highlight=False)
        console.print()


def _properties(model: Any, info: ModelInfo) -> list[tuple[str, str]]:
    queries, keys = info.framings
    reach = "itself and earlier tokens" if info.causal else "every token"
    return [
        ("layers with attention", f"{ranges(info.layers)}, of {info.n_layers}"),
        ("heads per layer", str(info.n_heads)),
        ("a token looks at", reach if info.stream != "cross" else "every token of the encoder"),
        ("window", _window(info)),
        ("a row sums to", "1" if info.sums_to_one else "less than 1: heads have learned sinks"),
        ("null tokens", {"first": "the first", "special": "special tokens", "none": "none"}[info.null]),
        ("reads", str(queries) if info.stream != "cross" else f"{queries}, and looks at {keys}"),
        ("at most", f"{info.framing.max_tokens or 'any number of'} tokens"),
        ("padding mask", info.mask_argument),
        ("hooks", re.sub(r"\d+", "{layer}", info.hook_of_layer[info.layers[0]], count=1)),
        ("source", source_of(model, info)),
    ]


def _window(info: ModelInfo) -> str:
    if not info.windows:
        return "none"
    size = " or ".join(str(size) for size in sorted(set(info.windows.values())))
    return f"{size} tokens" + ("" if len(info.windows) == len(info.layers) else f", layers {ranges([*info.windows])}")
