"""What a run has counted: numbers of sequences and tokens, and which sentences of the corpus."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field

import numpy as np

from tl_attnstats.corpus.batches import Batch

# Join collected numbers into ranges once there are more than this.
MOST_WAITING = 1 << 14


@dataclass(frozen=True, eq=False)
class Numbers:
    """A set of sentence numbers, stored as ranges.

    Attributes:
        ranges: `[range, 2]`, start and stop (exclusive); sorted, with gaps between ranges.
    """

    ranges: np.ndarray = field(default_factory=lambda: np.empty((0, 2), np.int64))

    @classmethod
    def of(cls, numbers: Sequence[int]) -> Numbers:
        """The set of these numbers, in any order and with repetitions."""
        found = np.unique(np.asarray(numbers, np.int64))
        return cls(_covered([np.stack([found, found + 1], 1)], 1))

    def __or__(self, other: Numbers) -> Numbers:
        return Numbers(_covered([self.ranges, other.ranges], 1))

    def __and__(self, other: Numbers) -> Numbers:
        return Numbers(_covered([self.ranges, other.ranges], 2))

    def __eq__(self, other: object) -> bool:
        return isinstance(other, Numbers) and np.array_equal(self.ranges, other.ranges)

    def __len__(self) -> int:
        return int((self.ranges[:, 1] - self.ranges[:, 0]).sum())

    def __str__(self) -> str:
        """For messages: "0 to 4, 7"; the first three ranges if there are more."""
        shown = [f"{a} to {b - 1}" if b - a > 1 else str(a) for a, b in self.ranges[:3].tolist()]
        return ", ".join([*shown, "…"] if len(self.ranges) > 3 else shown)


def _covered(ranges: list[np.ndarray], times: int) -> np.ndarray:
    """The ranges of numbers that at least `times` of the given ranges cover; adjacent ranges are joined."""
    starts, stops = np.concatenate(ranges).T
    places = np.concatenate([starts, stops])
    steps = np.repeat([1, -1], len(starts))
    order = np.lexsort((-steps, places))  # at equal places starts come first, so that adjacent ranges join
    inside = np.cumsum(steps[order]) >= times
    borders = places[order][np.flatnonzero(np.diff(inside, prepend=False))].reshape(-1, 2)
    return borders[borders[:, 0] < borders[:, 1]]


class Tally:
    """Counts batches as they come."""

    def __init__(self, sequences: int = 0, tokens: int = 0, digest: int = 0, numbers: Numbers | None = None):
        self.sequences, self.tokens, self.digest = sequences, tokens, digest
        self._numbers = numbers or Numbers()
        self._waiting: list[int] = []

    def add(self, batch: Batch) -> None:
        """Count a batch. Windows of a document share its number, and each adds its digest."""
        self.sequences += len(batch)
        self.tokens += batch.n_tokens
        self.digest = (self.digest + sum(item.sentence.digest for item in batch.items)) % 2**63
        self._waiting += [item.sentence.number for item in batch.items]
        if len(self._waiting) > MOST_WAITING:
            self._numbers = self.numbers
            self._waiting = []

    @property
    def numbers(self) -> Numbers:
        """The numbers of the sentences counted so far."""
        return self._numbers | Numbers.of(self._waiting) if self._waiting else self._numbers

    @property
    def next_number(self) -> int:
        """One more than the largest number so far."""
        return int(self.numbers.ranges[-1, 1]) if self.sequences else 0
