"""Trials of a source: some rows of its attention compared with the model's own."""

from __future__ import annotations

import re
from collections.abc import Callable, Iterator, Mapping
from typing import Any, NamedTuple

import torch
from torch import Tensor

from tl_attnstats.attention.scope import scope_of
from tl_attnstats.corpus.batches import Batch
from tl_attnstats.corpus.devices import to_device
from tl_attnstats.errors import ModelError
from tl_attnstats.models import bare, hooked
from tl_attnstats.models.describe import ModelInfo

# The most that two computations of a weight may differ. Half precision rounds scores and, at the hooks, weights: on
# SmolLM2 the sources differ by up to 0.005 in float16 and 0.04 in bfloat16.
TOLERANCE = {torch.float16: 0.02, torch.bfloat16: 0.1}
TRIAL_ROWS = 64  # most rows of a pattern that a trial compares
# Numbers in a configuration at which attention changes: windows, chunks, sparse indexers, rotary frequencies.
LIMIT = re.compile(r"window|chunk|local|block_size|radius|index_?top_?k|original_max_position")
NOT_LIMIT = re.compile(r"expert|layer|pattern|feed_forward|vision|audio|image")

Read = Callable[[Batch, Callable[[int, Tensor, int], None]], None]
"""Reads the patterns of a batch: calls a function with layer, pattern and first row, for each block of rows."""
Sample = Mapping[int, Tensor]
"""Some rows of one sequence's pattern in each layer, `[head, row, key]`."""


class Difference(NamedTuple):
    """The first layer in which two computations of attention differ, and by how much."""

    layer: int
    by: float


class Trials:
    """Samples a model's attention and compares samples.

    Args:
        model: the user's model.
        info: what `describe` says of it.
    """

    def __init__(self, model: Any, info: ModelInfo):
        self.model, self.info = model, info

    def of_model(self, batch: Batch) -> Sample:
        """Sample the model's hooks or, for a transformers model, its eager attention."""
        return self.sample(self._read_model, batch)

    def _read_model(self, batch: Batch, on_rows: Callable[[int, Tensor, int], None]) -> None:
        if self.info.hooked:
            hooked.run(self.model, self.info, batch, lambda layer, pattern: on_rows(layer, pattern, 0))
        else:
            for layer, pattern in bare.patterns(self.model, batch.input_ids, batch.attention_mask).items():
                on_rows(layer, pattern, 0)

    def of_eager(self, alone: Batch) -> Sample | None:
        """Sample transformers' own eager attention; None if it does not tell which layer is which."""
        if self.info.stream != "self":
            return None
        try:
            found = bare.patterns(self.model, alone.input_ids, alone.attention_mask)
        except ModelError:
            return None
        if not set(self.info.layers) <= set(found):
            return None

        def read(_: Batch, on_rows: Callable[[int, Tensor, int], None]) -> None:
            for layer in self.info.layers:
                on_rows(layer, found[layer], 0)

        return self.sample(read, alone)

    def sample(self, read: Read, batch: Batch) -> Sample:
        """Sample evenly spaced counted rows of the last sequence's patterns."""
        scope = scope_of(self.info, batch)
        n_keys = len(scope.keys.items[-1])
        rows = scope.host.rows[-1].nonzero()[:, 0]
        if len(rows) > TRIAL_ROWS:
            rows = rows[torch.linspace(0, len(rows) - 1, TRIAL_ROWS).long()]
        kept: dict[int, list[Tensor]] = {}

        def keep(layer: int, pattern: Tensor, first_row: int) -> None:
            here = rows[(rows >= first_row) & (rows < first_row + pattern.shape[2])] - first_row
            here = to_device(here, pattern.device)
            kept.setdefault(layer, []).append(pattern[-1, :, here, :n_keys].detach().float())

        read(batch, keep)
        return {layer: torch.cat(parts, 1) for layer, parts in kept.items() if layer in self.info.layers}

    def difference(self, found: Sample, expected: Sample) -> Difference | None:
        """Return where two samples first differ by more than rounding explains, or None."""
        tolerance = TOLERANCE.get(next(iter(self.model.parameters())).dtype, 1e-4)
        for layer, pattern in expected.items():
            off = (found[layer].to(pattern.device) - pattern).abs()
            if off.numel() and not off.max() <= tolerance:  # NaN is a difference too
                return Difference(layer, off.max().item())
        return None


def limits(model: Any) -> Iterator[int]:
    """Lengths at which a model's attention changes, read from its configuration and the parts of it."""
    config: Any = getattr(getattr(model, "original_model", model), "config", None)
    return _limits(config.to_dict()) if hasattr(config, "to_dict") else iter(())


def _limits(config: Mapping[Any, Any]) -> Iterator[int]:
    for name, value in config.items():
        if NOT_LIMIT.search(str(name)):
            continue
        if isinstance(value, Mapping):
            yield from _limits(value)
        elif LIMIT.search(str(name)):
            yield from (n for n in (value if isinstance(value, list | tuple) else [value]) if type(n) is int and n > 1)
