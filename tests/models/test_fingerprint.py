"""The fingerprint of a model changes with every edit of its weights, and with nothing else."""

from __future__ import annotations

import random
from collections.abc import Callable
from typing import Any

import numpy as np
import pytest
import torch

from tests import tiny
from tl_attnstats.models.fingerprint import CHUNK, _multipliers, _sums, _sums_on_gpu, digest, fingerprint


@pytest.fixture(scope="module", params=["decoder", "encoder"])
def model(request: pytest.FixtureRequest, smollm2_tokenizer: Any, minilm_tokenizer: Any) -> Any:
    if request.param == "decoder":
        return tiny.decoder(smollm2_tokenizer)
    return tiny.encoder(minilm_tokenizer)


def test_every_weight_changes_the_fingerprint(model: Any) -> None:
    clean, rng = fingerprint(model), random.Random(0)
    seen = {clean}
    parameters = list(model.parameters())
    for parameter in parameters:
        flat = parameter.data.view(-1)
        places = {0, len(flat) - 1, *(rng.randrange(len(flat)) for _ in range(2))}
        for place in places:
            before = flat[place].clone()
            flat[place] = torch.nextafter(before, before.new_tensor(torch.inf))  # the smallest possible change
            seen.add(fingerprint(model))
            flat[place] = before
    assert fingerprint(model) == clean
    n_edits = sum(min(len(p.view(-1)), 2) for p in parameters)
    assert len(seen) > n_edits


def edits(weight: torch.Tensor) -> dict[str, Callable[[], None]]:
    """Common edits of a weight matrix, and some whose changes cancel in a plain sum."""

    def swap_rows() -> None:
        weight[[1, 5]] = weight[[5, 1]]

    return {
        "a head zeroed": lambda: weight[:, 8:16].zero_(),
        "rows zeroed": lambda: weight[8:16].zero_(),
        "two rows swapped": swap_rows,
        "columns reversed": lambda: weight.copy_(weight.flip(1)),
        "an odd column negated": lambda: weight[:, 1].neg_(),
        "an even column negated": lambda: weight[:, 2].neg_(),
        "a row negated": lambda: weight[3].neg_(),
        "all negated": lambda: weight.neg_(),
        "all doubled": lambda: weight.mul_(2),
        "a column halved": lambda: weight[:, 7].mul_(0.5),
        "transposed": lambda: weight.copy_(weight.T.clone()),
    }


@pytest.mark.parametrize("name", list(edits(torch.zeros(1, 1))))
def test_edits_of_matrices_change_the_fingerprint(smollm2_tokenizer: Any, name: str) -> None:
    model = tiny.decoder(smollm2_tokenizer)
    clean = fingerprint(model)
    for attention in (layer.self_attn for layer in model.original_model.model.layers):
        weight = attention.o_proj.weight.data
        assert weight.shape == (32, 32)
        before = weight.clone()
        edits(weight)[name]()
        assert not torch.equal(weight, before)
        assert fingerprint(model) != clean
        weight.copy_(before)
        assert fingerprint(model) == clean


def test_exchanging_weights_of_one_shape_changes_the_fingerprint(model: Any) -> None:
    clean = fingerprint(model)
    matrices = [p.data for p in model.parameters() if p.ndim == 2]
    pairs = [(a, b) for i, a in enumerate(matrices) for b in matrices[:i] if a.shape == b.shape]
    assert len(pairs) > 20
    for a, b in random.Random(1).sample(pairs, 20):
        held = a.clone()
        a.copy_(b)
        b.copy_(held)
        assert fingerprint(model) != clean
        b.copy_(a)
        a.copy_(held)
    assert fingerprint(model) == clean


def test_buffers_of_a_checkpoint_count_and_computed_ones_do_not(smollm2_tokenizer: Any) -> None:
    model = tiny.decoder(smollm2_tokenizer)
    clean, root = fingerprint(model), model.original_model
    root.register_buffer("computed", torch.ones(3), persistent=False)
    assert fingerprint(model) == clean
    root.register_buffer("bias", torch.zeros(3))  # a buffer of zeros counts as none
    assert fingerprint(model) == clean
    root.register_buffer("correction", torch.ones(3))
    corrected = fingerprint(model)
    assert corrected != clean
    root.correction[2] = 2
    assert fingerprint(model) not in (clean, corrected)


def test_threads_change_nothing(model: Any) -> None:
    n_threads, found = torch.get_num_threads(), set()
    for n in (1, 2, 5):
        torch.set_num_threads(n)
        found.add(fingerprint(model))
    torch.set_num_threads(n_threads)
    assert len(found) == 1


@pytest.mark.parametrize("n", [0, 1, 2, CHUNK - 1, CHUNK, CHUNK + 1, 130 * CHUNK + 3])
def test_sums_follow_the_formula_with_and_without_numba(n: int, monkeypatch: pytest.MonkeyPatch) -> None:
    words = np.random.default_rng(n).integers(0, 2**64, n, np.uint64)
    multipliers = _multipliers().tolist()
    expected = [0] * -(-n // CHUNK)
    for place, x in enumerate(words.tolist()):
        expected[place // CHUNK] += (x ^ (x >> 33)) * multipliers[place % CHUNK]
    assert _sums(words).tolist() == [total % 2**64 for total in expected]
    monkeypatch.setattr("tl_attnstats.models.fingerprint.numba", None)
    assert _sums(words).tolist() == [total % 2**64 for total in expected]
    assert all(k % 2 == 1 for k in multipliers)


@pytest.mark.parametrize("n", [0, 1, CHUNK, 3 * CHUNK + 5, 64 * CHUNK + 7])
def test_sums_for_gpus_are_the_same(n: int) -> None:
    """The sums that are used on a GPU, computed here on the CPU."""
    words = np.random.default_rng(n).integers(0, 2**64, n + 1, np.uint64)
    for first in (0, 1):  # aligned and unaligned bytes
        raw = torch.from_numpy(words.view(np.uint8))[first : first + 8 * n]
        assert _sums_on_gpu(raw).tolist() == _sums(raw.numpy().view("<u8")).tolist()


@pytest.mark.parametrize("dtype", [torch.bfloat16, torch.float16, torch.int8, torch.bool, torch.float64])
@pytest.mark.parametrize("n", [1, 7, 9])
def test_other_types_and_odd_sizes(dtype: torch.dtype, n: int) -> None:
    tensor = (torch.arange(n) % 2 == 0).to(dtype)
    clean, digests = digest(tensor), set()
    for place in range(n):
        edited = tensor.clone()
        edited[place] = 1 - edited[place].int()
        digests.add(digest(edited))
    assert len(digests) == n
    assert clean not in digests
    assert digest(tensor[None]) != clean
    twice = torch.stack([tensor, tensor], 1)
    assert digest(twice[:, 0]) == clean  # strides do not matter
