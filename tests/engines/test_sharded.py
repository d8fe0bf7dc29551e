"""Shards are added up as they come, in the order of their numbers, whatever the order in which they come."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator
from contextlib import contextmanager
from functools import partial
from pathlib import Path
from typing import Any

import pytest

import tl_attnstats as ta
from tests import tiny
from tests.asserting import assert_close
from tl_attnstats.results.shard_files import Fold


class OutOfOrder:
    """An engine in this process, whose shards come in a given order."""

    shards, n_workers = 4, 1

    def __init__(self, order: list[int], log: list[str], directory: Path):
        self.order, self.log, self.directory = order, log, directory

    @contextmanager
    def start(self, begin: Callable[[], Any]) -> Iterator[Any]:
        self.worker = begin()
        yield self

    def plan(self, n_shards: int) -> Any:
        return self.worker.plan(n_shards)

    def run(self, numbers: Iterable[int], n_shards: int, report: Callable[..., None]) -> Iterator[tuple[int, Any]]:
        for number in (n for n in self.order if n in numbers):
            self.log.append(f"run {number}")
            yield number, self.worker.run(number, n_shards, partial(report, number))


@pytest.fixture
def log(monkeypatch: pytest.MonkeyPatch) -> list[str]:
    """The shards that were run, and those that were added up, in order."""
    found: list[str] = []
    add = Fold.add

    def logged(fold: Fold, file: Path) -> None:
        found.append(f"add {int(file.name.split('-')[1])}")
        add(fold, file)

    monkeypatch.setattr(Fold, "add", logged)
    return found


def collected(smollm2_tokenizer: Any, engine: Any = None) -> ta.AttentionStats:
    load = partial(tiny.decoder, smollm2_tokenizer)
    corpus = ta.Corpus(tiny.sentences(40))
    return ta.collect(
        load if engine else load(), corpus, engine=engine, batch_tokens=64, source="hooks", progress=False
    )


def test_shards_are_added_up_in_their_order_as_they_come(
    smollm2_tokenizer: Any, tmp_path: Path, log: list[str]
) -> None:
    found = collected(smollm2_tokenizer, OutOfOrder([2, 1, 4, 3], log, tmp_path))
    assert log == ["run 2", "run 1", "add 1", "add 2", "run 4", "run 3", "add 3", "add 4"]
    expected = collected(smollm2_tokenizer)
    assert_close(found, expected, 1e-12)
    assert found.provenance == expected.provenance


@pytest.mark.slow
def test_shards_that_are_there_are_added_up_first(smollm2_tokenizer: Any, tmp_path: Path, log: list[str]) -> None:
    whole = collected(smollm2_tokenizer, OutOfOrder([1, 2, 3, 4], log, tmp_path))
    next(tmp_path.glob("shard-03-*")).unlink()
    log.clear()
    found = collected(smollm2_tokenizer, OutOfOrder([3], log, tmp_path))
    assert log == ["add 1", "add 2", "run 3", "add 3", "add 4"]
    assert found.dataset.identical(whole.dataset)
