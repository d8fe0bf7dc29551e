"""The tests of hooks again, on a `HookedTransformer`."""

from __future__ import annotations

from typing import Any

import pytest
import torch

import tl_attnstats as ta
from tests import tiny
from tests.attention.sources.tester import *  # noqa: F403  (pytest runs the tests that a module imports)
from tl_attnstats.errors import HookError, ModelError


@pytest.fixture
def model(hooked_transformer: Any) -> Any:
    return hooked_transformer


def test_run_skips_what_comes_after_the_last_pattern(model: Any, corpus: ta.Corpus) -> None:
    calls: list[str] = []
    model.unembed.register_forward_hook(lambda *_: calls.append("unembedding"))
    collectors = ta.Collectors(model)
    batch = next(collectors.batches(corpus))
    collectors.run(batch)
    assert calls == []
    logits = model(batch.input_ids, attention_mask=batch.attention_mask)
    assert calls == ["unembedding"]
    assert logits.shape[:2] == batch.input_ids.shape  # the model still works


def test_a_model_without_pattern_hooks_is_refused(
    model: Any, corpus: ta.Corpus, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(model, "hook_dict", {n: p for n, p in model.hook_dict.items() if "attn" not in n})
    with pytest.raises(
        ModelError, match=r"TransformerLens offers no hooks blocks\.\*\.attn\.hook_pattern for the attention of tiny-"
    ):
        ta.collect(model, corpus)


def test_nan_in_a_pattern_names_layer_and_sentence(model: Any) -> None:
    """Spoil the last layer: a `HookedTransformer` turns NaN into 0 in the patterns of later layers."""

    def spoil(pattern: torch.Tensor, hook: Any) -> torch.Tensor:
        pattern = pattern.clone()
        pattern[0, 2, 4, 1] = float("nan")
        return pattern

    model.add_hook("blocks.2.attn.hook_pattern", spoil)
    collectors = ta.Collectors(model)
    batch = next(collectors.batches(ta.Corpus(tiny.sentences(8, seed=11))))
    first = batch.items[0].sentence
    with pytest.raises(HookError, match=rf"NaN .* layer 2, sentence {first.number + 1} \({first.name}"):
        collectors.run(batch)
    assert collectors.group.tally.sequences == 0
