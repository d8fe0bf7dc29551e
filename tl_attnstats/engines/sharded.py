"""A run whose shards an engine runs."""

from __future__ import annotations

import tempfile
from collections.abc import Callable, Mapping
from contextlib import nullcontext
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING, Any

from tl_attnstats.collectors.base import known
from tl_attnstats.corpus.corpus import Corpus
from tl_attnstats.corpus.on_error import OnError
from tl_attnstats.corpus.progress import Bar
from tl_attnstats.engines import Engine, Report, engine_of
from tl_attnstats.errors import CorpusError, EngineError, ModelError
from tl_attnstats.models.loading import load_model
from tl_attnstats.results.shard_files import Fold, Plan
from tl_attnstats.results.shards import Shards
from tl_attnstats.results.signals import Insist
from tl_attnstats.results.state import RunState
from tl_attnstats.results.stats import AttentionStats

if TYPE_CHECKING:
    from tl_attnstats.run import Collectors

SHARDS_PER_WORKER = 4
"""So that workers end at about the same time, and a lost one loses a fourth of its work."""


@dataclass(frozen=True)
class Job:
    """A run, described so that each worker can make its own part of it.

    Attributes:
        load: loads the model.
        collectors: makes new collectors for a model.
        corpus: the whole corpus.
        reading: how it is read: `batch_tokens`, `truncate`, `stride`.
        on_error: what to do about a sentence that cannot be tokenized.
    """

    load: Callable[[], Any]
    collectors: Callable[[Any], Collectors]
    corpus: Corpus
    reading: Mapping[str, Any]
    on_error: OnError = "raise"

    @classmethod
    def of(cls, model: Any, make: partial[Collectors], corpus: Corpus, reading: Mapping[str, Any]) -> Job:
        """The job of `collect`. Raises `ModelError` unless `model` is a name or loads a model."""
        if not isinstance(model, str) and (hasattr(model, "parameters") or not callable(model)):
            raise ModelError(
                f"model: got {type(model).__name__}, expected its name, or a function that loads it, because every "
                f"worker of an engine loads its own"
            )
        metrics = make.keywords["metrics"]
        if metrics is not None:
            # Workers know only built-in statistics by name.
            metrics = [
                known(m) if isinstance(m, str) else m for m in ([metrics] if isinstance(metrics, str) else metrics)
            ]
        load = loads(model) if isinstance(model, str) else model
        rest = {key: value for key, value in reading.items() if key != "on_error"}
        return cls(load, partial(make, metrics=metrics), corpus, rest, reading["on_error"])

    def begin(self) -> ModelWorker:
        """Load the model."""
        return ModelWorker(self, self.load())


@dataclass(frozen=True)
class ModelWorker:
    """Runs shards of a job with a model."""

    job: Job
    model: Any

    def plan(self, n_shards: int) -> Plan:
        """What all shards have in common."""
        collectors, corpus = self.job.collectors(self.model), self.job.corpus
        collectors.begin(corpus, **self.job.reading)
        return Plan(collectors.state(), Shards.in_run(corpus, self.job.reading["batch_tokens"], n_shards))

    def run(self, number: int, n_shards: int, report: Report) -> RunState:
        """Run the batches of a shard."""
        collectors = self.job.collectors(self.model)
        tally = collectors.group.tally
        how = {**self.job.reading, "on_error": self.job.on_error}
        for batch in collectors.batches(self.job.corpus, shard=(number, n_shards), **how):
            collectors.run(batch)
            report(tally.sequences, tally.tokens)
        return collectors.state()


def loads(name: str, **how: Any) -> Callable[[], Any]:
    """A function that loads a model by name, as `load_model` does, from any working directory."""
    return partial(load_model, str(Path(name).absolute()) if Path(name).exists() else name, **how)


def run_sharded(
    engine: str | Engine, job: Job, *, progress: bool = True, checkpoint: str | Path | None = None
) -> AttentionStats:
    """Run all shards that are not in the engine's directory yet, and add up all as they come, in their order.

    Raises:
        CorpusError: there are more shards than sentences.
        EngineError: there is no such engine, workers cannot be started, or were lost too often; or there is to be a
            checkpoint, instead of which the engine keeps shards.
        StatsError: the directory has shards of another run.
        KeyboardInterrupt: on Ctrl-C; the message says how many shards are done.
    """
    if checkpoint is not None:
        raise EngineError(
            f"checkpoint={str(checkpoint)!r}: an engine keeps finished shards instead; leave it out, and set the "
            f"directory of the engine, as in RayEngine(directory=…)"
        )
    engine = engine_of(engine)
    n_shards, directory = engine.shards, engine.directory
    if n_shards is not None and not 1 <= n_shards <= len(job.corpus):
        raise CorpusError(f"shards={n_shards}: expected 1 to {len(job.corpus)}, the number of sentences")
    with tempfile.TemporaryDirectory() if directory is None else nullcontext(directory) as place:
        return _run_missing(engine, job, Path(place), progress).stats()


def _run_missing(engine: Engine, job: Job, directory: Path, progress: bool) -> Fold:
    """Run the shards that are not in the directory, and add up the files of all."""
    bar = Bar(job.corpus, progress)
    with engine.start(job.begin) as pool:
        plan = pool.plan(engine.shards or min(SHARDS_PER_WORKER * pool.n_workers, len(job.corpus)))
        numbers = range(1, plan.shards.of + 1)
        done = {number: (run.sequences, 0) for number, run in plan.finished(directory).items()}
        missing = [number for number in numbers if number not in done]
        begun: dict[int, tuple[int, int]] = {}
        fold, unfolded = Fold(), list(numbers)

        def fold_those_in_turn() -> None:
            while unfolded and unfolded[0] in done:
                fold.add(plan.file(directory, unfolded.pop(0)))

        def report(number: int, sequences: int, tokens: int) -> None:
            insist.check()
            begun[number] = sequences, tokens
            bar.reach(*map(sum, zip(*{**begun, **done}.values(), strict=True)))

        try:
            with bar, Insist() as insist:
                fold_those_in_turn()
                for number, run in pool.run(missing, plan.shards.of, report):
                    plan.save(run, number, directory)
                    done[number] = run.sequences, sum(part.tokens for part in run.counted)
                    fold_those_in_turn()
                    insist.check()
        except KeyboardInterrupt as interrupt:
            kept = f", which are kept in {directory}" if engine.directory and done else ""
            interrupt.args = (f"interrupted after {len(done)} of {plan.shards.of} shards{kept}",)
            raise
    return fold
