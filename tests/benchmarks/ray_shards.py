"""A large corpus in shards on Ray, with one worker killed: the same as in one process?

    python tests/benchmarks/ray_shards.py --conllu FILE [--sentences 100000] [--shards 4] [--workers 2] [--metrics A,B]

The corpus and the tiny model are those of `corpus_memory.py`. A worker is killed in the middle of its first shard.
Prints times, and the largest difference of any value from the run in one process, which has one thread, as workers do.
"""

from __future__ import annotations

import argparse
import os
import signal
import tempfile
import threading
import time
from pathlib import Path
from typing import Any

import numpy as np
import psutil
import torch
import xarray as xr
from corpus_memory import tiny_model, write

import tl_attnstats as ta


def load() -> Any:
    return tiny_model()[0]


def timed(name: str, corpus: ta.Corpus, **how: Any) -> tuple[ta.AttentionStats, float]:
    began = time.perf_counter()
    stats = ta.collect(corpus=corpus, tokenizer=tiny_model()[1], progress=False, **how)
    seconds = time.perf_counter() - began
    print(f"{name}: {stats.extent}, {seconds:,.0f} s", flush=True)
    return stats, seconds


def kill_a_worker(after: float, killed: list[int]) -> None:
    """Kill a worker of this process's Ray that has been in its shard for `after` seconds."""
    while not killed:
        time.sleep(0.2)
        for process in psutil.Process().children(recursive=True):
            if process.name().startswith("ray::Actor.run"):
                time.sleep(after)
                os.kill(process.pid, signal.SIGKILL)
                killed.append(process.pid)
                break


def compare(found: ta.AttentionStats, expected: ta.AttentionStats) -> None:
    """Print the largest differences of values, and what differs otherwise."""
    assert found.provenance == expected.provenance
    assert found.run.counted == expected.run.counted
    differences: dict[str, float] = {}
    for name in expected.dataset:
        a, b = xr.align(found.dataset[name], expected.dataset[name], join="exact")
        if str(name).startswith("exemplar_") or a.dtype.kind != "f":
            assert a.equals(b), f"{name} differs"
            continue
        assert (a.isnull() == b.isnull()).all(), name
        difference = abs(a - b) / np.maximum(1, abs(b))
        differences[str(name)] = float(difference.max().fillna(0))
    worst = sorted(differences, key=lambda name: -differences[name])[:5]
    print("largest differences:", ", ".join(f"{name} {differences[name]:.1e}" for name in worst))
    print("exemplars, labels, books: equal")


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--conllu", type=Path, required=True, metavar="FILE")
    parser.add_argument("--sentences", type=int, default=100_000)
    parser.add_argument("--shards", type=int, default=4)
    parser.add_argument("--workers", type=int, default=2)
    parser.add_argument("--metrics")
    args = parser.parse_args()
    torch.set_num_threads(1)
    metrics = args.metrics.split(",") if args.metrics else None
    with tempfile.TemporaryDirectory() as directory:
        write(Path(directory) / "corpus.parquet", args.conllu, args.sentences)
        corpus = ta.Corpus.from_file(Path(directory) / "corpus.parquet")
        one, seconds = timed("one process", corpus, model=load(), metrics=metrics)
        killed: list[int] = []
        after = seconds / args.shards / 3
        threading.Thread(target=kill_a_worker, args=(after, killed), daemon=True).start()
        engine = ta.RayEngine(workers=args.workers, cpus_per_worker=1, shards=args.shards)
        many, _ = timed(
            f"{args.workers} workers, {args.shards} shards", corpus, model=load, metrics=metrics, engine=engine
        )
        print(f"killed: process {killed[0]}, {after:,.0f} s into its shard")
        compare(many, one)


if __name__ == "__main__":
    main()
