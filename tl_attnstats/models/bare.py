"""transformers models without a bridge: their attention is measured on a short text."""

from __future__ import annotations

import re
from collections.abc import Callable
from contextlib import ExitStack
from pathlib import Path
from typing import Any, NamedTuple

import torch
import transformers
from torch import Tensor

from tl_attnstats.corpus.batches import Framing
from tl_attnstats.errors import ModelError
from tl_attnstats.models.configuration import of_layer
from tl_attnstats.models.twin import twin

BRIDGE = "TransformerBridge.boot_transformers(name, hf_model=model, tokenizer=tokenizer)"
INSTEAD = "use source='hooks' (--source hooks)"
# Bridges of TransformerLens 4.3 without pattern hooks, and whether the transformers model itself can be read. All are
# in the tests' matrix of architectures.
WITHOUT_PATTERN_HOOKS = {
    "DeepseekV4ForCausalLM": False,
    "Gemma3nForConditionalGeneration": True,
    "HrmTextForCausalLM": False,
    "NemotronHForCausalLM": True,
    "RecurrentGemmaForCausalLM": True,
    "Zamba2ForCausalLM": True,
}
LAYER = re.compile(r"\.(\d+)\.")


class Measured(NamedTuple):
    """The attention that a model was seen to compute."""

    heads: dict[int, int]
    """Number of heads of each layer with attention."""
    causal: bool


def check_reads_text(model_class: Any, name: str) -> None:
    """Raise `ModelError` for models that read sound or images."""
    takes = getattr(model_class, "main_input_name", "input_ids")
    if takes != "input_ids":
        kind = {"pixel_values": "images", "input_values": "sound", "input_features": "sound"}.get(takes, "other data")
        raise ModelError(
            f"model: {name} reads {kind} (its input is {takes}), but statistics need text; expected a model whose "
            f"input is text (input_ids)"
        )


def check_supported(model: Any) -> None:
    """Raise `ModelError` for models that do not read text, or need a bridge's hooks."""
    check_reads_text(type(model), name_of(model))
    if model.config.is_encoder_decoder:
        raise ModelError(
            f"model: {type(model).__name__} is an encoder–decoder of transformers, and only a bridge separates "
            f"encoder, decoder and cross-attention; {bridging(model)}"
        )


def without_attention(config: Any) -> bool:
    """Whether a configuration describes a model without attention, such as Mamba."""
    return not any(getattr(of_layer(config, 0), name, None) for name in ("num_attention_heads", "n_heads"))


def bridging(model: Any) -> str:
    """Advice on how to bridge a transformers model, or why that does not help."""
    name = type(model).__name__
    if without_attention(model.config.get_text_config()):
        return f"{name} has no attention layers"
    if name in WITHOUT_PATTERN_HOOKS:
        said = f"TransformerLens has a bridge for {name}, but without hooks for attention patterns"
        return f"{said}; use source='streamed', which needs none" if WITHOUT_PATTERN_HOOKS[name] else said
    if model.base_model is model and (with_head := _with_head(model)):
        return f"load it with its head ({with_head}), without which there is no bridge, then bridge it: {BRIDGE}"
    if not _has_bridge(name):
        return f"TransformerLens has no bridge for {name} either, so its attention cannot be read"
    return f"bridge it: {BRIDGE}"


def instead(model: Any) -> str:
    """Advice for a model that cannot be streamed."""
    if hasattr(model, "hook_dict"):
        return INSTEAD
    if type(model).__name__ in WITHOUT_PATTERN_HOOKS:
        return "TransformerLens has no pattern hooks for it either, so its attention cannot be read"
    return bridging(model)


def _has_bridge(architecture: str) -> bool:
    try:
        from transformer_lens.factories.architecture_adapter_factory import SUPPORTED_ARCHITECTURES
    except ImportError:  # an older TransformerLens does not list them
        return True
    return architecture in SUPPORTED_ARCHITECTURES


def _with_head(model: Any) -> str | None:
    """The Auto class that loads a language model with its head, if the result can be bridged."""
    known = transformers.models.auto.modeling_auto
    autos = {
        "AutoModelForSeq2SeqLM": known.MODEL_FOR_SEQ_TO_SEQ_CAUSAL_LM_MAPPING_NAMES,
        "AutoModelForMaskedLM": known.MODEL_FOR_MASKED_LM_MAPPING_NAMES,
        "AutoModelForCausalLM": known.MODEL_FOR_CAUSAL_LM_MAPPING_NAMES,
    }
    kind = model.config.model_type
    return next((auto for auto, classes in autos.items() if kind in classes and _has_bridge(classes[kind])), None)


def max_tokens(model: Any, tokenizer: Any) -> int | None:
    """Maximum input length; None if unlimited. Raises `ModelError` without a tokenizer."""
    if tokenizer is None:
        raise ModelError(
            f"tokenizer: got none, but {type(model).__name__} is a transformers model, which does not include one; "
            f"pass tokenizer=AutoTokenizer.from_pretrained(…), or a TransformerLens model ({BRIDGE})"
        )
    limit = getattr(model.config.get_text_config(), "max_position_embeddings", None)
    if limit is None or limit < 0:  # XLNet says -1
        return None
    # Some models (RoBERTa) do not use all positions for tokens; the tokenizer knows the limit.
    return int(min(limit, tokenizer.model_max_length))


def measure(model: Any, framing: Framing) -> Measured:
    """Measure layers, heads and direction on the patterns of a few tokens."""
    ids = torch.tensor([framing.tokenizer("one two three four", add_special_tokens=False)["input_ids"]])
    found = patterns(model, ids.to(model.device), torch.ones_like(ids).to(model.device))
    heads = {layer: pattern.shape[1] for layer, pattern in found.items()}
    return Measured(heads, all(not pattern.triu(1).any() for pattern in found.values()))


def patterns(model: Any, input_ids: Tensor, attention_mask: Tensor) -> dict[int, Tensor]:
    """The pattern `[batch, head, query, key]` of each layer with attention, as transformers computes it.

    Attention modules return it beside their output.

    Raises:
        ModelError: no layer returns a pattern, some attention layer does not, or a layer returns several.
    """
    found: dict[int, Tensor] = {}
    ran, again = set[int](), set[int]()
    n_tokens = input_ids.shape[1]

    def keep(layer: int) -> Callable[..., None]:
        def hook(module: Any, args: Any, output: Any) -> None:
            ran.add(layer)
            others = output[1:] if isinstance(output, tuple | list) else ()
            for given in others:
                # An enclosing module may return the same tensor again.
                if is_pattern(given, n_tokens) and found.setdefault(layer, given) is not given:
                    again.add(layer)

        return hook

    try:
        body = twin(model, "eager").eval().base_model
        attention = [
            (int(number[1]), module)
            for name, module in body.named_modules()
            if "Attention" in type(module).__name__ and (number := LAYER.search(f".{name}."))
        ]
        with ExitStack() as stack, torch.no_grad():
            for layer, module in attention:
                stack.callback(module.register_forward_hook(keep(layer)).remove)
            body(input_ids=input_ids, attention_mask=attention_mask, output_attentions=True, use_cache=False)
    except ModelError:
        raise
    except Exception as error:  # models raise errors of any kind
        raise ModelError(
            f"model: {type(model).__name__} does not give its attention (output_attentions=True: "
            f"{type(error).__name__}: {error}); {instead(model)}"
        ) from None
    silent = sorted(ran - set(found))
    if not ran or (not found and without_attention(model.config.get_text_config())):
        raise ModelError(f"model: {type(model).__name__} has no attention layers; expected a decoder or an encoder")
    if silent:
        raise ModelError(
            f"model: {type(model).__name__} does not give the attention of layer {silent[0]} as [batch, head, query, "
            f"key] over its tokens; {instead(model)}"
        )
    if again:
        raise ModelError(
            f"model: {type(model).__name__} goes through layer {min(again)} several times in one forward pass, with "
            f"different attention, but statistics need one pattern per layer; it cannot be read"
        )
    return dict(sorted(found.items()))


def is_pattern(given: Any, n_tokens: int) -> bool:
    """Whether an output is attention over `n_tokens` tokens (and not a position bias)."""
    if not isinstance(given, Tensor) or given.ndim != 4 or given.shape[2:] != (n_tokens, n_tokens):
        return False
    return bool(given.min() >= 0 and given.sum(-1).max() < 1.1)  # half-precision rows sum to 1 ± 0.003


def name_of(model: Any) -> str:
    """The hub name or directory name, or the class name for a model built from a configuration."""
    name = str(model.config.name_or_path)
    return (Path(name).name if Path(name).exists() else name) if name else type(model).__name__
