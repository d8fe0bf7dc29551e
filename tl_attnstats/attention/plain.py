"""Models of transformers that are not bridged: what they offer is measured on a short text."""

from __future__ import annotations

from pathlib import Path
from typing import Any, NamedTuple

import torch
from torch import Tensor

from tl_attnstats.attention.twin import twin
from tl_attnstats.corpus.batches import Framing
from tl_attnstats.errors import ModelError

BRIDGE = "TransformerBridge.boot_transformers(name, hf_model=model, tokenizer=tokenizer)"


class Measured(NamedTuple):
    """Attention as a model computes it."""

    n_layers: int
    n_heads: int
    causal: bool


def check_supported(model: Any) -> None:
    """Raise `ModelError` for models that need the hooks of a bridge."""
    if model.config.is_encoder_decoder:
        raise ModelError(
            f"model: {type(model).__name__} is an encoder–decoder of transformers, whose streams are known of bridges "
            f"alone; make a bridge of it: {BRIDGE}"
        )


def is_bare_encoder(model: Any) -> bool:
    """Whether a model is the body of an encoder, without any head."""
    return model.base_model is model and not (model.config.is_encoder_decoder or model.can_generate())


def max_tokens(model: Any, tokenizer: Any) -> int | None:
    """The longest input; None for any. Raises `ModelError` where there is no tokenizer."""
    if tokenizer is None:
        raise ModelError(
            f"tokenizer: got none, and {type(model).__name__} is a transformers model, which comes without; "
            f"pass tokenizer=AutoTokenizer.from_pretrained(…), or a TransformerLens model ({BRIDGE})"
        )
    limit = getattr(model.config.get_text_config(), "max_position_embeddings", None)
    # Not all positions are for tokens in some models (RoBERTa): their tokenizers know.
    return None if limit is None else min(limit, tokenizer.model_max_length)


def measure(model: Any, framing: Framing) -> Measured:
    """Layers, heads and direction, from the patterns of a few tokens."""
    ids = torch.tensor([framing.tokenizer("one two three four", add_special_tokens=False)["input_ids"]])
    found = patterns(model, ids.to(model.device), torch.ones_like(ids).to(model.device))
    n_layers, heads = model.config.get_text_config().num_hidden_layers, {pattern.shape[1] for pattern in found}
    if len(found) != n_layers or len(heads) != 1:
        raise ModelError(
            f"model: of the {n_layers} layers of {type(model).__name__} transformers gives the attention of "
            f"{len(found)}, with {', '.join(map(str, sorted(heads)))} heads, expected one and the same for each; "
            f"make a bridge of it: {BRIDGE}"
        )
    return Measured(n_layers, heads.pop(), all(not pattern.triu(1).any() for pattern in found))


def patterns(model: Any, input_ids: Tensor, attention_mask: Tensor) -> list[Tensor]:
    """The attention `[batch, head, query, key]` of each layer, as transformers computes it."""
    try:
        body = twin(model, "eager").eval().base_model
        with torch.no_grad():
            given = body(input_ids=input_ids, attention_mask=attention_mask, output_attentions=True, use_cache=False)
        found = [pattern for pattern in given.attentions or () if pattern is not None]
    except ModelError:
        raise
    except Exception as error:  # of every kind, in models of every kind
        raise ModelError(
            f"model: {type(model).__name__} does not give its attention (output_attentions=True: "
            f"{type(error).__name__}: {error}); make a bridge of it: {BRIDGE}"
        ) from None
    return found


def name_of(model: Any) -> str:
    """The hub name, or the name of the directory; of a model made of a configuration its class."""
    name = str(model.config.name_or_path)
    return (Path(name).name if Path(name).exists() else name) if name else type(model).__name__
