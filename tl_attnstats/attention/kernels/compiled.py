"""From scores to attention weights and their sums in one pass through memory: compiled, for CPUs.

Everything else in the package is array operations, each of which reads all weights again; here a row of weights is
read while it is in cache. Where numba is not installed, or the model is on a GPU, `streamed` takes plain torch.
"""

from __future__ import annotations

import math
from threading import Lock
from typing import Any, NamedTuple

import numpy as np
import torch
from jaxtyping import Float
from torch import Tensor

from tl_attnstats.models.compiling import compiled, numba

prange = range if numba is None else numba.prange

# Sums may be taken in any order, several terms at a time; what is NaN or infinite stays so and is reported.
ANY_ORDER = {"reassoc", "nsz", "contract"}
# Where there is no OpenMP, numba's own threads end the process when two of Python's ask for them at once.
ONE_AT_A_TIME = Lock()
LN2, BITS = np.float32(math.log(2)), np.float32(1 / math.log(2))  # a nat is so many bits
NOTHING = np.float32(-np.inf)  # the score of what is not there
SMALLEST, HALF = np.float32(-126), np.float32(0.5)
# Of the series of 2^f = exp(f ln 2); for |f| ≤ 1/2 the first term left out is below 2e-8.
T1, T2, T3, T4, T5, T6, T7 = (np.float32(math.log(2) ** k / math.factorial(k)) for k in range(1, 8))
SIGN, MAGNITUDE = np.int32(31), np.int32(0x7FFFFFFF)
LEAST = NOTHING.view(np.int32) ^ MAGNITUDE


def available(x: Tensor) -> bool:
    """Whether the kernel can be used on what is computed from this tensor."""
    return numba is not None and x.device.type == "cpu"


def n_threads() -> int:
    """On how many threads it runs: as many as torch does, of those there are."""
    return int(min(torch.get_num_threads(), numba.config.NUMBA_NUM_THREADS))


@compiled(fastmath={"contract"})
def _power_of_2(x: Any) -> Any:
    """2^x for x ≤ 0, to the last digit or the one before it; what is less than 2^-126 is that."""
    x = SMALLEST if x < SMALLEST else x
    whole = np.floor(x + HALF)
    f = x - whole
    power = np.float32(1) + f * (T1 + f * (T2 + f * (T3 + f * (T4 + f * (T5 + f * (T6 + f * T7))))))
    # The bits of a float are its exponent, 127 more than it is, above 23 of its digits.
    return power * np.int32((np.int32(whole) + np.int32(127)) << np.int32(23)).view(np.float32)


@compiled()
def _largest(x: Any) -> Any:
    """The largest of some floats, -inf of none.

    Read as integers: once the bits of negative ones are turned around these come in the same order, and only for
    integers is a maximum compiled to instructions that take sixteen at a time.
    """
    top = LEAST
    for bits in x.view(np.int32):
        top = max(top, _turned(bits))
    return np.int32(_turned(top)).view(np.float32)


@compiled()
def _turned(bits: Any) -> Any:
    """Of a negative float, all bits but the sign turned around; twice, and it is as it was."""
    return np.int32(bits ^ ((bits >> SIGN) & MAGNITUDE))


@compiled(fastmath=ANY_ORDER)
def _exponentials(x: Any, top: Any) -> Any:
    """Replace scores by e = exp(score - top); how many are 1, the sum of the others, and Σ e · (score - top) / ln 2.

    The ones are counted apart: the entropy of a row that is nearly one-hot hangs on the digits of what else it has.
    """
    others = logs = n_others = np.float32(0)
    for j in range(x.size):
        bits = (x[j] - top) * BITS
        e = _power_of_2(bits)
        x[j] = e
        logs += e * bits
        other = np.float32(1) if bits < 0 else np.float32(0)
        others += other * e
        n_others += other
    return np.float32(x.size) - n_others, others, logs


@compiled()
def _clear(x: Any) -> None:
    for j in range(x.size):
        x[j] = 0


@compiled()
def _scale(x: Any, factor: Any) -> None:
    for j in range(x.size):
        x[j] *= factor


@compiled(fastmath=ANY_ORDER)
def _weights(x: Any, inverse: Any, columns: Any, diagonals: Any) -> None:
    """Replace exponentials by weights, and add these to the sums by key and by offset."""
    for j in range(x.size):
        weight = x[j] * inverse
        x[j] = weight
        columns[j] += weight
        diagonals[j] += weight


class Rules(NamedTuple):
    """What counts.

    Args:
        window: keys a query can look back on, its own included.
        null: whether the first position is a null key.
        sinks: float32 `[head]`, the score of what takes part and is no token; -inf for none.
        counted: bool `[sequence, query]`, which rows count.
        start: int64 `[set, sequence, query]`, where in `keys` the keys of each query begin, by named set of pairs.
        end: where they end.
        keys: int64 `[entry]`, their positions.
    """

    window: int
    null: bool
    sinks: np.ndarray
    counted: np.ndarray
    start: np.ndarray
    end: np.ndarray
    keys: np.ndarray


class Sums(NamedTuple):
    """Where reductions go, under their names: zeros at first.

    Args:
        row_mass: float64 `[group, query]`, where a group is a head of a sequence: `sequence * n_heads + head`.
        null_mass, row_max, row_max_others, row_log_mass, self_mass: float32 `[group, query]`.
        pair_mass: float32 `[group, query, set]`.
        column_mass, offset_mass: float64 `[part, group, key or offset]`, still to be added up over parts of rows.
    """

    row_mass: np.ndarray
    null_mass: np.ndarray
    row_max: np.ndarray
    row_max_others: np.ndarray
    row_log_mass: np.ndarray
    self_mass: np.ndarray
    pair_mass: np.ndarray
    column_mass: np.ndarray
    offset_mass: np.ndarray


def sums(n_sequences: int, n_heads: int, n_tokens: int, n_sets: int) -> Sums:
    """Zeros of the shapes that `Sums` names."""
    n_groups = n_sequences * n_heads
    by_row = (n_groups, n_tokens)
    return Sums(
        row_mass=np.zeros(by_row),
        null_mass=np.zeros(by_row, np.float32),
        row_max=np.zeros(by_row, np.float32),
        row_max_others=np.zeros(by_row, np.float32),
        row_log_mass=np.zeros(by_row, np.float32),
        self_mass=np.zeros(by_row, np.float32),
        pair_mass=np.zeros((n_groups, n_tokens, n_sets), np.float32),
        column_mass=np.zeros((n_threads(), n_groups, n_tokens)),
        offset_mass=np.zeros((n_threads(), n_groups, n_tokens + 1)),
    )


def reduce_scores(
    scores: Float[Tensor, "group row key"], first_group: int, first: int, first_key: int, rules: Rules, sums: Sums
) -> None:
    """Replace the scores of some rows of causal attention by weights, and enter the reductions of these rows.

    Args:
        scores: contiguous; of keys out of reach anything. They become weights: of null keys too, 0 out of
            reach.
        first_group: the group that stands first in `scores`.
        first: the query that does.
        first_key: the key that does.
        rules: what counts.
        sums: where reductions go.
    """
    with ONE_AT_A_TIME:
        numba.set_num_threads(n_threads())
        _reduce(scores.numpy(), first_group, first, first_key, rules, sums)


@compiled(parallel=True, fastmath=ANY_ORDER)
def _reduce(scores: Any, first_group: int, first: int, first_key: int, rules: Rules, sums: Sums) -> None:
    n_groups, n_parts = len(scores), len(sums.column_mass)
    for task in prange(n_groups * n_parts):
        place, part = task // n_parts, task % n_parts
        _reduce_part(scores[place], first_group + place, part, first, first_key, rules, sums)


@compiled(fastmath=ANY_ORDER)
def _reduce_part(scores: Any, group: int, part: int, first: int, first_key: int, rules: Rules, sums: Sums) -> None:
    """One of the parts into which the rows of a group are divided."""
    n_rows, n_keys = scores.shape
    n_parts = len(sums.column_mass)
    columns = np.zeros(n_keys, np.float32)
    diagonals = np.zeros(n_rows + n_keys, np.float32)  # the last row's first key comes first
    for row in range(part * n_rows // n_parts, (part + 1) * n_rows // n_parts):
        _reduce_row(scores[row], group, first + row, first_key, rules, sums, columns, diagonals[n_rows - 1 - row :])
    for key in range(n_keys):
        sums.column_mass[part, group, first_key + key] += np.float64(columns[key])
    largest = first + n_rows - 1 - first_key
    for step in range(largest + 1):
        sums.offset_mass[part, group, largest - step] += np.float64(diagonals[step])


@compiled(fastmath=ANY_ORDER)
def _reduce_row(
    x: Any, group: int, query: int, first_key: int, rules: Rules, sums: Sums, columns: Any, diagonals: Any
) -> None:
    sequence, head = divmod(group, rules.sinks.size)
    low, own = max(0, query - rules.window + 1 - first_key), query - first_key
    null_score = NOTHING
    if rules.null and first_key == 0 and low == 0:
        null_score, low = x[0], 1
    _clear(x[:low])
    _clear(x[own + 1 :])
    others = _largest(x[low:own])
    top = others if low > own else max(others, x[own])
    ones, rest, logs = _exponentials(x[low : own + 1], top)
    mass = np.float64(ones) + np.float64(rest)
    # Relative to the largest of all, for a null key or a sink may outweigh all content by more than floats can hold.
    most = max(top, null_score, rules.sinks[head])
    content, null, sink = np.exp(top - most), np.exp(null_score - most), np.exp(rules.sinks[head] - most)
    total = content * np.float32(mass) + null + sink
    content /= total
    null /= total
    if null_score > NOTHING:
        x[0] = null
    if not rules.counted[sequence, query]:
        _scale(x[low : own + 1], content)
        return
    _weights(x[low : own + 1], content, columns[low:], diagonals[low:])
    sums.row_mass[group, query] = mass * np.float64(content)
    sums.null_mass[group, query] = null
    sums.row_max[group, query] = content
    sums.row_max_others[group, query] = np.exp(others - top) * content
    sums.row_log_mass[group, query] = logs * content * LN2
    sums.self_mass[group, query] = x[own]
    for name in range(len(rules.start)):
        on_set: Any = np.float32(0)
        for entry in range(rules.start[name, sequence, query], rules.end[name, sequence, query]):
            key = rules.keys[entry] - first_key
            if low <= key <= own:
                on_set += x[key]
        sums.pair_mass[group, query, name] = on_set
