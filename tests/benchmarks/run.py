"""The cost of collecting, compared with other ways through the same batches, in turns in one process.

    python tests/benchmarks/run.py [--regimes sentences,1024,4096] [--rounds 3] [--conllu FILE] [--out docs]

Writes performance.json, and from it the page performance.md. In each round every rival runs once, and each round begins
with another one. Seconds are medians over rounds; ratios are medians over rounds of the ratio within a round. Peak
memory is the largest resident memory of a first run, less what was resident before it; on a GPU, it is the largest
allocated GPU memory.
"""

from __future__ import annotations

import argparse
import ctypes
import gc
import json
import os
import platform
import statistics
import subprocess
import sys
import tempfile
import time
from dataclasses import replace
from datetime import date
from importlib.metadata import version
from pathlib import Path
from typing import Any

import torch
from rivals import Regime, Rival, rivals

import tl_attnstats as ta
from tl_attnstats.cli.run import SAMPLE
from tl_attnstats.corpus.batches import batches
from tl_attnstats.corpus.files import write_whole

DOCUMENTS = {1024: 4, 2048: 1, 4096: 1, 8192: 1}  # number of documents of each length
PACKAGES = ("tl-attnstats", "transformer-lens", "transformers", "torch", "numba")


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--model", default="demo", help="as in attnstats run")
    parser.add_argument("--device", default="cpu")
    parser.add_argument("--conllu", help="gold treebank file for the sentences; default is the bundled sample")
    parser.add_argument("--sentences", type=int, default=256)
    parser.add_argument("--regimes", default="sentences,1024,4096")
    parser.add_argument("--rounds", type=int, default=3)
    parser.add_argument("--threads", type=int, default=os.cpu_count())
    parser.add_argument("--out", type=Path, help="directory for performance.json and performance.md")
    args = parser.parse_args()
    torch.set_num_threads(args.threads)
    model = ta.load_model(args.model, device=args.device)
    info = ta.describe(model)
    for parameter in model.parameters():
        parameter.detach().sum()  # weights are memory-mapped: read them now, not in the first run of a rival
    field = rivals(model, info)
    results = {
        "machine": machine(args.device),
        "threads": args.threads,
        "model": info.name,
        "date": date.today().isoformat(),
        "versions": {package: version(package) for package in PACKAGES},
        "kernel_first_calls": first_calls(),
        "regimes": [],
    }
    for name in args.regimes.split(","):
        regime = sentences(args, info) if name == "sentences" else documents(int(name), info)
        results["regimes"].append(race(regime, field, args.rounds))
        print(table(results["regimes"][-1]), flush=True)
        if args.out:
            write(results, args.out)


def sentences(args: argparse.Namespace, info: Any) -> Regime:
    corpus = ta.Corpus.from_conllu(args.conllu) if args.conllu else ta.Corpus.from_text_file(SAMPLE)
    corpus = corpus[: args.sentences]
    bucketed = list(batches(corpus, info.framing, max_tokens=1024, device=info.device))
    items = [info.framing.tokenize(sentence) for sentence in corpus]
    in_order = [ta.Batch(items[start : start + 32], 0, info.device) for start in range(0, len(items), 32)]
    return Regime(f"{len(corpus)} sentences", bucketed, in_order)


def documents(n_tokens: int, info: Any) -> Regime:
    """Documents of `n_tokens` tokens, each a batch of its own: successive windows of the sample's text, repeated."""
    text = " ".join(SAMPLE.read_text(encoding="utf-8").split())
    corpus = ta.Corpus.from_texts([text * 2], sequence_kind="document")
    windows = replace(info.framing, max_tokens=n_tokens).windows(corpus[0])
    found = [ta.Batch([next(windows)], 0, info.device) for _ in range(DOCUMENTS[n_tokens])]
    assert all(batch.n_tokens == n_tokens for batch in found)
    plural = "s" if len(found) > 1 else ""
    return Regime(f"{len(found)} document{plural} of {n_tokens} tokens", found, found, "document")


def race(regime: Regime, field: list[Rival], rounds: int) -> dict[str, Any]:
    longest = max(batch.input_ids.shape[1] for batch in regime.bucketed)
    running = [rival for rival in field if longest <= rival.longest]
    seconds: dict[str, list[float]] = {rival.name: [] for rival in running}
    memory = {rival.name: peak_memory(rival, regime) for rival in running}  # also the warm-up
    for turn in range(rounds):
        first = turn % len(running)
        for rival in running[first:] + running[:first]:
            gc.collect()
            start = time.perf_counter()
            run_to_end(rival, regime)
            seconds[rival.name].append(time.perf_counter() - start)
    return {
        "name": regime.name,
        "tokens": regime.n_tokens,
        "rounds": rounds,
        "rivals": [
            {
                "name": rival.name,
                "seconds": seconds[rival.name],
                "tokens": rival.n_tokens(regime),
                "peak_memory_mb": memory[rival.name],
            }
            for rival in running
        ],
        "not_run": [rival.name for rival in field if rival not in running],
    }


def run_to_end(rival: Rival, regime: Regime) -> None:
    rival.run(regime)
    if on_gpu(regime):  # until now, work is only queued
        torch.cuda.synchronize()


def on_gpu(regime: Regime) -> bool:
    return regime.bucketed[0].input_ids.is_cuda


def peak_memory(rival: Rival, regime: Regime) -> float | None:
    """Peak memory in MB, less what was in use before; on a GPU, of GPU memory. None without Linux's /proc."""
    gc.collect()
    if on_gpu(regime):
        torch.cuda.reset_peak_memory_stats()
        taken = torch.cuda.memory_allocated()
        run_to_end(rival, regime)
        return (torch.cuda.max_memory_allocated() - taken) / 2**20
    try:
        ctypes.CDLL(None).malloc_trim(0)  # return freed memory, so that this run cannot reuse it
        Path("/proc/self/clear_refs").write_text("5")  # reset the high-water mark to what is resident now
        before = resident("VmHWM")
    except (OSError, AttributeError):
        rival.run(regime)
        return None
    rival.run(regime)
    return resident("VmHWM") - before


FIRST_CALL = """
import time
import numpy as np
import torch
from tl_attnstats.attention.kernels import compiled as kernel
start = time.perf_counter()
scores, counted, none = torch.zeros(1, 4, 4), np.ones((1, 4), bool), np.zeros((0, 1, 4), np.int64)
rules = kernel.Rules(4, True, np.zeros(1, np.float32), counted, none, none, np.zeros(0, np.int64))
kernel.reduce_scores(scores, 0, 0, 0, rules, kernel.sums(1, 1, 4, 0))
print(time.perf_counter() - start)
"""


def first_calls() -> list[float]:
    """Seconds of the kernel's first call in a process: compiled then, and compiled before."""
    with tempfile.TemporaryDirectory() as cache:
        command = [sys.executable, "-c", FIRST_CALL]
        environment = {**os.environ, "NUMBA_CACHE_DIR": cache}
        return [float(subprocess.check_output(command, env=environment, text=True)) for _ in range(2)]


def resident(field: str) -> float:
    lines = Path("/proc/self/status").read_text().splitlines()
    return next(int(line.split()[1]) / 1024 for line in lines if line.startswith(field))


def machine(device: str) -> str:
    if device.startswith("cuda"):
        return torch.cuda.get_device_name(device)
    lines = Path("/proc/cpuinfo").read_text().splitlines() if Path("/proc/cpuinfo").exists() else []
    name = next((line.split(":")[1].strip() for line in lines if line.startswith("model name")), platform.machine())
    return f"{name}, {os.cpu_count()} cores, CPU only"


def table(regime: dict[str, Any]) -> str:
    """A row per rival: seconds, tokens per second, time of our two sources relative to it, peak memory."""
    ours = regime["rivals"][0]
    rows = [
        f"### {regime['name']}, {regime['tokens']} tokens, {regime['rounds']} rounds",
        "",
        "| | seconds | tokens/s | streamed takes | hooks take | peak memory |",
        "|---|---:|---:|---:|---:|---:|",
    ]
    hooked = next((rival for rival in regime["rivals"] if "**tl_attnstats, hooks**" in rival["name"]), None)
    for rival in regime["rivals"]:
        seconds = statistics.median(rival["seconds"])
        memory = "" if rival["peak_memory_mb"] is None else f"{rival['peak_memory_mb']:,.0f} MB"
        ratios = [ratio(mine, rival) if mine else "" for mine in (ours, hooked)]
        speed = rival["tokens"] / seconds
        rows.append(f"| {rival['name']} | {seconds:.2f} | {speed:,.0f} | {ratios[0]} | {ratios[1]} | {memory} |")
    if regime["not_run"]:
        rows += ["", f"Not run at this length: {'; '.join(regime['not_run'])}."]
    return "\n".join([*rows, ""])


def ratio(mine: dict[str, Any], theirs: dict[str, Any]) -> str:
    if mine is theirs:
        return "1"
    if mine["tokens"] != theirs["tokens"]:  # it ran on part of the input: compare per token
        scale = theirs["tokens"] / mine["tokens"]
        return f"{scale * statistics.median(mine['seconds']) / statistics.median(theirs['seconds']):.4f} ×"
    return f"{statistics.median(a / b for a, b in zip(mine['seconds'], theirs['seconds'], strict=True)):.3f} ×"


def write(results: dict[str, Any], directory: Path) -> None:
    compiled, loaded = results["kernel_first_calls"]
    head = [
        "# What it costs",
        "",
        "`make bench` writes this page. It times the alternatives on the same batches in one process, in turns.",
        "Seconds are medians over rounds. “Streamed takes” and “hooks take” are the time of tl_attnstats divided by",
        "that of the row: medians over rounds of the ratio within a round. Peak memory is what a run needed beyond",
        "what was resident before it. All numbers are in [performance.json](performance.json).",
        "",
        "The seconds leave out the preparation of the streamed source's kernel:",
        f"{compiled:.1f} s to compile it, once per installation, and {loaded:.1f} s to load it, once per process.",
        "",
        f"{results['model']}, float32, on {results['machine']}, {results['threads']} threads, {results['date']};",
        ", ".join(f"{package} {number}" for package, number in results["versions"].items()) + ".",
        "",
        "Nothing here was run on a GPU. `python tests/benchmarks/run.py --device cuda` is meant for GPUs, and was never"
        " run either."
        if "CPU only" in results["machine"]
        else "",
        "",
    ]
    page = "\n".join([*head, *(table(regime) for regime in results["regimes"])])
    for name, text in (("performance.json", json.dumps(results, indent=1)), ("performance.md", page)):
        with write_whole(directory / name) as temporary:
            Path(temporary).write_text(text, encoding="utf-8")


if __name__ == "__main__":
    main()
