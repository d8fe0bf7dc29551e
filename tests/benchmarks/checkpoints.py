"""What checkpoints cost a run of the demo's model over its bundled sample, ten times over.

    python tests/benchmarks/checkpoints.py [--minutes 5]

Runs with a checkpoint every minute, and with one every five seconds. Prints how long a run waits for its checkpoints,
as a share of all its time. (The times of two runs, with and without, differ by more than that, by chance.)
`--minutes` stops each of the two runs.
"""

from __future__ import annotations

import argparse
import tempfile
import time
from contextlib import suppress
from pathlib import Path

import tl_attnstats as ta
from tl_attnstats.cli.run import SAMPLE
from tl_attnstats.corpus.sentence import Sentence, Word
from tl_attnstats.results.checkpoint import Checkpoint
from tl_attnstats.run import Collectors, collect_with

TIMES = 10


def repeated(corpus: ta.Corpus, times: int) -> ta.Corpus:
    """Each sentence so many times, followed by a number, so that no two are the same."""
    made = []
    for number in range(times):
        for sentence in corpus:
            text = f"{sentence.text} {number}"
            word = Word(len(sentence.text) + 1, len(text), "NUM", None, "dep")
            made.append(Sentence(text, (*sentence.words, word), f"{sentence.name}, {number}"))
    return ta.Corpus(made, origin=f"{corpus.origin}, {times} times")


class Timed(Checkpoint):
    """A checkpoint that knows how long each file took, and stops the run after some minutes."""

    def __init__(self, path: Path, every: str, minutes: float):
        super().__init__(path, every)
        self.took: list[float] = []
        self._end = time.perf_counter() + 60 * minutes

    def _write(self) -> None:
        began = time.perf_counter()
        super()._write()
        self.took.append(time.perf_counter() - began)

    def due(self, batch: ta.Batch) -> None:
        super().due(batch)
        if time.perf_counter() > self._end:
            raise KeyboardInterrupt


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--minutes", type=float, default=60, help="where to stop each run")
    args = parser.parse_args()
    model = ta.load_model("demo")
    corpus = repeated(ta.Corpus.from_text_file(SAMPLE), TIMES)
    with tempfile.TemporaryDirectory() as directory:
        for every in ("1min", "5s"):
            checkpoint = Timed(Path(directory) / f"{every}.nc", every, args.minutes)
            began = time.perf_counter()
            with suppress(ta.Interrupted):
                collect_with(Collectors(model), corpus, checkpoint=checkpoint, progress=False)
            seconds, took = time.perf_counter() - began, checkpoint.took
            size = checkpoint.path.stat().st_size / 1e6 if checkpoint.path.exists() else 0
            print(
                f"every {every}: {checkpoint.sequences} of {len(corpus)} sentences in {seconds:.0f} s, "
                f"{len(took)} checkpoints of {size:.0f} MB, {sum(took) / max(1, len(took)):.2f} s each: "
                f"{sum(took) / seconds:.1%} of the time",
                flush=True,
            )


if __name__ == "__main__":
    main()
