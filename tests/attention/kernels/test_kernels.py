"""Every kernel against plain loops, on every case that it covers."""

from __future__ import annotations

import math
import os
from typing import Any

import numpy as np
import pytest
import torch

import tl_attnstats as ta
from tests import tiny
from tests.asserting import assert_equal
from tests.attention.kernels.tester import CASES, TOLERANCE, Case, Found, Given, Loops
from tests.running import both
from tl_attnstats.attention.kernels import KERNELS, cpu, cuda, kernel_for, torch_blocks
from tl_attnstats.attention.kernels.projections import NOBODY, Kernel
from tl_attnstats.errors import MetricError

DTYPES = (torch.float32, torch.bfloat16, torch.float16)
# Cases that a kernel leaves to the reference kernel. It must cover all others.
NOT_COVERED: dict[Any, set[str]] = {
    torch_blocks: set(),
    cpu: {"bias", "special keys", "chunks", *(name for name, case in CASES.items() if not case.causal)},
    cuda: set(),
}
# Triton's interpreter takes the place of a GPU in a process of its own (test_cuda.py).
INTERPRETED = os.environ.get("TRITON_INTERPRET") == "1"
KERNELS_HERE = [cuda] if INTERPRETED else [cpu, torch_blocks]
BLOCKS = [(40, 3)] if INTERPRETED else [(10**6, 256), (40, 256), (10**6, 2), (1, 1)]
ENTRIES = [
    (kernel, name, dtype)
    for kernel in KERNELS_HERE
    for name in CASES
    for dtype in DTYPES
    # The interpreter is slow.
    if name not in NOT_COVERED[kernel] and not (INTERPRETED and "long" in name and dtype != torch.float32)
]
IDS = [f"{kernel.__name__.rpartition('.')[2]}-{name}-{dtype}" for kernel, name, dtype in ENTRIES]
# The interpreter computes what is masked too, by numpy.
pytestmark = pytest.mark.filterwarnings("ignore::RuntimeWarning:triton.runtime.interpreter")


@pytest.fixture(autouse=True)
def small_blocks(monkeypatch: pytest.MonkeyPatch) -> None:
    """Several blocks and tiles for short sequences."""
    for module in (cpu, torch_blocks):
        monkeypatch.setattr(module, "LEAST_ROWS", 1)
    monkeypatch.setattr(cuda, "tiles", lambda dtype, d: cuda.Tiles(16, 16, 4, 1))
    monkeypatch.setattr(cuda, "PAIR_ELEMENTS", 1000)
    if INTERPRETED:
        monkeypatch.setattr(cuda, "DEVICES", {"cpu"})


@pytest.fixture(scope="module")
def loops() -> Any:
    made: dict[tuple[str, torch.dtype], Loops] = {}

    def of(name: str, dtype: torch.dtype) -> Loops:
        if (name, dtype) not in made:
            made[name, dtype] = Loops(Given(CASES[name], dtype))
        return made[name, dtype]

    return of


@pytest.mark.parametrize(("kernel", "name", "dtype"), ENTRIES, ids=IDS)
@pytest.mark.parametrize(("block_elements", "most_rows"), BLOCKS)
def test_a_kernel_gives_what_plain_loops_give(
    kernel: Kernel,
    name: str,
    dtype: torch.dtype,
    block_elements: int,
    most_rows: int,
    loops: Any,
) -> None:
    given, expected = Given(CASES[name], dtype), loops(name, dtype)
    found = Found(kernel, given, block_elements, most_rows)
    real = given.scope.real.numpy()
    assert found.output.dtype == torch.float32
    np.testing.assert_allclose(found.output.double().numpy()[real], expected.output[real], rtol=0, atol=TOLERANCE * 10)
    np.testing.assert_allclose(found.weights(), expected.weights, rtol=0, atol=TOLERANCE)
    for reduction in given.names:
        # Where single weights are computed again, their scores and the largest score of their row round differently.
        again = kernel is cuda and reduction in ("pair_mass", "pair_column_mass")
        np.testing.assert_allclose(
            found.whole(reduction),
            expected.sums[reduction],
            rtol=2 * given.rounding if again else 0,
            atol=TOLERANCE * 10,
            err_msg=reduction,
        )
    n_rows = given.projections.sizes[1]
    assert max(block.end_row - block.first_row for block in found.blocks) <= most_rows
    assert sum(block.end_row - block.first_row for block in found.blocks) == n_rows


@pytest.mark.parametrize(("kernel", "name", "dtype"), ENTRIES, ids=IDS)
@pytest.mark.parametrize("block_elements", [blocks[0] for blocks in BLOCKS[:2]])
def test_single_rows_of_weights_are_those_of_the_loops(
    kernel: Kernel,
    name: str,
    dtype: torch.dtype,
    block_elements: int,
    loops: Any,
) -> None:
    given, expected = Given(CASES[name], dtype), loops(name, dtype)
    found = Found(kernel, given, block_elements, 256, weights=False)
    n_batch, n_heads = expected.weights.shape[:2]
    for block in found.reduced:
        n_rows = block.end_row - block.first_row
        rows = torch.arange(n_rows - 1, -1, -1).expand(n_batch, n_heads, -1)
        wanted = expected.weights[:, :, block.first_row : block.end_row][:, :, ::-1]
        np.testing.assert_allclose(block.row_weights(rows).numpy(), wanted, rtol=0, atol=TOLERANCE)
        here = expected.weights[:, :, block.first_row : min(4, block.end_row), :4]
        np.testing.assert_allclose(block.corner(4).numpy(), here, rtol=0, atol=TOLERANCE)


@pytest.mark.skipif(INTERPRETED, reason="the interpreter is there for one kernel")
def test_a_kernel_refuses_what_it_does_not_cover_and_the_reference_covers_all() -> None:
    assert {*NOT_COVERED} == {*KERNELS}
    for kernel, names in NOT_COVERED.items():
        for name in names:
            job = Given(CASES[name]).job(NOBODY, 100, 100)
            assert not kernel.covers(job)
            assert kernel_for(job) is torch_blocks
    assert kernel_for(Given(CASES["causal"]).job(NOBODY, 100, 100)) is cpu


@pytest.mark.parametrize("kernel", KERNELS_HERE)
@pytest.mark.parametrize("bad", [math.nan, math.inf])
def test_nan_and_infinity_show_in_the_mass_of_their_row_only(kernel: Kernel, bad: float) -> None:
    given = Given(CASES["long"])
    given.projections.query[1, 2, 18, 5] = bad
    found = Found(kernel, given, 10**6, 256, weights=False)
    finite = np.isfinite(found.whole("row_mass"))
    assert not finite[1, 2, 18]
    assert finite.sum() == finite.size - 1


@pytest.mark.parametrize("kernel", KERNELS_HERE)
def test_a_reduction_that_was_not_asked_for_is_an_error(kernel: Kernel) -> None:
    given = Given(Case())
    found = Found(kernel, given, 10**6, 256)
    for block in [*found.reduced, *found.blocks]:
        limited = block.announced(("row_max",))
        assert limited.row_max is block.row_max
        assert limited.content_mass.shape == (2, 4)  # masses need no announcement
        for name in ("column_mass", "weights", "offset_mass"):
            with pytest.raises(MetricError, match=f"reads: {name} was asked for and not announced; add it to `reads`"):
                limited[name]
        with pytest.raises(MetricError, match="reductions: got 'row_min', expected one of row_mass, null_mass"):
            limited["row_min"]


@pytest.mark.skipif(not INTERPRETED, reason="other kernels read whole models in tests of their own")
@pytest.mark.parametrize(
    ("model", "metrics"),
    [("tiny_decoder", None), ("tiny_encoder", None), ("tiny_decoder", ["distance_norm", "dependency_alignment_norm"])],
)
def test_the_triton_kernel_reads_a_model_as_hooks_do(
    model: str, metrics: list[str] | None, request: pytest.FixtureRequest, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(cpu, "covers", lambda job: False)
    monkeypatch.setattr(torch_blocks, "covers", lambda job: False)
    corpus = ta.Corpus(tiny.sentences(2, seed=5, most_words=14))
    assert_equal(*both(request.getfixturevalue(model), corpus, metrics=metrics))
