"""What a model offers: which attention it has, where its patterns come out, and how it wants its input."""

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
    """One stream of attention of a model, seen from here.

    A decoder or an encoder has one stream, "self". An encoder–decoder has three: the self-attention of its "encoder"
    and of its "decoder", and the "cross" attention of the decoder's tokens to the encoder's.
    """

    name: str
    stream: Stream
    hook_of_layer: dict[int, str]
    """Layers that have attention, and the hook their pattern fires; "" in a transformers model, which has no hooks."""
    n_layers: int
    """Of the whole stack (model, encoder or decoder), up to its last layer with attention, whichever are looked at."""
    n_heads: int
    causal: bool
    windows: dict[int, int]
    """Layers whose queries look back on so many keys only, as configured."""
    sums_to_one: bool
    """Whether rows are probabilities; where a head has a sink of its own, they sum to less."""
    null: NullRule
    framing: Framing
    decoder_framing: Framing | None
    """How the decoder of an encoder–decoder reads the sentence again."""
    mask_argument: str
    """What the model calls the mask of padding."""
    device: torch.device
    direction_note: str = ""
    """What TransformerLens says of the direction, where the model's patterns show another."""

    @property
    def layers(self) -> tuple[int, ...]:
        return tuple(self.hook_of_layer)

    @property
    def hooked(self) -> bool:
        """Whether patterns come out at hooks."""
        return all(self.hook_of_layer.values())

    @property
    def framings(self) -> tuple[Framing, Framing]:
        """How the tokens that look are framed, and those that are looked at."""
        decoder = self.decoder_framing or self.framing
        queries = decoder if self.stream in ("decoder", "cross") else self.framing
        return queries, decoder if self.stream == "decoder" else self.framing

    @property
    def reading(self) -> dict[str, str]:
        """For the provenance: the special tokens around a text, and which texts they are where there are two."""
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
        """The same for sequences of token ids, around which nothing is put but, if asked for, BOS before them."""
        is_plain = isinstance(model, transformers.PreTrainedModel)
        vocabulary = model.get_input_embeddings().num_embeddings if is_plain else model.cfg.d_vocab
        prefix = self.framing.prefix if prepend_bos else ()
        return replace(self, framing=replace(self.framing, prefix=prefix, suffix=(), vocabulary=vocabulary))

    def with_decoder(self, batch: Batch) -> Batch:
        """The batch with what the decoder of an encoder–decoder reads: the same texts, as they are framed for it."""
        if self.decoder_framing is None:
            return batch
        again = [self.framing.reframe(item, self.decoder_framing) for item in batch.items]
        return replace(batch, decoder=Batch(again, batch.pad_id, batch.device))

    def arguments(self, batch: Batch) -> dict[str, Tensor]:
        """What the model's forward takes besides `batch.input_ids`: masks, and what the decoder reads."""
        given = {self.mask_argument: batch.attention_mask}
        if self.stream != "self":
            # A HookedEncoderDecoder offers its encoder alone, which does not depend on what the decoder reads.
            given["decoder_input"] = (batch.decoder or batch).input_ids
        if batch.decoder is not None:
            given["decoder_attention_mask"] = batch.decoder.attention_mask
        return given


def streams(model: Any) -> tuple[Stream, ...]:
    """The streams of attention that can be read of a model: ("self",), or of "encoder", "decoder", "cross".

    Raises:
        ModelError: what is not a model, and a model without attention.
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
        # TransformerLens 3: one direction for all its attention, and no mask for what the decoder reads.
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
    """Read off a model what a run needs to know of it.

    Args:
        model: a model of TransformerLens (`TransformerBridge`, `HookedTransformer`, `HookedEncoder`,
            `HookedEncoderDecoder`), or of transformers.
        stream: which attention of an encoder–decoder: "encoder", "decoder" or "cross". Others have one, "self".
        tokenizer: for a transformers model, which comes without one.
        prepend_bos: whether sequences start with the BOS token; None does what the model's `to_tokens` does, or the
            tokenizer of a transformers model. An encoder–decoder reads what its tokenizer makes of a text.
        null: rule for the null set; "auto" takes the first position where attention is causal, else special tokens.
        layers: the layers to look at; None for all that have attention.

    Raises:
        ModelError: not a model, no attention layers, no fast tokenizer, a stream or layer that is not there, or a
            model that would not give what it should.
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
            raise ModelError("tokenizer: it goes with a transformers model; a TransformerLens model has its own")
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
    """A short text as a batch, to try a model on."""
    item = info.framing.tokenize(Sentence("The quick brown fox jumps over the lazy dog.", (), "trial"), truncate=True)
    return info.with_decoder(Batch([item], device=info.device))


def _measured_direction(model: Any, info: ModelInfo) -> bool | None:
    """Whether attention is causal, by the patterns of a short text; None where they do not tell.

    A hook of the user's may change patterns, or be meant for other inputs: nothing is measured under it.
    """
    if info.stream == "cross" or not info.hooked or hooked.has_hooks(model):
        return None
    known = _DIRECTIONS.setdefault(model, {})
    if (info.stream, info.causal) not in known:
        known[info.stream, info.causal] = _look_for_direction(model, info)
    return known[info.stream, info.causal]


_DIRECTIONS: WeakKeyDictionary[Any, dict[tuple[Stream, bool], bool | None]] = WeakKeyDictionary()
"""What was measured, by model, stream, and the direction that TransformerLens says: a pass that each run would make."""


def _look_for_direction(model: Any, info: ModelInfo) -> bool | None:
    looks_ahead: list[bool] = []

    def look(layer: int, pattern: Tensor) -> None:
        looks_ahead.extend((pattern.triu(1).amax((0, 2, 3)) > 0).tolist())

    try:
        hooked.run(model, info, probe(info), look)
    except HookError:  # the first batch will say so
        return None
    if any(looks_ahead) and (not all(looks_ahead) or (info.causal and not _looks_ahead_in_transformers(model, info))):
        return None  # the checks on the first batch refuse it, unless TransformerLens says that it may
    return not any(looks_ahead)


def _looks_ahead_in_transformers(model: Any, info: ModelInfo) -> bool:
    """Whether queries attend to later tokens in transformers' own eager attention too, and not only in a bridge.

    Given a mask of padding, the bridge of GPT-1 leaves out the causal mask.
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
    """Raise `ModelError` unless a model has the hooks of TransformerLens."""
    if hasattr(model, "hook_dict") and hasattr(model, "cfg"):
        return
    if isinstance(model, str):
        raise ModelError(f"model: got the name {model!r}, expected a model; ta.load_model({model!r}) loads it")
    bridge = f"{bare.BRIDGE} makes one of a transformers model"
    if isinstance(model, transformers.PreTrainedModel):
        bare.check_reads_text(type(model), bare.name_of(model))
        bridge = bare.bridging(model)
    raise ModelError(f"model: got {type(model).__name__}, expected a TransformerLens model, which has hooks; {bridge}")


def _stream(model: Any, stream: str | None) -> Stream:
    """The stream asked for, or the only one."""
    if stream is not None and stream not in STREAMS:
        raise ModelError(f"stream={stream!r}: expected one of {', '.join(STREAMS)}")
    offered = streams(model)
    if stream is None and offered == ("self",):
        return "self"
    if stream is None:
        raise ModelError(
            f"model: {_name(model)} is an encoder–decoder, with more than one attention; "
            f"choose one: stream={' or '.join(map(repr, offered))} (--stream)"
        )
    if stream in offered:
        return stream
    if stream in ("decoder", "cross") and offered == ("encoder",):
        raise ModelError(
            f"stream={stream!r}: the decoder of a {type(model).__name__} looks at later tokens and at padding, which "
            f"the model it was made of does not; use stream='encoder', or a TransformerBridge of TransformerLens 4"
        )
    raise ModelError(f"stream={stream!r}: expected {' or '.join(offered)}, which is what {_name(model)} has")


def _is_bridge(model: Any) -> bool:
    return hasattr(model, "original_model")


def _pattern_hooks(model: Any, stream: Stream) -> dict[int, str]:
    matches = ((PATTERN_HOOKS[stream].fullmatch(name), name) for name in model.hook_dict)
    return dict(sorted((int(match[1]), name) for match, name in matches if match))


def _why_no_hooks(model: Any) -> str:
    """What to say of a TransformerLens model without a pattern hook that is known here."""
    name, original = _name(model), getattr(model, "original_model", None)
    if bare.without_attention(text_config(model)):
        return f"{name} has no attention layers; expected a decoder or an encoder with attention"
    said = f"TransformerLens offers no hooks blocks.*.attn.hook_pattern for the attention of {name}"
    if bare.WITHOUT_PATTERN_HOOKS.get(type(original).__name__):
        return (
            f"{said}; pass the transformers model itself (load it anew: bridging has changed it) and its tokenizer: "
            f"ta.collect(model, corpus, tokenizer=tokenizer)"
        )
    return f"{said}, so its attention cannot be read"


def _some(hook_of_layer: dict[int, str], layers: Sequence[int] | None) -> dict[int, str]:
    """The layers asked for."""
    if layers is None:
        return hook_of_layer
    if not layers or set(layers) - set(hook_of_layer):
        raise ModelError(f"layers: got {list(layers)}, expected some of {ranges(list(hook_of_layer))}")
    return {layer: hook_of_layer[layer] for layer in sorted(set(layers))}


def _mask_argument(model: Any, causal: bool) -> str:
    accepted = inspect.signature(model.forward).parameters
    found = next((name for name in MASK_ARGUMENTS if name in accepted), None)
    if found is None:
        raise ModelError(f"model: the forward of {type(model).__name__} takes none of {', '.join(MASK_ARGUMENTS)}")
    if found == "attention_mask" and not causal and not _is_bridge(model):
        raise ModelError(
            f"model: {_name(model)} is a {type(model).__name__} with attention_dir='bidirectional', which ignores the "
            f"mask of padding; expected a HookedEncoder or a TransformerBridge"
        )
    return found


def _framings(model: Any, stream: Stream, prepend_bos: bool | None) -> tuple[Framing, Framing | None]:
    """How a TransformerLens model reads a text, and how its decoder reads it again if it is an encoder–decoder."""
    if stream == "self" and "prepend_bos" in inspect.signature(model.to_tokens).parameters:
        tokenizer = model.tokenizer
        check_tokenizer(tokenizer)
        framed = model.to_tokens(PROBE, prepend_bos=prepend_bos)[0].tolist()
        return framing_around(tokenizer, framed, model.cfg.n_ctx), None
    if prepend_bos is not None:
        raise ModelError(
            f"prepend_bos={prepend_bos}: {_name(model)} reads what its tokenizer makes of a text; leave prepend_bos out"
        )
    encoder = framing_of_tokenizer(model.tokenizer, model.cfg.n_ctx, None)
    if stream == "self" or not _is_bridge(model):
        return encoder, None
    decoder = decoder_framing_of(model.original_model, encoder)
    # Both read the same tokens of the text, so that one limit holds for both.
    room = min(room for room in (encoder.room, decoder.room) if room is not None)
    n_special = len(encoder.prefix) + len(encoder.suffix)
    return Framing(encoder.tokenizer, encoder.prefix, encoder.suffix, room + n_special), decoder


def _name(model: Any) -> str:
    if isinstance(model, transformers.PreTrainedModel):
        return bare.name_of(model)
    return str(getattr(model.cfg, "model_name", None) or type(model).__name__)
