"""Descriptions of the user's hooks."""

from __future__ import annotations

import functools
from typing import Any

import pytest
import torch

import tl_attnstats as ta
from tests import tiny
from tl_attnstats.errors import StatsError
from tl_attnstats.models.interventions import LONGEST, describe_hooks, user_hooks


def zero(z: torch.Tensor, hook: Any, head: int = 1) -> torch.Tensor:
    z = z.clone()
    z[:, :, head] = 0
    return z


def other(z: torch.Tensor, hook: Any, head: int = 1) -> torch.Tensor:
    return z * 2


def scale(by: Any) -> Any:
    return lambda z, hook: z * by


def bare(said: str) -> str:
    """A description without the hashes of source code."""
    return "; ".join(part.split("#")[0] + part[part.index("#") + 9 :] for part in said.split("; "))


Z = "blocks.{}.attn.hook_z"


def test_descriptions_of_hooks_have_layers_as_ranges() -> None:
    placed = [(Z.format(layer), zero) for layer in (2, 0, 1)] + [("hook_embed", functools.partial(zero, head=3))]
    expected = "blocks.0 to 2.attn.hook_z: zero(head=1); hook_embed: zero(head=3)"
    assert bare(describe_hooks(placed)) == expected
    assert describe_hooks(placed[::-1]) == describe_hooks(placed)
    assert describe_hooks([]) == ""
    assert describe_hooks([("hook_embed", None)]) == "hook_embed: a function"


class Ablation:
    def __init__(self, head: int):
        self.head = head

    def __call__(self, z: torch.Tensor, hook: Any) -> None: ...

    def method(self, z: torch.Tensor, hook: Any) -> None: ...


def test_different_hooks_have_different_descriptions() -> None:
    hooks = [
        zero,
        functools.partial(zero, head=2),
        other,
        scale(2),
        scale(3),
        scale(torch.tensor([1.0])),
        scale(torch.tensor([2.0])),
        scale([1, (2, "x")]),
        lambda z, hook: z * 2,
        Ablation(1),
        Ablation(2),
        Ablation(1).method,
        Ablation(2).method,
        [].append,
    ]
    assert len({describe_hooks([("a", hook)]) for hook in hooks}) == len(hooks)
    assert describe_hooks([("a", scale(torch.tensor([2.0])))]) == describe_hooks([("a", scale(torch.tensor([2.0])))])
    assert "0x" not in describe_hooks([("a", scale(object()))])


def test_long_descriptions_are_cut_and_stay_different() -> None:
    many = [[(Z.format(layer), scale(layer + more)) for layer in range(60)] for more in (0, 1)]
    cut = [describe_hooks(placed) for placed in many]
    assert cut[0] != cut[1]
    assert all(len(said) < LONGEST + 40 and "(60 hooks, " in said for said in cut)


@pytest.fixture
def model(smollm2_tokenizer: Any) -> Any:
    return tiny.decoder(smollm2_tokenizer)


@pytest.fixture(scope="module")
def corpus() -> ta.Corpus:
    return ta.Corpus(tiny.sentences(6))


def test_only_the_users_hooks_are_found(model: Any) -> None:
    modules = list(model.named_modules())
    assert user_hooks(model, modules) == []
    model.add_hook(Z.format(1), zero)
    layer = model.original_model.model.layers[0].mlp
    handle = layer.register_forward_hook(other)
    found = user_hooks(model, modules)
    assert [function for _, function in found] == [zero, other]
    assert found[0][0] == Z.format(1)
    handle.remove()
    model.reset_hooks()
    assert user_hooks(model, modules) == []


def test_runs_with_different_hooks_do_not_merge(model: Any, corpus: ta.Corpus) -> None:
    clean = ta.collect(model, corpus[:3], ["distance"], progress=False)
    assert "interventions" not in clean.provenance
    runs = []
    for hook in (zero, other):
        with model.hooks(fwd_hooks=[(Z.format(0), hook), (Z.format(1), hook)]):
            runs.append([ta.collect(model, part, ["distance"], progress=False) for part in (corpus[:3], corpus[3:])])
    zeroed, doubled = runs
    assert bare(zeroed[0].provenance["interventions"]) == "blocks.0 to 1.attn.hook_z: zero(head=1)"
    with pytest.raises(StatsError, match=r"merge: different interventions: none here, 'blocks\.0 to 1.*zero.*' there"):
        clean.merge(zeroed[1])
    with pytest.raises(StatsError, match=r"merge: different interventions: .*zero.* here, .*other.* there"):
        zeroed[0].merge(doubled[1])
    merged = zeroed[0].merge(zeroed[1])
    assert merged.provenance["interventions"] == zeroed[0].provenance["interventions"]
    assert "interventions" not in ta.collect(model, corpus, ["distance"], progress=False).provenance
    notes = ta.compare({"clean": clean, "zeroed": zeroed[0]}).notes
    said = "The user's hooks may have changed attention: zeroed (blocks.0 to 1.attn.hook_z"
    assert [note.startswith(said) for note in notes if "hooks" in note] == [True]


@pytest.mark.parametrize("way", ["run", "update", "hooks"])
def test_a_users_loop_records_hooks_that_are_on_the_model(model: Any, corpus: ta.Corpus, way: str) -> None:
    collectors = ta.Collectors(model, ["distance"], source="hooks")

    def collect(batch: ta.Batch, fwd_hooks: list[Any]) -> None:
        given = collectors.arguments(batch)
        if way == "hooks":
            model.run_with_hooks(batch.input_ids, **given, fwd_hooks=[*fwd_hooks, *collectors.hooks(batch)])
            return
        with model.hooks(fwd_hooks=fwd_hooks):
            if way == "run":
                collectors.run(batch)
            else:
                cache = model.run_with_cache(batch.input_ids, **given, names_filter=collectors.hook_names)[1]
                collectors.update(cache, batch)

    batches = list(collectors.batches(corpus, batch_tokens=20))
    assert len(batches) > 2
    collect(batches[0], [])
    assert "interventions" not in collectors.stats().provenance
    collect(batches[1], [(Z.format(0), zero)])
    mixed = collectors.stats().provenance["interventions"]
    assert bare(mixed) == "blocks.0.attn.hook_z: zero(head=1) | none"
    again = ta.Collectors(model, ["distance"], source="hooks")
    again.load_state_dict(collectors.state_dict())
    list(again.batches(corpus))
    again.run(batches[2])
    assert again.stats().provenance["interventions"] == mixed
