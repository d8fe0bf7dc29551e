"""Softmax and reductions of attention scores in one pass over memory, compiled by numba, for CPUs.

Each array operation would read all weights from memory again; this kernel finishes a row while the row is in cache.
Without numba, or on a GPU, the streamed source uses plain torch (`torch_blocks`).
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

# SIMD needs the freedom to reorder sums. NaN and infinity still propagate ("nnan" and "ninf" are left out), so that
# they are reported.
ANY_ORDER = {"reassoc", "nsz", "contract"}
# Without OpenMP, numba aborts the process if two Python threads start parallel code at the same time.
ONE_AT_A_TIME = Lock()
LN2, BITS = np.float32(math.log(2)), np.float32(1 / math.log(2))  # bits per nat
NOTHING = np.float32(-np.inf)  # the score of a null key where there is none
SMALLEST, HALF = np.float32(-126), np.float32(0.5)
# Taylor coefficients of 2^f = exp(f ln 2). For |f| ≤ 1/2 the first term left out is below 2e-8.
T1, T2, T3, T4, T5, T6, T7 = (np.float32(math.log(2) ** k / math.factorial(k)) for k in range(1, 8))
SIGN, MAGNITUDE = np.int32(31), np.int32(0x7FFFFFFF)
LEAST = NOTHING.view(np.int32) ^ MAGNITUDE


def available(x: Tensor) -> bool:
    """Whether the kernel can run: numba is installed and the tensor is on the CPU."""
    return numba is not None and x.device.type == "cpu"


def n_threads() -> int:
    """Number of threads: torch's setting, but at most what numba was started with."""
    return int(min(torch.get_num_threads(), numba.config.NUMBA_NUM_THREADS))


@compiled(fastmath={"contract"})
def _power_of_2(x: Any) -> Any:
    """2^x for x ≤ 0, to a relative error of 2^-22; x below -126 counts as -126."""
    x = SMALLEST if x < SMALLEST else x
    whole = np.floor(x + HALF)
    f = x - whole
    power = np.float32(1) + f * (T1 + f * (T2 + f * (T3 + f * (T4 + f * (T5 + f * (T6 + f * T7))))))
    # Build 2^whole from its bits: a float32 keeps its exponent, plus 127, above the 23 bits of its fraction.
    return power * np.int32((np.int32(whole) + np.int32(127)) << np.int32(23)).view(np.float32)


@compiled()
def _largest(x: Any) -> Any:
    """The largest of some floats; -inf if there are none.

    Compare their bits as integers, because only the maximum of integers is compiled to SIMD instructions. Flip the bits
    of negative floats first, so that integers are in the order of the floats.
    """
    top = LEAST
    for bits in x.view(np.int32):
        top = max(top, _turned(bits))
    return np.int32(_turned(top)).view(np.float32)


@compiled()
def _turned(bits: Any) -> Any:
    """Flip all bits of a negative float but the sign. Applied twice, it changes nothing."""
    return np.int32(bits ^ ((bits >> SIGN) & MAGNITUDE))


@compiled(fastmath=ANY_ORDER)
def _exponentials(x: Any, top: Any) -> Any:
    """Replace scores by e = exp(score - top). Return how many are 1, the sum of the others, Σ e · (score - top) / ln 2.

    The entropy of a nearly one-hot row depends on its small terms, which would lose their digits if added to 1.
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
def _add_distances(x: Any, away: Any, distances: Any) -> None:
    """Add weights times distance to the sums by key; `away` is the distance of the first key from the query."""
    for j in range(x.size):
        distances[j] += x[j] * np.float32(away - j)


@compiled(fastmath=ANY_ORDER)
def _weights(x: Any, inverse: Any, columns: Any, diagonals: Any) -> None:
    """Replace exponentials by weights, and add the weights to the sums by key and by offset."""
    for j in range(x.size):
        weight = x[j] * inverse
        x[j] = weight
        columns[j] += weight
        diagonals[j] += weight


class Rules(NamedTuple):
    """Which keys a query reaches, which rows count, and which pairs to sum over.

    Args:
        window: number of keys a query reaches, its own included.
        null: whether the first position is a null key.
        sinks: float32 `[head]`, the score of a learned sink, which is in the softmax but is no token; -inf for none.
        counted: bool `[sequence, query]`, which rows count.
        start: int64 `[set, sequence, query]`, where the keys of a query begin in `keys`, for each named set of pairs.
        end: where they end.
        keys: int64 `[entry]`, positions of keys.
    """

    window: int
    null: bool
    sinks: np.ndarray
    counted: np.ndarray
    start: np.ndarray
    end: np.ndarray
    keys: np.ndarray


class Sums(NamedTuple):
    """The arrays that reductions are written to, under the names of the reductions; initially zero.

    Args:
        row_mass: float64 `[group, query]`, where a group is one head of one sequence: `sequence * n_heads + head`.
        null_mass, row_max, row_max_others, row_log_mass, self_mass: float32 `[group, query]`.
        pair_mass: float32 `[group, query, set]`.
        column_mass, offset_mass: float64 `[part, group, key or offset]`; add them up over the parts of `_reduce_part`.
        column_distance: likewise, `[part, group, key]`; no parts if nobody wants them.
        pair_column_mass: likewise, `[part, group, key, set]`.
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
    column_distance: np.ndarray
    pair_column_mass: np.ndarray


def sums(
    n_sequences: int, n_heads: int, n_tokens: int, n_sets: int, distances: bool = False, pair_columns: bool = False
) -> Sums:
    """Zeros of the shapes that `Sums` names; without parts, and not computed, for sums by key that nobody wants."""
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
        column_distance=np.zeros((n_threads() if distances else 0, n_groups, n_tokens)),
        pair_column_mass=np.zeros((n_threads() if pair_columns else 0, n_groups, n_tokens, n_sets)),
    )


def reduce_scores(
    scores: Float[Tensor, "group row key"], first_group: int, first: int, first_key: int, rules: Rules, sums: Sums
) -> None:
    """Replace the scores of a block of rows of causal attention by weights, and write the reductions of these rows.

    Args:
        scores: contiguous. Keys out of reach may have any score; their weights become 0. Null keys keep their weights.
        first_group: the group at index 0 of `scores`.
        first: the query at index 0.
        first_key: the key at index 0.
        rules: reach, counted rows and pairs.
        sums: where reductions are written.
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
    """Reduce one part of a group's rows. There are as many parts as threads."""
    n_rows, n_keys = scores.shape
    n_parts = len(sums.column_mass)
    columns = np.zeros(n_keys, np.float32)
    diagonals = np.zeros(n_rows + n_keys, np.float32)  # index 0: last row, first key
    wants_distances = len(sums.column_distance) > 0
    distances = np.zeros(n_keys if wants_distances else 0, np.float32)
    for row in range(part * n_rows // n_parts, (part + 1) * n_rows // n_parts):
        rest = diagonals[n_rows - 1 - row :]
        low, counted = _reduce_row(scores[row], group, first + row, first_key, rules, sums, columns, rest)
        if counted:
            own = first + row - first_key
            if wants_distances:
                _add_distances(scores[row, low:own], own - low, distances[low:])
            _add_pairs(scores[row], group, part, first + row, low, first_key, rules, sums)
    for key in range(n_keys):
        sums.column_mass[part, group, first_key + key] += np.float64(columns[key])
    for key in range(distances.size):
        sums.column_distance[part, group, first_key + key] += np.float64(distances[key])
    largest = first + n_rows - 1 - first_key
    for step in range(largest + 1):
        sums.offset_mass[part, group, largest - step] += np.float64(diagonals[step])


@compiled(fastmath=ANY_ORDER)
def _reduce_row(
    x: Any, group: int, query: int, first_key: int, rules: Rules, sums: Sums, columns: Any, diagonals: Any
) -> Any:
    """Turn one row into weights and enter its sums. Returns its first content key, and whether it counts."""
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
    # Subtract the largest score of all: relative to `top`, the exponential of a null key or a sink could overflow.
    most = max(top, null_score, rules.sinks[head])
    content, null, sink = np.exp(top - most), np.exp(null_score - most), np.exp(rules.sinks[head] - most)
    total = content * np.float32(mass) + null + sink
    content /= total
    null /= total
    if null_score > NOTHING:
        x[0] = null
    if not rules.counted[sequence, query]:
        _scale(x[low : own + 1], content)
        return low, False
    _weights(x[low : own + 1], content, columns[low:], diagonals[low:])
    sums.row_mass[group, query] = mass * np.float64(content)
    sums.null_mass[group, query] = null
    sums.row_max[group, query] = content
    sums.row_max_others[group, query] = np.exp(others - top) * content
    sums.row_log_mass[group, query] = logs * content * LN2
    sums.self_mass[group, query] = x[own]
    return low, True


@compiled(fastmath=ANY_ORDER)
def _add_pairs(x: Any, group: int, part: int, query: int, low: int, first_key: int, rules: Rules, sums: Sums) -> None:
    """Enter the weights of one row on its keys in each named set of pairs, by row and by key."""
    sequence, own = group // rules.sinks.size, query - first_key
    by_key = len(sums.pair_column_mass) > 0
    for name in range(len(rules.start)):
        on_set: Any = np.float32(0)
        for entry in range(rules.start[name, sequence, query], rules.end[name, sequence, query]):
            key = rules.keys[entry] - first_key
            if low <= key <= own:
                on_set += x[key]
                if by_key:
                    sums.pair_column_mass[part, group, first_key + key, name] += np.float64(x[key])
        sums.pair_mass[group, query, name] = on_set
