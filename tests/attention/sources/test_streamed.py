"""The streamed source agrees with the hooks, for any architecture and any blocks of rows."""

from __future__ import annotations

import copy
from typing import Any

import numpy as np
import pytest
import torch

import tl_attnstats as ta
from tests import architectures, tiny
from tests.asserting import TOLERANCE, assert_equal
from tests.running import both
from tl_attnstats.attention.kernels.projections import NOBODY, Consumer
from tl_attnstats.attention.kernels.torch_blocks import reductions_of
from tl_attnstats.attention.reductions import Reductions
from tl_attnstats.attention.scope import Scope
from tl_attnstats.attention.sources.streamed import StreamedSource
from tl_attnstats.collectors.base import REGISTRY
from tl_attnstats.errors import ModelError
from tl_attnstats.models import hooked
from tl_attnstats.models.twin import twin

REDUCTIONS = (
    "row_mass",
    "null_mass",
    "row_max",
    "row_max_others",
    "row_log_mass",
    "column_mass",
    "offset_mass",
    "pair_mass",
)


@pytest.fixture(scope="module")
def corpus() -> ta.Corpus:
    return ta.Corpus(tiny.sentences(8, seed=5, most_words=14))


def test_streamed_agrees_with_hooks_on_smollm2(smollm2: Any, gold_corpus: ta.Corpus) -> None:
    assert_equal(*both(smollm2, gold_corpus[:24]))


def test_streamed_agrees_with_hooks_on_minilm(minilm: Any, gold_corpus: ta.Corpus) -> None:
    assert_equal(*both(minilm, gold_corpus[:24]))


@pytest.mark.parametrize(
    "settings",
    [
        {"null": "none"},
        {"null": "special"},
        {"prepend_bos": True},
        {"layers": [1]},
        {"metrics": ["distance"]},
        {"metrics": [ta.Exemplars(5, exclude_self=True)]},
    ],
    ids=lambda settings: next(iter(settings)),
)
def test_streamed_agrees_with_hooks_whatever_the_settings(
    tiny_decoder: Any, corpus: ta.Corpus, settings: dict[str, Any]
) -> None:
    assert_equal(*both(tiny_decoder, corpus, **settings))


@pytest.mark.parametrize("architecture", ["LlamaForCausalLM", "MistralForCausalLM"])
@pytest.mark.parametrize("block_elements", [1, 500, 10**6])
@pytest.mark.parametrize("null", ["first", "none"])
def test_reductions_do_not_depend_on_the_blocks(
    architecture: str, block_elements: int, null: Any, smollm2_tokenizer: Any, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("tl_attnstats.attention.kernels.cpu.LEAST_ROWS", 1)
    model = architectures.bridge(architecture, smollm2_tokenizer)
    collectors = ta.Collectors(model, null=null)
    (batch,) = collectors.batches(ta.Corpus(tiny.sentences(4, seed=3, most_words=12)), batch_tokens=1000)
    scope = Scope(batch, True, null)
    whole: dict[int, Reductions] = {}
    rows: dict[int, list[Reductions]] = {}
    source = StreamedSource(model, collectors.info)
    source.block_elements = block_elements
    source.read(
        batch,
        scope,
        Consumer(REDUCTIONS, lambda b: whole.update({b.layer: b}), lambda b: rows.setdefault(b.layer, []).append(b)),
    )

    def compare(layer: int, pattern: torch.Tensor) -> None:
        expected, found = reductions_of(pattern, scope, layer), whole[layer]
        for name in REDUCTIONS:
            torch.testing.assert_close(
                getattr(found, name).double(), getattr(expected, name).double(), rtol=0, atol=TOLERANCE
            )
        for exclude_self in (False, True):
            for a, b in zip(found.peak(exclude_self), expected.peak(exclude_self), strict=True):
                torch.testing.assert_close(a, b, rtol=0, atol=TOLERANCE)
        torch.testing.assert_close(found.corner(5), expected.corner(5), rtol=0, atol=TOLERANCE)
        assert sum(block.end_row - block.first_row for block in rows[layer]) == pattern.shape[2]
        torch.testing.assert_close(
            torch.cat([block.weights for block in rows[layer]], 2), expected.weights, rtol=0, atol=TOLERANCE
        )

    hooked.run(model, collectors.info, batch, compare)
    n_tokens = batch.input_ids.shape[1]
    fewest, most = {1: (n_tokens, n_tokens), 500: (2, n_tokens - 1), 10**6: (1, 1)}[block_elements]
    assert fewest <= len(rows[0]) <= most


@pytest.mark.parametrize(
    "architecture", ["LlamaForCausalLM", "MistralForCausalLM", "Gemma2ForCausalLM", "GptOssForCausalLM"]
)
def test_plain_torch_agrees_with_hooks_where_there_is_no_kernel(
    architecture: str, corpus: ta.Corpus, smollm2_tokenizer: Any, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("tl_attnstats.attention.kernels.compiled.numba", None)
    monkeypatch.setattr("tl_attnstats.attention.sources.streamed.MOST_ROWS", 7)  # several blocks
    assert_equal(*both(architectures.bridge(architecture, smollm2_tokenizer), corpus))


def test_statistics_that_read_weights_get_them(
    tiny_decoder: Any, corpus: ta.Corpus, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("tl_attnstats.attention.kernels.cpu.LEAST_ROWS", 3)
    monkeypatch.setattr("tl_attnstats.attention.sources.streamed.BLOCK_ELEMENTS", 1)

    class SelfShare(ta.RatioCollector):
        name = "self_share"

        def terms(self, block: Reductions) -> tuple[torch.Tensor, torch.Tensor]:
            return block.weights.diagonal(block.first_row, -2, -1).sum(-1), block.content_mass

    try:
        streamed, hooked = both(tiny_decoder, corpus, metrics=[SelfShare, "offset_profile"])
        assert_equal(streamed, hooked)
        np.testing.assert_allclose(
            streamed["self_share"], streamed["offset_profile"].sel(offset=0), rtol=0, atol=TOLERANCE
        )
    finally:
        del REGISTRY["self_share"]


@pytest.mark.parametrize("architecture", ["LlamaForCausalLM", "GPT2LMHeadModel", "Gemma2ForCausalLM"])
def test_streamed_model_gives_the_same_logits(architecture: str, smollm2_tokenizer: Any) -> None:
    model = architectures.bridge(architecture, smollm2_tokenizer)
    assert_same_logits(model, torch.randint(0, len(smollm2_tokenizer), (2, 20)))


def test_streamed_smollm2_gives_the_same_logits(smollm2: Any) -> None:
    assert_same_logits(smollm2, smollm2.to_tokens("Far out, past the last of the islands, the two boats lay waiting."))


@pytest.mark.slow
def test_logits_of_a_long_text_are_as_exact_as_sdpa_s(smollm2: Any, sample_corpus: ta.Corpus) -> None:
    # For logits up to 40, SDPA's error against float64 is about 1e-4. Which attention is more exact depends on the
    # text: the error of transformers' eager attention, which is right too, is 0.88 to 1.04 times SDPA's.
    ids = smollm2.to_tokens(" ".join(sentence.text for sentence in sample_corpus[:40]))[:, :300]
    assert ids.shape[1] == 300
    sdpa = twin(smollm2, "sdpa")
    with torch.no_grad():
        exact = copy.deepcopy(sdpa).double()(ids, use_cache=False).logits

        def error(logits: torch.Tensor) -> float:
            return (logits - exact).square().mean().sqrt().item()

        assert error(streamed_logits(smollm2, ids)) < 1.2 * error(sdpa(ids, use_cache=False).logits)


def assert_same_logits(model: Any, ids: torch.Tensor) -> None:
    implementation = "eager" if "Gemma2" in type(model.original_model).__name__ else "sdpa"
    with torch.no_grad():
        expected = twin(model, implementation)(ids, use_cache=False).logits
    torch.testing.assert_close(streamed_logits(model, ids), expected, rtol=0, atol=1e-4)


def streamed_logits(model: Any, ids: torch.Tensor) -> torch.Tensor:
    source = StreamedSource(model, ta.Collectors(model).info)
    source.last_layer = None
    (sentence,) = tiny.sentences(1)
    batch = ta.Batch([ta.TokenizedSentence(sentence, row, row, row, row) for row in ids.tolist()])
    with source.listening(batch, Scope(batch, True, "first"), NOBODY):
        logits: torch.Tensor = source.model(ids, use_cache=False).logits
    return logits


def test_the_user_s_model_is_left_as_it_was(tiny_decoder: Any, corpus: ta.Corpus) -> None:
    config = tiny_decoder.original_model.config
    before = (config._attn_implementation, tiny_decoder.training, next(tiny_decoder.parameters()).dtype)
    weights = {name: value.data_ptr() for name, value in tiny_decoder.original_model.state_dict().items()}
    ta.collect(tiny_decoder, corpus, ["distance"], source="streamed", progress=False)
    assert (config._attn_implementation, tiny_decoder.training, next(tiny_decoder.parameters()).dtype) == before
    assert {name: value.data_ptr() for name, value in tiny_decoder.original_model.state_dict().items()} == weights
    assert not hooked.has_hooks(tiny_decoder)


def test_the_twin_shares_the_weights(tiny_decoder: Any) -> None:
    theirs = {p.data_ptr() for p in tiny_decoder.original_model.parameters()}
    assert {p.data_ptr() for p in twin(tiny_decoder, "sdpa").parameters()} <= theirs


def test_auto_takes_hooks_where_the_user_has_hooks(tiny_decoder: Any, corpus: ta.Corpus) -> None:
    with tiny_decoder.hooks(fwd_hooks=[("blocks.0.hook_resid_pre", lambda tensor, hook: tensor * 2)]):
        stats = ta.collect(tiny_decoder, corpus, ["distance"], progress=False)
        with pytest.raises(ModelError, match="the model has hooks, which this source would pass by"):
            ta.collect(tiny_decoder, corpus, ["distance"], source="streamed", progress=False)
    assert stats.provenance["source"] == "hooks"
    assert ta.collect(tiny_decoder, corpus, ["distance"], progress=False).provenance["source"] == "streamed"


def test_unknown_source_is_refused(tiny_decoder: Any, corpus: ta.Corpus) -> None:
    with pytest.raises(ModelError, match="source='stream': expected one of auto, hooks, streamed"):
        ta.collect(tiny_decoder, corpus, source="stream", progress=False)  # type: ignore[arg-type]
