"""The compiled kernel against plain loops in float64, on scores of every kind."""

from __future__ import annotations

import math
import os
import subprocess
import sys
from dataclasses import dataclass

import numpy as np
import pytest
import torch

from tl_attnstats.attention.kernels import compiled as kernel
from tl_attnstats.attention.pairs import Pairs

N_SEQUENCES, N_HEADS, N_TOKENS = 2, 3, 17
NONE = -np.inf
TOLERANCE = 1e-6


@dataclass
class Case:
    """Scores of one layer: the rows begin at query `first`, the columns at key `first_key`."""

    scores: np.ndarray  # [group, row, key]
    first: int = 0
    first_key: int = 0
    window: int = N_TOKENS
    null: bool = True
    sinks: tuple[float, ...] = (NONE,) * N_HEADS

    @property
    def counted(self) -> np.ndarray:
        """All rows count but the first, if it reaches only the null key, and the last three of the second sequence."""
        counted = np.ones((N_SEQUENCES, N_TOKENS), bool)
        counted[:, 0] = not self.null
        counted[1, -3:] = False
        return counted

    def reached(self, query: int) -> range:
        return range(max(0, query - self.window + 1), query + 1)


def scores(scale: float = 3, n_rows: int = N_TOKENS, n_keys: int = N_TOKENS, seed: int = 0) -> np.ndarray:
    random = np.random.default_rng(seed)
    return (random.standard_normal((N_SEQUENCES * N_HEADS, n_rows, n_keys)) * scale).astype(np.float32)


def with_null(null: float) -> np.ndarray:
    """Random scores, but `null` for the first key."""
    found = scores()
    found[..., 0] = null
    return found


CASES = {
    "whole": Case(scores()),
    "nothing is null": Case(scores(), null=False),
    "later rows": Case(scores(n_rows=6), first=11),
    "window": Case(scores(), window=4),
    "window, later rows": Case(scores(n_rows=6, n_keys=9), first=11, first_key=8, window=4),
    "window of one": Case(scores(), window=1, null=False),
    "sinks": Case(scores(), sinks=(2.0, NONE, -3.0)),
    "equal scores": Case(np.zeros_like(scores())),
    "far apart": Case(scores(scale=200)),
    "large negative": Case(scores() - 1e4),
    "large positive": Case(scores() + 1e4),
    "null far above": Case(with_null(300)),
    "null far below": Case(with_null(-300)),
    "sink far above": Case(scores(), sinks=(300.0, 1.0, NONE)),
    "sink and null far above": Case(with_null(300), sinks=(300.0, 301.0, 299.0)),
    "one row": Case(scores(n_rows=1), first=16),
}


def pairs_of(case: Case) -> list[list[tuple[int, int, int]]]:
    """Two sets of (sequence, query, key): a few keys before each query, and every other key, reachable or not."""
    places = [(s, q) for s in range(N_SEQUENCES) for q in range(N_TOKENS)]
    return [
        [(s, q, k) for s, q in places for k in (q // 3, q // 2, q)],
        [(s, q, k) for s, q in places for k in range(N_TOKENS) if (s + q + k) % 2],
    ]


def run(case: Case) -> tuple[np.ndarray, kernel.Sums]:
    """The weights and sums that the kernel computes from a case."""
    sets = [Pairs.listed(torch.tensor(pairs), N_SEQUENCES, N_TOKENS) for pairs in pairs_of(case)]
    n_before = np.array([0, len(sets[0].keys)])[:, None, None]
    rules = kernel.Rules(
        case.window,
        case.null,
        np.array(case.sinks, np.float32),
        case.counted,
        np.stack([pairs.start.numpy() for pairs in sets]) + n_before,
        np.stack([pairs.end.numpy() for pairs in sets]) + n_before,
        np.concatenate([pairs.keys.numpy() for pairs in sets]),
    )
    sums = kernel.sums(N_SEQUENCES, N_HEADS, N_TOKENS, len(sets))
    weights = torch.from_numpy(case.scores.copy())
    kernel.reduce_scores(weights, 0, case.first, case.first_key, rules, sums)
    return weights.numpy(), sums


def softmax(case: Case, group: int, row: int) -> np.ndarray:
    """Weights of one row on all keys, in float64, without the weight on the sink."""
    weights = np.zeros(N_TOKENS)
    query = case.first + row
    known = {key: float(case.scores[group, row, key - case.first_key]) for key in case.reached(query)}
    top = max(*known.values(), case.sinks[group % N_HEADS])
    total = sum(math.exp(score - top) for score in known.values()) + math.exp(case.sinks[group % N_HEADS] - top)
    for key, score in known.items():
        weights[key] = math.exp(score - top) / total
    return weights


def close(found: float | np.ndarray, expected: float | np.ndarray, what: str) -> None:
    np.testing.assert_allclose(found, expected, rtol=0, atol=TOLERANCE, err_msg=what)


@pytest.mark.parametrize("n_threads", [1, 2, 20])
@pytest.mark.parametrize("name", CASES)
def test_agrees_with_plain_loops(name: str, n_threads: int, monkeypatch: pytest.MonkeyPatch) -> None:
    case = CASES[name]
    # Rows are divided into as many parts as threads; 20 parts are more than there are rows.
    monkeypatch.setattr(kernel, "n_threads", lambda: n_threads)
    monkeypatch.setattr(kernel.numba, "set_num_threads", lambda n: None)
    found, sums = run(case)
    assert sums.column_mass.shape[0] == n_threads
    columns, offsets = np.zeros((len(found), N_TOKENS)), np.zeros((len(found), N_TOKENS + 1))
    for group in range(len(found)):
        sequence = group // N_HEADS
        for row in range(found.shape[1]):
            query, weights = case.first + row, softmax(case, group, row)
            here = f"group {group}, query {query}: "
            close(found[group, row], weights[case.first_key :][: found.shape[2]], here + "weights")
            if not case.counted[sequence, query]:
                assert sums.row_mass[group, query] == 0
                continue
            close(sums.null_mass[group, query], weights[0] * case.null, here + "null")
            content = weights.copy()
            content[0] *= not case.null
            others = np.delete(content, query)
            close(sums.row_mass[group, query], content.sum(), here + "mass")
            close(sums.row_max[group, query], content.max(), here + "max")
            close(sums.row_max_others[group, query], others.max(initial=0), here + "max of others")
            logs = sum(w * np.log(w / content.max()) for w in content if w > 0)
            close(sums.row_log_mass[group, query], logs, here + "logs")
            for place, pairs in enumerate(pairs_of(case)):
                keys = [k for s, q, k in pairs if (s, q) == (sequence, query)]
                close(sums.pair_mass[group, query, place], content[keys].sum(), here + f"pairs {place}")
            columns[group] += content
            for key in range(query + 1):
                offsets[group, query - key] += content[key]
    np.testing.assert_allclose(sums.column_mass.sum(0), columns, rtol=0, atol=N_TOKENS * TOLERANCE)
    np.testing.assert_allclose(sums.offset_mass.sum(0), offsets, rtol=0, atol=N_TOKENS * TOLERANCE)


def test_nearly_one_hot_rows_keep_their_digits() -> None:
    # 16 of 17 scores are 28 below the largest: together they weigh 16 · e^-28, far below the last digit of a float32 1.
    one_hot = np.full_like(scores(), -28)
    one_hot[..., 1] = 0
    case = Case(one_hot, null=False)
    _, sums = run(case)
    query, n_others = N_TOKENS - 1, N_TOKENS - 1
    expected = -n_others * math.exp(-28) * 28
    np.testing.assert_allclose(sums.row_log_mass[0, query], expected, rtol=1e-5)
    np.testing.assert_allclose(
        sums.row_mass[0, query] / np.float64(sums.row_max[0, query]) - 1, n_others * math.exp(-28), rtol=1e-3
    )


def test_scores_out_of_reach_change_nothing() -> None:
    case = Case(scores(), window=4)
    spoilt = case.scores.copy()
    for query in range(N_TOKENS):
        out = [key for key in range(N_TOKENS) if key not in case.reached(query)]
        spoilt[:, query, out] = np.array([np.nan, np.inf, -np.inf, 1e30])[np.arange(len(out)) % 4]
    weights, sums = run(case)
    again, sums_again = run(Case(spoilt, window=4))
    np.testing.assert_array_equal(weights, again)
    for one, other in zip(sums, sums_again, strict=True):
        np.testing.assert_array_equal(one, other)


@pytest.mark.parametrize("bad", [np.nan, np.inf])
def test_nan_and_infinity_show_in_the_mass_of_their_row_only(bad: float) -> None:
    spoilt = scores()
    spoilt[4, 9, 5] = bad  # the second head of the second sequence
    _, sums = run(Case(spoilt))
    finite = np.isfinite(sums.row_mass)
    assert not finite[4, 9]
    assert finite.sum() == finite.size - 1


def test_threads_of_python_do_not_clash_where_there_is_no_openmp() -> None:
    script = """
from threading import Thread
import numba
from tests.attention.kernels.test_compiled import CASES, run
threads = [Thread(target=lambda: [run(CASES["whole"]) for _ in range(100)]) for _ in range(3)]
for thread in threads: thread.start()
for thread in threads: thread.join()
print(numba.threading_layer())
"""
    environment = {**os.environ, "NUMBA_THREADING_LAYER": "workqueue"}
    done = subprocess.run([sys.executable, "-c", script], env=environment, capture_output=True, text=True, check=False)
    assert (done.returncode, done.stdout, done.stderr) == (0, "workqueue\n", "")


def test_largest() -> None:
    for values in ([-3.5, -1.25, -2.0], [0.0, -1.0], [-0.0, -1e-30], [3.0, 1e30, -np.inf], [-np.inf], []):
        expected = np.float32(max(values, default=-np.inf))
        assert kernel._largest(np.array(values, np.float32)) == expected


def test_power_of_2_has_a_relative_error_below_2_to_the_minus_22() -> None:
    x = np.linspace(-126, 0, 100_001, dtype=np.float32)
    found = np.array([kernel._power_of_2(value) for value in x], np.float64)
    digit = 2.0**-23  # the relative precision of float32
    np.testing.assert_allclose(found, np.exp2(x.astype(np.float64)), rtol=2 * digit)
    assert kernel._power_of_2(np.float32(0)) == 1
    assert 0 <= kernel._power_of_2(np.float32(-1e30)) <= 2.0**-126
