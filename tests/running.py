"""Runs of a model that several test modules compare."""

from __future__ import annotations

from typing import Any

import numpy as np
import torch

import tl_attnstats as ta
from tests.reference import Reference, Tokens, tokens_of
from tests.reference_worth import Worth


def run_alone(model: Any, sentence: ta.Sentence, prepend_bos: bool | None = None) -> tuple[np.ndarray, Tokens]:
    """The pattern of one sentence alone, without padding, tokenised by the model; and its annotated tokens."""
    ids = model.to_tokens(sentence.text, prepend_bos=prepend_bos)
    plain = model.tokenizer(sentence.text, add_special_tokens=False, return_offsets_mapping=True)
    n_before = next(n for n in range(3) if ids[0, n : n + len(plain.input_ids)].tolist() == plain.input_ids)
    n_after = ids.shape[1] - n_before - len(plain.input_ids)
    offsets = [(0, 0)] * n_before + plain.offset_mapping + [(0, 0)] * n_after
    special = [True] * n_before + [False] * len(plain.input_ids) + [True] * n_after
    with torch.no_grad():
        _, cache = model.run_with_cache(ids, names_filter=lambda name: name.endswith("attn.hook_pattern"))
    layers = [cache[f"blocks.{layer}.attn.hook_pattern"][0] for layer in range(model.cfg.n_layers)]
    return torch.stack(layers).double().numpy(), tokens_of(sentence, offsets, special, ids=ids[0].tolist())


def truth(model: Any, corpus: ta.Corpus, *, causal: bool, null: str) -> Worth:
    return Worth(Reference([run_alone(model, sentence) for sentence in corpus], causal=causal, null=null))


def both(model: Any, corpus: ta.Corpus, **settings: Any) -> tuple[ta.AttentionStats, ta.AttentionStats]:
    streamed, hooked = (
        ta.collect(model, corpus, source=source, batch_tokens=64, progress=False, **settings)
        for source in ("streamed", "hooks")
    )
    assert (streamed.provenance["source"], hooked.provenance["source"]) == ("streamed", "hooks")
    return streamed, hooked
