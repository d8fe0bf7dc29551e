"""What lets `attnstats run` be stopped at any time: a checkpoint, a lock on its directory, and the way back."""

from __future__ import annotations

import argparse
import os
import shlex
import signal
import threading
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import TYPE_CHECKING

from tl_attnstats.cli.common import REPORT_FILE, STATS_FILE, UsageError, text
from tl_attnstats.corpus.files import temporaries

if TYPE_CHECKING:
    from tl_attnstats.results.checkpoint import Checkpoint

CHECKPOINT_FILE, LOCK_FILE = "checkpoint.nc", ".lock"
FRESH, EVERY = "--fresh", "5min"


class Terminated(KeyboardInterrupt):
    """SIGTERM."""

    signal = signal.SIGTERM


def add_to(parser: argparse.ArgumentParser) -> None:
    """Add the options of checkpoints."""
    parser.add_argument(
        "--no-checkpoint",
        action="store_true",
        help="keep no checkpoint in DIR, from which the same command goes on after an interruption",
    )
    parser.add_argument(FRESH, action="store_true", help="start anew, and drop the checkpoint in DIR")
    parser.add_argument(
        "--checkpoint-every", type=text, metavar="TIME", help=f"time between checkpoints, such as 30s (default {EVERY})"
    )


def check(args: argparse.Namespace) -> None:
    """Raise `UsageError` for options that contradict each other, or a time that is none."""
    if args.no_checkpoint and (args.fresh or args.checkpoint_every):
        other = FRESH if args.fresh else "--checkpoint-every"
        raise UsageError(f"{other}: has no effect with --no-checkpoint; leave one of them out")
    if args.checkpoint_every:
        from tl_attnstats.results.checkpoint import seconds

        seconds(args.checkpoint_every)


@contextmanager
def alone_in(directory: Path) -> Iterator[None]:
    """Lock a directory against other runs, and let SIGTERM end this one like Ctrl-C does.

    The operating system releases the lock of a process that has died.

    Raises:
        UsageError: another run holds the lock.
    """
    from filelock import FileLock, Timeout

    path = directory / LOCK_FILE
    lock = FileLock(path)
    try:
        lock.acquire(timeout=0)
    except Timeout:
        owner = path.read_text().strip() if path.exists() else ""
        raise UsageError(
            f"--out {directory}: another attnstats run{f' (process {owner})' * bool(owner)} is writing there; "
            f"wait for its end, or choose another directory"
        ) from None
    main = threading.current_thread() is threading.main_thread()  # the only one that may set handlers
    before = signal.signal(signal.SIGTERM, _terminating(os.getpid())) if main else None
    try:
        with suppress(OSError):
            path.write_text(str(os.getpid()))
        for left in _left_behind(directory):
            left.unlink(missing_ok=True)
        yield
    finally:
        if main:
            signal.signal(signal.SIGTERM, before or signal.SIG_DFL)
        with suppress(OSError):
            path.unlink()  # while it is ours
        lock.release()


def _terminating(owner: int) -> Callable[[int, object], None]:
    """A handler that raises `Terminated` in this process, and does the usual in its children, such as spaCy's."""

    def handle(number: int, frame: object) -> None:
        if os.getpid() == owner:
            raise Terminated
        signal.signal(number, signal.SIG_DFL)
        os.kill(os.getpid(), number)

    return handle


def _left_behind(directory: Path) -> list[Path]:
    """What a run that was killed was writing."""
    files = [left for name in (STATS_FILE, REPORT_FILE) for left in temporaries(directory / name)]
    return [*files, *directory.glob(".*.png.*.png")]


def checkpoint_in(args: argparse.Namespace, directory: Path) -> Checkpoint | None:
    """The checkpoint of the run that writes into this directory; None with --no-checkpoint."""
    if args.no_checkpoint:
        return None
    from tl_attnstats.results.checkpoint import Checkpoint

    made = Checkpoint(directory / CHECKPOINT_FILE, args.checkpoint_every or EVERY)
    if args.fresh:
        made.remove()
    return made


def way_back(args: argparse.Namespace, arguments: Sequence[str]) -> str:
    """The command that goes on with a run that left a checkpoint; "" if none was left."""
    kept: list[Checkpoint] = getattr(args, "checkpoints", [])
    if not any(checkpoint.written for checkpoint in kept):
        return ""
    # argparse takes the beginning of an option for the option.
    again = [word for word in arguments if not (word.startswith("--fr") and FRESH.startswith(word))]
    return f"go on with: {shlex.join(['attnstats', *again])}"
