"""Attention of one input, against `run_with_cache` and a softmax in plain loops."""

from __future__ import annotations

import sys
import types
from typing import Any

import numpy as np
import pytest
import torch
import transformers

import tl_attnstats as ta
from tests import tiny
from tl_attnstats.errors import CorpusError, HookError, MissingExtraError, ModelError
from tl_attnstats.models.hooked import has_hooks

TEXT = "The unbelievable cat sat on $5 of mats, 日本 😀."
SIZES: dict[str, Any] = {
    "hidden_size": 32,
    "num_hidden_layers": 2,
    "num_attention_heads": 4,
    "attn_implementation": "eager",
}
LLAMA = SIZES | {"intermediate_size": 48, "num_key_value_heads": 2, "max_position_embeddings": 96}


def booted(kind: str, tokenizer: Any) -> Any:
    """A tiny decoder of another architecture, with random weights."""
    size = {"vocab_size": len(tokenizer)}
    gpt = {"n_embd": 32, "n_layer": 2, "n_head": 4, "n_positions": 96, "attn_implementation": "eager"}
    config = {
        "GPT2": lambda: transformers.GPT2Config(**size, **gpt, scale_attn_by_inverse_layer_idx=True),
        "GPTNeoX": lambda: transformers.GPTNeoXConfig(**size, **SIZES, intermediate_size=48),
        "Gemma3": lambda: transformers.Gemma3TextConfig(**size, **LLAMA, head_dim=16, sliding_window=3),
        "Granite": lambda: transformers.GraniteConfig(**size, **LLAMA, attention_multiplier=0.3),
        "Bloom": lambda: transformers.BloomConfig(**size, hidden_size=32, n_layer=2, n_head=4),
    }[kind]()
    torch.manual_seed(0)
    model_class = getattr(transformers, f"{kind}{'LMHeadModel' if kind == 'GPT2' else 'ForCausalLM'}")
    return tiny._boot(model_class(config), tokenizer, kind)


def cached(model: Any, text: str, **options: Any) -> Any:
    with torch.no_grad():
        return model.run_with_cache(model.to_tokens(text, **options))[1]


@pytest.mark.parametrize("name", ["tiny_decoder", "tiny_encoder"])
def test_attention_of_is_the_pattern_of_the_model(name: str, request: Any) -> None:
    model = request.getfixturevalue(name)
    attention = ta.attention_of(model, TEXT)
    cache = cached(model, TEXT)
    assert attention.layers == (0, 1, 2)
    assert attention.pattern.dtype == np.float32
    for layer, pattern in zip(attention.layers, attention.pattern, strict=True):
        np.testing.assert_allclose(pattern, cache[f"blocks.{layer}.attn.hook_pattern"][0], atol=1e-6)
    assert len(attention.tokens) == attention.pattern.shape[-1] == len(attention.null)
    assert ta.attention_of(model, TEXT, neurons=False).neurons is None


def test_attention_of_keeps_the_text_in_its_tokens(tiny_decoder: Any, tiny_encoder: Any) -> None:
    text = "The unbelievable  cat\nsat."
    bos = ta.attention_of(tiny_decoder, text, prepend_bos=True)
    assert bos.tokens[0] == tiny_decoder.tokenizer.bos_token
    assert "".join(bos.tokens[1:]) == text
    plain = ta.attention_of(tiny_decoder, text, prepend_bos=False)
    assert plain.tokens == bos.tokens[1:]
    encoded = ta.attention_of(tiny_encoder, "The cat.")
    assert encoded.tokens == ("[CLS]", "The", "cat", ".", "[SEP]")


def test_attention_of_marks_null_tokens(tiny_decoder: Any, tiny_encoder: Any) -> None:
    assert np.flatnonzero(ta.attention_of(tiny_decoder, "The cat", prepend_bos=False).null).tolist() == [0]
    assert np.flatnonzero(ta.attention_of(tiny_encoder, "The cat").null).tolist() == [0, 3]
    assert not ta.attention_of(tiny_encoder, "The cat", null="none").null.any()


def test_attention_of_takes_some_layers(tiny_decoder: Any) -> None:
    every = ta.attention_of(tiny_decoder, TEXT, neurons=True)
    some = ta.attention_of(tiny_decoder, TEXT, layers=[2, 1], neurons=True)
    assert some.layers == (1, 2)
    np.testing.assert_allclose(some.pattern, every.pattern[1:], atol=1e-6)
    assert some.neurons is not None
    assert every.neurons is not None
    np.testing.assert_allclose(some.neurons.keys, every.neurons.keys[1:], atol=1e-5)
    with pytest.raises(ModelError, match=r"layers: got \[3\], expected some of 0 to 2"):
        ta.attention_of(tiny_decoder, TEXT, layers=[3])


def test_attention_of_leaves_the_model_alone(smollm2_tokenizer: Any) -> None:
    model = tiny.decoder(smollm2_tokenizer)
    model.train()
    ta.attention_of(model, TEXT, neurons=True)
    assert model.training
    assert not has_hooks(model)


def test_attention_of_removes_its_hooks_on_error(smollm2_tokenizer: Any) -> None:
    model = tiny.decoder(smollm2_tokenizer)

    def fail(tensor: Any, hook: Any) -> None:
        raise RuntimeError("of the user's own")

    with model.hooks(fwd_hooks=[("blocks.1.attn.hook_pattern", fail)]), pytest.raises(RuntimeError, match="user's own"):
        ta.attention_of(model, TEXT, neurons=True)
    assert not has_hooks(model)


def test_attention_of_refuses_what_is_no_attention(smollm2_tokenizer: Any) -> None:
    model = tiny.decoder(smollm2_tokenizer)
    for edit, message in (
        (lambda pattern, hook: pattern * 2, "layer 1 .*: rows are not probabilities"),
        (lambda pattern, hook: pattern * float("nan"), "layer 1: NaN or infinite attention"),
    ):
        with model.hooks(fwd_hooks=[("blocks.1.attn.hook_pattern", edit)]), pytest.raises(HookError, match=message):
            ta.attention_of(model, TEXT, layers=[1])


def test_attention_of_refuses_texts_that_do_not_fit(tiny_decoder: Any) -> None:
    n = len(tiny_decoder.to_tokens(TEXT)[0])
    assert len(ta.attention_of(tiny_decoder, TEXT, max_tokens=n).tokens) == n
    with pytest.raises(CorpusError, match=rf"has {n} tokens, expected at most {n - 1}; .*max_tokens"):
        ta.attention_of(tiny_decoder, TEXT, max_tokens=n - 1)
    with pytest.raises(CorpusError, match="the model's context has room for 96"):
        ta.attention_of(tiny_decoder, "cat " * 100, max_tokens=500)
    with pytest.raises(CorpusError, match="text: got '', which has no tokens"):
        ta.attention_of(tiny_decoder, "")


def check_neurons(model: Any, scales: list[float], text: str = TEXT) -> None:
    """Compare the model's pattern with a softmax over products, in loops over queries and keys."""
    attention = ta.attention_of(model, text, neurons=True)
    vectors = attention.neurons
    assert vectors is not None
    np.testing.assert_allclose(vectors.scale, scales, rtol=1e-3)
    n = len(attention.tokens)
    causal = model.cfg.attention_dir == "causal"
    window = 3 if "Gemma3" in model.cfg.model_name else n
    for layer, head, i in np.ndindex(*attention.pattern.shape[:3]):
        first = max(0, i + 1 - window) if causal else 0
        keys = range(first, i + 1 if causal else n)
        scores = [scales[layer] * float(vectors.queries[layer, head, i] @ vectors.keys[layer, head, j]) for j in keys]
        e = np.exp(np.array(scores) - max(scores))
        expected = np.zeros(n)
        expected[list(keys)] = e / e.sum()
        np.testing.assert_allclose(attention.pattern[layer, head, i], expected, atol=1e-4)


def test_neurons_give_the_pattern_of_a_rotary_model_with_grouped_queries(smollm2: Any) -> None:
    check_neurons(smollm2, [64**-0.5] * 30)


def test_neurons_give_the_pattern_of_an_encoder(minilm: Any) -> None:
    check_neurons(minilm, [32**-0.5] * 6)


def test_neurons_give_the_pattern_of_tiny_models(tiny_decoder: Any, tiny_encoder: Any) -> None:
    check_neurons(tiny_decoder, [8**-0.5] * 3)
    check_neurons(tiny_encoder, [8**-0.5] * 3)


@pytest.mark.parametrize(
    ("kind", "scales"),
    [
        ("GPT2", [8**-0.5, 8**-0.5 / 2]),
        ("GPTNeoX", [8**-0.5, 8**-0.5]),  # has hooks for rotary angles, but not for rotated vectors
        ("Granite", [0.3, 0.3]),
        ("Gemma3", [256**-0.5, 256**-0.5]),
    ],
)
def test_neurons_give_the_pattern_of_other_architectures(
    kind: str, scales: list[float], smollm2_tokenizer: Any
) -> None:
    model = booted(kind, smollm2_tokenizer)
    check_neurons(model, scales)


def test_neurons_repeat_the_keys_of_grouped_queries(tiny_decoder: Any) -> None:
    vectors = ta.attention_of(tiny_decoder, TEXT, neurons=True).neurons
    assert vectors is not None
    assert vectors.keys.shape == vectors.queries.shape
    np.testing.assert_array_equal(vectors.keys[:, [0, 2]], vectors.keys[:, [1, 3]])
    assert np.abs(vectors.keys[:, 0] - vectors.keys[:, 2]).max() > 0.1


def test_neurons_of_a_model_with_a_position_bias_are_refused(smollm2_tokenizer: Any) -> None:
    model = booted("Bloom", smollm2_tokenizer)
    assert ta.attention_of(model, TEXT).pattern.shape[:2] == (2, 4)
    with pytest.raises(HookError, match=r"layer 0: the softmax of query–key products .*a position bias"):
        ta.attention_of(model, TEXT, neurons=True)


def test_neurons_of_one_token(tiny_decoder: Any) -> None:
    attention = ta.attention_of(tiny_decoder, "cat", prepend_bos=False, neurons=True)
    assert attention.neurons is not None
    assert attention.pattern.shape == (3, 4, 1, 1)
    np.testing.assert_allclose(attention.neurons.scale, 8**-0.5)


@pytest.mark.parametrize("squeezed", [False, True])
def test_attention_from_cache_is_attention_of(tiny_decoder: Any, squeezed: bool) -> None:
    ids = tiny_decoder.to_tokens("The cat sat.")
    cache = tiny_decoder.run_with_cache(ids, remove_batch_dim=squeezed)[1]
    attention = ta.attention_from_cache(tiny_decoder, cache, ids[0] if squeezed else ids)
    expected = ta.attention_of(tiny_decoder, "The cat sat.", neurons=True)
    assert attention.tokens == expected.tokens
    assert attention.layers == expected.layers
    np.testing.assert_array_equal(attention.null, expected.null)
    np.testing.assert_allclose(attention.pattern, expected.pattern, atol=1e-6)
    assert attention.neurons is not None
    assert expected.neurons is not None
    np.testing.assert_allclose(attention.neurons.queries, expected.neurons.queries, atol=1e-5)


def test_attention_from_cache_knows_special_tokens(tiny_encoder: Any) -> None:
    ids = tiny_encoder.to_tokens("The cat")
    attention = ta.attention_from_cache(tiny_encoder, tiny_encoder.run_with_cache(ids)[1], ids)
    assert np.flatnonzero(attention.null).tolist() == [0, 3]


def test_attention_from_cache_takes_what_is_there(tiny_decoder: Any) -> None:
    ids = tiny_decoder.to_tokens("The cat sat.")
    cache = {"blocks.1.attn.hook_pattern": cached(tiny_decoder, "The cat sat.")["blocks.1.attn.hook_pattern"]}
    attention = ta.attention_from_cache(tiny_decoder, cache, ids)
    assert attention.layers == (1,)
    assert attention.neurons is None
    with pytest.raises(HookError, match=r"cache: has no blocks\.0\.attn\.hook_pattern"):
        ta.attention_from_cache(tiny_decoder, cache, ids, layers=[0, 1])
    with pytest.raises(HookError, match=r"cache: has no blocks\.\*\.attn\.hook_pattern"):
        ta.attention_from_cache(tiny_decoder, {}, ids)
    with pytest.raises(HookError, match="the pattern has shape"):
        ta.attention_from_cache(tiny_decoder, cache, ids[:, 1:])
    with pytest.raises(CorpusError, match=r"input_ids: got shape \[2, \d+\], expected the tokens of one input"):
        ta.attention_from_cache(tiny_decoder, cache, ids.repeat(2, 1))


@pytest.fixture
def handed(monkeypatch: pytest.MonkeyPatch) -> list[tuple[str, tuple[Any, ...], dict[str, Any]]]:
    """What was passed to the optional packages, which are replaced by stand-ins."""
    calls: list[tuple[str, tuple[Any, ...], dict[str, Any]]] = []

    def recorder(name: str) -> Any:
        return lambda *args, **kwargs: calls.append((name, args, kwargs)) or name

    bertviz, circuitsvis, inner = (types.ModuleType(n) for n in ("bertviz", "circuitsvis", "circuitsvis.attention"))
    vars(bertviz).update(head_view=recorder("head_view"), model_view=recorder("model_view"))
    vars(inner).update(attention_patterns=recorder("attention_patterns"))
    for module in (bertviz, circuitsvis, inner):
        monkeypatch.setitem(sys.modules, module.__name__, module)
    return calls


def test_circuitsvis_gets_tokens_and_the_heads_of_a_layer(tiny_decoder: Any, handed: Any) -> None:
    attention = ta.attention_of(tiny_decoder, TEXT, layers=[0, 2])
    assert attention.circuitsvis(2) == "attention_patterns"
    ((_, args, kwargs),) = handed
    assert args == ()
    assert kwargs["tokens"] == list(attention.tokens)
    np.testing.assert_array_equal(kwargs["attention"], attention.pattern[1])
    with pytest.raises(ModelError, match="layer=1: expected one of 0, 2"):
        attention.circuitsvis(1)


@pytest.mark.parametrize("kind", ["head", "model"])
def test_bertviz_gets_tokens_and_layers_under_their_numbers(tiny_decoder: Any, handed: Any, kind: str) -> None:
    attention = ta.attention_of(tiny_decoder, TEXT, layers=[0, 2])
    assert attention.bertviz(kind) == f"{kind}_view"
    ((_, (layers, tokens), kwargs),) = handed
    assert tokens == list(attention.tokens)
    assert kwargs == {"include_layers": [0, 2], "html_action": "return"}
    n = len(tokens)
    assert [tuple(layer.shape) for layer in layers] == [(1, 4, n, n)] * 3
    for row, layer in enumerate((0, 2)):
        np.testing.assert_array_equal(layers[layer][0], attention.pattern[row])
    with pytest.raises(ModelError, match="kind='neuron': expected head or model"):
        attention.bertviz("neuron")


def test_a_missing_extra_names_the_command(tiny_decoder: Any, monkeypatch: pytest.MonkeyPatch) -> None:
    attention = ta.attention_of(tiny_decoder, "cat")
    for name in ("bertviz", "circuitsvis"):
        monkeypatch.setitem(sys.modules, name, None)
        monkeypatch.delitem(sys.modules, f"{name}.attention", raising=False)
    with pytest.raises(MissingExtraError, match=r"pip install 'tl-attnstats\[bertviz\]'"):
        attention.bertviz()
    with pytest.raises(ImportError, match=r"pip install 'tl-attnstats\[circuitsvis\]'"):
        attention.circuitsvis(0)
