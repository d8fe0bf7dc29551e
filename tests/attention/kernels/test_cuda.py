"""The Triton kernel without a GPU: interpreted on a CPU, and compiled for two GPUs."""

from __future__ import annotations

import os
import re
import subprocess
import sys
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
import torch

from tests.attention.kernels.tester import CASES, Case, Given
from tl_attnstats.attention.kernels import cuda, kernel_for, torch_blocks
from tl_attnstats.attention.kernels.projections import NOBODY, Job
from tl_attnstats.attention.reach import Reach
from tl_attnstats.errors import PlainAttention

triton = pytest.importorskip("triton")

SIZES = [(torch.bfloat16, 64), (torch.float16, 128), (torch.bfloat16, 256), (torch.float32, 64), (torch.float32, 256)]
# Bytes that a thread may move out of its registers: float32 heads of 256 and float16 heads of 128 on sm_80 need some.
MOST_SPILLED = 256
SHARED_MEMORY = {80: 99 * 1024, 90: 227 * 1024}  # bytes a program has; the first is of smaller cards of sm_80's kind


@pytest.mark.slow
def test_the_interpreter_gives_what_plain_loops_give() -> None:
    # Triton asks for the interpreter when it is imported, so it needs a process of its own.
    script = Path(__file__).with_name("test_kernels.py")
    command = [sys.executable, "-m", "pytest", "-q", "-p", "no:cacheprovider", "-n", "0", str(script)]
    environment = {name: value for name, value in os.environ.items() if not name.startswith("PYTEST_XDIST")}
    environment["TRITON_INTERPRET"] = "1"
    done = subprocess.run(command, env=environment, capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stdout
    passed = re.search(r"(\d+) passed", done.stdout)
    assert passed, done.stdout
    assert int(passed[1]) > len(CASES)


QUICK = [(torch.bfloat16, 64, 80, False), (torch.float16, 128, 90, True)]
EVERY = [(*size, arch, special) for special in (False, True) for arch in (80, 90) for size in SIZES]


@pytest.mark.parametrize(
    ("dtype", "d", "arch", "special"),
    [pytest.param(*case, marks=[] if case in QUICK else pytest.mark.slow) for case in EVERY],
)
def test_every_sweep_compiles_within_the_registers(
    dtype: torch.dtype, d: int, arch: int, special: bool, monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    monkeypatch.setattr(triton.knobs.cache, "dir", str(tmp_path))
    for name in ("sweep_rows", "sweep_columns", "sweep_offsets"):
        compiled = compile_sweep(name, dtype, d, arch, special)
        assert compiled.metadata.shared <= SHARED_MEMORY[arch], name
        registers, spilled = resources(compiled, arch, tmp_path)
        print(f"{name} {dtype} {d} sm_{arch}{' bias, cap, sink' * special}: {registers} registers, {spilled} spilled")
        assert spilled <= MOST_SPILLED, name


def compile_sweep(name: str, dtype: torch.dtype, d: int, arch: int, special: bool) -> Any:
    """A sweep as `cuda` would launch it on a GPU; `special`: with bias, soft cap and sinks."""
    sweep = getattr(cuda.sweeps(), name)
    cut = cuda.tiles(dtype, d)
    constants = {
        "CAPPED": special,
        "BIASED": special,
        "SINKING": special,
        "ROWS": cut.rows,
        "KEYS": cut.keys,
        "SIZE": cut.keys,
        "D_HEAD": d,
        "D_VALUE": d,
        "PRECISION": cuda.PRECISION,
        "AS_FLOAT": False,
    }
    vectors = {torch.float32: "*fp32", torch.bfloat16: "*bf16", torch.float16: "*fp16"}[dtype]
    types = {**dict.fromkeys(("query", "key", "value"), vectors), **dict.fromkeys(("kinds", "counted"), "*i8")}
    types |= dict.fromkeys(("bias", "sinks", "output", "most", "inverse"), "*fp32")
    types |= dict.fromkeys(("first_key", "end_key", "first_query", "end_query"), "*i32")
    types |= {"found": "*fp64" if name == "sweep_columns" else "*fp32", "bias_of_sequence": "i64"}
    types |= {"scale": "fp32", "softcap": "fp32"}
    signature = {x: "constexpr" if x in constants else types.get(x, "i32") for x in sweep.arg_names}
    # Triton compiles again for arguments that are multiples of 16, as pointers and widths of heads are.
    sixteens = [n for n, x in enumerate(sweep.arg_names) if signature[x].startswith("*") or x in ("d_head", "d_value")]
    source = triton.compiler.ASTSource(
        sweep,
        signature,
        {x: value for x, value in constants.items() if x in sweep.arg_names},
        {(n,): [["tt.divisibility", 16]] for n in sixteens},
    )
    target = triton.backends.compiler.GPUTarget("cuda", arch, 32)
    return triton.compile(source, target, {"num_warps": cut.num_warps, "num_stages": cut.num_stages})


def resources(compiled: Any, arch: int, folder: Path) -> tuple[int, int]:
    """Registers of a thread, and bytes that it spills, as Nvidia's assembler says."""
    assembly = folder / "sweep.ptx"
    assembly.write_text(compiled.asm["ptx"], encoding="utf-8")
    assembler = Path(triton.__file__).parent / "backends" / "nvidia" / "bin" / "ptxas"
    # Instructions for matrices of sm_90 are in its variant a.
    command = [assembler, "--verbose", f"--gpu-name=sm_{arch}{'a' * (arch == 90)}", assembly, "-o", folder / "sweep.o"]
    said = subprocess.run(command, capture_output=True, text=True, check=True).stderr
    (registers,) = re.findall(r"Used (\d+) registers", said)
    (spilled,) = re.findall(r"(\d+) bytes spill stores", said)
    return int(registers), int(spilled)


def wide(job: Job) -> Job:
    given = job.given
    query, key = (torch.cat([x] * 40, -1) for x in (given.query, given.key))
    return job._replace(given=replace(given, query=query, key=key))


def every_other_key(job: Job) -> Job:
    return job._replace(reach=Reach(lambda sequence, head, query, key: (query >= key) & ((query - key) % 2 == 0), None))


def later_keys(job: Job) -> Job:
    return job._replace(reach=Reach(lambda sequence, head, query, key: query >= key - 1, None))


def mixed(job: Job) -> Job:
    return job._replace(given=replace(job.given, key=job.given.key.half()))


REFUSED = {
    wide: "heads have more than 256 dimensions",
    every_other_key: "the keys that a query reaches are not one stretch, or differ between sequences",
    later_keys: "queries reach keys after themselves in a causal model",
    mixed: "queries, keys and values are torch.float16 and torch.float32",
}


@pytest.mark.parametrize("change", REFUSED)
def test_what_it_does_not_cover_is_left_to_plain_torch_with_a_reason(
    change: Any, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(cuda, "DEVICES", {"cpu"})
    job = Given(Case(bias=True)).job(NOBODY, 100, 100)  # the cpu kernel has no bias
    assert kernel_for(job) is cuda
    with pytest.warns(PlainAttention, match=rf"in plain torch, not by the Triton kernel: {REFUSED[change]}"):
        assert kernel_for(change(job)) is torch_blocks


def test_without_triton_attention_is_in_plain_torch(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(cuda, "DEVICES", {"cpu"})
    monkeypatch.setitem(sys.modules, "triton", None)
    monkeypatch.delitem(sys.modules, "tl_attnstats.attention.kernels.triton_sweeps", raising=False)
    monkeypatch.delattr("tl_attnstats.attention.kernels.triton_sweeps", raising=False)
    monkeypatch.setattr(cuda, "sweeps", cuda.sweeps.__wrapped__)  # which remembers nothing
    with pytest.warns(PlainAttention, match="triton is not installed"):
        assert kernel_for(Given(Case(bias=True)).job(NOBODY, 100, 100)) is torch_blocks


def test_a_cpu_is_left_alone() -> None:
    job = Given(Case(bias=True)).job(NOBODY, 100, 100)
    assert cuda.why_not(job) == "the model is on cpu"
    assert kernel_for(job) is torch_blocks  # without a warning
