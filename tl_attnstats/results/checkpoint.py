"""A run's state on disk while the run goes on, so that a run that was stopped goes on where it was."""

from __future__ import annotations

import json
import time
from collections.abc import Iterable, Iterator, Mapping
from contextlib import contextmanager, suppress
from dataclasses import asdict, dataclass
from importlib.metadata import version
from itertools import islice
from pathlib import Path
from signal import Signals
from typing import Any, Protocol
from warnings import warn

import pandas as pd
import xarray as xr

from tl_attnstats.corpus.batches import Batch
from tl_attnstats.corpus.files import sync, temporaries
from tl_attnstats.corpus.tally import Tally
from tl_attnstats.errors import CheckpointWarning, HookError, MetricError, StatsError
from tl_attnstats.results.file import damage, read_state, write_state
from tl_attnstats.results.signals import Stop
from tl_attnstats.results.state import RunState

POSITION = "checkpoint"
"""The group of the file that says where in the run the state was taken."""
EVERY = "5min"


class Resumable(Protocol):
    """What a checkpoint asks of the collectors of a run (`tl_attnstats.run.Collectors`)."""

    def state(self) -> RunState: ...
    def load_state_dict(self, state: Mapping[str, xr.Dataset]) -> None: ...
    def sources_state(self) -> dict[str, Any]: ...
    def load_sources_state(self, state: Mapping[str, Any]) -> None: ...
    def discard_batch(self) -> None: ...


@dataclass(frozen=True)
class Position:
    """Where in a run a state was taken.

    Attributes:
        batches: number of batches done.
        options: what fixes the order of batches, besides the corpus.
        sources: what the trials of sources have found.
    """

    batches: int
    options: Mapping[str, Any]
    sources: Mapping[str, Any]


class Checkpoint:
    """The file in which a run keeps its state while it goes on, and the one before it.

    A new file is written and synced beside both. Then the last one becomes the previous one, and the new one takes its
    place, so that one of them is whole at any time. One checkpoint is for one run.

    Args:
        path: the file.
        every: the time from one file to the next: "30s", "5min", "1h", or a number of seconds.

    Raises:
        StatsError: `every` is no duration, or `path` is a directory.
    """

    def __init__(self, path: str | Path, every: str | float = EVERY):
        self.path = Path(path)
        if self.path.is_dir():
            raise StatsError(f"checkpoint={str(path)!r}: is a directory, expected a file name")
        self.previous = self.path.with_name(f"{self.path.stem}.previous{self.path.suffix}")
        self._new = self.path.with_name(f"{self.path.stem}.new{self.path.suffix}")
        self._every = seconds(every)
        self._stop = Stop()
        self._options: dict[str, Any] = {}
        self._batches = self._written = 0  # how many are done, and how many of them are in the file
        self.sequences = 0
        """How many sequences are in the batches that are done."""
        self.resumed = False
        """Whether the run goes on from the file."""

    @property
    def written(self) -> bool:
        """Whether the file is of this run."""
        return self._written > 0

    @property
    def signal(self) -> Signals | None:
        """The signal that stopped the run, if any."""
        return self._stop.received

    def remove(self) -> None:
        """Delete the file, the previous one, and what a write that was killed has left."""
        for path in (self.path, self.previous, self._new, *temporaries(self._new)):
            with suppress(OSError):
                path.unlink()

    @contextmanager
    def over(self, collectors: Resumable) -> Iterator[None]:
        """The run of these collectors. A first signal waits for `due`; an error keeps what was counted before it."""
        self._collectors, self._last = collectors, time.monotonic()
        with self._stop:
            try:
                yield
            except Exception:
                collectors.discard_batch()
                # Part of the batch may have been counted, where memory was short, or memory may not do for writing:
                # then the last file has to do. An error here must not take the place of the one that stopped the run.
                with suppress(HookError, MemoryError, RuntimeError):
                    if collectors.state().sequences == self.sequences:
                        self.keep()
                raise

    def resume(self, batches: Iterable[Batch], **options: Any) -> Iterator[Batch]:
        """Go on from the file, if there is one: load its state, and return the batches that are left.

        Where the file is damaged, the previous one takes its place, with a warning.

        Args:
            batches: those of the whole run. They are tokenized, but not run.
            options: what fixes their order, besides the corpus.

        Raises:
            StatsError: the file is of another run, and how that differs; or neither of the files can be read.
        """
        self._options = {**options, "source": self._collectors.sources_state()["source"], "version": _version()}
        for left in (self._new, *temporaries(self._new)):
            with suppress(OSError):
                left.unlink()
        found = self._read()
        batches = iter(batches)
        if found is None:
            return batches
        run, position = found
        try:
            self._check(position)
            self._collectors.load_state_dict(run.state_dict())
            self._collectors.load_sources_state(position.sources)
            self._skip(batches, run, position)
        except (MetricError, StatsError) as error:
            raise StatsError(
                f"checkpoint: {self.path} is of another run ({error}); "
                f"give the same arguments to go on, or delete it to start anew"
            ) from None
        self._batches = self._written = position.batches
        self.sequences, self.resumed = run.sequences, True
        return batches

    def due(self, batch: Batch) -> None:
        """Count a batch that is done. Write the file if it is time; or if a signal came, and then stop the run."""
        self._batches += 1
        self.sequences += len(batch)
        if self.signal:
            self.keep()
            raise KeyboardInterrupt
        if time.monotonic() - self._last >= self._every:
            self.keep()

    def keep(self) -> None:
        """Write the file, unless nothing was counted since. If that fails, warn: the run does not depend on it."""
        if self._written == self._batches:
            return
        try:
            self._write()
        except (StatsError, OSError) as error:
            last = f"the last one, after {self._written} batches, stays" if self._written else "there is none so far"
            warn(f"checkpoint: {error}; {last}", CheckpointWarning, stacklevel=2)
        else:
            self._written = self._batches
        self._last = time.monotonic()

    def _write(self) -> None:
        position = Position(self._batches, self._options, self._collectors.sources_state())
        there = xr.Dataset(attrs={"position": json.dumps(asdict(position))})
        try:
            write_state(self._new, {**self._collectors.state().state_dict(), POSITION: there}, None, quick=True)
            if self.path.exists():
                self.path.replace(self.previous)
            self._new.replace(self.path)
            sync(self.path.parent)
        except BaseException:
            with suppress(OSError):
                self._new.unlink(missing_ok=True)
            raise

    def _read(self) -> tuple[RunState, Position] | None:
        """The file, or else the previous one; None if there is neither. Raises `StatsError` if none can be read."""
        wrong = ""
        for path in filter(Path.exists, (self.path, self.previous)):
            try:
                found = _read(path)
            except StatsError as error:
                wrong = wrong or str(error)
                continue
            if wrong:
                warn(f"checkpoint: {wrong}; going on from {path}", CheckpointWarning, stacklevel=3)
                self.path.unlink()  # so that it does not become the previous one
            return found
        if wrong:
            raise StatsError(f"checkpoint: {wrong}; delete it to start anew")
        return None

    def _check(self, position: Position) -> None:
        """Raise `StatsError` at the first option that differs."""
        for name, here in self._options.items():
            there = position.options.get(name)
            if there != here:
                raise StatsError(f"different {name.replace('_', ' ')}: {there!r} there, {here!r} here")

    def _skip(self, batches: Iterator[Batch], run: RunState, position: Position) -> None:
        """Skip the batches that are done. Raises `StatsError` if they are not those that the state counted."""
        skipped = Tally()
        for batch in islice(batches, position.batches):
            skipped.add(batch)
        if (skipped.digest, skipped.tokens) != (run.digest, run.counted[0].tokens):
            raise StatsError(f"the first {position.batches} batches hold other tokens here")


def seconds(every: str | float) -> float:
    """The seconds of a duration: "30s", "5min", "1h", or a number of seconds. Raises `StatsError` unless positive."""
    found = 0.0
    # pandas takes a number without a unit for nanoseconds.
    if isinstance(every, str) and not every.strip().replace(".", "").isdigit():
        with suppress(ValueError):
            found = pd.Timedelta(every).total_seconds()
    elif isinstance(every, int | float) and not isinstance(every, bool):
        found = every
    if not 0 < found < float("inf"):
        raise StatsError(f'every={every!r}: expected a duration such as "30s", "5min" or "1h", or a number of seconds')
    return found


def _read(path: Path) -> tuple[RunState, Position]:
    with damage(path):
        state = read_state(path)
        try:
            position = Position(**json.loads(state.pop(POSITION).attrs["position"]))
            return RunState.from_state_dict(state), position
        except (TypeError, KeyError) as error:
            raise StatsError(f"{path}: not a checkpoint of this version of tl_attnstats ({error})") from None


def _version() -> str:
    return version("tl-attnstats")
