"""The hooked models of TransformerLens 3 against the plain loops, on patterns of one unpadded sentence at a time."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest
import torch
import transformers
from transformer_lens import HookedTransformer
from transformer_lens.model_bridge import TransformerBridge

import tl_attnstats as ta
from tests import architectures, tiny
from tests.asserting import assert_equal, assert_peaked, assert_same, assert_same_exemplars
from tests.reference import Reference, Tokens, tokens_of
from tests.running import run_alone
from tests.tl3.conftest import config
from tl_attnstats.errors import HookError, ModelError


@pytest.fixture(scope="module")
def corpus() -> ta.Corpus:
    return ta.Corpus(tiny.sentences(8, seed=5, most_words=14))


def assert_statistics_equal(model: Any, corpus: ta.Corpus, read: list[tuple[np.ndarray, Tokens]], **rules: Any) -> None:
    assert_peaked([pattern for pattern, _ in read], 0.5)
    truth = Reference(read, **rules)
    together, alone = (ta.collect(model, corpus, batch_tokens=n, progress=False) for n in (1024, 1))
    assert together.provenance["source"] == "hooks"
    assert_same(together, truth)
    assert_same_exemplars(together, truth, exact=False)
    assert_equal(alone, together)


@pytest.mark.parametrize("prepend_bos", [True, False])
def test_statistics_of_a_hooked_transformer_equal_the_reference(
    hooked_transformer: Any, corpus: ta.Corpus, prepend_bos: bool
) -> None:
    hooked_transformer.cfg.default_prepend_bos = prepend_bos
    read = [run_alone(hooked_transformer, s, prepend_bos) for s in corpus]
    assert_statistics_equal(hooked_transformer, corpus, read, causal=True, null="first")


def test_statistics_of_a_hooked_encoder_equal_the_reference(hooked_encoder: Any, corpus: ta.Corpus) -> None:
    read = [encoded_alone(hooked_encoder, s) for s in corpus]
    assert_statistics_equal(hooked_encoder, corpus, read, causal=False, null="special")


def encoded_alone(model: Any, sentence: ta.Sentence) -> tuple[np.ndarray, Tokens]:
    read = model.tokenizer(sentence.text, return_offsets_mapping=True, return_special_tokens_mask=True)
    with torch.no_grad():
        _, cache = model.run_with_cache(torch.tensor([read.input_ids]))
    layers = [cache[f"blocks.{layer}.attn.hook_pattern"][0] for layer in range(model.cfg.n_layers)]
    special = [bool(flag) for flag in read.special_tokens_mask]
    return torch.stack(layers).double().numpy(), tokens_of(sentence, read.offset_mapping, special)


def test_statistics_of_a_bridge_equal_the_reference(smollm2_tokenizer: Any, corpus: ta.Corpus) -> None:
    model = architectures.bridge("LlamaForCausalLM", smollm2_tokenizer)
    read = [run_alone(model, s) for s in corpus]
    assert_peaked([pattern for pattern, _ in read], 0.5)
    truth = Reference(read, causal=True, null="first")
    for source in ("hooks", "streamed"):
        stats = ta.collect(model, corpus, source=source, progress=False)
        assert_same(stats, truth)
        assert_same_exemplars(stats, truth, exact=False)


def test_hooked_models_have_hooks_only(hooked_encoder: Any, corpus: ta.Corpus) -> None:
    with pytest.raises(ModelError, match="source='streamed': got HookedEncoder, expected a TransformerBridge"):
        ta.collect(hooked_encoder, corpus, source="streamed", progress=False)


def test_a_bidirectional_hooked_transformer_is_refused(smollm2_tokenizer: Any, corpus: ta.Corpus) -> None:
    model = HookedTransformer(config(smollm2_tokenizer, attention_dir="bidirectional"), smollm2_tokenizer)
    with pytest.raises(ModelError, match="'bidirectional', which ignores the padding mask; expected a HookedEnc"):
        ta.collect(model, corpus, progress=False)


def test_a_bridge_without_eager_attention_is_refused(smollm2_tokenizer: Any, corpus: ta.Corpus) -> None:
    settings = architectures.arguments(transformers.MistralConfig, {}, len(smollm2_tokenizer))
    model = transformers.MistralForCausalLM(transformers.MistralConfig(**settings, attn_implementation="sdpa"))
    model.config.architectures = ["MistralForCausalLM"]
    bridge = TransformerBridge.boot_transformers("tiny", hf_model=model, tokenizer=smollm2_tokenizer)
    with pytest.raises(HookError, match=r"fired 0 times .*; it computes attention with sdpa: load it with attn_implem"):
        ta.collect(bridge, corpus, source="hooks", progress=False)
