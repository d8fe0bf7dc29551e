"""Describe a model: its attention, the hooks where patterns appear, and the input it expects."""

from __future__ import annotations

import inspect
import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from typing import Any
from weakref import WeakKeyDictionary

import torch
import transformers
from torch import Tensor

from tl_attnstats.corpus.batches import Batch, Framing, check_tokenizer
from tl_attnstats.corpus.sentence import Sentence
from tl_attnstats.errors import HookError, ModelError
from tl_attnstats.models import bare, hooked
from tl_attnstats.models.configuration import heads_by_layer, number_of_heads, ranges, text_config, windows_by_layer
from tl_attnstats.models.framings import PROBE, decoder_framing_of, framing_around, framing_of_tokenizer
from tl_attnstats.models.options import STREAMS, NullRule, Stream, check_null_rule

# A bridge has encoder_blocks.0.attn and decoder_blocks.0.self_attn, a HookedEncoderDecoder encoder.0.attn.
PATTERN_HOOKS: Mapping[Stream, re.Pattern[str]] = {
    "self": re.compile(r"blocks\.(\d+)\.attn\.hook_pattern"),
    "encoder": re.compile(r"encoder(?:_blocks)?\.(\d+)\.(?:self_)?attn\.hook_pattern"),
    "decoder": re.compile(r"decoder(?:_blocks)?\.(\d+)\.(?:self_)?attn\.hook_pattern"),
    "cross": re.compile(r"decoder(?:_blocks)?\.(\d+)\.cross_attn\.hook_pattern"),
}
ATTENTION = {True: "causal", False: "bidirectional"}
MASK_ARGUMENTS = ("attention_mask", "one_zero_attention_mask")


@dataclass(frozen=True)
class ModelInfo:
    """One stream of a model's attention, and how to read it.

    A decoder or an encoder has one stream, "self". An encoder–decoder has three: the self-attention of its "encoder"
    and of its "decoder", and the "cross" attention of the decoder's tokens to the encoder's.
    """

    name: str
    stream: Stream
    hook_of_layer: dict[int, str]
    """Pattern hook of each layer with attention; "" for a transformers model, which has no hooks."""
    n_layers: int
    """Layers of the whole stack (model, encoder or decoder) up to the last one with attention, selected or not."""
    n_heads: int
    causal: bool
    windows: dict[int, int]
    """Sliding window, in keys, of each layer that has one."""
    sums_to_one: bool
    """Whether rows sum to 1. They sum to less if heads have a learned sink."""
    null: NullRule
    framing: Framing
    decoder_framing: Framing | None
    """Framing of the decoder's input in an encoder–decoder, which is the same text."""
    mask_argument: str
    """The model's name for the padding mask."""
    device: torch.device
    direction_note: str = ""
    """Set if the model's patterns contradict the direction that TransformerLens reports."""

    @property
    def layers(self) -> tuple[int, ...]:
        return tuple(self.hook_of_layer)

    @property
    def hooked(self) -> bool:
        """Whether patterns can be read at hooks."""
        return all(self.hook_of_layer.values())

    def value_hooks(self, layer: int) -> tuple[str, str]:
        """The hooks of a layer's values, and of their sums weighted by attention: `[batch, token, head, d_head]`."""
        attention = self.hook_of_layer[layer].removesuffix("hook_pattern")
        return f"{attention}hook_v", f"{attention}hook_z"

    @property
    def framings(self) -> tuple[Framing, Framing]:
        """The framings of queries and of keys."""
        decoder = self.decoder_framing or self.framing
        queries = decoder if self.stream in ("decoder", "cross") else self.framing
        return queries, decoder if self.stream == "decoder" else self.framing

    @property
    def reading(self) -> dict[str, str]:
        """For the provenance: special tokens around the text, and which text each side of an encoder–decoder reads."""
        queries, keys = (str(framing) for framing in self.framings)
        said = {"special_tokens": queries}
        if self.direction_note:
            said["direction"] = self.direction_note
        if self.stream in ("decoder", "cross"):
            said["decoder_input"] = "the sentence itself, as in training (teacher forcing)"
        if self.stream == "cross":
            said["key_special_tokens"] = keys
            said["sides"] = "queries are the decoder's tokens, keys the encoder's"
        return said

    def for_token_ids(self, model: Any, prepend_bos: bool) -> ModelInfo:
        """The same stream for sequences of token ids: nothing is added except BOS if `prepend_bos`."""
        is_plain = isinstance(model, transformers.PreTrainedModel)
        vocabulary = model.get_input_embeddings().num_embeddings if is_plain else model.cfg.d_vocab
        prefix = self.framing.prefix if prepend_bos else ()
        return replace(self, framing=replace(self.framing, prefix=prefix, suffix=(), vocabulary=vocabulary))

    def with_decoder(self, batch: Batch) -> Batch:
        """Add the decoder's input of an encoder–decoder: the same texts in the decoder's framing."""
        if self.decoder_framing is None:
            return batch
        again = [self.framing.reframe(item, self.decoder_framing) for item in batch.items]
        return replace(batch, decoder=Batch(again, batch.pad_id, batch.device))

    def arguments(self, batch: Batch) -> dict[str, Tensor]:
        """The arguments of the model's forward besides `batch.input_ids`: masks and the decoder's input."""
        given = {self.mask_argument: batch.attention_mask}
        if self.stream != "self":
            # A HookedEncoderDecoder needs decoder input too, although only its encoder is read.
            given["decoder_input"] = (batch.decoder or batch).input_ids
        if batch.decoder is not None:
            given["decoder_attention_mask"] = batch.decoder.attention_mask
        if batch.token_type_ids is not None:
            given["token_type_ids"] = batch.token_type_ids
        return given


def streams(model: Any) -> tuple[Stream, ...]:
    """The streams that can be read from a model: ("self",), or some of "encoder", "decoder", "cross".

    Raises:
        ModelError: `model` is not a model, or has no attention.
    """
    if isinstance(model, transformers.PreTrainedModel):
        bare.check_supported(model)
        return ("self",)
    check_hooked(model)
    bare.check_reads_text(type(getattr(model, "original_model", None)), _name(model))
    if _pattern_hooks(model, "self"):
        return ("self",)
    found = [stream for stream in STREAMS if _pattern_hooks(model, stream)]
    if not found:
        raise ModelError(f"model: {_why_no_hooks(model)}")
    if not _is_bridge(model):
        # TransformerLens 3 has one direction for both stacks, and no padding mask for the decoder.
        if model.cfg.attention_dir == "causal":
            raise ModelError(
                f"model: {_name(model)} is a {type(model).__name__} with attention_dir='causal', which masks its "
                f"encoder too; expected 'bidirectional', or a TransformerBridge"
            )
        return ("encoder",)
    return tuple(found)


def describe(
    model: Any,
    *,
    stream: str | None = None,
    tokenizer: Any = None,
    prepend_bos: bool | None = None,
    null: str = "auto",
    layers: Sequence[int] | None = None,
) -> ModelInfo:
    """Find out what a run needs to know about a model.

    Args:
        model: a TransformerLens model (`TransformerBridge`, `HookedTransformer`, `HookedEncoder`,
            `HookedEncoderDecoder`) or a transformers model.
        stream: the stream of an encoder–decoder: "encoder", "decoder" or "cross". Other models have only "self".
        tokenizer: required for a transformers model, which does not include one.
        prepend_bos: whether sequences start with BOS; None follows the model's `to_tokens`, or the tokenizer of a
            transformers model. Encoder–decoders always follow their tokenizer.
        null: rule for null keys; "auto" is the first position in causal models, else the special tokens.
        layers: the layers to read; None for all layers with attention.

    Raises:
        ModelError: `model` is not a model or has no attention layers, there is no fast tokenizer, the stream or a layer
            does not exist, or the model would give wrong patterns.
    """
    check_null_rule(null)
    chosen = _stream(model, stream)
    if isinstance(model, transformers.PreTrainedModel):
        framing = framing_of_tokenizer(tokenizer, bare.max_tokens(model, tokenizer), prepend_bos)
        heads, causal = bare.measure(model, framing)
        hook_of_layer = dict.fromkeys(heads, "")
        decoder_framing, mask_argument = None, "attention_mask"
    else:
        if tokenizer is not None:
            raise ModelError("tokenizer: only for a transformers model; a TransformerLens model has its own")
        hook_of_layer = _pattern_hooks(model, chosen)
        heads = heads_by_layer(model, chosen, hook_of_layer)
        causal = chosen == "decoder" or (chosen == "self" and model.cfg.attention_dir == "causal")
        mask_argument = _mask_argument(model, causal)
        framing, decoder_framing = _framings(model, chosen, prepend_bos)
    some = _some(hook_of_layer, layers)
    info = ModelInfo(
        name=_name(model),
        stream=chosen,
        hook_of_layer=some,
        n_layers=max(hook_of_layer) + 1,
        n_heads=number_of_heads(_name(model), {layer: heads[layer] for layer in some}),
        causal=causal,
        windows=windows_by_layer(model, chosen, hook_of_layer),
        sums_to_one=not any("sink" in name for module in model.modules() for name in module._parameters),
        null=_null_rule(null, causal),
        framing=framing,
        decoder_framing=decoder_framing,
        mask_argument=mask_argument,
        device=next(iter(model.parameters())).device,
    )
    measured = _measured_direction(model, info)
    if measured is None or measured == causal:
        return info
    said, shown = (ATTENTION[direction] for direction in (causal, measured))
    note = f"{shown}, as the model's patterns show; TransformerLens says {said}"
    return replace(info, causal=measured, null=_null_rule(null, measured), direction_note=note)


def probe(info: ModelInfo) -> Batch:
    """A batch with one short text, to try out a model."""
    item = info.framing.tokenize(Sentence("The quick brown fox jumps over the lazy dog.", (), "trial"), truncate=True)
    return info.with_decoder(Batch([item], device=info.device))


def _measured_direction(model: Any, info: ModelInfo) -> bool | None:
    """Whether attention is causal, judging by the patterns of a short text; None if they do not tell.

    Nothing is measured while the user has hooks on the model, because they may change patterns or expect other inputs.
    """
    if info.stream == "cross" or not info.hooked or hooked.has_hooks(model):
        return None
    known = _DIRECTIONS.setdefault(model, {})
    if (info.stream, info.causal) not in known:
        known[info.stream, info.causal] = _look_for_direction(model, info)
    return known[info.stream, info.causal]


_DIRECTIONS: WeakKeyDictionary[Any, dict[tuple[Stream, bool], bool | None]] = WeakKeyDictionary()
"""Cache by model, stream and the direction that TransformerLens reports; saves a forward pass per run."""


def _look_for_direction(model: Any, info: ModelInfo) -> bool | None:
    looks_ahead: list[bool] = []

    def look(layer: int, pattern: Tensor) -> None:
        looks_ahead.extend((pattern.triu(1).amax((0, 2, 3)) > 0).tolist())

    try:
        hooked.run(model, info, probe(info), look)
    except HookError:  # the first batch will raise it
        return None
    if any(looks_ahead) and (not all(looks_ahead) or (info.causal and not _looks_ahead_in_transformers(model, info))):
        return None  # if TransformerLens says causal, the checks on the first batch will refuse the model
    return not any(looks_ahead)


def _looks_ahead_in_transformers(model: Any, info: ModelInfo) -> bool:
    """Whether queries attend to later tokens in transformers' own eager attention too, not only in the bridge.

    The GPT-1 bridge drops the causal mask when it gets a padding mask.
    """
    batch = probe(info)
    try:
        found = bare.patterns(model, batch.input_ids, batch.attention_mask)
    except ModelError:
        return False
    return all(bool(pattern.triu(1).any()) for pattern in found.values())


def _null_rule(null: str, causal: bool) -> NullRule:
    if null == "auto":
        return "first" if causal else "special"
    return null  # type: ignore[return-value]  # checked by `describe`


def check_hooked(model: Any) -> None:
    """Raise `ModelError` unless the model has TransformerLens hooks."""
    if hasattr(model, "hook_dict") and hasattr(model, "cfg"):
        return
    if isinstance(model, str):
        raise ModelError(f"model: got the name {model!r}, expected a model; ta.load_model({model!r}) loads it")
    bridge = f"{bare.BRIDGE} makes one from a transformers model"
    if isinstance(model, transformers.PreTrainedModel):
        bare.check_reads_text(type(model), bare.name_of(model))
        bridge = bare.bridging(model)
    raise ModelError(f"model: got {type(model).__name__}, expected a TransformerLens model, which has hooks; {bridge}")


def _stream(model: Any, stream: str | None) -> Stream:
    """The requested stream, or the only one."""
    if stream is not None and stream not in STREAMS:
        raise ModelError(f"stream={stream!r}: expected one of {', '.join(STREAMS)}")
    offered = streams(model)
    if stream is None and offered == ("self",):
        return "self"
    if stream is None:
        raise ModelError(
            f"model: {_name(model)} is an encoder–decoder, which has several streams of attention; "
            f"choose one: stream={' or '.join(map(repr, offered))} (--stream)"
        )
    if stream in offered:
        return stream
    if stream in ("decoder", "cross") and offered == ("encoder",):
        raise ModelError(
            f"stream={stream!r}: the decoder of a {type(model).__name__} attends to later tokens and padding, unlike "
            f"the original model; use stream='encoder', or a TransformerBridge of TransformerLens 4"
        )
    raise ModelError(f"stream={stream!r}: expected {' or '.join(offered)} for {_name(model)}")


def _is_bridge(model: Any) -> bool:
    return hasattr(model, "original_model")


def _pattern_hooks(model: Any, stream: Stream) -> dict[int, str]:
    matches = ((PATTERN_HOOKS[stream].fullmatch(name), name) for name in model.hook_dict)
    return dict(sorted((int(match[1]), name) for match, name in matches if match))


def _why_no_hooks(model: Any) -> str:
    """Why a TransformerLens model has no known pattern hook, and what to do."""
    name, original = _name(model), getattr(model, "original_model", None)
    if bare.without_attention(text_config(model)):
        return f"{name} has no attention layers; expected a decoder or an encoder with attention"
    said = f"TransformerLens offers no hooks blocks.*.attn.hook_pattern for the attention of {name}"
    if bare.WITHOUT_PATTERN_HOOKS.get(type(original).__name__):
        return (
            f"{said}; pass the transformers model itself (reload it: bridging has changed it) and its tokenizer: "
            f"ta.collect(model, corpus, tokenizer=tokenizer)"
        )
    return f"{said}, so its attention cannot be read"


def _some(hook_of_layer: dict[int, str], layers: Sequence[int] | None) -> dict[int, str]:
    """The requested layers."""
    if layers is None:
        return hook_of_layer
    if not layers or set(layers) - set(hook_of_layer):
        raise ModelError(f"layers: got {list(layers)}, expected some of {ranges(list(hook_of_layer))}")
    return {layer: hook_of_layer[layer] for layer in sorted(set(layers))}


def _mask_argument(model: Any, causal: bool) -> str:
    accepted = inspect.signature(model.forward).parameters
    found = next((name for name in MASK_ARGUMENTS if name in accepted), None)
    if found is None:
        raise ModelError(f"model: forward of {type(model).__name__} accepts none of {', '.join(MASK_ARGUMENTS)}")
    if found == "attention_mask" and not causal and not _is_bridge(model):
        raise ModelError(
            f"model: {_name(model)} is a {type(model).__name__} with attention_dir='bidirectional', which ignores the "
            f"padding mask; expected a HookedEncoder or a TransformerBridge"
        )
    return found


def _framings(model: Any, stream: Stream, prepend_bos: bool | None) -> tuple[Framing, Framing | None]:
    """The framing of a TransformerLens model's input, and of its decoder's input if it is an encoder–decoder."""
    if stream == "self" and "prepend_bos" in inspect.signature(model.to_tokens).parameters:
        tokenizer = model.tokenizer
        check_tokenizer(tokenizer)
        framed = model.to_tokens(PROBE, prepend_bos=prepend_bos)[0].tolist()
        return framing_around(tokenizer, framed, model.cfg.n_ctx), None
    if prepend_bos is not None:
        raise ModelError(
            f"prepend_bos={prepend_bos}: {_name(model)} always follows its tokenizer; leave prepend_bos out"
        )
    encoder = framing_of_tokenizer(model.tokenizer, model.cfg.n_ctx, None)
    if stream == "self" or not _is_bridge(model):
        return encoder, None
    decoder = decoder_framing_of(model.original_model, encoder)
    # Encoder and decoder read the same text tokens, so the smaller limit holds for both.
    room = min(room for room in (encoder.room, decoder.room) if room is not None)
    n_special = len(encoder.prefix) + len(encoder.suffix)
    return Framing(encoder.tokenizer, encoder.prefix, encoder.suffix, room + n_special), decoder


def _name(model: Any) -> str:
    if isinstance(model, transformers.PreTrainedModel):
        return bare.name_of(model)
    return str(getattr(model.cfg, "model_name", None) or type(model).__name__)
