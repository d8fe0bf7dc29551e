"""The cost of collecting, compared with other ways through the same batches, in turns in one process.

    python tests/benchmarks/run.py [--regimes sentences,1024,4096] [--rounds 3] [--conllu FILE] [--out docs]
    python tests/benchmarks/run.py --device cuda [--model demo | --model llama-8b-shape] [--out docs]

Writes performance.json, and from it the page performance.md; on a GPU, files named after the card and the model. In
each round every rival runs once, and each round begins with another one. Seconds are medians over rounds; ratios are
medians over rounds of the ratio within a round. Peak memory is the largest resident memory of a first run, less what
was resident before it; on a GPU, it is the largest allocated GPU memory. There, as many sentences make a batch as fill
the GPU. "llama-8b-shape" is a model with the shape of Llama 3 8B, in bfloat16, with random weights: enough to be timed.
"""

from __future__ import annotations

import argparse
import gc
import json
import os
import statistics
import subprocess
import sys
import tempfile
from dataclasses import replace
from datetime import date
from functools import partial
from importlib.metadata import version
from pathlib import Path
from typing import Any

import torch
import transformers
from meters import Meter, fitting, meter_of, slug
from rivals import Regime, Rival, rivals
from transformer_lens.model_bridge import TransformerBridge

import tl_attnstats as ta
from tl_attnstats.cli.run import SAMPLE
from tl_attnstats.corpus.batches import batches
from tl_attnstats.corpus.files import write_whole

DOCUMENTS = {1024: 4, 2048: 1, 4096: 1, 8192: 1, 32768: 1}  # number of documents of each length
KEPT = "<!-- What follows is not written by make bench, which keeps it. -->"
PACKAGES = ("tl-attnstats", "transformer-lens", "transformers", "torch", "numba")


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--model", default="demo", help="as in attnstats run")
    parser.add_argument("--device", default="cpu")
    parser.add_argument("--conllu", help="gold treebank file for the sentences; default is the bundled sample")
    parser.add_argument("--sentences", type=int, default=256)
    parser.add_argument("--regimes", help="default: sentences,1024,4096; on a GPU 32768 too")
    parser.add_argument("--rounds", type=int, default=3)
    parser.add_argument("--threads", type=int, default=os.cpu_count())
    parser.add_argument("--out", type=Path, help="directory for performance.json and performance.md")
    args = parser.parse_args()
    torch.set_num_threads(args.threads)
    meter = meter_of(args.device)
    model = (
        llama_8b_shape(args.device) if args.model == "llama-8b-shape" else ta.load_model(args.model, device=args.device)
    )
    info = ta.describe(model)
    for parameter in model.parameters():
        parameter.detach().sum()  # weights are memory-mapped: read them now, not in the first run of a rival
    field = rivals(model, info)
    results = {
        "machine": meter.name,
        "threads": args.threads,
        "model": info.name,
        "dtype": str(next(iter(model.parameters())).dtype).removeprefix("torch."),
        "date": date.today().isoformat(),
        "versions": {package: version(package) for package in PACKAGES},
        "kernel_first_calls": first_calls(),
        "regimes": [],
    }
    on_gpu = info.device.type == "cuda"
    for name in (args.regimes or f"sentences,1024,4096{',32768' * on_gpu}").split(","):
        regime = sentences(args, info, field[0], meter) if name == "sentences" else documents(int(name), info)
        results["regimes"].append(race(regime, field, args.rounds, meter))
        print(table(results["regimes"][-1]), flush=True)
        if args.out:
            write(results, args.out, f"{meter.stem}-{slug(info.name)}" if on_gpu else meter.stem)


def llama_8b_shape(device: str) -> Any:
    """A model with the shape of Llama 3 8B, random weights, and the demo's tokenizer."""
    config = transformers.LlamaConfig(
        vocab_size=128256,
        hidden_size=4096,
        intermediate_size=14336,
        num_hidden_layers=32,
        num_attention_heads=32,
        num_key_value_heads=8,
        max_position_embeddings=131072,
        rope_theta=500000.0,
        attn_implementation="eager",
    )
    with torch.device(device):
        model = transformers.AutoModelForCausalLM.from_config(config, dtype=torch.bfloat16).eval()
    model.config.architectures = [type(model).__name__]
    tokenizer = ta.load_model("demo", device="cpu").tokenizer
    return TransformerBridge.boot_transformers(
        "llama-8b-shape", hf_model=model, tokenizer=tokenizer, dtype=torch.bfloat16, device=device
    )


def sentences(args: argparse.Namespace, info: Any, ours: Rival, meter: Meter) -> Regime:
    corpus = ta.Corpus.from_conllu(args.conllu) if args.conllu else ta.Corpus.from_text_file(SAMPLE)
    corpus = corpus[: args.sentences]

    def cut(max_tokens: int) -> list[ta.Batch]:
        return list(batches(corpus, info.framing, max_tokens=max_tokens, device=info.device))

    at_once = 1024
    if info.device.type == "cuda":
        at_once = fitting(lambda n: ours.run(Regime("", cut(n)[:1], [])), meter, at_once)
    bucketed = cut(at_once)
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


def race(regime: Regime, field: list[Rival], rounds: int, meter: Meter) -> dict[str, Any]:
    longest = max(batch.input_ids.shape[1] for batch in regime.bucketed)
    running = [rival for rival in field if longest <= rival.longest]
    seconds: dict[str, list[float]] = {rival.name: [] for rival in running}
    memory: dict[str, float | None] = {}
    for rival in running:  # which also warms up
        gc.collect()
        memory[rival.name] = meter.peak_memory(partial(rival.run, regime))
        for _ in range(meter.warm_ups):
            rival.run(regime)
    for turn in range(rounds):
        first = turn % len(running)
        for rival in running[first:] + running[:first]:
            gc.collect()
            seconds[rival.name].append(meter.seconds(partial(rival.run, regime)))
    return {
        "name": regime.name,
        "tokens": regime.n_tokens,
        "batches": len(regime.bucketed),
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


FIRST_CALL = """
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


def write(results: dict[str, Any], directory: Path, stem: str) -> None:
    compiled, loaded = results["kernel_first_calls"]
    head = [
        "# What it costs",
        "",
        "`make bench` writes this page. It times the alternatives on the same batches in one process, in turns.",
        "Seconds are medians over rounds. “Streamed takes” and “hooks take” are the time of tl_attnstats divided by",
        "that of the row: medians over rounds of the ratio within a round. Peak memory is what a run needed beyond",
        f"what was resident before it. All numbers are in [{stem}.json]({stem}.json).",
        "",
        "The seconds leave out the preparation of the streamed source's kernel:",
        f"{compiled:.1f} s to compile it, once per installation, and {loaded:.1f} s to load it, once per process.",
        "",
        f"{results['model']}, {results['dtype']}, on {results['machine']}, {results['threads']} threads,",
        f"{results['date']};",
        ", ".join(f"{package} {number}" for package, number in results["versions"].items()) + ".",
        "",
    ]
    tables = "\n".join([*head, *(table(regime) for regime in results["regimes"])])
    path = directory / f"{stem}.md"
    _, mark, rest = path.read_text(encoding="utf-8").partition(KEPT) if path.exists() else ("", "", "")
    for name, text in ((f"{stem}.json", json.dumps(results, indent=1)), (path.name, tables + mark + rest)):
        with write_whole(directory / name) as temporary:
            Path(temporary).write_text(text, encoding="utf-8")


if __name__ == "__main__":
    main()
