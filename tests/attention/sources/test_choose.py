"""Sources are checked before they are used: windows, direction, batches, contradictions."""

from __future__ import annotations

import warnings
from contextlib import nullcontext
from dataclasses import replace
from functools import partial
from typing import Any

import numpy as np
import pytest
import torch
import transformers

import tl_attnstats as ta
from tests import architectures, tiny
from tests.asserting import TOLERANCE, assert_equal
from tests.running import both
from tl_attnstats.attention.reach import Reach
from tl_attnstats.attention.sources.streamed import StreamedSource
from tl_attnstats.attention.sources.trials import Trials, limits
from tl_attnstats.errors import BatchDependence, CorpusError, HookError, SourcesDisagree

METRICS = ("null_share", "distance", "entropy", "offset_profile")
SIZE = {**architectures.NARROW, "attn_implementation": "eager"}
LATENT = {"q_lora_rank": 16, "kv_lora_rank": 16, "qk_rope_head_dim": 4, "qk_nope_head_dim": 8, "v_head_dim": 6}
EXPERTS = {"n_routed_experts": 2, "num_experts_per_tok": 1, "n_group": 1, "topk_group": 1, "moe_intermediate_size": 16}


@pytest.fixture(scope="module")
def corpus() -> ta.Corpus:
    """Sentences of up to about 45 tokens, past the windows and chunks of these tests."""
    corpus = ta.Corpus(tiny.sentences(8, seed=5, most_words=30))
    assert max(len(sentence.words) for sentence in corpus) > 25
    return corpus


def made(model_class: str, config: Any, tokenizer: Any) -> Any:
    """A bridge of a tiny model with peaked attention."""
    torch.manual_seed(0)
    model = getattr(transformers, model_class)(config).eval()
    with torch.no_grad():
        for name, weight in model.named_parameters():
            if weight.ndim == 2 and "norm" not in name:
                weight.mul_(12)
    model.config.architectures = [model_class]
    return architectures.boot(model, tokenizer)


def llama4(tokenizer: Any) -> Any:
    config = transformers.Llama4TextConfig(
        **SIZE,
        vocab_size=len(tokenizer),
        attention_chunk_size=20,
        layer_types=["chunked_attention", "full_attention"],
        use_qk_norm=False,
        num_local_experts=2,
    )
    return made("Llama4ForCausalLM", config, tokenizer)


def mistral(tokenizer: Any, window: int) -> Any:
    config = transformers.MistralConfig(**SIZE, vocab_size=len(tokenizer), sliding_window=window)
    return made("MistralForCausalLM", config, tokenizer)


def phi3_longrope(tokenizer: Any) -> Any:
    """Its rotary frequencies change if the longest sequence of a batch exceeds 20 tokens."""
    rope = {
        "rope_type": "longrope",
        "short_factor": [1.0] * 4,
        "long_factor": [4.0, 5.0, 6.0, 7.0],
        "rope_theta": 10000.0,
        "original_max_position_embeddings": 20,
    }
    size = {name: value for name, value in SIZE.items() if name != "head_dim"}
    config = transformers.Phi3Config(
        **size, vocab_size=len(tokenizer), rope_scaling=rope, original_max_position_embeddings=20
    )
    return made("Phi3ForCausalLM", config, tokenizer)


def sparse_glm(tokenizer: Any) -> Any:
    """Each query attends to the 6 keys that an indexer ranks highest; padding decides ties."""
    config = transformers.GlmMoeDsaConfig(
        **architectures.SIZE,
        **LATENT,
        **EXPERTS,
        num_key_value_heads=4,
        first_k_dense_replace=2,
        attn_implementation="eager",
        vocab_size=len(tokenizer),
        index_topk=6,
        index_n_heads=2,
        index_head_dim=8,
    )
    return made("GlmMoeDsaForCausalLM", config, tokenizer)


def bert(tokenizer: Any, **config: Any) -> Any:
    size = {name: value for name, value in architectures.SIZE.items() if name != "pad_token_id"}
    made_of = transformers.BertConfig(**size, vocab_size=len(tokenizer), attn_implementation="eager", **config)
    return made("BertLMHeadModel" if config else "BertForMaskedLM", made_of, tokenizer)


def test_chunked_attention_is_streamed_as_the_model_computes_it(smollm2_tokenizer: Any, corpus: ta.Corpus) -> None:
    streamed, hooked = both(llama4(smollm2_tokenizer), corpus)
    assert_equal(streamed, hooked)
    # A window of the same size would reach across chunks. Here the first query of a chunk reaches only itself.
    assert (hooked["distance"].sel(layer=0) < hooked["distance"].sel(layer=1)).all()


def test_an_encoders_window_is_streamed_as_the_model_computes_it(minilm_tokenizer: Any, corpus: ta.Corpus) -> None:
    windows = {"sliding_window": 5, "layer_types": ["sliding_attention", "full_attention"]}
    side = {**architectures.NARROW, **windows, "query_pre_attn_scalar": 8, "vocab_size": len(minilm_tokenizer)}
    config = transformers.T5GemmaConfig(
        encoder=dict(side), decoder=dict(side), vocab_size=len(minilm_tokenizer), attn_implementation="eager"
    )
    model = made("T5GemmaForConditionalGeneration", config, minilm_tokenizer)
    streamed, hooked = both(model, corpus, stream="encoder", metrics=["offset_profile", "distance"])
    assert_equal(streamed, hooked)
    profile = streamed["offset_profile"].sel(layer=0)
    # transformers' encoder window of 5 reaches 5 tokens to either side.
    assert (profile.sel(offset=[-5, 5]) > 0).any()
    np.testing.assert_array_equal(profile.sel(offset=[-6, 6]), 0)


class IgnoresWindows(StreamedSource):
    def attend(self, stream: Any, layer: int, given: Any, reach: Any, *more: Any) -> torch.Tensor:
        reach = Reach(lambda batch, head, query, key: query >= key, None)
        return super().attend(stream, layer, given, reach, *more)


def test_a_window_longer_than_a_short_trial_is_tried(
    smollm2_tokenizer: Any, corpus: ta.Corpus, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("tl_attnstats.attention.sources.choose.StreamedSource", IgnoresWindows)
    with pytest.raises(HookError, match="differs from its pattern hook by"):
        ta.collect(mistral(smollm2_tokenizer, 25), corpus, METRICS, source="streamed", progress=False)


def test_a_window_is_tried_when_a_later_batch_is_the_first_to_exceed_it(
    smollm2_tokenizer: Any, corpus: ta.Corpus, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("tl_attnstats.attention.sources.choose.StreamedSource", IgnoresWindows)
    collectors = ta.Collectors(mistral(smollm2_tokenizer, 25), METRICS, source="streamed")
    longest, *_, shortest = collectors.batches(corpus, batch_tokens=1)
    collectors.run(shortest)
    with pytest.raises(HookError, match="differs from its pattern hook by"):
        collectors.run(longest)


def test_a_window_that_no_sequence_reaches_gives_no_warning(
    smollm2_tokenizer: Any, corpus: ta.Corpus, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("tl_attnstats.attention.sources.choose.StreamedSource", IgnoresWindows)
    stats = ta.collect(mistral(smollm2_tokenizer, 90), corpus, METRICS, progress=False)
    assert stats.provenance["source"] == "streamed"


@pytest.mark.parametrize("fails", [False, True])
@pytest.mark.parametrize(
    ("name", "rounded", "exact"), [("allow_tf32", True, False), ("fp32_precision", "tf32", "ieee")]
)
def test_a_trial_multiplies_exactly_whatever_the_user_has_set(
    name: str,
    rounded: Any,
    exact: Any,
    fails: bool,
    tiny_decoder: Any,
    corpus: ta.Corpus,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    settings: Any = torch.backends.cuda.matmul
    before = getattr(settings, name)
    setattr(settings, name, rounded)
    seen, sample = [], Trials.sample

    def watched(self: Trials, read: Any, batch: ta.Batch) -> Any:
        seen.append(getattr(settings, name))
        if fails:
            raise RuntimeError("mine")
        return sample(self, read, batch)

    monkeypatch.setattr(Trials, "sample", watched)
    collectors = ta.Collectors(tiny_decoder, ["distance"])
    batch = next(collectors.batches(corpus))
    try:
        with pytest.raises(RuntimeError, match="mine") if fails else nullcontext():
            collectors._choice._trial(batch.take([0]), 10, several=False, own_loop=False)
        assert getattr(settings, name) == rounded
    finally:
        setattr(settings, name, before)
    assert seen == [exact] * (1 if fails else 2)


def test_windows_are_found_anywhere_in_the_configuration(smollm2_tokenizer: Any) -> None:
    assert 25 in list(limits(mistral(smollm2_tokenizer, 25)))
    assert 20 in list(limits(llama4(smollm2_tokenizer)))

    class Outer:
        class original_model:  # noqa: N801
            config = transformers.Llama4Config(text_config={"attention_chunk_size": 77})

    assert 77 in list(limits(Outer))


class Wrong(StreamedSource):
    def attend(self, stream: Any, layer: int, given: Any, reach: Any, *more: Any) -> torch.Tensor:
        return super().attend(stream, layer, replace(given, query=given.query * 1.5), reach, *more)


def test_auto_says_that_the_sources_disagree_and_which_transformers_agrees_with(
    smollm2_tokenizer: Any, corpus: ta.Corpus, monkeypatch: pytest.MonkeyPatch
) -> None:
    model = tiny.decoder(smollm2_tokenizer)  # not the shared one, which another test may have proved already
    monkeypatch.setattr("tl_attnstats.attention.sources.choose.StreamedSource", Wrong)
    said = (
        r"source='streamed': layer 0 of tiny-decoder differs from its pattern hook by 0\.\d+; "
        r"transformers' own eager attention agrees with the hook"
    )
    with pytest.warns(SourcesDisagree, match=rf"{said}; going on with source='hooks'"):
        stats = ta.collect(model, corpus, METRICS, progress=False)
    assert stats.provenance["source"] == "hooks"
    assert stats.provenance["sources_disagree"].startswith("source='streamed': layer 0 of tiny-decoder differs")


def test_the_streamed_source_is_refused_where_transformers_agrees_with_the_hook(
    smollm2_tokenizer: Any, corpus: ta.Corpus, monkeypatch: pytest.MonkeyPatch
) -> None:
    model = tiny.decoder(smollm2_tokenizer)
    monkeypatch.setattr("tl_attnstats.attention.sources.choose.StreamedSource", Wrong)
    with pytest.raises(HookError, match=r"source='streamed': layer 0 of tiny-decoder .* agrees with the hook; use sou"):
        ta.collect(model, corpus, METRICS, source="streamed", progress=False)


def test_auto_says_nothing_where_streaming_is_only_unsupported(smollm2_tokenizer: Any, corpus: ta.Corpus) -> None:
    stats = ta.collect(architectures.bridge("GPTJForCausalLM", smollm2_tokenizer), corpus, METRICS, progress=False)
    assert stats.provenance["source"] == "hooks"
    assert "sources_disagree" not in stats.provenance


def test_the_streamed_source_goes_on_where_transformers_contradicts_the_hook(
    smollm2_tokenizer: Any, corpus: ta.Corpus
) -> None:
    model = tiny.decoder(smollm2_tokenizer)
    expected = ta.collect(model, corpus, METRICS, progress=False)
    # Break the bridge: its attention does not see the input.
    attention = type(model.blocks[0].attn)
    forward = attention.forward

    def of_nothing(self: Any, *args: Any, **kwargs: Any) -> Any:
        return forward(self, *args, **{**kwargs, "hidden_states": kwargs["hidden_states"] * 0})

    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(attention, "forward", of_nothing)
        with pytest.warns(SourcesDisagree, match="agrees with this source; going on with source='streamed'"):
            streamed = ta.collect(model, corpus, METRICS, source="streamed", progress=False)
        with pytest.warns(SourcesDisagree, match="agrees with this source; going on with source='hooks'"):
            assert ta.collect(model, corpus, METRICS, progress=False).provenance["source"] == "hooks"
    np.testing.assert_allclose(streamed["distance"], expected["distance"], atol=TOLERANCE)


@pytest.mark.parametrize("source", ["auto", "hooks", "streamed"])
def test_a_decoder_that_transformerlens_calls_bidirectional_is_causal(
    source: Any, minilm_tokenizer: Any, corpus: ta.Corpus
) -> None:
    model = bert(minilm_tokenizer, is_decoder=True)
    model.cfg.attention_dir = "bidirectional"  # so say TransformerLens 4.1 and later of themselves
    stats = ta.collect(model, corpus, METRICS, source=source, progress=False)
    assert stats.provenance["attention"] == "causal"
    assert stats.provenance["null"] == "first"
    assert stats.provenance["direction"] == "causal, as the model's patterns show; TransformerLens says bidirectional"
    assert (stats["offset"] >= 0).all()


def test_an_encoder_that_transformerlens_calls_causal_is_bidirectional(
    minilm_tokenizer: Any, corpus: ta.Corpus
) -> None:
    model = bert(minilm_tokenizer)
    expected = ta.collect(model, corpus, METRICS, progress=False)
    model.cfg.attention_dir = "causal"
    streamed, hooked = both(model, corpus, metrics=METRICS)
    assert_equal(streamed, hooked)
    assert_equal(streamed, expected)
    assert streamed.provenance["attention"] == "bidirectional"
    assert streamed.provenance["null"] == "special"
    assert streamed.provenance["direction"].startswith("bidirectional, as the model's patterns show")


def test_a_bridge_that_masks_what_transformers_does_not_is_contradicted(
    smollm2_tokenizer: Any, corpus: ta.Corpus
) -> None:
    config = transformers.LlamaConfig(**SIZE, vocab_size=len(smollm2_tokenizer))
    config.is_causal = False  # transformers attends in both directions, the bridge only where there is padding
    model = made("LlamaForCausalLM", config, smollm2_tokenizer)
    with (
        pytest.warns(BatchDependence),
        pytest.warns(SourcesDisagree, match="agrees with this source; going on with source='hooks'"),
    ):
        ta.collect(model, corpus, METRICS, progress=False)


def test_a_direction_that_transformerlens_has_right_is_not_in_the_provenance(
    tiny_decoder: Any, corpus: ta.Corpus
) -> None:
    stats = ta.collect(tiny_decoder, corpus, METRICS, progress=False)
    assert stats.provenance["attention"] == "causal"
    assert "direction" not in stats.provenance


@pytest.mark.parametrize(
    ("make", "source"),
    [(phi3_longrope, "streamed"), (phi3_longrope, "hooks"), (sparse_glm, "hooks"), (sparse_glm, "auto")],
)
def test_sequences_that_change_each_others_attention_are_run_alone(
    make: Any, source: Any, smollm2_tokenizer: Any, corpus: ta.Corpus
) -> None:
    model = make(smollm2_tokenizer)
    name = model.cfg.model_name
    said = rf"layer 0 of {name}: the attention of a sequence changes by 0\.\d+ when a longer one is in its batch"
    with pytest.warns(BatchDependence, match=rf"{said}; going on one sequence at a time") as record:
        together = ta.collect(model, corpus, METRICS, source=source, batch_tokens=500, progress=False)
    assert len([warning for warning in record if warning.category is BatchDependence]) == 1
    assert together.provenance["batch_dependence"].startswith("layer 0 of")
    alone = ta.collect(model, corpus, METRICS, source="hooks", batch_tokens=1, progress=False)
    for metric in METRICS:
        np.testing.assert_allclose(together[metric], alone[metric], rtol=0, atol=TOLERANCE, err_msg=metric)


def test_batch_dependence_gives_a_warning_in_a_users_loop(smollm2_tokenizer: Any, corpus: ta.Corpus) -> None:
    collectors = ta.Collectors(phi3_longrope(smollm2_tokenizer), METRICS)
    (batch,) = collectors.batches(corpus, batch_tokens=500)
    with pytest.warns(BatchDependence, match=r"give batches of one sequence \(batch_tokens=1\)"):
        collectors.hooks(batch)


def test_a_model_without_batch_dependence_gives_no_warning(tiny_decoder: Any, corpus: ta.Corpus) -> None:
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        stats = ta.collect(tiny_decoder, corpus, METRICS, batch_tokens=500, progress=False)
    assert "batch_dependence" not in stats.provenance


def zeroed(pattern: torch.Tensor, hook: Any) -> torch.Tensor:
    pattern[:, 1] = 0
    return pattern


def test_a_zeroed_head_is_refused_as_an_ablation_and_accepted_on_request(
    smollm2_tokenizer: Any, corpus: ta.Corpus
) -> None:
    model = tiny.decoder(smollm2_tokenizer)
    clean = ta.collect(model, corpus, METRICS, source="hooks", progress=False)
    with model.hooks(fwd_hooks=[("blocks.1.attn.hook_pattern", zeroed)]):
        with pytest.raises(
            HookError,
            match=r"they sum to 0\.0000 to 1\.0000.* If a hook of yours changes them on purpose, as an ablation does, "
            r"pass allow_unnormalised=True, or leave the layer out with layers=",
        ):
            ta.collect(model, corpus, METRICS, progress=False)
        ablated = ta.collect(model, corpus, METRICS, allow_unnormalised=True, progress=False)
        ta.collect(model, corpus, METRICS, layers=[0, 2], progress=False)
    head = {"layer": 1, "head": 1}
    assert float(ablated["null_share"].sel(head)) == 0
    assert np.isnan(ablated["distance"].sel(head))
    # The ablation changes neither layer 0, which is before it, nor the other heads of layer 1.
    for name in ("null_share", "distance", "entropy"):
        np.testing.assert_array_equal(ablated[name].sel(layer=0), clean[name].sel(layer=0))
        np.testing.assert_array_equal(ablated[name].sel(layer=1, head=[0, 2]), clean[name].sel(layer=1, head=[0, 2]))


def test_negative_weights_are_refused_in_any_case(smollm2_tokenizer: Any, corpus: ta.Corpus) -> None:
    model = tiny.decoder(smollm2_tokenizer)
    with (
        model.hooks(fwd_hooks=[("blocks.1.attn.hook_pattern", lambda pattern, hook: -pattern)]),
        pytest.raises(HookError, match=r"the least weight is -0\.\d+"),
    ):
        ta.collect(model, corpus, METRICS, allow_unnormalised=True, progress=False)


@pytest.mark.parametrize("n_tokens", [7, 300])
@pytest.mark.parametrize(
    ("rule", "window", "is_window"),
    [
        (lambda q, k: k <= q, None, True),
        (lambda q, k: (k <= q) & (k > q - 5), 5, True),
        (lambda q, k: (k <= q) & (k > q - 5), 6, False),
        (lambda q, k: (k <= q) & (k // 5 == q // 5), 5, False),
        (lambda q, k: q >= 0, None, False),
        (lambda q, k: abs(q - k) <= 5, 5, False),
    ],
    ids=["causal", "window", "wrong window", "chunks", "bidirectional", "both sides"],
)
def test_reach_applies_the_rule_and_knows_a_window(
    rule: Any, window: int | None, is_window: bool, n_tokens: int
) -> None:
    reach = Reach(lambda batch, head, query, key: rule(query, key), window)
    rows = torch.arange(2, 6)
    allowed = reach.allowed(3, rows, n_tokens).expand(3, 1, 4, n_tokens)
    for row, query in enumerate(rows.tolist()):
        for key in range(n_tokens):
            assert allowed[:, 0, row, key].unique().tolist() == [bool(rule(torch.tensor(query), torch.tensor(key)))]
    assert reach.is_window(3, n_tokens, n_tokens) is is_window
    assert not reach.is_window(3, n_tokens, n_tokens + 1)


def counted_trials(monkeypatch: pytest.MonkeyPatch) -> list[int]:
    """The number of tokens that each trial from now on reads at the hooks."""
    tried: list[int] = []
    of_model = Trials.of_model

    def counting(self: Trials, batch: ta.Batch) -> Any:
        tried.append(batch.input_ids.numel())
        return of_model(self, batch)

    monkeypatch.setattr(Trials, "of_model", counting)
    return tried


def test_an_unchanged_model_is_tried_once(
    smollm2_tokenizer: Any, corpus: ta.Corpus, monkeypatch: pytest.MonkeyPatch
) -> None:
    model, tried = tiny.decoder(smollm2_tokenizer), counted_trials(monkeypatch)
    first = ta.collect(model, corpus, METRICS, progress=False)
    assert len(tried) == 1
    again = ta.collect(model, corpus, METRICS, progress=False)
    assert len(tried) == 1
    np.testing.assert_array_equal(first["distance"], again["distance"])
    ta.collect(model, corpus, METRICS, layers=[1], progress=False)  # other settings: a trial of their own
    assert len(tried) == 2


def edits(model: Any) -> dict[str, Any]:
    """Changes to a model after which an earlier trial is void, or the twin has other weights."""
    attention = model.original_model.model.layers[1].self_attn
    projection = attention.q_proj._original_component
    return {
        "another parameter": lambda: setattr(projection, "weight", torch.nn.Parameter(projection.weight * 0.5)),
        "other memory": lambda: setattr(projection.weight, "data", projection.weight * 0.5),
        "another forward": lambda: setattr(attention, "forward", partial(_twice, attention.forward)),
        "configuration": lambda: setattr(model.original_model.config, "rope_theta", 99.0),
        "a torch hook": lambda: attention.register_forward_hook(lambda *_: None),
    }


def _twice(forward: Any, hidden_states: torch.Tensor, *args: Any, **kwargs: Any) -> Any:
    return forward(hidden_states, *args, **kwargs)


@pytest.mark.parametrize(
    "name", ["another parameter", "other memory", "another forward", "configuration", "a torch hook"]
)
def test_a_changed_model_is_tried_again(
    name: str, smollm2_tokenizer: Any, corpus: ta.Corpus, monkeypatch: pytest.MonkeyPatch
) -> None:
    model, tried = tiny.decoder(smollm2_tokenizer), counted_trials(monkeypatch)
    ta.collect(model, corpus, METRICS, progress=False)
    edits(model)[name]()
    streamed = ta.collect(model, corpus, METRICS, progress=False)
    assert len(tried) == 2
    hooks = ta.collect(model, corpus, METRICS, source="hooks", progress=False)
    np.testing.assert_allclose(streamed["distance"], hooks["distance"], atol=TOLERANCE)


def test_weights_edited_in_place_change_in_the_twin_too(smollm2_tokenizer: Any, corpus: ta.Corpus) -> None:
    model = tiny.decoder(smollm2_tokenizer)
    before = ta.collect(model, corpus, METRICS, progress=False)
    with torch.no_grad():
        model.original_model.model.layers[1].self_attn.q_proj._original_component.weight[:8] *= 0.3
    streamed, hooks = (ta.collect(model, corpus, METRICS, source=s, progress=False) for s in ("streamed", "hooks"))
    np.testing.assert_allclose(streamed["distance"], hooks["distance"], atol=TOLERANCE)
    assert np.abs(streamed["distance"] - before["distance"]).max() > 0.01


def dynamic_rope(tokenizer: Any) -> Any:
    """A decoder whose rotary frequencies depend on the longest sequence it has read, if longer than 32 tokens."""
    config = transformers.LlamaConfig(
        **{**SIZE, "max_position_embeddings": 32},
        vocab_size=len(tokenizer),
        rope_scaling={"rope_type": "dynamic", "factor": 4.0},
    )
    return made("LlamaForCausalLM", config, tokenizer)


def test_frequencies_left_by_earlier_batches_change_nothing(smollm2_tokenizer: Any, corpus: ta.Corpus) -> None:
    model = dynamic_rope(smollm2_tokenizer)
    short = ta.Corpus([s for s in corpus if len(s.words) < 12])
    expected = ta.collect(model, short, METRICS, source="hooks", progress=False)
    # Frequencies change only beyond the context, which no sequence of a run exceeds.
    with pytest.raises(CorpusError, match="has 36 tokens, but the model"):
        ta.collect(model, corpus, METRICS, progress=False)
    model(torch.randint(0, 100, (1, 90)))  # but the user's own passes may
    if transformers.__version__.startswith("5.12."):  # which does not set them back, so the model is another
        expected = ta.collect(model, short, METRICS, source="hooks", progress=False)
    for source in ("hooks", "streamed"):
        found = ta.collect(model, short, METRICS, source=source, progress=False)
        np.testing.assert_allclose(found["distance"], expected["distance"], atol=TOLERANCE)
