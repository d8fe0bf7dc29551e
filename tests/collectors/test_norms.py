"""Norms: against plain loops over values and W_O, on constructed heads, and where they cannot be had."""

from __future__ import annotations

import copy
from typing import Any

import numpy as np
import pytest
import torch

import tl_attnstats as ta
from tests import architectures, tiny
from tests.asserting import close
from tests.reference import Reference
from tests.reference_norms import Norms
from tests.running import run_alone
from tl_attnstats.collectors import OF_NORMS
from tl_attnstats.errors import MetricError

METRICS = list(OF_NORMS)
TWINS = [name for name in METRICS if not name.startswith("output")]


def truth(model: Any, corpus: ta.Corpus, *, causal: bool, null: str) -> Norms:
    """From patterns, values and the weights of the transformers model inside the bridge."""
    reference = Reference([run_alone(model, sentence) for sentence in corpus], causal=causal, null=null)
    n_layers, n_heads = model.cfg.n_layers, model.cfg.n_heads
    names = [f"blocks.{layer}.attn.v.hook_out" for layer in range(n_layers)]
    values = []
    for sentence in corpus:
        with torch.no_grad():
            _, cache = model.run_with_cache(model.to_tokens(sentence.text), names_filter=names)
        by_layer = [cache[name][0].double().transpose(0, 1) for name in names]
        values.append(torch.stack([v.repeat_interleave(n_heads // len(v), 0) for v in by_layer]).numpy())
    output = torch.stack([model.blocks[layer].attn.W_O.detach().double() for layer in range(n_layers)])
    return Norms(reference, values, output.numpy())


def assert_same(stats: ta.AttentionStats, norms: Norms) -> None:
    for name, (value, error) in norms.expected().items():
        base, _, label = name.rstrip("]").partition("[")
        found, found_error = stats[base], stats[f"{base}_se"]
        if label:
            where = {found.dims[-1]: label}
            found, found_error = found.sel(where), found_error.sel(where)
        scale = {"rtol": 1e-4, "atol": 1e-4 if "share" in base or label else 1e-9}
        np.testing.assert_allclose(found.values, value, err_msg=name, **scale)
        np.testing.assert_allclose(found_error.values, error, err_msg=f"{name} error", rtol=1e-3, atol=1e-4)


@pytest.mark.parametrize("source", ["hooks", "streamed"])
@pytest.mark.parametrize("null", ["special", "first", "none"])
@pytest.mark.parametrize("kind", ["decoder", "encoder"])
def test_a_tiny_model(kind: str, null: Any, source: Any, smollm2_tokenizer: Any, minilm_tokenizer: Any) -> None:
    made, tokenizer = {"decoder": (tiny.decoder, smollm2_tokenizer), "encoder": (tiny.encoder, minilm_tokenizer)}[kind]
    model = made(tokenizer, seed=2)
    corpus = ta.Corpus(tiny.sentences(10, seed=4, most_words=24))
    stats = ta.collect(model, corpus, METRICS, source=source, null=null, batch_tokens=150, progress=False)
    assert_same(stats, truth(model, corpus, causal=kind == "decoder", null=null))


@pytest.mark.slow
@pytest.mark.parametrize("source", ["hooks", "streamed"])
def test_smollm2(smollm2: Any, gold_corpus: ta.Corpus, source: Any) -> None:
    corpus = gold_corpus[:12]
    stats = ta.collect(smollm2, corpus, METRICS, source=source, progress=False)
    assert_same(stats, truth(smollm2, corpus, causal=True, null="first"))


@pytest.mark.parametrize("source", ["hooks", "streamed"])
def test_minilm(minilm: Any, gold_corpus: ta.Corpus, source: Any) -> None:
    corpus = gold_corpus[:12]
    stats = ta.collect(minilm, corpus, METRICS, source=source, progress=False)
    assert_same(stats, truth(minilm, corpus, causal=False, null="special"))


@pytest.mark.parametrize("source", ["hooks", "streamed"])
def test_a_head_whose_output_projection_is_zero_adds_nothing(smollm2_tokenizer: Any, source: Any) -> None:
    model = tiny.decoder(smollm2_tokenizer, seed=2)
    corpus = ta.Corpus(tiny.sentences(4, seed=4))
    before = ta.collect(model, corpus, METRICS, source=source, progress=False)
    d_head = model.cfg.d_head
    with torch.no_grad():
        model.original_model.model.layers[1].self_attn.o_proj.weight[:, d_head : 2 * d_head] = 0
    stats = ta.collect(model, corpus, METRICS, source=source, progress=False)
    norm = stats["output_norm"].values
    assert norm[1, 1] == 0
    assert stats["output_norm_relative"].values[1, 1] == 0
    assert np.isnan(stats["distance_norm"].values[1, 1])
    assert np.delete(norm, 1, 1).min() > 0
    assert before["output_norm"].values[1, 1] > 0  # the weights of now count, not those of an earlier run
    close("mean", stats["output_norm_relative"].mean("head"), np.ones(len(norm)))


def test_constant_value_norms_leave_the_twins_unchanged(smollm2_tokenizer: Any) -> None:
    model = tiny.decoder(smollm2_tokenizer, seed=2)
    corpus = ta.Corpus(tiny.sentences(6, seed=4))
    names = [name.removesuffix("_norm") for name in TWINS]
    stats = ta.collect(model, corpus, [*names, *TWINS], source="hooks", progress=False)
    constant = _with_constant_values(model)
    twins = ta.collect(constant, corpus, [*names, *TWINS], source="hooks", progress=False)
    for name in names:
        np.testing.assert_allclose(twins[f"{name}_norm"], twins[name], rtol=1e-5, atol=1e-6)
        assert np.abs(stats[f"{name}_norm"] - stats[name]).max() > 1e-3


def _with_constant_values(model: Any) -> Any:
    """Values of 1 everywhere, by a hook of the user's."""
    model = copy.deepcopy(model)
    for name in [name for name in model.hook_dict if name.endswith("v.hook_out")]:
        model.hook_dict[name].add_hook(lambda value, hook: torch.ones_like(value))
    return model


def test_patterns_alone_have_no_norms() -> None:
    sentence = tiny.sentences(1)[0]
    pattern = tiny.patterns(1, 2, len(sentence.words), True, 1)
    with pytest.raises(MetricError, match=r"output_norm, which cannot be computed: patterns come without values"):
        ta.collect_patterns([(pattern, sentence)], ["output_norm"])


def test_a_user_s_own_loop_has_norms_too(smollm2_tokenizer: Any) -> None:
    model = tiny.decoder(smollm2_tokenizer, seed=2)
    corpus = ta.Corpus(tiny.sentences(6, seed=4))
    whole = ta.collect(model, corpus, METRICS, progress=False)
    by_cache, by_hooks = ta.Collectors(model, METRICS), ta.Collectors(model, METRICS)
    for batch in by_cache.batches(corpus):
        _, cache = model.run_with_cache(batch.input_ids, **by_cache.arguments(batch), names_filter=by_cache.hook_names)
        by_cache.update(cache, batch)
    for batch in by_hooks.batches(corpus):
        hooks = by_hooks.hooks(batch)
        model.run_with_hooks(batch.input_ids, **by_hooks.arguments(batch), fwd_hooks=hooks, return_type=None)
    for name in METRICS:
        for stats in (by_cache.stats(), by_hooks.stats()):
            np.testing.assert_allclose(stats[name], whole[name], rtol=1e-4, atol=1e-5, err_msg=name)


@pytest.mark.parametrize(
    ("name", "reason"),
    [("Gemma2ForCausalLM", "layer 0 of .* normalises the sum of its heads"), ("LlamaForCausalLM", None)],
)
def test_a_norm_after_the_sum_of_the_heads_is_a_reason(name: str, reason: str | None, smollm2_tokenizer: Any) -> None:
    model = architectures.boot(architectures.build(name, smollm2_tokenizer), smollm2_tokenizer)
    if reason is None:
        assert (ta.collect(model, ta.Corpus(tiny.sentences(3)), ["output_norm"])["output_norm"] > 0).all()
        return
    with pytest.raises(MetricError, match=rf"metrics: got output_norm, which cannot be computed: {reason}"):
        ta.collect(model, ta.Corpus(tiny.sentences(3)), ["output_norm"])


def test_a_transformers_model_without_a_bridge_offers_no_norms(smollm2_tokenizer: Any) -> None:
    model = architectures.build("LlamaForCausalLM", smollm2_tokenizer)
    with pytest.raises(MetricError, match=r"output_norm, which cannot be computed: .* is read without a bridge"):
        ta.collect(model, ta.Corpus(tiny.sentences(3)), ["output_norm"], tokenizer=smollm2_tokenizer)


def test_norms_that_were_not_checked_are_not_remembered(smollm2_tokenizer: Any) -> None:
    """While the user has hooks, nothing is compared; the next run without them compares."""
    model = architectures.boot(architectures.build("LlamaForCausalLM", smollm2_tokenizer), smollm2_tokenizer)
    projection = model.blocks[0].attn.o.original_component
    projection.register_forward_hook(lambda module, args, output: 2 * output)  # W_O is no longer all that happens
    model.hook_dict["blocks.0.hook_in"].add_hook(lambda x, hook: x)
    ta.Collectors(model, ["output_norm"])
    model.reset_hooks()
    with pytest.raises(MetricError, match=r"the output projection of layer 0 of .* is more than a matrix"):
        ta.Collectors(model, ["output_norm"])
