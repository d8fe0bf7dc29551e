"""Models that cannot be read, or only in part: the errors, and that their advice works."""

from __future__ import annotations

from typing import Any

import pytest
import torch
import transformers
from transformer_lens.config import TransformerBridgeConfig
from transformer_lens.model_bridge import TransformerBridge

import tl_attnstats as ta
from tests import architectures, tiny
from tests.asserting import assert_equal
from tl_attnstats.errors import ModelError
from tl_attnstats.models import bare


@pytest.fixture(scope="module")
def corpus() -> ta.Corpus:
    return ta.Corpus(tiny.sentences(6, seed=5, most_words=8))


def collect(model: Any, corpus: ta.Corpus, **settings: Any) -> ta.AttentionStats:
    return ta.collect(model, corpus, progress=False, **settings)


@pytest.mark.parametrize("source", ["auto", "hooks", "streamed"])
def test_layers_with_other_numbers_of_heads_are_refused_and_can_be_chosen(
    source: Any, corpus: ta.Corpus, smollm2_tokenizer: Any
) -> None:
    original = architectures.build("LagunaForCausalLM", smollm2_tokenizer)
    heads = original.config.num_attention_heads_per_layer
    assert heads == [4, 2, 4, 2]
    bridge = architectures.bridge("LagunaForCausalLM", smollm2_tokenizer)
    ways: list[tuple[Any, dict[str, Any]]] = [(bridge, {})]
    if source != "hooks":
        ways.append((original, {"tokenizer": smollm2_tokenizer}))
    for model, settings in ways:
        with pytest.raises(
            ModelError,
            match=r"not all layers of LagunaForCausalLM have the same number of heads \(4 heads: layers 0, 2; 2 heads: "
            r"layers 1, 3\), .* choose layers with the same number: layers=\[0, 2\] \(--layers 0,2\)",
        ):
            collect(model, corpus, source=source, **settings)
        for layers in ([0, 2], [1, 3]):
            stats = collect(model, corpus, source=source, layers=layers, **settings)
            assert stats["null_share"].shape == (2, heads[layers[0]])


def test_the_chosen_layers_of_a_model_with_other_numbers_of_heads_are_right(
    corpus: ta.Corpus, smollm2_tokenizer: Any
) -> None:
    bridge = architectures.bridge("LagunaForCausalLM", smollm2_tokenizer)
    for layers in ([0, 2], [1, 3]):
        assert_equal(*(collect(bridge, corpus, layers=layers, source=source) for source in ("hooks", "streamed")))


@pytest.mark.parametrize(
    ("name", "said"),
    [
        ("HubertForCTC", r"reads sound \(its input is input_values\)"),
        ("Wav2Vec2Model", r"reads sound \(its input is input_values\)"),
        ("ASTForAudioClassification", r"reads sound \(its input is input_values\)"),
        ("ViTModel", r"reads images \(its input is pixel_values\)"),
        ("DeiTForImageClassification", r"reads images \(its input is pixel_values\)"),
    ],
)
def test_models_of_sound_and_images_are_refused_by_name(
    name: str, said: str, corpus: ta.Corpus, smollm2_tokenizer: Any, tmp_path: Any
) -> None:
    original = architectures.build(name, smollm2_tokenizer)
    original.save_pretrained(tmp_path / "model")
    message = rf"model: .* {said}, but statistics need text; expected a model whose input is text \(input_ids\)"
    for source in ("auto", "hooks"):
        with pytest.raises(ModelError, match=message):
            collect(original, corpus, tokenizer=smollm2_tokenizer, source=source)
    with pytest.raises(ModelError, match=message):
        ta.load_model(str(tmp_path / "model"))
    bridge = architectures.boot(original, smollm2_tokenizer)
    for use in (ta.describe, lambda model: collect(model, corpus), lambda model: ta.attention_of(model, "the cat")):
        with pytest.raises(ModelError, match=message):
            use(bridge)


@pytest.mark.parametrize("name", ["MambaForCausalLM", "RwkvForCausalLM"])
def test_models_without_attention_are_told_from_those_without_pattern_hooks(
    name: str, corpus: ta.Corpus, smollm2_tokenizer: Any
) -> None:
    original = architectures.build(name, smollm2_tokenizer)
    with pytest.raises(ModelError, match=f"model: {name} has no attention layers"):
        collect(original, corpus, tokenizer=smollm2_tokenizer)
    with pytest.raises(ModelError, match=f"expected a TransformerLens model, .*; {name} has no attention layers"):
        collect(original, corpus, tokenizer=smollm2_tokenizer, source="hooks")
    bridge = architectures.boot(original, smollm2_tokenizer)
    with pytest.raises(ModelError, match=f"model: {name} has no attention layers; expected a decoder or an encoder"):
        collect(bridge, corpus)


@pytest.mark.parametrize("name", [name for name, readable in bare.WITHOUT_PATTERN_HOOKS.items() if readable])
def test_models_without_pattern_hooks_are_read_as_models_of_transformers(
    name: str, corpus: ta.Corpus, smollm2_tokenizer: Any, no_timm: None
) -> None:
    original = architectures.build(name, smollm2_tokenizer)
    stats = collect(original, corpus, tokenizer=smollm2_tokenizer)  # tests/test_matrix.py tests the values
    assert stats.provenance["source"] == "streamed"
    with pytest.raises(
        ModelError,
        match=rf"TransformerLens has a bridge for {name}, but without hooks for attention patterns; "
        r"use source='streamed', which needs none",
    ):
        collect(original, corpus, tokenizer=smollm2_tokenizer, source="hooks")
    bridge = architectures.boot(original, smollm2_tokenizer)
    for source in ("auto", "hooks", "streamed"):
        with pytest.raises(
            ModelError,
            match=rf"TransformerLens offers no hooks blocks\.\*\.attn\.hook_pattern for the attention of {name}; pass "
            r"the transformers model itself .*: ta\.collect\(model, corpus, tokenizer=tokenizer\)",
        ):
            collect(bridge, corpus, source=source)


@pytest.mark.parametrize(
    ("name", "reason"),
    [
        ("DeepseekV4ForCausalLM", r"does not give the attention of layer 1 as \[batch, head, query, key\]"),
        ("HrmTextForCausalLM", "goes through layer 0 several times in one forward pass"),
    ],
)
def test_models_that_cannot_be_read_either_way_get_no_circular_advice(
    name: str, reason: str, corpus: ta.Corpus, smollm2_tokenizer: Any
) -> None:
    original = architectures.build(name, smollm2_tokenizer)
    with pytest.raises(ModelError, match=reason) as caught:
        collect(original, corpus, tokenizer=smollm2_tokenizer)
    assert "boot_transformers" not in str(caught.value)
    with pytest.raises(ModelError, match=f"has a bridge for {name}, but without hooks for attention patterns$"):
        collect(original, corpus, tokenizer=smollm2_tokenizer, source="hooks")
    bridge = architectures.boot(original, smollm2_tokenizer)
    with pytest.raises(ModelError, match=f"for the attention of {name}, so its attention cannot be read"):
        collect(bridge, corpus)


def test_a_transformers_model_that_is_not_streamed_gets_advice_that_exists(
    corpus: ta.Corpus, smollm2_tokenizer: Any
) -> None:
    bloom = architectures.build("BloomForCausalLM", smollm2_tokenizer)
    with pytest.raises(ModelError, match=r"attention interface .*; bridge it: TransformerBridge\.boot") as e:
        collect(bloom, corpus, tokenizer=smollm2_tokenizer)
    assert "source='hooks'" not in str(e.value)
    bridge = architectures.boot(bloom, smollm2_tokenizer)
    assert collect(bridge, corpus, metrics=["distance"]).provenance["source"] == "hooks"


@pytest.mark.parametrize(
    ("name", "advice"),
    [
        ("BloomModel", r"load it with its head \(AutoModelForCausalLM\), without which there is no bridge"),
        ("BertModel", r"load it with its head \(AutoModelForMaskedLM\), without which there is no bridge"),
        ("BartModel", r"load it with its head \(AutoModelForSeq2SeqLM\), without which there is no bridge"),
        ("DistilBertModel", "TransformerLens has no bridge for DistilBertModel"),
    ],
)
def test_a_model_without_its_head_is_refused_with_the_class_that_has_a_bridge(
    name: str, advice: str, corpus: ta.Corpus, minilm_tokenizer: Any
) -> None:
    body = architectures.build(name, minilm_tokenizer)
    with pytest.raises(ModelError, match=advice):
        collect(body, corpus, tokenizer=minilm_tokenizer, source="hooks")


def test_a_transformers_model_that_has_no_bridge_is_not_told_to_make_one(
    corpus: ta.Corpus, smollm2_tokenizer: Any, minilm_tokenizer: Any
) -> None:
    distilbert = architectures.build("DistilBertForMaskedLM", minilm_tokenizer)
    with pytest.raises(ModelError, match=r"hooks; TransformerLens has no bridge for DistilBertForMaskedLM"):
        collect(distilbert, corpus, tokenizer=minilm_tokenizer, source="hooks")
    prophet = architectures.build("ProphetNetForConditionalGeneration", minilm_tokenizer)
    with pytest.raises(ModelError, match=r"is an encoder–decoder of transformers, .* no bridge for ProphetNet") as e:
        collect(prophet, corpus, tokenizer=minilm_tokenizer)
    assert "boot_transformers" not in str(e.value)


def test_xlnet_is_refused_for_its_attention_and_has_no_limit_of_positions(
    corpus: ta.Corpus, minilm_tokenizer: Any
) -> None:
    config = transformers.XLNetConfig(vocab_size=len(minilm_tokenizer), d_model=32, n_layer=2, n_head=4, d_inner=48)
    model = transformers.XLNetLMHeadModel(config).eval()
    assert config.max_position_embeddings == -1  # transformers' way of saying that there is no limit
    assert bare.max_tokens(model, minilm_tokenizer) is None
    with pytest.raises(ModelError, match=r"does not give the attention of layer 0 as .* no bridge for XLNetLMHead"):
        collect(model, corpus, tokenizer=minilm_tokenizer)


def test_a_native_bridge_is_refused_with_what_it_lacks(corpus: ta.Corpus, smollm2_tokenizer: Any) -> None:
    config = TransformerBridgeConfig(
        d_model=32, d_head=8, n_heads=4, n_layers=2, n_ctx=96, d_vocab=len(smollm2_tokenizer), d_mlp=48, act_fn="gelu"
    )
    bridge = TransformerBridge.boot_native(config, tokenizer=smollm2_tokenizer)
    with pytest.raises(
        ModelError,
        match=r"source='streamed': got TransformerBridge without a transformers model in it, expected a "
        r"TransformerBridge made by boot_transformers, or a transformers model; use source='hooks'",
    ):
        collect(bridge, corpus, source="streamed")
    assert collect(bridge, corpus).provenance["source"] == "hooks"


def test_a_decoders_start_token_is_read_from_the_text_configuration(minilm_tokenizer: Any) -> None:
    bridge = architectures.bridge("Florence2ForConditionalGeneration", minilm_tokenizer)
    config = bridge.original_model.config.text_config
    assert config.decoder_start_token_id == 102
    assert ta.describe(bridge, stream="decoder").decoder_framing.prefix == (102, 101)
    config.decoder_start_token_id = None
    with pytest.raises(ModelError, match="has no start token for its decoder; set decoder_start_token_id in its"):
        ta.describe(bridge, stream="decoder")


def test_a_decoder_whose_rule_lacks_its_token_is_refused(minilm_tokenizer: Any) -> None:
    bridge = architectures.bridge("LongT5ForConditionalGeneration", minilm_tokenizer)
    del bridge.original_model.config.decoder_start_token_id
    with pytest.raises(ModelError, match="LongT5ForConditionalGeneration has no start token for its decoder; set "):
        ta.describe(bridge, stream="decoder")


def test_keys_that_are_no_tokens_are_refused(corpus: ta.Corpus, smollm2_tokenizer: Any) -> None:
    """A compressed key may appear only in texts longer than that of the trial."""
    model = architectures.build("LlamaForCausalLM", smollm2_tokenizer)
    register = transformers.AttentionInterface.register
    from tl_attnstats.attention.sources.streamed import _attention

    collectors = ta.Collectors(model, tokenizer=smollm2_tokenizer)
    collectors.run(next(collectors.batches(corpus)))

    def with_one_more(module: Any, query: torch.Tensor, key: torch.Tensor, value: torch.Tensor, *args: Any, **kw: Any):  # type: ignore[no-untyped-def]
        return _attention(module, query, torch.cat([key, key[:, :, :1]], 2), value, *args, **kw)

    register("attnstats", with_one_more)
    try:
        with pytest.raises(
            ModelError, match=r"layer 0 has \d+ keys for \d+ tokens, and the others are unknown; bridge it"
        ):
            collectors.run(next(collectors.batches(corpus)))
    finally:
        register("attnstats", _attention)
