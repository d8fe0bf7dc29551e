"""What every kernel must pass: cases of attention, and their reductions by plain loops in float64."""

from __future__ import annotations

import math
from dataclasses import dataclass, field
from typing import Any

import numpy as np
import torch

import tl_attnstats as ta
from tl_attnstats.attention.kernels.projections import Consumer, Job, Kernel, Projections
from tl_attnstats.attention.pairs import Pairs
from tl_attnstats.attention.reach import Reach
from tl_attnstats.attention.reductions import BY_ROW, NORMS, REDUCTIONS, SUMMED, WEIGHTS, Reductions
from tl_attnstats.attention.scope import Scope

TOLERANCE = 2e-6
D_HEAD, D_VALUE = 8, 5


@dataclass(frozen=True)
class Case:
    """Attention of one layer. `lengths` are of the batch's sequences; with `key_lengths` it is cross-attention."""

    lengths: tuple[int, ...] = (11, 7)
    key_lengths: tuple[int, ...] | None = None
    n_heads: int = 4
    n_key_heads: int = 2
    causal: bool = True
    null: str = "first"
    window: int | None = None
    chunk: int | None = None
    softcap: float | None = None
    sinks: bool = False
    bias: bool = False
    scale: float = 1.5
    factor: float = 1
    context: int = 0
    special: frozenset[int] = field(default_factory=frozenset)

    def reaches(self, query: int, key: int) -> bool:
        behind = query - key
        together = self.chunk is None or query // self.chunk == key // self.chunk
        return together and (not self.causal or behind >= 0) and (self.window is None or abs(behind) < self.window)


CASES = {
    "causal": Case(),
    "one head for all keys": Case(n_key_heads=1),
    "as many key heads": Case(n_key_heads=4),
    "nothing is null": Case(null="none"),
    "window": Case(window=3),
    "window of one": Case(window=1, null="none"),
    "factor": Case(factor=0.3),
    "softcap": Case(softcap=0.7, factor=0.3),
    "sinks": Case(sinks=True),
    "sinks, window and softcap": Case(sinks=True, window=4, softcap=2.0),
    "bias": Case(bias=True),
    "peaked": Case(scale=40),
    "flat": Case(scale=0),
    "context": Case(context=3),
    "special keys": Case(null="special", special=frozenset({0, 4})),
    "bidirectional": Case(causal=False, null="special", special=frozenset({0, 6})),
    "bidirectional window": Case(causal=False, null="none", window=3),
    "bidirectional bias": Case(causal=False, null="none", bias=True),
    "cross": Case(causal=False, null="special", key_lengths=(5, 9), special=frozenset({0})),
    "one token": Case(lengths=(1,), null="none"),
    "one sequence": Case(lengths=(13,)),
    # Kernels that work in tiles have several tiles here, which are 16 wide in the tests.
    "long": Case(lengths=(37, 20)),
    "long window": Case(lengths=(20, 37), window=18, sinks=True),
    "chunks": Case(lengths=(37,), chunk=10),
    "long bidirectional": Case(
        lengths=(37, 20), causal=False, null="special", special=frozenset({0, 17}), window=18, bias=True
    ),
    "long cross": Case(lengths=(18, 37), causal=False, null="none", key_lengths=(33, 5)),
}
"""Grouped queries, windows, chunks, soft caps, sinks, bias, padding, both directions and cross-attention."""


class Given:
    """The tensors of a case, and a scope with two sets of pairs.

    `Loops` reads the tensors after they are rounded to `dtype`. So the tolerance is the same for every dtype: it is for
    the float32 arithmetic of a kernel, not for the rounding of what it is given.
    """

    def __init__(self, case: Case, dtype: torch.dtype = torch.float32):
        self.case = case
        key_lengths = case.key_lengths or case.lengths
        n_batch, n_queries, n_keys = len(case.lengths), max(case.lengths), max(key_lengths)
        random = np.random.default_rng(0)

        def normal(*shape: int) -> torch.Tensor:
            return torch.from_numpy(random.standard_normal(shape)).to(dtype)

        self.projections = Projections(
            normal(n_batch, case.n_heads, n_queries, D_HEAD) * case.scale,
            normal(n_batch, case.n_key_heads, n_keys, D_HEAD),
            normal(n_batch, case.n_key_heads, n_keys, D_VALUE),
            case.softcap,
            normal(case.n_heads) if case.sinks else None,
            normal(1, case.n_heads, n_queries, n_keys) if case.bias else None,
            case.factor,
        )
        queries = _batch(case.lengths, case)
        keys = None if case.key_lengths is None else _batch(case.key_lengths, case)
        pair_sets: Any = {} if keys else {"even": lambda scope: _even(n_batch, n_queries), "self": _themselves}
        self.scope = Scope(queries, case.causal, case.null, keys, pair_sets)  # type: ignore[arg-type]
        self.pairs = {"even": lambda i, j: (i + j) % 2 == 0, "self": lambda i, j: i == j} if pair_sets else {}

    @property
    def rounding(self) -> float:
        """How far the score of a pair may be off: each of its sums and products rounds by half a digit of float32."""
        query, key = (x.double().abs().amax((0, 1, 2)) for x in (self.projections.query, self.projections.key))
        return (D_HEAD + 2) * 2.0**-24 * float(query @ key)

    @property
    def names(self) -> list[str]:
        """The reductions that are defined; cross-attention has no offsets or pairs."""
        within = ("offset_mass", "pair_mass", "row_max_others", "self_mass", "column_distance", "pair_column_mass")
        made = [name for name in REDUCTIONS if name not in (WEIGHTS, *NORMS)]
        return [name for name in made if not (self.scope.crosses and name in within)]

    def job(self, consumer: Consumer, block_elements: int, most_rows: int) -> Job:
        def rule(sequence: torch.Tensor, head: torch.Tensor, query: torch.Tensor, key: torch.Tensor) -> torch.Tensor:
            behind = query - key + 0 * sequence
            reached = behind >= 0 if self.case.causal else behind == behind
            if self.case.chunk is not None:
                reached = reached & (query // self.case.chunk == key // self.case.chunk)
            return reached if self.case.window is None else reached & (behind.abs() < self.case.window)

        reach = Reach(rule, self.case.window)
        return Job(self.projections, reach, self.scope.real_keys, self.scope, 3, consumer, block_elements, most_rows)


def _batch(lengths: tuple[int, ...], case: Case) -> ta.Batch:
    items = []
    for number, length in enumerate(lengths):
        sentence = ta.Sentence("a" * length, (), f"{number}", number)
        spans = [(place, place + 1) for place in range(length)]
        special = [place in case.special for place in range(length)]
        items.append(ta.TokenizedSentence(sentence, list(range(length)), spans, [-1] * length, special, case.context))
    return ta.Batch(items)


def _even(n_batch: int, n_queries: int) -> Pairs:
    """All keys at an even offset from the query: quadratically many pairs, kept in a list of linear size."""
    positions = torch.arange(n_queries)
    keys = torch.cat([positions[::2], positions[1::2]])
    start = torch.where(positions % 2 == 0, 0, (n_queries + 1) // 2).expand(n_batch, -1)
    size = torch.where(positions % 2 == 0, (n_queries + 1) // 2, n_queries // 2)
    return Pairs(keys, start, start + size)


def _themselves(scope: Scope) -> Pairs:
    n_batch, n_queries = scope.rows.shape
    start = torch.arange(n_queries).expand(n_batch, -1)
    return Pairs(torch.arange(n_queries), start, start + 1)


class Found:
    """What a kernel hands out: the attention output, and blocks of rows with their reductions or weights."""

    def __init__(self, kernel: Kernel, given: Given, block_elements: int, most_rows: int, weights: bool = True):
        self.reduced: list[Reductions] = []
        self.blocks: list[Reductions] = []
        consumer = Consumer(given.names, self.reduced.append, self.blocks.append if weights else None)
        job = given.job(consumer, block_elements, most_rows)
        assert kernel.covers(job)
        self.output = kernel.attend(job)

    def whole(self, name: str) -> np.ndarray:
        parts = [block[name].double() for block in self.reduced]
        if name in BY_ROW:
            return torch.cat(parts, 2).numpy()
        assert name in SUMMED
        return sum(parts).numpy()

    def weights(self) -> np.ndarray:
        return torch.cat([block.weights for block in self.blocks], 2).double().numpy()


class Loops:
    """The same by plain loops in float64, one sequence and head at a time."""

    def __init__(self, given: Given):
        self.given, case, p = given, given.case, given.projections
        key_lengths = case.key_lengths or case.lengths
        query, key, value = (x.double().numpy() for x in (p.query, p.key, p.value))
        n_batch, n_queries, n_keys = p.sizes
        self.output = np.zeros((n_batch, n_queries, case.n_heads, D_VALUE))
        self.sums = {name: np.zeros((n_batch, case.n_heads, n_queries)) for name in BY_ROW if name != "pair_mass"}
        for name in ("column_mass", "null_column_mass"):
            self.sums[name] = np.zeros((n_batch, case.n_heads, n_keys))
        if not given.scope.crosses:
            self.sums["column_distance"] = np.zeros((n_batch, case.n_heads, n_keys))
            self.sums["pair_column_mass"] = np.zeros((n_batch, case.n_heads, n_keys, len(given.pairs)))
            self.sums["pair_mass"] = np.zeros((n_batch, case.n_heads, n_queries, len(given.pairs)))
            self.sums["offset_mass"] = np.zeros((n_batch, case.n_heads, len(given.scope.offsets)))
        self.weights = np.zeros((n_batch, case.n_heads, n_queries, n_keys))
        for s in range(n_batch):
            for h in range(case.n_heads):
                shared = h * case.n_key_heads // case.n_heads
                for i in range(case.lengths[s]):
                    row = self._row(s, h, i, key_lengths[s], query[s, h, i], key[s, shared])
                    self.output[s, i, h] = sum(w * value[s, shared, j] for j, w in row.items())
                    self._reduce(s, h, i, row)

    def _row(self, s: int, h: int, i: int, n_keys: int, query: np.ndarray, key: np.ndarray) -> dict[int, float]:
        case, p = self.given.case, self.given.projections
        scores = {}
        for j in range(n_keys):
            if not case.reaches(i, j):
                continue
            score = float(query @ key[j]) * case.factor
            if case.softcap is not None:
                score = case.softcap * math.tanh(score / case.softcap)
            if p.bias is not None:
                score += float(p.bias[0, h, i, j])
            scores[j] = score
        sink = -math.inf if p.sinks is None else float(p.sinks[h])
        top = max(*scores.values(), sink)
        total = sum(math.exp(score - top) for score in scores.values()) + math.exp(sink - top)
        return {j: math.exp(score - top) / total for j, score in scores.items()}

    def _reduce(self, s: int, h: int, i: int, row: dict[int, float]) -> None:
        case = self.given.case
        null = case.special if case.null == "special" else {0} if case.null == "first" else set()
        content = {j: w for j, w in row.items() if j not in null}
        n_keys = (case.key_lengths or case.lengths)[s]
        reachable = [j for j in range(i + 1 if case.causal else n_keys) if j not in null]
        if not reachable or i < case.context or (case.null == "special" and i in case.special):
            return
        top = max(content.values(), default=0)
        values = {
            "row_mass": sum(content.values()),
            "null_mass": sum(w for j, w in row.items() if j in null),
            "row_max": top,
            "row_max_others": max((w for j, w in content.items() if j != i), default=0),
            "row_log_mass": sum(w * math.log(w / top) for w in content.values() if w > 0),
            "self_mass": content.get(i, 0),
        }
        for name, value in values.items():
            self.sums[name][s, h, i] = value
        for j in null & row.keys():
            self.sums["null_column_mass"][s, h, j] += row[j]
        for j, w in content.items():
            self.weights[s, h, i, j] = w
            self.sums["column_mass"][s, h, j] += w
            if not self.given.scope.crosses:
                place = self.given.scope.offsets.tolist().index(i - j)
                self.sums["offset_mass"][s, h, place] += w
                self.sums["column_distance"][s, h, j] += w * abs(i - j)
                for number, among in enumerate(self.given.pairs.values()):
                    self.sums["pair_mass"][s, h, i, number] += w * among(i, j)
                    self.sums["pair_column_mass"][s, h, j, number] += w * among(i, j)
