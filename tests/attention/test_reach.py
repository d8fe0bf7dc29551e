"""Reach as stretches, against the pairs that rules allow one by one."""

from __future__ import annotations

from typing import Any

import pytest
import torch

from tl_attnstats.attention import reach
from tl_attnstats.attention.reach import Reach, Rule

N_BATCH = 2
STRETCHES: dict[str, tuple[Rule, int, int]] = {
    "causal": (lambda s, h, i, j: j <= i, 11, 11),
    "both directions": (lambda s, h, i, j: (j == j) & (i == i), 11, 11),
    "window": (lambda s, h, i, j: (j <= i) & (i - j < 4), 11, 11),
    "window in both directions": (lambda s, h, i, j: (i - j).abs() < 3, 11, 11),
    "chunks": (lambda s, h, i, j: (j <= i) & (i // 4 == j // 4), 11, 11),
    "other keys": (lambda s, h, i, j: (j == j) & (i == i), 7, 3),
    "one token": (lambda s, h, i, j: j <= i, 1, 1),
}
OTHERS: dict[str, Rule] = {
    "every other key": lambda s, h, i, j: (j <= i) & ((i - j) % 2 == 0),
    "a sequence of its own": lambda s, h, i, j: (j <= i) & ((s == 0) | (i - j < 3)),
    "an end that moves back": lambda s, h, i, j: (i == 0) | (j <= i),
    "a first key that moves back": lambda s, h, i, j: (j <= i) & ((i != 3) | (j > 1)),
    "a query without keys": lambda s, h, i, j: j < i,
}


@pytest.mark.parametrize("name", STRETCHES)
@pytest.mark.parametrize("at_once", [1, 50, 2**24])
def test_stretches_are_what_the_rule_allows(name: str, at_once: int, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(reach, "AT_ONCE", at_once)
    rule, n_queries, n_keys = STRETCHES[name]
    found = Reach(rule, None).stretches(N_BATCH, n_queries, n_keys, torch.device("cpu"))
    assert found is not None
    pairs = [(i, j) for i in range(n_queries) for j in range(n_keys) if rule(*map(torch.tensor, (0, 0, i, j)))]
    for stretch, this, other in ((found[:2], 0, 1), (found[2:4], 1, 0)):
        for n, (first, end) in enumerate(zip(*(x.tolist() for x in stretch), strict=True)):
            assert [*range(first, end)] == [pair[other] for pair in pairs if pair[this] == n]
    offsets = [i - j for i, j in pairs]
    assert (found.lowest, found.highest) == (min(offsets), max(offsets))


@pytest.mark.parametrize("name", OTHERS)
def test_other_rules_have_no_stretches(name: str) -> None:
    assert Reach(OTHERS[name], None).stretches(N_BATCH, 11, 11, torch.device("cpu")) is None


def test_the_rule_is_applied_once_for_all_layers() -> None:
    calls: list[Any] = []

    def rule(*indices: Any) -> Any:
        calls.append(indices)
        return indices[3] <= indices[2]

    shared = Reach(rule, None)
    first, again = (shared.stretches(N_BATCH, 11, 11, torch.device("cpu")) for _ in range(2))
    assert first is again
    assert len(calls) == 1


CALLS: list[Any] = []


def counting(rule: Rule) -> Rule:
    def counted(*indices: Any) -> Any:
        CALLS.append(indices)
        return rule(*indices)

    return counted


def windowed(n: int) -> Rule:
    return counting(lambda s, h, i, j: (j <= i) & (i - j < n))


def of_tensor(n: torch.Tensor) -> Rule:
    return counting(lambda s, h, i, j: (j <= i) & (i - j < n))


def test_what_was_found_holds_for_later_passes_and_shorter_sequences() -> None:
    CALLS.clear()
    cpu = torch.device("cpu")
    Reach(windowed(3), None).stretches(2, 11, 11, cpu)
    assert len(CALLS) == 1
    shorter = Reach(windowed(3), None).stretches(5, 7, 7, cpu)
    assert len(CALLS) == 1
    fresh = Reach(of_tensor(torch.tensor(3)), None).stretches(5, 7, 7, cpu)
    assert shorter is not None
    assert fresh is not None
    assert all(torch.equal(a, b) for a, b in zip(shorter[:4], fresh[:4], strict=True))
    assert shorter[4:] == fresh[4:] == (0, 2)
    assert [len(x) for x in shorter[:4]] == [7] * 4
    Reach(windowed(3), None).stretches(2, 12, 12, cpu)  # longer
    assert len(CALLS) == 3


def test_other_numbers_are_another_rule_and_tensors_may_change() -> None:
    CALLS.clear()
    cpu, size = torch.device("cpu"), torch.tensor(2)
    found = [Reach(windowed(n), None).stretches(2, 11, 11, cpu) for n in (5, 6)]
    assert [x and x.highest for x in found] == [4, 5]
    for n in (2, 4):
        size.fill_(n)
        found = [Reach(of_tensor(size), None).stretches(2, 11, 11, cpu)]
        assert found[0] is not None
        assert found[0].highest == n - 1
    assert len(CALLS) == 4


def test_a_query_that_reaches_only_keys_beyond_the_end_has_no_stretch() -> None:
    ahead = windowed(-2)  # never allowed
    assert Reach(ahead, None).stretches(2, 4, 4, torch.device("cpu")) is None
    later: Rule = lambda s, h, i, j: (j >= 2) & (i >= 0)  # noqa: E731
    assert Reach(later, None).stretches(2, 5, 5, torch.device("cpu")) is not None
    assert Reach(later, None).stretches(2, 5, 2, torch.device("cpu")) is None
