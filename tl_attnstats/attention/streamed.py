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
from tl_attnstats.attention.configuration import Stream
from tl_attnstats.attention.memory import out_of_memory
from tl_attnstats.attention.models import ModelInfo
from tl_attnstats.attention.plain import INSTEAD
from tl_attnstats.attention.twin import twin
from tl_attnstats.attention.walk import BLOCK_ELEMENTS, LEAST_ROWS, MOST_ROWS, OnRows, Projections, walk
from tl_attnstats.corpus.batches import Batch
from tl_attnstats.corpus.sentence import Sentence
from tl_attnstats.errors import AttnStatsError, HookError, ModelError

NAME = "attnstats"
# What transformers passes on to some models, changes attention, and is not understood here.
REFUSED = ("head_mask", "cu_seq_lens_q")
CROSS = re.compile(
    r"EncDecAttention|encoder_attn|cross_?attn"
)  # what modules are called that look from one side at the other
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
        self.instead = plain.instead(model)
        if not isinstance(original, PreTrainedModel):
            without = "" if original is model else " without a transformers model in it"
            raise ModelError(
                f"source='streamed': got {type(model).__name__}{without}, expected a TransformerBridge made by "
                f"boot_transformers, or a transformers model; {self.instead}"
            )
        if getattr(original.config, "attention_chunk_size", None):
            raise ModelError(f"source='streamed': attention in chunks is not supported; {self.instead}")
        self.info, self.block_elements, self.most_rows = info, block_elements, MOST_ROWS
        AttentionInterface.register(NAME, _attention)
        AttentionMaskInterface.register(NAME, _mask)
        with _refusing(info.name, self.instead):
            self.model = twin(model, NAME)
        for name, module in self.model.named_modules():
            module._attnstats = (self, *_place(f".{name}.", info.stream))
        self.last_layer: int | None = max(info.layers)  # where to stop; None to go on to the end
        self._input: tuple[Batch, Scope, Consumer] | None = None
        self._seen: dict[int, int] = {}

    def run(self, batch: Batch, scope: Scope, consumer: Consumer) -> None:
        """One forward pass, as far as the last layer that is wanted."""
        given = {"input_ids": batch.input_ids, "attention_mask": batch.attention_mask}
        if batch.decoder is not None:
            given["decoder_input_ids"] = batch.decoder.input_ids
            given["decoder_attention_mask"] = batch.decoder.attention_mask
        with self.listening(batch, scope, consumer), suppress(_DoneError):
            self.model.base_model(**given, use_cache=False)  # nothing reads the logits
        for layer, times in self._seen.items():
            if not times:
                raise ModelError(
                    f"source='streamed': layer {layer} of {self.info.name} does not take its attention from "
                    f"transformers' attention interface; {self.instead}"
                )
            if times != 1:
                raise ModelError(
                    f"source='streamed': layer {layer} of {self.info.name} asked for attention {times} times in one "
                    f"forward pass, expected once; {self.instead}"
                )

    @contextmanager
    def listening(self, batch: Batch, scope: Scope, consumer: Consumer) -> Iterator[None]:
        """Hand the attention of forward passes of `self.model` on this batch to the consumer."""
        self._input, self._seen = (batch, scope, consumer), dict.fromkeys(self.info.layers, 0)
        self.model.eval()
        try:
            with torch.no_grad():
                yield
        finally:
            self._input = None

    def prove(self, model: Any, batch: Batch) -> None:
        """Compare with the patterns at the model's hooks, on a short batch. Raises `HookError` where they differ."""
        scope = self.info.scope(batch)
        expected: dict[int, Tensor] = {}
        if self.info.hooked:
            hooks.run(model, self.info, batch, lambda layer, pattern: expected.update({layer: pattern.float().clone()}))
        else:
            found = plain.patterns(model, batch.input_ids, batch.attention_mask)
            expected = {layer: pattern.float() for layer, pattern in found.items()}
        rows = scope.rows[:, None, :, None]

        def compare(block: AttentionBlock) -> None:
            here = slice(block.first_row, block.first_row + block.rows.shape[1])
            off = (block._pattern - expected[block.layer][:, :, here]).abs() * rows[:, :, here]
            if not off.max() <= TOLERANCE.get(self.model.dtype, 1e-4):
                raise HookError(
                    f"source='streamed': layer {block.layer} of {self.info.name} differs from its pattern hook by "
                    f"{off.max():.2g}; {self.instead}"
                )

        with _refusing(self.info.name, self.instead):
            self.run(batch, scope, Consumer((), lambda block: None, compare))

    def halve_rows(self, n_tokens: int) -> bool:
        """Go on with half as many rows in a block, after `n_tokens` of them; False after single ones."""
        self.most_rows = min(self.most_rows, n_tokens) // 2
        possible = self.most_rows > 0
        self.most_rows = max(1, self.most_rows)
        return possible

    def attend(self, stream: Stream, layer: int, given: Projections, dtype: torch.dtype) -> Tensor:
        """The output of a layer's attention; where it is of the stream that is looked at, its reductions handed on."""
        assert self._input is not None
        batch, scope, consumer = self._input
        looked_at = stream == self.info.stream
        collects = looked_at and layer in self._seen
        if collects:
            self._seen[layer] += 1
        compiled = kernel.available(given.query) and looked_at and given.bias is None
        if compiled and scope.causal and scope.null_rule != "special":
            size = {"block_elements": self.block_elements, "most_rows": self.most_rows}
            wanted, rows = (consumer.wanted, consumer.rows) if collects else ((), None)
            output, reduced = walk(given, scope, layer, wanted, on_rows=rows, **size)
            if collects:
                consumer.reduced(reduced)
        else:
            outputs = []
            for first, pattern in self._patterns(given, *self._reach(stream, batch)):
                outputs.append(given.mix(pattern, 0, pattern.shape[-1]))
                if collects:
                    block = AttentionBlock(pattern, scope, layer, first)
                    consumer.reduced(block)
                    if consumer.rows is not None:
                        consumer.rows(block)
            output = torch.cat(outputs, 2).transpose(1, 2)
        if looked_at and layer == self.last_layer:
            raise _DoneError
        return output.to(dtype).contiguous()  # some models view it in another shape

    def _reach(self, stream: Stream, batch: Batch) -> tuple[Tensor, bool]:
        """Which keys of a stream are tokens, and whether its queries reach only those up to their own place."""
        if stream == "decoder":
            assert batch.decoder is not None
            return batch.decoder.attention_mask.bool(), True
        return batch.attention_mask.bool(), stream == "self" and self.info.causal

    def _patterns(self, given: Projections, real: Tensor, causal: bool) -> Iterator[tuple[int, Tensor]]:
        """First row and pattern of block after block, as in textbooks: where there is no kernel for it."""
        n_batch, n_heads, n_queries, _ = given.query.shape
        n_keys = given.key.shape[2]
        n_rows = min(max(LEAST_ROWS, self.block_elements // (n_batch * n_heads * n_keys)), self.most_rows)
        queries, keys = (torch.arange(n, device=given.query.device) for n in (n_queries, n_keys))
        for first in range(0, n_queries, n_rows):
            rows = slice(first, first + n_rows)
            allowed, behind = real[:, None, None, :], queries[rows, None] - keys
            if causal:
                allowed = allowed & (behind >= 0)
            if given.window is not None:
                allowed = allowed & (behind.abs() < given.window)
            scores = given.scores(given.query[:, :, rows], 0, n_keys)
            if given.bias is not None:
                scores += given.bias[:, :, rows]
            scores.masked_fill_(~allowed, torch.finfo(scores.dtype).min)
            if given.sinks is not None:
                sinks = given.sinks[:, None, None].expand(*scores.shape[:3], 1)
                scores = torch.cat([scores, sinks], -1)
            yield first, scores.softmax(-1)[..., :n_keys]


def _place(module: str, stream: Stream) -> tuple[Stream, int]:
    """The stream that a module's attention belongs to, and its layer, as its name tells: .decoder.3.cross_attn."""
    number = re.search(r"\.(\d+)\.", module)
    if stream != "self":
        stream = "encoder" if ".decoder." not in module else "cross" if CROSS.search(module) else "decoder"
    return stream, int(number[1]) if number else -1


def source_of(model: Any, info: ModelInfo) -> str:
    """Which source `source="auto"` takes, found by trying, and why if it is not the streamed one."""
    framing = info.framing
    item = framing.tokenize(Sentence("The quick brown fox jumps over the lazy dog.", (), "trial"), truncate=True)
    try:
        check_no_hooks(model)
        Streamed(model, info).prove(model, info.with_decoder(Batch([item], device=info.device)))
    except (ModelError, HookError) as error:
        reason = str(error).removeprefix("source='streamed': ").removesuffix(f"; {plain.instead(model)}")
        return f"hooks: {reason}"
    return "streamed"


@contextmanager
def _refusing(name: str, instead: str) -> Iterator[None]:
    try:
        yield
    except AttnStatsError:
        raise
    except Exception as error:  # of every kind, in code that was written for attention of its own
        if out_of_memory(error):
            raise
        raise ModelError(
            f"source='streamed': {name} does not take its attention from transformers' attention interface "
            f"({type(error).__name__}: {error}); {instead}"
        ) from None


def check_no_hooks(model: Any) -> None:
    """Raise `ModelError` where somebody has hooks on the model, which this source would pass by."""
    if hooks.has_hooks(model):
        instead = INSTEAD if hasattr(model, "hook_dict") else "take them off"
        raise ModelError(f"source='streamed': the model has hooks, which this source would pass by; {instead}")


def _attention(
    module: Any, query: Tensor, key: Tensor, value: Tensor, attention_mask: Any, **kwargs: Any
) -> tuple[Tensor, None]:
    """The function that transformers calls in each layer, in the place of its own."""
    streamed, stream, layer = module._attnstats
    for name in REFUSED:
        if kwargs.get(name) is not None:
            raise ModelError(
                f"source='streamed': layer {layer} wants {name}, which is not supported; {streamed.instead}"
            )
    if stream != "cross" and key.shape[2] != query.shape[2]:
        raise ModelError(
            f"source='streamed': layer {layer} has {key.shape[2]} keys for {query.shape[2]} tokens, and what the "
            f"others stand for is not known; {streamed.instead}"
        )
    # transformers passes the window to the function, or only to the mask.
    window = kwargs.get("sliding_window") or getattr(attention_mask, "window", None)
    scaling, softcap, sinks = (kwargs.get(name) for name in ("scaling", "softcap", "s_aux"))
    given = Projections(
        query.float() * (query.shape[-1] ** -0.5 if scaling is None else scaling),
        key.float().contiguous(),
        value.float().contiguous(),
        window=window,
        softcap=softcap,
        sinks=None if sinks is None else sinks.float(),
        bias=kwargs.get("position_bias"),
    )
    return streamed.attend(stream, layer, given, query.dtype), None


class Reach:
    """What stands in for the mask of query by key: lengths and direction are known, only the window is not."""

    def __init__(self, window: int | None):
        self.window = window


def _mask(*args: Any, local_size: int | None = None, **kwargs: Any) -> Reach:
    return Reach(local_size)
