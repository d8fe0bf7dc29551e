"""`describe`, statistics of plain transformers models, and errors for common mistakes with models."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest
import torch
import transformers

import tl_attnstats as ta
from tests import architectures, tiny
from tests.asserting import assert_same, assert_same_exemplars
from tests.reference import Reference, tokens_of
from tl_attnstats.cli import main
from tl_attnstats.errors import HookError, ModelError
from tl_attnstats.models import hooked

GROUPED = architectures.NARROW
SINKS = {**GROUPED, "sliding_window": 5, "num_local_experts": 2, "num_experts_per_tok": 1}


def build(name: str, config: dict[str, Any], tokenizer: Any, implementation: str = "sdpa") -> Any:
    torch.manual_seed(0)
    model_class = getattr(transformers, name)
    made = model_class(
        model_class.config_class(**config, vocab_size=len(tokenizer), attn_implementation=implementation)
    ).eval()
    with torch.no_grad():
        for key, weight in made.named_parameters():
            if "norm" not in key.lower() and weight.ndim == 2:
                weight.mul_(6)
            elif "sink" in key:
                weight.add_(torch.linspace(-2, 2, len(weight)))  # some sinks take most of a row, some almost nothing
    return made


@pytest.fixture(scope="module")
def corpus() -> ta.Corpus:
    return ta.Corpus(tiny.sentences(8, seed=5, most_words=12))


def truth_of(model: Any, tokenizer: Any, corpus: ta.Corpus, *, causal: bool) -> Reference:
    """The plain loops over the model's own patterns, one unpadded sentence at a time."""
    data = []
    model.set_attn_implementation("eager")
    for sentence in corpus:
        given = tokenizer(sentence.text, return_offsets_mapping=True, return_special_tokens_mask=True)
        with torch.no_grad():
            layers = model(torch.tensor([given.input_ids]), output_attentions=True).attentions
        special = [bool(mark) for mark in given.special_tokens_mask]
        tokens = tokens_of(sentence, given.offset_mapping, special)
        data.append((torch.cat(list(layers)).double().numpy(), tokens))
    return Reference(data, causal=causal, null="first" if causal else "special")


@pytest.mark.parametrize(
    ("name", "config", "implementation"),
    [
        ("LlamaForCausalLM", GROUPED, "sdpa"),
        ("MistralForCausalLM", {**GROUPED, "sliding_window": 5}, "sdpa"),
        ("GptOssForCausalLM", SINKS, "eager"),
        ("BertForMaskedLM", architectures.SIZE, "sdpa"),
        ("BertModel", architectures.SIZE, "eager"),
    ],
)
def test_a_transformers_model_is_read_as_it_is(
    name: str, config: Any, implementation: str, corpus: ta.Corpus, smollm2_tokenizer: Any, minilm_tokenizer: Any
) -> None:
    causal = "Bert" not in name
    tokenizer = smollm2_tokenizer if causal else minilm_tokenizer
    model = build(name, config, tokenizer, implementation).train()
    weights = {key: value.data_ptr() for key, value in model.state_dict().items()}
    stats = ta.collect(model, corpus, tokenizer=tokenizer, batch_tokens=60, progress=False)
    assert (model.config._attn_implementation, model.training) == (implementation, True)
    assert {key: value.data_ptr() for key, value in model.state_dict().items()} == weights
    assert not hooked.has_hooks(model)
    assert stats.provenance["source"] == "streamed"
    assert stats.provenance["attention"] == ("causal" if causal else "bidirectional")
    truth = truth_of(model.eval(), tokenizer, corpus, causal=causal)
    assert_same(stats, truth)
    assert_same_exemplars(stats, truth, exact=False)


@pytest.mark.parametrize("source", ["hooks", "streamed"])
def test_statistics_are_right_for_heads_with_learned_sinks(
    source: Any, corpus: ta.Corpus, smollm2_tokenizer: Any
) -> None:
    model = build("GptOssForCausalLM", SINKS, smollm2_tokenizer, "eager")
    truth = truth_of(model, smollm2_tokenizer, corpus, causal=True)
    sums = np.concatenate([pattern.sum(-1).flatten() for pattern, _ in truth.data])
    assert sums.min() < 0.3
    assert sums.max() > 0.8
    bridge = tiny._boot(model, smollm2_tokenizer, "tiny-sinks", scale=1)
    assert not ta.describe(bridge).sums_to_one
    stats = ta.collect(bridge, corpus, prepend_bos=False, source=source, batch_tokens=60, progress=False)
    assert_same(stats, truth)
    assert_same_exemplars(stats, truth, exact=False)


def test_wrong_patterns_of_a_model_with_learned_sinks_are_refused(corpus: ta.Corpus, smollm2_tokenizer: Any) -> None:
    bridge = tiny._boot(build("GptOssForCausalLM", SINKS, smollm2_tokenizer, "eager"), smollm2_tokenizer, "tiny-sinks")
    for spoil, message in (
        (lambda p: p * 0 + 0.9 / p.shape[-1], "is on (padding|later tokens), expected none"),
        (lambda p: p * 9, "rows are not probabilities"),
        (lambda p: p - 0.1 * torch.eye(p.shape[-1]), "rows are not probabilities"),
    ):
        collectors = ta.Collectors(bridge)
        batch = next(collectors.batches(corpus))
        _, cache = bridge.run_with_cache(batch.input_ids, **collectors.arguments(batch))
        with pytest.raises(HookError, match=message):
            collectors.update({name: spoil(cache[name]) for name in collectors.hook_names}, batch)


def test_describe_of_a_decoder(smollm2_tokenizer: Any) -> None:
    config = {**GROUPED, "sliding_window": 5, "layer_types": ["sliding_attention", "full_attention"]}
    info = ta.describe(tiny._boot(build("Gemma3ForCausalLM", config, smollm2_tokenizer), smollm2_tokenizer, "tiny"))
    assert (info.stream, info.layers, info.n_layers, info.n_heads, info.causal) == ("self", (0, 1), 2, 4, True)
    assert info.windows == {0: 5}
    assert (info.null, info.mask_argument, info.sums_to_one, info.hooked) == ("first", "attention_mask", True, True)
    assert info.framing.max_tokens == 96


def test_describe_of_a_transformers_model(smollm2_tokenizer: Any, minilm_tokenizer: Any) -> None:
    llama = build("LlamaForCausalLM", GROUPED, smollm2_tokenizer)
    info = ta.describe(llama, tokenizer=smollm2_tokenizer)
    assert (info.stream, info.layers, info.n_heads, info.causal, info.hooked) == ("self", (0, 1), 4, True, False)
    assert (info.framing.prefix, info.framing.suffix, info.framing.max_tokens) == ((), (), 96)
    bos = smollm2_tokenizer.bos_token_id
    assert ta.describe(llama, tokenizer=smollm2_tokenizer, prepend_bos=True).framing.prefix == (bos,)
    bert = ta.describe(build("BertModel", architectures.SIZE, minilm_tokenizer), tokenizer=minilm_tokenizer)
    assert (bert.causal, bert.null, bert.framing.prefix, bert.framing.suffix) == (False, "special", (101,), (102,))


def test_a_transformers_model_without_what_it_needs_is_refused(
    corpus: ta.Corpus, smollm2_tokenizer: Any, tiny_decoder: Any
) -> None:
    model = build("LlamaForCausalLM", GROUPED, smollm2_tokenizer)
    with pytest.raises(ModelError, match=r"tokenizer: got none, but LlamaForCausalLM is a transformers model"):
        ta.collect(model, corpus)
    with pytest.raises(ModelError, match=r"got LlamaForCausalLM, expected a TransformerLens model, which has hooks; "):
        ta.collect(model, corpus, tokenizer=smollm2_tokenizer, source="hooks")
    with pytest.raises(
        ModelError, match=r"bridge it: TransformerBridge\.boot_transformers\(name, hf_model=model, tokenizer="
    ):
        ta.attention_of(model, "the cat")
    with pytest.raises(ModelError, match="tokenizer: only for a transformers model"):
        ta.collect(tiny_decoder, corpus, tokenizer=smollm2_tokenizer)
    collectors = ta.Collectors(model, tokenizer=smollm2_tokenizer)
    batch = next(collectors.batches(corpus))
    for use_of_hooks in (lambda: collectors.hook_names, lambda: collectors.update({}, batch)):
        with pytest.raises(ModelError, match="expected a TransformerLens model, which has hooks"):
            use_of_hooks()
    model.model.layers[0].register_forward_hook(lambda *_: None)
    with pytest.raises(ModelError, match="the model has hooks, which this source would pass by; take them off"):
        ta.collect(model, corpus, tokenizer=smollm2_tokenizer)


def test_a_transformers_model_with_attention_of_its_own_is_refused(corpus: ta.Corpus, smollm2_tokenizer: Any) -> None:
    model = build("BloomForCausalLM", {"hidden_size": 32, "n_layer": 2, "n_head": 4}, smollm2_tokenizer, "eager")
    with pytest.raises(ModelError, match="BloomForCausalLM does not take its attention from transformers' attention"):
        ta.collect(model, corpus, tokenizer=smollm2_tokenizer)


def test_common_mistakes_get_advice(corpus: ta.Corpus, minilm_tokenizer: Any) -> None:
    with pytest.raises(ModelError, match=r"got the name 'gpt2', expected a model; ta\.load_model\('gpt2'\) loads it"):
        ta.collect("gpt2", corpus)
    with pytest.raises(ModelError, match="got NoneType, expected a TransformerLens model"):
        ta.collect(None, corpus)
    bare = build("BertModel", architectures.SIZE, minilm_tokenizer)
    with pytest.raises(
        ModelError, match=r"load it with its head \(AutoModelForMaskedLM\), without which there is no bridge"
    ):
        ta.collect(bare, corpus, tokenizer=minilm_tokenizer, source="hooks")


def test_models_prints_what_a_model_offers(tmp_path: Any, smollm2_tokenizer: Any, capsys: Any) -> None:
    build("MistralForCausalLM", {**GROUPED, "sliding_window": 5}, smollm2_tokenizer).save_pretrained(tmp_path / "one")
    smollm2_tokenizer.save_pretrained(tmp_path / "one")
    capsys.readouterr()
    assert main(["models", str(tmp_path / "one")]) == 0
    lines = [" ".join(line.split()) for line in capsys.readouterr().out.splitlines()]
    assert lines[0] == "one"
    for expected in (
        "layers with attention 0 to 1, of 2",
        "heads per layer 4",
        "a token looks at itself and earlier tokens",
        "window 5 tokens",
        "a row sums to 1",
        "null tokens the first",
        "hooks blocks.{layer}.attn.hook_pattern",
        "source streamed",
    ):
        assert expected in lines
