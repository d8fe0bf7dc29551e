"""The files of shards: their names, which of them are there, and their merge into the whole."""

from __future__ import annotations

import hashlib
import json
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import asdict, dataclass, replace
from functools import cached_property
from pathlib import Path

import xarray as xr

from tl_attnstats.errors import StatsError
from tl_attnstats.results.file import opened, write_state
from tl_attnstats.results.shards import RAW, Shards, joined, named, saying, shards_of
from tl_attnstats.results.state import BOOKS, RunState
from tl_attnstats.results.stats import AttentionStats

PATTERN = "shard-*-of-*.nc"
# Known only after the first batch, so two shards are compared in it when they are merged.
LATER = ("interventions",)


@dataclass(frozen=True)
class Plan:
    """A run that is divided into shards.

    Attributes:
        begun: the state of its collectors before the first batch: how they read the model and the corpus.
        shards: the shards that it is divided into; no numbers.
    """

    begun: RunState
    shards: Shards

    @cached_property
    def fingerprint(self) -> str:
        """A hash over everything that its shards have in common: model, corpus, options, and number of shards."""
        reading = {key: value for key, value in asdict(self.begun.reading).items() if key not in LATER}
        common = json.dumps([reading, self.begun.places, asdict(self.shards)])
        return hashlib.blake2b(common.encode(), digest_size=6).hexdigest()

    def file(self, directory: Path, number: int) -> Path:
        """Where a shard is written: `shard-03-of-16-2fa4c1d09b7e.nc`."""
        of = str(self.shards.of)
        return directory / f"shard-{number:0{max(2, len(of))}}-of-{of}-{self.fingerprint}.nc"

    def finished(self, directory: Path) -> dict[int, RunState]:
        """Books of the shards whose files are in a directory, by number. Damaged files are not counted.

        Raises:
            StatsError: a file is the shard of another run; the message says what differs.
        """
        files = {number: self.file(directory, number) for number in range(1, self.shards.of + 1)}
        for path in sorted({*directory.glob(PATTERN)} - {*files.values()}):
            self._check(path, RunState.load(path))
        found = {number: self.intact(path) for number, path in files.items()}
        return {number: run for number, run in found.items() if run}

    def intact(self, path: Path) -> RunState | None:
        """Books of the shard in a file of its name; None if it is not there, or damaged. Raises as `finished`."""
        if not path.exists():
            return None
        try:
            run = RunState.load(path)
        except StatsError:
            return None
        self._check(path, run)
        return replace(run, sums={})

    def _check(self, path: Path, run: RunState) -> None:
        """Raise `StatsError` unless a file is a shard of this run."""
        complete = not run.shards and self.shards.of == 1  # a single shard is the whole run, and says so
        if [part.run for part in run.shards] != [self.shards] and not complete:
            raise StatsError(_foreign(path, run.shards, self.shards, "this run"))
        if run.sums:
            run.check_same_reading(self.begun, str(path), but=LATER)

    def save(self, run: RunState, number: int, directory: Path) -> Path:
        """Write the state of a shard. One without a batch has only books."""
        path = self.file(directory, number)
        if run.sequences:
            run.save(path)
        else:
            write_state(path, {BOOKS: run.state_dict()[BOOKS]}, xr.Dataset(attrs=run.provenance))
        return path


def merge_shards(paths: str | Path | Iterable[str | Path], *, partial: bool = False) -> AttentionStats:
    """Merge the shards of a run, in the order of their numbers, into the statistics of the whole run.

    The result equals that of a single run but for the rounding of float64 sums, because shards have its batches. Files
    of whole runs on different sentences are merged in the order given.

    Args:
        paths: files, or directories with files of shards, as `attnstats run --shard` writes them.
        partial: accept that shards are missing. The provenance of the result names them, until they are merged too.

    Raises:
        StatsError: there is no file; a shard is missing, or there twice; a file has another model, other options or
            sentences than the first; a file is damaged. The message names the file and the difference.
    """
    files = _files([paths] if isinstance(paths, str | Path) else paths)
    shards = {file: _shards_in(file) for file in files}
    files.sort(key=lambda file: [part.numbers for part in shards[file]])  # keeps the order of whole runs
    _check_complete(shards, partial)
    fold = Fold()
    for file in files:
        fold.add(file)
    return fold.stats()


def _files(paths: Iterable[str | Path]) -> list[Path]:
    found: dict[Path, Path] = {}
    for path in map(Path, paths):
        inside = sorted(path.glob(PATTERN)) if path.is_dir() else [path]
        if not inside:
            raise StatsError(f"{path}: no files of shards in it; expected {PATTERN}, as attnstats run --shard writes")
        found |= {file.resolve(): file for file in inside}
    if not found:
        raise StatsError("paths: got none, expected files of shards, or directories with such files")
    return list(found.values())


def _shards_in(path: Path) -> tuple[Shards, ...]:
    """The shards that a file says it has; none for a whole run."""
    with opened(path) as file:
        return shards_of({RAW: file.attrs[RAW]} if RAW in file.attrs else {})


def _foreign(path: Path, found: Sequence[Shards], expected: Shards, other: str) -> str:
    """How a file differs from the run that it should be a shard of."""
    if len(found) != 1:
        return f"{path}: has {'shards of several runs' if found else 'no shards'}, unlike {other}; merge it on its own"
    words = {"of": "number of shards", "sentences": "sentences of the corpus", "batch_tokens": "batch tokens"}
    for key, value in asdict(found[0].run).items():
        if value != (wanted := getattr(expected.run, key)):
            return f"{path}: different {words.get(key, key)}: {value!r} here, {wanted!r} in {other}"
    raise AssertionError("the shards are of the same run")


def _check_complete(shards: Mapping[Path, Sequence[Shards]], partial: bool) -> None:
    """Raise `StatsError` unless files have every shard of one run, each once; or, if `partial`, some of them."""
    first = next((file for file in shards if shards[file]), None)
    if first is None:
        return  # they are whole runs
    run = shards[first][0].run
    file_of: dict[int, Path] = {}
    for file, parts in shards.items():
        if [part.run for part in parts] != [run]:
            raise StatsError(_foreign(file, parts, run, str(first)))
        for number in parts[0].numbers:
            earlier = file_of.setdefault(number, file)
            if earlier != file:
                raise StatsError(
                    f"{file}: has {named([number], run.of)}, and so has {earlier}; expected each shard once"
                )
    missing = replace(run, numbers=tuple(file_of)).missing
    if missing and not partial:
        raise StatsError(
            f"{first.parent}: {named(missing, run.of)} not found; run what is missing, or pass partial=True for a "
            f"result without it"
        )


class Fold:
    """The states of files added up, one at a time, in the order in which they are given.

    Attributes:
        whole: all of them so far; None before the first.
    """

    def __init__(self) -> None:
        self.whole: RunState | None = None

    def add(self, file: Path) -> None:
        """Add the state of a file. Raises `StatsError` if it does not add up with those before it."""
        run = RunState.load(file)
        if self.whole is None:
            self.whole = run
            return
        if self.whole.sums and run.sums:
            run.check_same_reading(self.whole, str(file))
        try:
            self.whole = _added(self.whole, run)
        except StatsError as error:
            raise StatsError(f"{file}: {str(error).removeprefix('merge: ')}") from None

    def stats(self) -> AttentionStats:
        """The statistics of all of them, of which there is at least one."""
        assert self.whole is not None
        return AttentionStats(self.whole)


def _added(whole: RunState, run: RunState) -> RunState:
    """Both together. A shard without a batch adds only its number."""
    if whole.sequences and run.sequences:
        return whole.merge(run)
    some, none = (run, whole) if run.sequences else (whole, run)
    return replace(some, said=saying(some.said, joined(some.shards, none.shards)))
