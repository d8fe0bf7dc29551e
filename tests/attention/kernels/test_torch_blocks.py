"""Plain torch holds no more of a pattern than a block, and computes no more of it than queries reach."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import replace
from typing import Any

import numpy as np
import pytest
import torch

from tests.attention.kernels.tester import CASES, Found, Given
from tests.standin import StandIn
from tl_attnstats.attention.kernels import fused, torch_blocks
from tl_attnstats.attention.kernels.projections import MOST_ROWS, NOBODY, Projections
from tl_attnstats.attention.scope import Scope
from tl_attnstats.errors import PlainAttention

ROWS = 8
# How many keys the rows of a block reach together.
MOST_KEYS = {"long": 37, "long window": 18 + ROWS - 1, "chunks": 16, "long bidirectional": 37, "cross": 9}


@pytest.fixture(autouse=True)
def small_blocks(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(torch_blocks, "LEAST_ROWS", 1)


@pytest.mark.parametrize("name", MOST_KEYS)
def test_keys_that_no_query_of_a_block_reaches_are_left_out(name: str, monkeypatch: pytest.MonkeyPatch) -> None:
    given = Given(CASES[name])
    _, n_queries, n_keys = given.projections.sizes
    computed: list[tuple[int, int]] = []
    masks: list[tuple[int, ...]] = []
    scores, bit_mask = Projections.scores, Scope.bit_mask

    def seen_scores(self: Projections, query: Any, first: int, end: int) -> Any:
        computed.append((first, end))
        return scores(self, query, first, end)

    def seen_mask(self: Scope, *where: int) -> Any:
        found = bit_mask(self, *where)
        masks.append(tuple(found.shape[1:]))
        return found

    monkeypatch.setattr(Projections, "scores", seen_scores)
    monkeypatch.setattr(Scope, "bit_mask", seen_mask)
    found = Found(torch_blocks, given, 10**6, ROWS, weights=False)
    for name_of_reduction in given.names:
        found.whole(name_of_reduction)
    expected = []
    for first_row in range(0, n_queries, ROWS):
        rows = range(first_row, min(first_row + ROWS, n_queries))
        reached = [key for key in range(n_keys) for row in rows if given.case.reaches(row, key)]
        expected.append((min(reached), max(reached) + 1))
    assert computed == expected
    assert max(end - first for first, end in computed) == MOST_KEYS[name]
    assert set(masks) == {(min(ROWS, n_queries - ROWS * n), end - first) for n, (first, end) in enumerate(computed)}


def test_blocks_are_as_large_as_memory_allows(monkeypatch: pytest.MonkeyPatch) -> None:
    given = Given(CASES["long"])  # 2 sequences of up to 37 tokens, 4 heads: 296 scores in a row
    job = given.job(NOBODY, 296 * 5, MOST_ROWS)
    assert torch_blocks.rows_at_once(job) == 5
    monkeypatch.setattr(torch_blocks, "MEMORY", 296 * 3 * torch_blocks.BYTES)
    with StandIn():
        moved = job._replace(given=replace(job.given, query=job.given.query.to("standin:0")))
        assert torch_blocks.rows_at_once(moved) == 3
        assert torch_blocks.rows_at_once(moved._replace(most_rows=2)) == 2  # after running out of memory
        monkeypatch.setattr(torch_blocks, "MEMORY", 1)
        assert torch_blocks.rows_at_once(moved) == 1
        monkeypatch.setattr(torch_blocks, "MEMORY", 2**40)
        assert torch_blocks.rows_at_once(moved) == 37


def test_free_memory_is_asked_of_the_gpu(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(torch.cuda, "mem_get_info", lambda device: (1000, 5000))
    monkeypatch.setattr(torch.cuda, "memory_reserved", lambda device: 300)
    monkeypatch.setattr(torch.cuda, "memory_allocated", lambda device: 200)
    assert torch_blocks.free_memory(torch.device("cuda:0")) == 1100
    assert torch_blocks.free_memory(torch.device("mps")) == torch_blocks.MEMORY


@pytest.fixture
def on_cpu(monkeypatch: pytest.MonkeyPatch) -> Iterator[None]:
    """Reductions are compiled on the CPU as they would be on a GPU."""
    monkeypatch.setattr(fused, "DEVICES", {"cpu"})
    monkeypatch.setattr(fused, "_failed", [])
    fused._compiled.cache_clear()
    yield
    fused._compiled.cache_clear()


def reduced(name: str) -> dict[str, np.ndarray]:
    given = Given(CASES[name])
    found = Found(torch_blocks, given, 10**6, ROWS, weights=False)
    return {of: found.whole(of) for of in given.names}


@pytest.mark.slow
@pytest.mark.filterwarnings(r"ignore:`torch\.jit\.:DeprecationWarning")  # torch's own compiler still uses it
def test_compiled_reductions_are_those_of_single_steps(on_cpu: None, monkeypatch: pytest.MonkeyPatch) -> None:
    names = ("long window", "causal", "bidirectional")  # other sizes do not need another compilation
    compiled = {name: reduced(name) for name in names}
    assert not fused._failed
    monkeypatch.setattr(fused, "DEVICES", set())
    for name in names:
        for of, expected in reduced(name).items():
            np.testing.assert_allclose(compiled[name][of], expected, rtol=0, atol=2e-6, err_msg=f"{name} {of}")


def test_fused_reductions_without_the_compiler(on_cpu: None, monkeypatch: pytest.MonkeyPatch) -> None:
    tried = []

    def broken(*args: Any, **kwargs: Any) -> Any:
        def fail(*args: Any) -> Any:
            tried.append(1)
            raise RuntimeError("no compiler\nbelow it a stack")

        return fail

    monkeypatch.setattr(torch, "compile", broken)
    with pytest.warns(PlainAttention, match="without its compiler, which is slower: RuntimeError: no compiler$"):
        first = reduced("long window")
    second = reduced("long window")  # without another warning
    assert tried == [1]
    monkeypatch.setattr(fused, "DEVICES", set())
    for of, expected in reduced("long window").items():
        np.testing.assert_allclose(first[of], expected, rtol=0, atol=2e-6, err_msg=of)
        np.testing.assert_array_equal(first[of], second[of])


def test_running_out_of_memory_is_no_failure_of_the_compiler(on_cpu: None, monkeypatch: pytest.MonkeyPatch) -> None:
    def short(*args: Any) -> Any:
        raise torch.OutOfMemoryError

    monkeypatch.setattr(torch, "compile", lambda function, dynamic: short)
    with pytest.raises(torch.OutOfMemoryError):
        reduced("long window")
    assert not fused._failed
