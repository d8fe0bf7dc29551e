"""Find the special tokens that a model puts before and after a text, by tokenizing a probe."""

from __future__ import annotations

from typing import Any

import torch

from tl_attnstats.corpus.batches import Framing, check_tokenizer
from tl_attnstats.errors import ModelError

PROBE = "word"


def decoder_framing_of(original: Any, encoder: Framing) -> Framing:
    """Framing of the decoder's input in training: the text shifted by the model's own rule."""
    plain_ids = encoder.tokenizer(PROBE, add_special_tokens=False)["input_ids"]
    framed = torch.tensor([[*encoder.prefix, *plain_ids, *encoder.suffix]])
    start = getattr(original.config.get_text_config(), "decoder_start_token_id", None)
    try:
        if hasattr(original, "prepare_decoder_input_ids_from_labels"):
            shifted = original.prepare_decoder_input_ids_from_labels(framed)[0].tolist()
        else:
            shifted = None if start is None else [start, *framed[0, :-1].tolist()]
    except (AttributeError, ValueError):  # the model's rule needs a token that its configuration lacks
        shifted = None
    if shifted is None:
        raise ModelError(
            f"model: {type(original).__name__} has no start token for its decoder; "
            f"set decoder_start_token_id in its configuration"
        )
    return framing_around(encoder.tokenizer, shifted, encoder.max_tokens)


def framing_of_tokenizer(tokenizer: Any, max_tokens: int | None, prepend_bos: bool | None) -> Framing:
    """The special tokens that a tokenizer adds by default, with or without BOS on request."""
    check_tokenizer(tokenizer)
    framed, bos = tokenizer(PROBE)["input_ids"], tokenizer.bos_token_id
    if prepend_bos and bos is None:
        raise ModelError(f"prepend_bos=True: {type(tokenizer).__name__} has no BOS token")
    if prepend_bos is not None and bos is not None:
        framed = [*[bos][: int(prepend_bos)], *framed[int(framed[0] == bos) :]]
    return framing_around(tokenizer, framed, max_tokens)


def framing_around(tokenizer: Any, framed: list[int], max_tokens: int | None) -> Framing:
    """The tokens before and after the probe in `framed`."""
    text = tokenizer(PROBE, add_special_tokens=False)["input_ids"]
    for start in range(len(framed) - len(text) + 1):
        end = start + len(text)
        if framed[start:end] == text:
            return Framing(tokenizer, tuple(framed[:start]), tuple(framed[end:]), max_tokens)
    raise ModelError(
        f"tokenizer: {type(tokenizer).__name__} reads {PROBE!r} as {text}, but the model reads {framed}; "
        f"expected the same tokens, except for special tokens around them"
    )
