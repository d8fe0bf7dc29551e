"""What a run remembers: sums, and the books that say what they count. Merges and saves them."""

from __future__ import annotations

import functools
import itertools
import json
from collections.abc import Container, Iterator, Mapping
from dataclasses import asdict, dataclass, field, fields, replace
from functools import cached_property
from importlib.metadata import version
from pathlib import Path
from typing import Any

import numpy as np
import xarray as xr

from tl_attnstats.collectors.base import known
from tl_attnstats.collectors.group import CollectorGroup, merge_states
from tl_attnstats.corpus.corpus import Corpus
from tl_attnstats.corpus.on_error import said_of, skipped_of
from tl_attnstats.corpus.tally import Numbers, Tally
from tl_attnstats.errors import StatsError
from tl_attnstats.results.file import damage, read_state, write_state
from tl_attnstats.results.shards import Shards, joined, saying, shards_of

BOOKS = "run"
"""Key of the books among the collectors' states."""
PACKAGES = ("tl-attnstats", "transformer-lens", "transformers", "torch", "spacy")


@dataclass(frozen=True, kw_only=True)
class Reading:
    """How a run read the model and the corpus. Two runs add up only if all of this is the same.

    Fields that do not apply are "" or 0.
    """

    model: str
    model_fingerprint: str = ""
    interventions: str = ""
    """The user's hooks on the model."""
    stream: str = ""
    attention: str
    null: str
    special_tokens: str = ""
    key_special_tokens: str = ""
    dtype: str = ""
    sequence_kind: str = ""
    stride: int = 0
    """Number of tokens between the starts of successive windows of a document."""
    truncate: str = ""
    """"yes" if sentences that exceed the model's context were cut."""
    settings: str = "{}"
    """Settings of the statistics, as JSON."""


@dataclass(frozen=True)
class Counted:
    """What was counted of one corpus.

    Attributes:
        corpus: identity of the corpus; "" for batches given in Python.
        origin: where the corpus comes from.
        size: number of sentences in the whole corpus; they are numbered from 0.
        numbers: numbers of the sentences counted.
        sequences: number of sequences counted; each window of a document is one.
        tokens: number of tokens in these sequences.
        digest: sum of the sentence digests of all sequences, modulo 2⁶³.
    """

    corpus: str
    origin: str
    size: int
    numbers: Numbers
    sequences: int
    tokens: int
    digest: int

    @classmethod
    def of(cls, tally: Tally, corpus: Corpus | None) -> Counted:
        """What was counted of a corpus; None stands for batches given in Python."""
        named = ("", "batches given in Python", 0) if corpus is None else (corpus.identity, corpus.origin, corpus.size)
        return cls(*named, Numbers(), 0, 0, 0).of_tally(tally)

    def of_tally(self, tally: Tally) -> Counted:
        """The same corpus with the counts of `tally`."""
        size = self.size if self.corpus else tally.next_number
        return replace(
            self,
            size=size,
            numbers=tally.numbers,
            sequences=tally.sequences,
            tokens=tally.tokens,
            digest=tally.digest,
        )

    def __or__(self, other: Counted) -> Counted:
        return replace(
            self,
            numbers=self.numbers | other.numbers,
            sequences=self.sequences + other.sequences,
            tokens=self.tokens + other.tokens,
            digest=(self.digest + other.digest) % 2**63,
        )


@dataclass(frozen=True, eq=False)
class RunState:
    """Everything a run remembers.

    Sums have the same size whatever a run saw, and add up to the same result in any order.

    Attributes:
        sums: each collector's labelled sums, by the name of its statistic.
        reading: how the run read model and corpus.
        counted: what was counted of each corpus; sentence numbers of the second continue those of the first.
        said: the rest of the provenance, which may differ between runs that add up.
    """

    sums: Mapping[str, xr.Dataset]
    reading: Reading
    counted: tuple[Counted, ...]
    said: Mapping[str, Any] = field(default_factory=dict)

    @classmethod
    def of(cls, group: CollectorGroup, reading: Reading, counted: tuple[Counted, ...], **said: Any) -> RunState:
        """The state of collectors, with their settings and the versions of packages."""
        settings = json.dumps({name: dict(c.settings) for name, c in group.collectors.items()})
        return cls(group.state(), replace(reading, settings=settings), counted, {**said, "versions": _versions()})

    @property
    def sequences(self) -> int:
        """Number of sequences counted."""
        return sum(part.sequences for part in self.counted)

    @property
    def digest(self) -> int:
        """Sum of the sentence digests of all sequences, modulo 2⁶³."""
        return sum(part.digest for part in self.counted) % 2**63

    @property
    def shards(self) -> tuple[Shards, ...]:
        """The shards it has of each run that was divided into shards and of which it lacks some."""
        return shards_of(self.said)

    @property
    def provenance(self) -> dict[str, Any]:
        """The books in readable form: model, corpus, options and versions."""
        default = {f.name: f.default for f in fields(Reading)}
        return {
            **{key: value for key, value in asdict(self.reading).items() if value != default[key]},
            "corpus": " + ".join(dict.fromkeys(part.origin for part in self.counted)),
            "numbering": "+".join(part.corpus for part in self.counted),
            "sequences": self.sequences,
            "tokens": sum(part.tokens for part in self.counted),
            "corpus_fingerprint": f"{self.digest:016x}",
            **self.said,
        }

    @cached_property
    def values(self) -> xr.Dataset:
        """The statistics with their errors; the attrs hold the provenance."""
        if not self.sequences:
            raise StatsError("nothing has been collected yet: no batch was completed")
        computed = [known(name).compute(part, self.sequences) for name, part in self.sums.items()]
        values: xr.Dataset = xr.merge(
            computed, join="outer", fill_value=0, combine_attrs="override", compat="no_conflicts"
        )
        return values.assign_attrs(self.provenance)

    def merge(self, other: RunState) -> RunState:
        """The state of a single run that saw what both runs saw.

        Raises:
            StatsError: the runs do not add up: they read the model or the sequences differently, or counted the same
                sentences. Any overlap is found within a corpus and its slices. Between two corpora, or for batches
                given in Python, it is found only if both runs counted exactly the same sentences.
        """
        if not (self.sequences and other.sequences):
            raise StatsError("merge: nothing has been collected yet in one of the runs; leave it out")
        self.check_same_reading(other, "merge")
        shards = joined(self.shards, other.shards)
        counted, moved = _counted_together(self, other)
        sums = merge_states(self.sums, {name: _renumbered(part, moved) for name, part in other.sums.items()})
        sources = [source for run in (self, other) for source in str(run.said.get("source", "")).split(" and ")]
        said = {**self.said, **({"source": " and ".join(sorted({*sources}))} if any(sources) else {})}
        said |= said_of([*skipped_of(self.said), *skipped_of(other.said)])
        return RunState(sums, self.reading, counted, saying(said, shards))

    @property
    def places(self) -> dict[str, list[int]]:
        """The layers and heads of the sums."""
        some = next(iter(self.sums.values()))
        return {f"{dim}s": some[dim].values.tolist() if dim in some.coords else [] for dim in ("layer", "head")}

    def check_same_reading(self, other: RunState, word: str, but: Container[str] = ()) -> None:
        """Raise `StatsError` at the first difference in reading, layers or heads; its message begins with `word`."""
        mine, theirs = ({**asdict(run.reading), **run.places} for run in (self, other))
        mine["settings"], theirs["settings"] = _differing(mine["settings"], theirs["settings"])
        for key, value in mine.items():
            if value != theirs[key] and key not in but:
                here, there = (repr(given) if given else "none" for given in (value, theirs[key]))
                raise StatsError(
                    f"{word}: different {key.replace('_', ' ')}: {here} here, {there} there; "
                    f"expected runs of one model with the same settings"
                )

    def state_dict(self) -> dict[str, xr.Dataset]:
        """The state as labelled arrays: the sums by statistic, and the books under "run"."""
        ranges = [part.numbers.ranges for part in self.counted]
        parts = {f.name: [getattr(part, f.name) for part in self.counted] for f in fields(Counted)}
        del parts["numbers"]
        books = {
            **{name: ("part", values) for name, values in parts.items()},
            "numbers": (("range", "border"), np.concatenate(ranges)),
            "ranges": ("part", [len(part) for part in ranges]),
        }
        told = {"reading": json.dumps(asdict(self.reading)), "said": json.dumps(self.said)}
        return {**self.sums, BOOKS: xr.Dataset(books, attrs=told)}

    @classmethod
    def from_state_dict(cls, state: Mapping[str, xr.Dataset]) -> RunState:
        """The inverse of `state_dict`."""
        books = state[BOOKS]
        ends = np.cumsum(books["ranges"].values)[:-1]
        columns = [books[f.name].values.tolist() for f in fields(Counted) if f.name != "numbers"]
        if not all(isinstance(value, str | int) for column in columns for value in column):
            raise StatsError("the books of a run: got numbers with a fraction, expected whole numbers")
        columns.insert(3, [Numbers(ranges) for ranges in np.split(books["numbers"].values.astype(np.int64), ends)])
        return cls(
            {name: part for name, part in state.items() if name != BOOKS},
            Reading(**json.loads(books.attrs["reading"])),
            tuple(Counted(*row) for row in zip(*columns, strict=True)),
            json.loads(books.attrs["said"]),
        )

    def save(self, path: str | Path) -> None:
        """Write one netCDF file with the values, and in its group `state` the state they are computed from.

        Raises:
            StatsError: the file cannot be written.
        """
        write_state(Path(path), self.state_dict(), self.values)

    @classmethod
    def load(cls, path: str | Path) -> RunState:
        """Read a file written by `save`. Raises `StatsError` for any other file."""
        path = Path(path)
        with damage(path):
            run = cls.from_state_dict(read_state(path))
            ordered = {name: run.sums[name] for name in json.loads(run.reading.settings) if name in run.sums}
        return replace(run, sums=ordered)


def _differing(*settings: str) -> tuple[str, ...]:
    """Of the settings of statistics in two runs, those that are not the same in both."""
    a, b = map(json.loads, settings)
    names = [name for name in {**a, **b} if a.get(name) != b.get(name)]
    return tuple(json.dumps({name: each[name] for name in names if name in each}) for each in (a, b))


@functools.cache  # reading the metadata of packages takes 10 ms
def _versions() -> str:
    return json.dumps({package: version(package) for package in PACKAGES})


Moves = list[tuple[int, int]]
"""The first old number of each corpus, and the amount to add to its numbers."""


def _counted_together(here: RunState, there: RunState) -> tuple[tuple[Counted, ...], Moves]:
    """Join the counts of both runs and renumber the second's sentences. Raises `StatsError` for overlaps."""
    if (here.digest, here.sequences) == (there.digest, there.sequences) and not _disjoint_shards(here, there):
        raise StatsError(
            f"merge: both runs counted the same {here.sequences} sequences, which would count twice; "
            f"expected runs on different sentences"
        )
    together = list(here.counted)
    places: list[int] = []  # in `together`, of each part of the second run
    for part in there.counted:
        place = next((i for i, mine in enumerate(together) if part.corpus and mine.corpus == part.corpus), None)
        if place is None:
            _check_not_counted(here, part)
            places.append(len(together))
            together.append(part)
            continue
        twice = together[place].numbers & part.numbers
        if len(twice) and not _share_documents(here, there):
            raise StatsError(
                f"merge: both runs counted sentences {twice} (from 0) of {part.origin}, which would count twice; "
                f"expected disjoint shards, such as corpus[:n] and corpus[n:]"
            )
        places.append(place)
        together[place] |= part
    starts = list(_starts(tuple(together)))
    old = _starts(there.counted)
    return tuple(together), [(start, starts[place] - start) for start, place in zip(old, places, strict=True)]


def _disjoint_shards(here: RunState, there: RunState) -> bool:
    """Whether the second run has no corpora of its own, so that sentence numbers reveal overlaps."""
    return all(part.corpus and part.corpus in {mine.corpus for mine in here.counted} for part in there.counted)


def _share_documents(here: RunState, there: RunState) -> bool:
    """Whether these are different shards of one run over documents, whose windows may be in several shards."""
    runs = [{part.run for part in state.shards} for state in (here, there)]
    return here.reading.sequence_kind == "document" and bool(runs[0] & runs[1])


def _check_not_counted(here: RunState, part: Counted) -> None:
    """Raise `StatsError` if `part` has exactly the sentences of a corpus that was counted under another identity."""
    for mine in here.counted:
        if (mine.digest, mine.sequences) == (part.digest, part.sequences):
            raise StatsError(
                f"merge: the same {part.sequences} sequences were counted from {mine.origin} and from {part.origin}, "
                f"and would count twice; expected runs on different sentences"
            )


def _starts(counted: tuple[Counted, ...]) -> Iterator[int]:
    """Number of the first sentence of each corpus."""
    return itertools.accumulate((part.size for part in counted[:-1]), initial=0)


def _renumbered(state: xr.Dataset, moves: Moves) -> xr.Dataset:
    """The state with its sentence numbers moved by `moves`."""
    if "sentence" not in state.coords or not any(by for _, by in moves):
        return state
    old, by = (np.array(column) for column in zip(*moves, strict=True))

    def moved(numbers: np.ndarray) -> np.ndarray:
        places = np.searchsorted(old, numbers, side="right") - 1
        return np.asarray(np.where(numbers < 0, numbers, numbers + by[places.clip(min=0)]))

    number = state["number"]
    renumbered = state.assign(number=(number.dims, moved(number.values)))
    return renumbered.assign_coords(sentence=moved(state["sentence"].values)).sortby("sentence")
