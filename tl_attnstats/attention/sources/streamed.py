"""Attention in blocks of rows, through transformers' attention interface: no whole pattern is ever in memory."""

from __future__ import annotations

import re
from collections.abc import Callable, Iterator
from contextlib import contextmanager, suppress
from typing import Any

import torch
from einops import rearrange
from torch import Tensor
from transformers import AttentionInterface, AttentionMaskInterface, PreTrainedModel

from tl_attnstats.attention.kernels import cuda, kernel_for
from tl_attnstats.attention.kernels.projections import BLOCK_ELEMENTS, MOST_ROWS, NOBODY, Consumer, Job, Projections
from tl_attnstats.attention.memory import out_of_memory
from tl_attnstats.attention.reach import Reach, Rule
from tl_attnstats.attention.reductions import Reductions
from tl_attnstats.attention.scope import Scope, scope_of
from tl_attnstats.corpus.batches import Batch
from tl_attnstats.errors import AttnStatsError, ModelError
from tl_attnstats.models import bare
from tl_attnstats.models.describe import ModelInfo
from tl_attnstats.models.options import Stream
from tl_attnstats.models.twin import twin

NAME = "attnstats"
# Arguments that change attention and are not supported.
REFUSED = ("head_mask", "cu_seq_lens_q")
# Names of cross-attention modules.
CROSS = re.compile(r"EncDecAttention|encoder_attn|cross_?attn")


class _DoneError(Exception):
    """Raised in the last wanted layer, to skip the rest of the forward pass."""


class StreamedSource:
    """Reads attention in blocks of rows from a twin that shares the model's weights; the user's model is not touched.

    Args:
        model: a `TransformerBridge`, or a transformers model.
        info: what `describe` says of it.

    Raises:
        ModelError: if the model cannot be read this way; says why.
    """

    name = "streamed"

    def __init__(self, model: Any, info: ModelInfo):
        original = getattr(model, "original_model", model)
        self.instead = bare.instead(model)
        if not isinstance(original, PreTrainedModel):
            without = "" if original is model else " without a transformers model in it"
            raise ModelError(
                f"source='streamed': got {type(model).__name__}{without}, expected a TransformerBridge made by "
                f"boot_transformers, or a transformers model; {self.instead}"
            )
        self.info, self.block_elements, self.most_rows = info, BLOCK_ELEMENTS, MOST_ROWS
        self.reads_masks = True  # until a layer asks for attention without a mask made by transformers
        AttentionInterface.register(NAME, _attention)
        AttentionMaskInterface.register(NAME, _mask)
        with _refusing(info.name, self.instead):
            self.model = twin(model, NAME)
        for name, module in self.model.named_modules():
            module._attnstats = (self, *_place(f".{name}.", info.stream))
        self.last_layer: int | None = max(info.layers)  # stop after it; None: run to the end
        self._input: tuple[Batch, Scope, Consumer] | None = None
        self._seen: dict[int, int] = {}

    def read(self, batch: Batch, scope: Scope, consumer: Consumer) -> None:
        """Run one forward pass, up to the last wanted layer."""
        given = {"input_ids": batch.input_ids, "attention_mask": batch.attention_mask}
        if batch.decoder is not None:
            given["decoder_input_ids"] = batch.decoder.input_ids
            given["decoder_attention_mask"] = batch.decoder.attention_mask
        with self.listening(batch, scope, consumer), suppress(_DoneError):
            self.model.base_model(**given, use_cache=False)  # no logits needed
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
        """While this is active, forward passes of `self.model` hand their attention to the consumer."""
        self._input, self._seen = (batch, scope, consumer), dict.fromkeys(self.info.layers, 0)
        self.model.eval()
        try:
            with torch.no_grad():
                yield
        finally:
            self._input = None

    def patterns(self, batch: Batch, on_rows: Callable[[int, Tensor, int], None]) -> None:
        """Hand out the pattern of each layer, in blocks of rows: `on_rows(layer, pattern, first_row)`.

        Raises:
            ModelError: where the model cannot be read this way, with the reason.
        """

        def rows(block: Reductions) -> None:
            assert block.pattern is not None
            on_rows(block.layer, block.pattern, block.first_row)

        with _refusing(self.info.name, self.instead):
            self.read(batch, scope_of(self.info, batch), Consumer((), lambda block: None, rows))

    def halve_rows(self, n_tokens: int) -> bool:
        """Halve the rows of a block, for sequences of `n_tokens`. Returns False if blocks are single rows already."""
        self.most_rows = min(self.most_rows, n_tokens) // 2
        possible = self.most_rows > 0
        self.most_rows = max(1, self.most_rows)
        return possible

    def attend(
        self,
        stream: Stream,
        layer: int,
        given: Projections,
        reach: Reach | None,
        window: int | None,
        dtype: torch.dtype,
    ) -> Tensor:
        """Compute the output of a layer's attention, and hand out its reductions if the layer is in this run's stream.

        Args:
            stream: the stream that the layer's attention belongs to.
            layer: the layer's number.
            given: queries, keys and values.
            reach: which keys each query reaches, by the model's own mask; None if it passes no mask.
            window: without `reach`, the number of keys a query reaches back, including its own; None for all.
            dtype: of the output.
        """
        assert self._input is not None
        batch, scope, consumer = self._input
        looked_at = stream == self.info.stream
        collects = looked_at and layer in self._seen
        if collects:
            self._seen[layer] += 1
        # Layers may be on several devices.
        real_keys, causal = self._real_keys(stream, batch.on(given.query.device))
        if reach is None:
            self.reads_masks = False
            reach = Reach(_believed(causal, window), window)
        job = Job(
            given,
            reach,
            real_keys,
            scope.on(given.query.device) if looked_at else None,
            layer,
            consumer if collects else NOBODY,
            self.block_elements,
            self.most_rows,
        )
        output = kernel_for(job).attend(job)
        if collects and consumer.values is not None:
            mixed = rearrange(output, "batch query head d -> batch head query d")
            consumer.values(scope, layer, given.value, mixed)
        if looked_at and layer == self.last_layer:
            raise _DoneError
        return output.to(dtype).contiguous()  # some models view it in another shape

    def _real_keys(self, stream: Stream, batch: Batch) -> tuple[Tensor, bool]:
        """Which keys of a stream are tokens, not padding; and whether its attention should be causal."""
        if stream == "decoder":
            assert batch.decoder is not None
            return batch.decoder.attention_mask.bool(), True
        return batch.attention_mask.bool(), stream == "self" and self.info.causal


def _place(module: str, stream: Stream) -> tuple[Stream, int]:
    """The stream and layer of a module, read from its name, such as .decoder.3.cross_attn."""
    number = re.search(r"\.(\d+)\.", module)
    if stream != "self":
        stream = "encoder" if ".decoder." not in module else "cross" if CROSS.search(module) else "decoder"
    return stream, int(number[1]) if number else -1


@contextmanager
def _refusing(name: str, instead: str) -> Iterator[None]:
    try:
        yield
    except AttnStatsError:
        raise
    except Exception as error:  # of any kind, from code written for other attention functions
        if out_of_memory(error):
            raise
        raise ModelError(
            f"source='streamed': {name} does not take its attention from transformers' attention interface "
            f"({type(error).__name__}: {error}); {instead}"
        ) from None


def _attention(
    module: Any, query: Tensor, key: Tensor, value: Tensor, attention_mask: Any, **kwargs: Any
) -> tuple[Tensor, None]:
    """The function that transformers calls in each layer instead of its own attention."""
    streamed, stream, layer = module._attnstats
    for name in REFUSED:
        if kwargs.get(name) is not None:
            raise ModelError(
                f"source='streamed': layer {layer} wants {name}, which is not supported; {streamed.instead}"
            )
    if stream != "cross" and key.shape[2] != query.shape[2]:
        raise ModelError(
            f"source='streamed': layer {layer} has {key.shape[2]} keys for {query.shape[2]} tokens, and "
            f"the others are unknown; {streamed.instead}"
        )
    scaling, softcap, sinks = (kwargs.get(name) for name in ("scaling", "softcap", "s_aux"))
    scale = query.shape[-1] ** -0.5 if scaling is None else scaling
    dtype = query.dtype
    if query.device.type not in cuda.DEVICES:  # only the kernel for GPUs multiplies half precision
        query, key, value, scale = query.float() * scale, key.float(), value.float(), 1
    given = Projections(
        query,
        key.contiguous(),
        value.contiguous(),
        softcap=softcap,
        sinks=None if sinks is None else sinks.float(),
        bias=kwargs.get("position_bias"),
        scale=scale,
    )
    reach = attention_mask if isinstance(attention_mask, Reach) else None
    return streamed.attend(stream, layer, given, reach, kwargs.get("sliding_window"), dtype), None


def _mask(*args: Any, mask_function: Rule, local_size: int | None = None, **kwargs: Any) -> Reach:
    """The function that transformers calls to make a mask instead of its own."""
    return Reach(mask_function, local_size)


def _believed(causal: bool, window: int | None) -> Rule:
    """The rule for a model that passes no mask: its direction and its window, if any."""

    def rule(batch: Tensor, head: Tensor, query: Tensor, key: Tensor) -> Tensor:
        behind = query - key
        reached = behind >= 0 if causal else behind == behind
        return reached if window is None else reached & (behind.abs() < window)

    return rule
