"""Options of `attnstats run` for one shard of a run, and for a run whose shards an engine runs."""

from __future__ import annotations

import argparse
import re
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING

from tl_attnstats.cli.common import UsageError, add_choice, text, whole
from tl_attnstats.engines import ENGINES, engine_of

if TYPE_CHECKING:
    from tl_attnstats.corpus.corpus import Corpus
    from tl_attnstats.engines import Engine
    from tl_attnstats.results.stats import AttentionStats
    from tl_attnstats.run import Collectors

DIRECTORY = "shards"
"""For the shards of an engine, in the directory of the results."""
OF_ENGINES = ("address", "workers", "cpus_per_worker", "gpus_per_worker", "shards")


def add_to(parser: argparse.ArgumentParser) -> None:
    """Add the options."""
    parser.add_argument(
        "--shard", type=shard, metavar="I/N", help="only the I-th of N shards, as a file in DIR for attnstats merge"
    )
    add_choice(parser, "--engine", ENGINES, help="run shards on several workers at once, which may be on a cluster")
    parser.add_argument(
        "--address", type=text, metavar="HOST:PORT", help="of a running Ray cluster, or auto (default: start Ray here)"
    )
    parser.add_argument(
        "--workers", type=whole(1), metavar="N", help="default: one per GPU, or per machine if there are no GPUs"
    )
    parser.add_argument(
        "--cpus-per-worker", type=whole(1), metavar="N", help="CPUs of a worker (default: an equal part of all)"
    )
    parser.add_argument(
        "--gpus-per-worker",
        type=share,
        metavar="X",
        help="GPUs of a worker, or a fraction (default: 1 if there are any)",
    )
    parser.add_argument("--shards", type=whole(1), metavar="N", help="number of shards (default: 4 per worker)")


def shard(given: str) -> tuple[int, int]:
    """A shard, such as "3/16"."""
    match = re.fullmatch(r"(\d{1,9})/(\d{1,9})", given, re.ASCII)
    number, of = (int(match[1]), int(match[2])) if match else (0, 0)
    if not 1 <= number <= of:
        raise argparse.ArgumentTypeError(f"{given or repr(given)}: expected a shard such as 3/16, from 1/16 to 16/16")
    return number, of


def share(given: str) -> float:
    """A number of GPUs."""
    if not re.fullmatch(r"\d{1,4}|0?\.\d{1,4}", given, re.ASCII):
        raise argparse.ArgumentTypeError(f"{given or repr(given)}: expected a whole number or a fraction, such as 0.5")
    return float(given)


def check(args: argparse.Namespace) -> None:
    """Raise `UsageError` for options that do not go together."""
    if args.shard and args.engine:
        raise UsageError(f"--shard: --engine {args.engine} runs all shards; leave one of them out")
    for option in OF_ENGINES:
        if getattr(args, option) is not None and not args.engine:
            raise UsageError(f"--{option.replace('_', '-')}: applies only to --engine")
    if args.shard and args.save_corpus:
        raise UsageError("--shard: all shards would write --save-corpus; save the corpus first, then run with --corpus")
    how = "--shard" if args.shard else "--engine" if args.engine else ""
    for option in ("--no-checkpoint", "--checkpoint-every"):
        if how and getattr(args, option.removeprefix("--").replace("-", "_")):
            raise UsageError(f"{option}: does not apply to {how}, which keeps finished shards instead; leave it out")
    if args.engine:
        _engine(args, args.out)


class KeptShards:
    """The finished shards of an engine, for `resume`: what a checkpoint is to other runs."""

    def __init__(self, out: Path, fresh: bool):
        self.directory = out / DIRECTORY
        if fresh:
            self.remove()

    @property
    def written(self) -> bool:
        """Whether there are any."""
        return any(self._files())

    def remove(self) -> None:
        """Remove them, once what is made of them is written."""
        for file in self._files():
            file.unlink()
        if self.directory.is_dir() and not any(self.directory.iterdir()):
            self.directory.rmdir()

    def _files(self) -> list[Path]:
        from tl_attnstats.results.shard_files import PATTERN

        return [*self.directory.glob(PATTERN)]


def run_one(args: argparse.Namespace, collectors: Collectors, corpus: Corpus, out: Path) -> None:
    """Run one shard and write its file, unless it is there already."""
    from tl_attnstats.corpus.files import temporaries
    from tl_attnstats.corpus.kinds import counted
    from tl_attnstats.corpus.progress import Bar
    from tl_attnstats.results.shard_files import Plan
    from tl_attnstats.results.shards import Shards

    number, of = args.shard
    reading = {"batch_tokens": args.batch_tokens, "truncate": args.truncate, "stride": args.stride}
    part = corpus.shard(number, of)  # for the number of sentences; or it raises
    collectors.begin(corpus, **reading)
    plan = Plan(collectors.state(), Shards.in_run(corpus, args.batch_tokens, of))
    file = plan.file(out, number)
    for left in temporaries(file):  # by a run of it that was killed
        left.unlink(missing_ok=True)
    if not args.fresh and plan.intact(file):
        print(f"shard {number} of {of} is there already: {file}")
        return
    bar = Bar(part, True)
    with bar:
        for batch in collectors.batches(corpus, shard=args.shard, on_error=args.on_error, **reading):
            collectors.run(batch)
            bar.advance(batch)
    state = collectors.state()
    plan.save(state, number, out)
    print(f"shard {number} of {of}, {counted(state.sequences, corpus.sequence_kind)} → {file}")


def run_all(args: argparse.Namespace, make: partial[Collectors], corpus: Corpus, out: Path) -> AttentionStats:
    """Run all shards on the workers of an engine. Their files stay until `KeptShards.remove`."""
    from tl_attnstats.engines.sharded import Job, loads, run_sharded

    load = loads(args.model, device=args.device, dtype=args.dtype)
    reading = {
        "batch_tokens": args.batch_tokens,
        "truncate": args.truncate,
        "stride": args.stride,
        "on_error": args.on_error,
    }
    return run_sharded(_engine(args, out), Job.of(load, make, corpus, reading))


def _engine(args: argparse.Namespace, out: Path) -> Engine:
    """The engine with its options. Raises `AttnStatsError` if they are wrong, or the engine is not installed."""
    options = {option: getattr(args, option) for option in OF_ENGINES}
    return engine_of(args.engine, **options, directory=out / DIRECTORY)
