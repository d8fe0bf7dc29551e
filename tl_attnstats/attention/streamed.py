"""Attention statistics without a pattern ever being whole, through transformers' attention interface."""

from __future__ import annotations

import re
from collections.abc import Callable, Collection, Iterator
from contextlib import contextmanager, suppress
from typing import Any, NamedTuple

import torch
from torch import Tensor
from transformers import AttentionInterface, AttentionMaskInterface, PreTrainedModel

from tl_attnstats.attention import hooks, kernel, plain
from tl_attnstats.attention.block import AttentionBlock, Scope
from tl_attnstats.attention.memory import out_of_memory
from tl_attnstats.attention.models import ModelInfo
from tl_attnstats.attention.twin import twin
from tl_attnstats.attention.walk import BLOCK_ELEMENTS, LEAST_ROWS, LN2, MOST_ROWS, OnRows, Projections, walk
from tl_attnstats.corpus.batches import Batch
from tl_attnstats.corpus.sentence import Sentence
from tl_attnstats.errors import AttnStatsError, HookError, ModelError

NAME = "attnstats"
INSTEAD = "use source='hooks' (--source hooks)"
# What transformers passes on to some models, changes attention, and is not understood here.
REFUSED = ("position_bias", "head_mask", "cu_seq_lens_q")
# How far weights may be from those at the hooks. Half precision rounds scores and, at the hooks, weights: on SmolLM2
# they differ by up to 0.005 in float16 and 0.04 in bfloat16.
TOLERANCE = {torch.float16: 0.02, torch.bfloat16: 0.1}


class Consumer(NamedTuple):
    """Who takes in what comes out: `reduced` whole layers, `rows` blocks with weights, None where nobody wants them."""

    wanted: Collection[str]
    reduced: Callable[[AttentionBlock], None]
    rows: OnRows | None


class _DoneError(Exception):
    """Raised in the last layer that is wanted: what the model would do after it is not needed."""


class Streamed:
    """A model whose attention is walked in blocks of rows. The user's model is not touched: a twin shares its weights.

    Args:
        model: a `TransformerBridge`, or a transformers model.
        info: what `describe` says of it.
        block_elements: how many attention scores to hold at once.

    Raises:
        ModelError: where the model cannot be read this way, with the reason.
    """

    def __init__(self, model: Any, info: ModelInfo, *, block_elements: int = BLOCK_ELEMENTS):
        original = getattr(model, "original_model", model)
        if not isinstance(original, PreTrainedModel):
            raise ModelError(f"source='streamed': got {type(model).__name__}, expected a TransformerBridge; {INSTEAD}")
        if info.stream != "self":
            raise ModelError(f"source='streamed': the attention of an encoder–decoder is read through hooks; {INSTEAD}")
        if getattr(original.config, "attention_chunk_size", None):
            raise ModelError(f"source='streamed': attention in chunks is not supported; {INSTEAD}")
        self.info, self.block_elements, self.most_rows = info, block_elements, MOST_ROWS
        AttentionInterface.register(NAME, _attention)
        AttentionMaskInterface.register(NAME, _mask)
        with _refusing(info.name):
            self.model = twin(model, NAME)
        for name, module in self.model.named_modules():
            number = re.search(r"\.(\d+)\.", f".{name}.")
            module._attnstats = (self, int(number[1]) if number else -1)
        self.last_layer: int | None = max(info.layers)  # where to stop; None to go on to the end
        self._scope: Scope | None = None
        self._consumer: Consumer | None = None
        self._seen: dict[int, int] = {}

    def run(self, batch: Batch, scope: Scope, consumer: Consumer) -> None:
        """One forward pass, as far as the last layer that is wanted."""
        with self.listening(scope, consumer), suppress(_DoneError):
            body = self.model.base_model  # nothing reads the logits
            body(input_ids=batch.input_ids, attention_mask=batch.attention_mask, use_cache=False)
        for layer, times in self._seen.items():
            if times != 1:
                raise ModelError(
                    f"source='streamed': layer {layer} of {self.info.name} asked for attention {times} times in one "
                    f"forward pass, expected once; {INSTEAD}"
                )

    @contextmanager
    def listening(self, scope: Scope, consumer: Consumer) -> Iterator[None]:
        """Hand the attention of forward passes of `self.model` to the consumer."""
        self._scope, self._consumer, self._seen = scope, consumer, dict.fromkeys(self.info.layers, 0)
        self.model.eval()
        try:
            with torch.no_grad():
                yield
        finally:
            self._scope = self._consumer = None

    def prove(self, model: Any, batch: Batch) -> None:
        """Compare with the patterns at the model's hooks, on a short batch. Raises `HookError` where they differ."""
        scope = Scope(batch, self.info.causal, self.info.null)
        expected: dict[int, Tensor] = {}
        if self.info.hooked:
            hooks.run(model, self.info, batch, lambda layer, pattern: expected.update({layer: pattern.float().clone()}))
        else:
            found = plain.patterns(model, batch.input_ids, batch.attention_mask)
            expected = {layer: pattern.float() for layer, pattern in enumerate(found)}
        rows = scope.rows[:, None, :, None]

        def compare(block: AttentionBlock) -> None:
            here = slice(block.first_row, block.first_row + block.rows.shape[1])
            off = (block._pattern - expected[block.layer][:, :, here]).abs() * rows[:, :, here]
            if not off.max() <= TOLERANCE.get(self.model.dtype, 1e-4):
                raise HookError(
                    f"source='streamed': layer {block.layer} of {self.info.name} differs from its pattern hook by "
                    f"{off.max():.2g}; {INSTEAD}"
                )

        with _refusing(self.info.name):
            self.run(batch, scope, Consumer((), lambda block: None, compare))

    def halve_rows(self, n_tokens: int) -> bool:
        """Go on with half as many rows in a block, after `n_tokens` of them; False after single ones."""
        self.most_rows = min(self.most_rows, n_tokens) // 2
        possible = self.most_rows > 0
        self.most_rows = max(1, self.most_rows)
        return possible

    def attend(self, layer: int, given: Projections, dtype: torch.dtype) -> Tensor:
        """The output of a layer's attention, its reductions handed on."""
        scope, consumer = self._scope, self._consumer
        assert scope is not None
        assert consumer is not None
        if layer in self._seen:
            self._seen[layer] += 1
        collects = layer in self._seen
        rows = consumer.rows if collects else None
        if kernel.available(given.query) and scope.causal and scope.null_rule != "special":
            wanted = consumer.wanted if collects else ()
            size = {"block_elements": self.block_elements, "most_rows": self.most_rows}
            output, reduced = walk(given, scope, layer, wanted, on_rows=rows, **size)
            if collects:
                consumer.reduced(reduced)
        else:
            output = self._plain(layer, given, scope, consumer if collects else None)
        if layer == self.last_layer:
            raise _DoneError
        return output.to(dtype)

    def _plain(self, layer: int, given: Projections, scope: Scope, consumer: Consumer | None) -> Tensor:
        """As it is written in textbooks, in blocks of rows: for encoders, and where the kernel is not available."""
        n_batch, n_heads, n_tokens, _ = given.query.shape
        n_rows = min(max(LEAST_ROWS, self.block_elements // (n_batch * n_heads * n_tokens)), self.most_rows)
        key = torch.arange(n_tokens, device=given.query.device)
        outputs = []
        for first in range(0, n_tokens, n_rows):
            here = key[first : first + n_rows, None]
            allowed = scope.real[:, None, None, :]
            if scope.causal:
                allowed = allowed & (key <= here)
            if given.window is not None:
                allowed = allowed & ((here - key).abs() < given.window)
            scores = given.scores(given.query[:, :, first : first + n_rows], 0, n_tokens)
            scores = scores.mul_(LN2).masked_fill_(~allowed, torch.finfo(scores.dtype).min)
            if given.sinks is not None:
                sinks = (given.sinks * LN2)[:, None, None].expand(*scores.shape[:3], 1)
                scores = torch.cat([scores, sinks], -1)
            pattern = scores.softmax(-1)[..., :n_tokens]
            outputs.append(given.mix(pattern, 0, n_tokens))
            if consumer is not None:
                block = AttentionBlock(pattern, scope, layer, first)
                consumer.reduced(block)
                if consumer.rows is not None:
                    consumer.rows(block)
        return torch.cat(outputs, 2).transpose(1, 2)


def source_of(model: Any, info: ModelInfo) -> str:
    """Which source `source="auto"` takes, found by trying, and why if it is not the streamed one."""
    framing = info.framing
    item = framing.tokenize(Sentence("The quick brown fox jumps over the lazy dog.", (), "trial"), truncate=True)
    try:
        check_no_hooks(model)
        Streamed(model, info).prove(model, Batch([item], device=info.device))
    except (ModelError, HookError) as error:
        reason = str(error).removeprefix("source='streamed': ").removesuffix(f"; {INSTEAD}")
        return f"hooks: {reason}"
    return "streamed"


@contextmanager
def _refusing(name: str) -> Iterator[None]:
    try:
        yield
    except AttnStatsError:
        raise
    except Exception as error:  # of every kind, in code that was written for attention of its own
        if out_of_memory(error):
            raise
        raise ModelError(
            f"source='streamed': {name} does not take its attention from transformers' attention interface "
            f"({type(error).__name__}: {error}); {INSTEAD}"
        ) from None


def check_no_hooks(model: Any) -> None:
    """Raise `ModelError` where somebody has hooks on the model, which this source would pass by."""
    if hooks.has_hooks(model):
        raise ModelError(f"source='streamed': the model has hooks, which this source would pass by; {INSTEAD}")


def _attention(
    module: Any, query: Tensor, key: Tensor, value: Tensor, attention_mask: Any, **kwargs: Any
) -> tuple[Tensor, None]:
    """The function that transformers calls in each layer, in the place of its own."""
    streamed, layer = module._attnstats
    for name in REFUSED:
        if kwargs.get(name) is not None:
            raise ModelError(f"source='streamed': layer {layer} wants {name}, which is not supported; {INSTEAD}")
    # transformers passes the window to the function, or only to the mask.
    window = kwargs.get("sliding_window") or getattr(attention_mask, "window", None)
    scaling, softcap, sinks = (kwargs.get(name) for name in ("scaling", "softcap", "s_aux"))
    given = Projections(
        query.float() * ((query.shape[-1] ** -0.5 if scaling is None else scaling) / LN2),
        key.float().contiguous(),
        value.float().contiguous(),
        window=window,
        softcap=None if softcap is None else softcap / LN2,
        sinks=None if sinks is None else sinks.float() / LN2,
    )
    return streamed.attend(layer, given, query.dtype), None


class Reach:
    """What stands in for the mask of query by key: lengths and direction are known, only the window is not."""

    def __init__(self, window: int | None):
        self.window = window


def _mask(*args: Any, local_size: int | None = None, **kwargs: Any) -> Reach:
    return Reach(local_size)
