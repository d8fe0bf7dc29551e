"""Tests of hooks, on any model that the fixture `model` gives: checks of patterns, all interfaces, no traces left."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest
import torch
import xarray as xr

import tl_attnstats as ta
from tests import tiny
from tl_attnstats.errors import AttnStatsError, HookError, ModelError
from tl_attnstats.models import hooked
from tl_attnstats.models.fingerprint import fingerprint

PATTERN = "blocks.1.attn.hook_pattern"


@pytest.fixture
def model(smollm2_tokenizer: Any) -> Any:
    """A new model, which the test may change."""
    return tiny.decoder(smollm2_tokenizer)


@pytest.fixture
def corpus() -> ta.Corpus:
    return ta.Corpus(tiny.sentences(8, seed=11))


def state_of(model: Any) -> dict[str, Any]:
    return {
        "hooks": {name: [h.user_hook for h in p.fwd_hooks] for name, p in model.hook_dict.items() if p.fwd_hooks},
        "torch hooks": {name: len(p._forward_hooks) for name, p in model.hook_dict.items()},
        "training": [m.training for m in (*model.modules(), *getattr(model, "original_model", model).modules())],
        "grad": torch.is_grad_enabled(),
        "weights": sum(p.double().sum().item() for p in model.parameters()),
        "dtype": {p.dtype for p in model.parameters()},
    }


def test_collect_leaves_the_model_as_it_was(model: Any, corpus: ta.Corpus) -> None:
    seen: list[Any] = []
    model.add_hook(PATTERN, lambda pattern, hook: seen.append(pattern.shape))
    model.train()
    model.blocks[1].eval()  # some modules in training mode, some not
    before = state_of(model)
    ta.collect(model, corpus, source="hooks", progress=False)
    assert state_of(model) == before
    assert len(seen) > 0


def test_collect_leaves_the_model_as_it_was_after_an_error(model: Any, corpus: ta.Corpus) -> None:
    def fail(pattern: torch.Tensor, hook: Any) -> None:
        raise RuntimeError("mine")

    model.train()
    model.add_hook(PATTERN, fail)
    before = state_of(model)
    with pytest.raises(RuntimeError, match="mine"):
        ta.collect(model, corpus, source="hooks", progress=False)
    assert state_of(model) == before


def test_collect_sees_what_the_users_hooks_make_of_a_pattern(model: Any, corpus: ta.Corpus) -> None:
    def look_at_oneself(pattern: torch.Tensor, hook: Any) -> torch.Tensor:
        return torch.eye(pattern.shape[-1]).expand_as(pattern).clone()

    model.add_hook(PATTERN, look_at_oneself)
    stats = ta.collect(model, corpus, source="hooks", progress=False)
    np.testing.assert_allclose(stats["distance"].sel(layer=1), 0)
    assert (stats["distance"].sel(layer=0) > 0).all()


def test_users_hooks_after_the_last_pattern_run(model: Any, corpus: ta.Corpus) -> None:
    seen: list[int] = []
    model.add_hook("blocks.2.hook_resid_post", lambda tensor, hook: seen.append(1))
    ta.collect(model, corpus, source="hooks", progress=False)
    assert seen


def test_run_skips_what_comes_after_the_last_pattern(model: Any, corpus: ta.Corpus) -> None:
    calls: list[str] = []
    model.original_model.lm_head.register_forward_hook(lambda *_: calls.append("unembedding"))
    collectors = ta.Collectors(model, source="hooks")
    batch = next(collectors.batches(corpus))
    model(batch.input_ids, attention_mask=batch.attention_mask, return_type=None)
    assert calls == ["unembedding"]
    collectors.run(batch)
    assert calls == ["unembedding"]
    logits = model(batch.input_ids, attention_mask=batch.attention_mask)
    assert logits.shape[:2] == batch.input_ids.shape  # the model still works


def test_collecting_does_not_change_the_logits(model: Any, corpus: ta.Corpus) -> None:
    collectors = ta.Collectors(model, source="hooks")
    batch = next(collectors.batches(corpus))
    with torch.no_grad():
        plain = model(batch.input_ids, attention_mask=batch.attention_mask)
        hooked = model.run_with_hooks(
            batch.input_ids, attention_mask=batch.attention_mask, fwd_hooks=collectors.hooks(batch)
        )
    assert torch.equal(plain, hooked)


def test_collect_caches_and_hooks_agree(model: Any, corpus: ta.Corpus) -> None:
    collected = ta.collect(model, corpus, source="hooks", progress=False)
    cached, hooked = ta.Collectors(model, source="hooks"), ta.Collectors(model, source="hooks")
    for batch in cached.batches(corpus):
        _, cache = model.run_with_cache(
            batch.input_ids, attention_mask=batch.attention_mask, names_filter=cached.hook_names
        )
        cached.update(cache, batch)
    for batch in hooked.batches(corpus):
        model.run_with_hooks(batch.input_ids, attention_mask=batch.attention_mask, fwd_hooks=hooked.hooks(batch))
    xr.testing.assert_identical(collected.dataset, cached.stats().dataset)
    xr.testing.assert_identical(collected.dataset, hooked.stats().dataset)

    def alone() -> Any:
        framing = cached.info.framing
        for sentence in corpus:
            tokens = framing.tokenize(sentence)
            _, cache = model.run_with_cache(torch.tensor([tokens.ids]), names_filter=cached.hook_names)
            yield torch.stack([cache[name][0] for name in cached.hook_names]), tokens

    from_patterns = ta.collect_patterns(alone())
    for name in collected.statistics:
        np.testing.assert_allclose(from_patterns[name], collected[name], atol=1e-5, err_msg=name)


def test_collectors_after_an_aborted_pass_count_nothing_of_it(model: Any, corpus: ta.Corpus) -> None:
    collectors = ta.Collectors(model, source="hooks")
    first, *_ = batches = list(collectors.batches(corpus, batch_tokens=50))
    model.run_with_hooks(first.input_ids, fwd_hooks=collectors.hooks(first)[:2], return_type=None)
    with pytest.raises(HookError, match="begun and not completed"):
        collectors.stats()
    for batch in batches:
        collectors.run(batch)
    whole = ta.collect(model, corpus, batch_tokens=50, source="hooks", progress=False)
    xr.testing.assert_identical(collectors.stats().dataset, whole.dataset)


def test_layers_restrict_the_run(model: Any, corpus: ta.Corpus) -> None:
    whole, some = (
        ta.collect(model, corpus, source="hooks", progress=False),
        ta.collect(model, corpus, layers=[2, 0], source="hooks", progress=False),
    )
    assert some["layer"].values.tolist() == [0, 2]
    np.testing.assert_allclose(some["distance"], whole["distance"].sel(layer=[0, 2]))


@pytest.mark.parametrize(
    ("spoil", "message"),
    [
        (lambda p: p * 0.5, r"layer 1 \(blocks\.1\.attn\.hook_pattern\): rows are not probabilities: they sum to 0\.5"),
        (lambda p: p.roll(1, -1), "layer 1 .* is on (later tokens|padding), expected none"),
        (lambda p: torch.full_like(p, 1 / p.shape[-1]), "layer 1 .* is on (later tokens|padding), expected none"),
        (lambda p: p * 2 - p.flip(1), "layer 1 .* rows are not probabilities"),
    ],
)
def test_wrong_patterns_are_refused(model: Any, corpus: ta.Corpus, spoil: Any, message: str) -> None:
    model.add_hook(PATTERN, lambda pattern, hook: spoil(pattern))
    with pytest.raises(HookError, match=message):
        ta.collect(model, corpus, source="hooks", progress=False)


def test_a_pattern_of_another_shape_is_refused(model: Any, corpus: ta.Corpus) -> None:
    collectors = ta.Collectors(model, source="hooks")
    batch = next(collectors.batches(corpus))
    _, cache = model.run_with_cache(batch.input_ids, names_filter=collectors.hook_names)
    cut = {name: pattern[:, :2] for name, pattern in cache.items()}
    with pytest.raises(HookError, match=r"layer 0 .*shape \(8, 2, .*expected \(8, 4, .*\[batch, head, query, key\]"):
        collectors.update(cut, batch)
    with pytest.raises(HookError, match=r"no blocks\.0\.attn\.hook_pattern .* names_filter=collectors\.hook_names"):
        collectors.update({}, batch)


def test_a_hook_that_never_fires_is_reported(model: Any, corpus: ta.Corpus, monkeypatch: Any) -> None:
    quiet = model.hook_dict[PATTERN]
    monkeypatch.setattr(quiet, "forward", lambda x: x)
    monkeypatch.setattr(quiet, "add_hook", lambda *a, **k: idle_handle())
    with pytest.raises(HookError, match=r"layer 1: the hook blocks\.1\.attn\.hook_pattern fired 0 times"):
        ta.collect(model, corpus, source="hooks", progress=False)


def idle_handle() -> Any:
    from transformer_lens.hook_points import LensHandle

    return LensHandle(torch.nn.Identity().register_forward_hook(lambda *_: None))


def test_nan_in_a_pattern_names_layer_and_sentence(model: Any) -> None:
    def spoil(pattern: torch.Tensor, hook: Any) -> torch.Tensor:
        pattern = pattern.clone()
        pattern[0, 2, 4, 1] = float("nan")
        return pattern

    model.add_hook(PATTERN, spoil)
    collectors = ta.Collectors(model, source="hooks")
    batch = next(collectors.batches(ta.Corpus(tiny.sentences(8, seed=11))))
    first = batch.items[0].sentence
    with pytest.raises(HookError, match=rf"NaN .* layer 1, sentence {first.number + 1} \({first.name}"):
        collectors.run(batch)
    assert collectors.group.tally.sequences == 0


def test_a_model_without_pattern_hooks_is_refused(model: Any, corpus: ta.Corpus, monkeypatch: Any) -> None:
    bare = {name: point for name, point in model.hook_dict.items() if "attn" not in name}
    monkeypatch.setattr(type(model), "hook_dict", bare)
    with pytest.raises(
        ModelError, match=r"TransformerLens offers no hooks blocks\.\*\.attn\.hook_pattern for the attention of tiny-"
    ):
        ta.collect(model, corpus)


def test_options_are_checked(model: Any, corpus: ta.Corpus) -> None:
    with pytest.raises(ModelError, match=r"layers: got \[7\], expected some of 0 to 2"):
        ta.collect(model, corpus, layers=[7])
    with pytest.raises(AttnStatsError, match="null='last': expected one of auto, first, special, none"):
        ta.collect(model, corpus, null="last")
    with pytest.raises(AttnStatsError, match="batch_tokens=0: expected a positive number"):
        ta.collect(model, corpus, batch_tokens=0)


def test_a_sentence_beyond_the_context_is_named_and_cut_on_request(model: Any) -> None:
    long = ta.Sentence("cat " * 200, (ta.Word(0, 3, "NOUN", None, "root"),), "the long one")
    corpus = ta.Corpus([*tiny.sentences(3, seed=1), long])
    with pytest.raises(AttnStatsError, match=r"sentence 4 \(the long one: .* has room for 95; .*truncate"):
        ta.collect(model, corpus, source="hooks", progress=False)
    stats = ta.collect(model, corpus, truncate=True, source="hooks", progress=False)
    assert stats.provenance["sequences"] == 4


def test_framing_adds_the_tokens_that_to_tokens_adds(model: Any, tiny_encoder: Any) -> None:
    text = "the cat sat on mats"
    sentence = ta.Sentence(text, (), "x")
    for bridge in (model, tiny_encoder):
        for bos in (None, True, False):
            tokens = framing_of(bridge, bos).tokenize(sentence)
            assert list(tokens.ids) == bridge.to_tokens(text, prepend_bos=bos)[0].tolist()


def framing_of(model: Any, bos: bool | None) -> ta.Framing:
    return ta.describe(model, prepend_bos=bos).framing


def test_bfloat16_is_reduced_in_float32(smollm2_tokenizer: Any, corpus: ta.Corpus) -> None:
    model = tiny.decoder(smollm2_tokenizer)
    full = ta.collect(model, corpus, source="hooks", progress=False)
    half = ta.collect(model.to(torch.bfloat16), corpus, source="hooks", progress=False)
    assert half.provenance["dtype"] == "bfloat16"
    np.testing.assert_allclose(half["null_share"], full["null_share"], atol=0.05)
    np.testing.assert_allclose(half["pos_to"].sum("tag"), 1, atol=1e-6)


def test_interrupted_run_reports_partial_work(model: Any, corpus: ta.Corpus) -> None:
    calls: list[int] = []

    def interrupt(pattern: torch.Tensor, hook: Any) -> None:
        calls.append(1)
        if len(calls) == 3:
            raise KeyboardInterrupt

    model.add_hook(PATTERN, interrupt)
    with pytest.raises(ta.Interrupted, match=r"interrupted after \d of 8 sentences") as caught:
        ta.collect(model, corpus, batch_tokens=20, source="hooks", progress=False)
    done = caught.value.stats
    assert done is not None
    assert 0 < done.provenance["sequences"] < 8
    assert hooked.has_hooks(model)


def test_has_hooks_sees_hooks_of_others(model: Any) -> None:
    assert not hooked.has_hooks(model)
    model.add_hook(PATTERN, lambda pattern, hook: None)
    assert hooked.has_hooks(model)


def test_collectors_go_on_from_a_saved_state(model: Any, corpus: ta.Corpus) -> None:
    whole, first, second, third = (ta.Collectors(model, source="hooks") for _ in range(4))
    batches = list(whole.batches(corpus, batch_tokens=40))
    for collectors in (first, second, third):
        list(collectors.batches(corpus))
    for batch in batches:
        whole.run(batch)
    for batch in batches[:2]:
        first.run(batch)
    second.load_state_dict(first.state_dict())
    for batch in batches[2:]:
        second.run(batch)
        third.run(batch)
    first.merge(third)
    assert len(batches) > 2
    for name, values in whole.stats().dataset.items():
        for other in (first, second):
            mine = other.stats()[str(name)]
            if values.dtype.kind == "f":
                np.testing.assert_allclose(mine, values, rtol=1e-9, atol=1e-9, err_msg=str(name))
            else:
                assert mine.equals(values), name
    assert first.stats().provenance == second.stats().provenance == whole.stats().provenance


def test_collectors_refuse_the_state_of_others(model: Any, corpus: ta.Corpus) -> None:
    few, all_ = ta.Collectors(model, ["distance"], source="hooks"), ta.Collectors(model, source="hooks")
    with pytest.raises(AttnStatsError, match="state: got statistics distance, expected baselines, "):
        all_.load_state_dict(few.state_dict())
    with pytest.raises(AttnStatsError, match=r"state: distance is of layers \[0, 1, 2\] and 4 heads, expected \[1\]"):
        ta.Collectors(model, ["distance"], layers=[1]).load_state_dict(few.state_dict())


def test_running_a_model_does_not_change_its_fingerprint(model: Any) -> None:
    clean = fingerprint(model)
    model(torch.tensor([[1, 2, 3]]))
    assert fingerprint(model) == clean
