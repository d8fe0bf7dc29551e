"""Fuzzing by hypothesis: the same inputs in each run; with FUZZ=100 a hundred times as many, others each time."""

from __future__ import annotations

import os
import signal
from collections import Counter
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from types import FrameType
from typing import Any

from hypothesis import HealthCheck, given, settings
from hypothesis.strategies import SearchStrategy

from tl_attnstats.errors import AttnStatsError

TIMES = int(os.environ.get("FUZZ", "1"))
# Far above what any input takes: a hang, not a slow machine.
HANG = 300


def fuzz(n: int, made: SearchStrategy[Any], read: Callable[[Any], object]) -> Counter[str]:
    """How many of n inputs were read, and how many refused. A hang fails, and any error but an `AttnStatsError`."""
    found: Counter[str] = Counter()

    @settings(
        max_examples=n * TIMES,
        derandomize=TIMES == 1,
        deadline=None,
        print_blob=True,
        suppress_health_check=[HealthCheck.too_slow, HealthCheck.data_too_large],
    )
    @given(made)
    def check(given: Any) -> None:
        with _no_hang():
            try:
                read(given)
            except AttnStatsError:
                found["refused"] += 1
            else:
                found["read"] += 1

    check()
    print(dict(found))  # shown by pytest -s
    return found


@contextmanager
def _no_hang() -> Iterator[None]:
    def hang(number: int, frame: FrameType | None) -> None:
        raise AssertionError(f"took more than {HANG} s")

    before = signal.signal(signal.SIGALRM, hang)
    signal.alarm(HANG)
    try:
        yield
    finally:
        signal.alarm(0)
        signal.signal(signal.SIGALRM, before)
