"""What collecting costs, on sentences: side by side in one process, medians of ratios.

    python tests/benchmarks/sentences.py [--conllu FILE] [--sentences 256] [--rounds 5]

Rivals, on the same sentences: the same bucketed batches run to the last pattern with nothing collected; and the way it
is usually done, `run_with_cache` of all patterns in corpus order, batches of 32.
"""

from __future__ import annotations

import argparse
import statistics
import time
from collections.abc import Callable

import torch

import tl_attnstats as ta
from tl_attnstats.attention import hooks
from tl_attnstats.cli import SAMPLE

IN_ORDER_BATCH = 32


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--model", default="demo")
    parser.add_argument("--conllu", help="gold treebank file; default is the bundled sample")
    parser.add_argument("--sentences", type=int, default=256)
    parser.add_argument("--rounds", type=int, default=5)
    args = parser.parse_args()
    torch.set_num_threads(2)
    model = ta.load_model(args.model)
    corpus = ta.Corpus.from_conllu(args.conllu) if args.conllu else ta.Corpus.from_text_file(SAMPLE)
    corpus = corpus[: args.sentences]
    collectors = ta.Collectors(model)
    bucketed = list(collectors.batches(corpus))
    framing = collectors.info.framing
    in_order = [
        ta.Batch([framing.tokenize(s) for s in corpus[start : start + IN_ORDER_BATCH]], 0)
        for start in range(0, len(corpus), IN_ORDER_BATCH)
    ]

    def streamed() -> None:
        ta.collect(model, corpus, source="streamed", progress=False)

    def hooked() -> None:
        ta.collect(model, corpus, source="hooks", progress=False)

    def bare() -> None:
        for batch in bucketed:
            hooks.run(model, collectors.info, batch, lambda layer, pattern: None)

    def cached() -> None:
        with torch.no_grad():
            for batch in in_order:
                model.run_with_cache(
                    batch.input_ids, attention_mask=batch.attention_mask, names_filter=collectors.hook_names
                )

    rivals: dict[str, Callable[[], None]] = {
        "collect, every statistic, streamed": streamed,
        "collect, every statistic, hooks": hooked,
        "bare forward, same batches, same early stop": bare,
        "run_with_cache of patterns, corpus order": cached,
    }
    seconds: dict[str, list[float]] = {name: [] for name in rivals}
    bare()  # warm up
    for turn in range(args.rounds):
        for name in [*rivals][turn % len(rivals) :] + [*rivals][: turn % len(rivals)]:  # nobody always comes after the same
            start = time.perf_counter()
            rivals[name]()
            seconds[name].append(time.perf_counter() - start)

    n_tokens = sum(batch.n_tokens for batch in bucketed)
    print(f"{len(corpus)} sentences, {n_tokens} tokens, {args.rounds} rounds, {torch.get_num_threads()} threads")
    print(f"{'':46}{'seconds':>9}{'tokens/s':>10}{'streamed is':>13}{'hooks is':>12}")
    for name, times in seconds.items():
        median = statistics.median(times)
        ratios = [
            statistics.median(mine / theirs for mine, theirs in zip(ours, times, strict=True))
            for ours in list(seconds.values())[:2]
        ]
        print(f"{name:46}{median:9.2f}{n_tokens / median:10.0f}{ratios[0]:11.3f} ×{ratios[1]:10.3f} ×")


if __name__ == "__main__":
    main()
