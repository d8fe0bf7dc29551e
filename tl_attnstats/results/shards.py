"""Which shards of a run a state has: it says so until it has them all."""

from __future__ import annotations

import json
from collections.abc import Iterable, Mapping
from dataclasses import asdict, dataclass, replace
from typing import Any

from tl_attnstats.corpus.corpus import Corpus
from tl_attnstats.corpus.tally import Numbers
from tl_attnstats.errors import StatsError

RAW, READABLE = "shards", "partial"
"""Entries of the provenance: the shards for merging, and for people."""


@dataclass(frozen=True)
class Shards:
    """Some of the shards that a run is divided into.

    Attributes:
        corpus: identity of the corpus.
        sentences: hash over the numbers of the sentences in the run, which may be a part of the corpus.
        batch_tokens: maximum number of tokens per batch; shards have the batches of the whole run.
        of: number of shards of the whole run.
        numbers: the shards at hand, counted from 1.
    """

    corpus: str
    sentences: str
    batch_tokens: int
    of: int
    numbers: tuple[int, ...] = ()

    @classmethod
    def in_run(cls, corpus: Corpus, batch_tokens: int, of: int, numbers: Iterable[int] = ()) -> Shards:
        """Shards of a run over this corpus."""
        return cls(corpus.identity, corpus.view, batch_tokens, of, tuple(numbers))

    @property
    def run(self) -> Shards:
        """The run that they are shards of, without their numbers."""
        return replace(self, numbers=())

    @property
    def missing(self) -> list[int]:
        """The shards that are not at hand."""
        return [number for number in range(1, self.of + 1) if number not in self.numbers]

    def __str__(self) -> str:
        missing = self.missing
        word, numbers = ("without", missing) if len(missing) < len(self.numbers) else ("only", list(self.numbers))
        return f"{word} {named(numbers, self.of)}"


def named(numbers: list[int], of: int) -> str:
    """For messages: "shard 3 of 16", "shards 1 to 4, 7 of 16"."""
    return f"shard{'s' * (len(numbers) > 1)} {Numbers.of(numbers)} of {of}"


def shards_of(said: Mapping[str, Any]) -> tuple[Shards, ...]:
    """The shards in a provenance: those of each run that is not complete."""
    entries = json.loads(said.get(RAW, "[]"))
    return tuple(Shards(**{**entry, "numbers": tuple(entry["numbers"])}) for entry in entries)


def saying(said: Mapping[str, Any], shards: Iterable[Shards]) -> dict[str, Any]:
    """The provenance with these shards instead of those it has. Shards that are complete are not mentioned."""
    rest = {key: value for key, value in said.items() if key not in (RAW, READABLE)}
    partial = [part for part in shards if part.missing]
    if not partial:
        return rest
    return {**rest, READABLE: "; ".join(map(str, partial)), RAW: json.dumps([asdict(part) for part in partial])}


def joined(some: Iterable[Shards], more: Iterable[Shards]) -> tuple[Shards, ...]:
    """All of these shards, by run. Raises `StatsError` if one of them is there twice."""
    together = {part.run: part for part in some}
    for part in more:
        mine = together.get(part.run, part.run)
        twice = sorted({*mine.numbers} & {*part.numbers})
        if twice:
            raise StatsError(
                f"merge: both runs have {named(twice, part.of)}, which would count twice; expected each shard once"
            )
        together[part.run] = replace(part, numbers=tuple(sorted((*mine.numbers, *part.numbers))))
    return tuple(together.values())
