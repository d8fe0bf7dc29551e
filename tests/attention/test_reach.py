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
