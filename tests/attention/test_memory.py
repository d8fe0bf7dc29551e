"""Out of memory: blocks of rows get smaller, then batches; statistics stay the same."""

from __future__ import annotations

import re
import warnings
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

import pytest
import torch

import tl_attnstats as ta
from tests import tiny
from tests.asserting import assert_close
from tl_attnstats.attention.kernels.projections import Projections
from tl_attnstats.errors import MemoryShort, ModelError

MESSAGE = "[enforce fail at alloc_cpu.cpp:124] err == 0. DefaultCPUAllocator: can't allocate memory: you tried …"


@pytest.fixture(scope="module")
def corpus() -> ta.Corpus:
    return ta.Corpus(tiny.sentences(6, seed=8, most_words=30))


@contextmanager
def room_for(monkeypatch: pytest.MonkeyPatch, most: int, counts: Any) -> Iterator[list[int]]:
    """Memory for the scores of at most `most` rows, as `counts` counts them."""
    tried: list[int] = []
    scores = Projections.scores

    def limited(self: Any, query: torch.Tensor, first: int, end: int) -> torch.Tensor:
        tried.append(counts(query))
        if tried[-1] > most:
            raise RuntimeError(MESSAGE)
        return scores(self, query, first, end)

    with monkeypatch.context() as patch:
        patch.setattr(Projections, "scores", limited)
        yield tried


@contextmanager
def said() -> Iterator[list[str]]:
    """The warnings, in order. Elsewhere in these tests warnings are errors."""
    messages: list[str] = []
    with warnings.catch_warnings(record=True) as caught:
        warnings.simplefilter("always")
        yield messages
    assert all(warning.category is MemoryShort for warning in caught)
    messages += [str(warning.message) for warning in caught]


def streamed(model: Any, corpus: ta.Corpus) -> ta.AttentionStats:
    return ta.collect(model, corpus, source="streamed", batch_tokens=100, progress=False)


def longest(model: Any, corpus: ta.Corpus) -> int:
    return max(batch.input_ids.shape[1] for batch in ta.Collectors(model).batches(corpus))


def halvings(n_rows: int, room: int) -> list[str]:
    """The warnings while blocks shrink from `n_rows` rows, all of a batch, until they fit into `room`."""
    said = []
    while n_rows > room:
        n_rows //= 2
        said.append(f"out of memory: going on with blocks of {n_rows} rows")
    return said


def test_blocks_are_halved_until_they_fit(
    tiny_decoder: Any, corpus: ta.Corpus, monkeypatch: pytest.MonkeyPatch
) -> None:
    whole = streamed(tiny_decoder, corpus)
    with room_for(monkeypatch, 16, lambda query: query.shape[2]) as tried, said() as messages:
        cut = streamed(tiny_decoder, corpus)
    assert max(tried) > 16
    # Once, not for every batch: the longest batch comes first.
    assert messages == halvings(longest(tiny_decoder, corpus), 16)
    assert_close(whole, cut)


def test_batches_are_halved_where_single_rows_do_not_fit(
    tiny_decoder: Any, corpus: ta.Corpus, monkeypatch: pytest.MonkeyPatch
) -> None:
    whole = streamed(tiny_decoder, corpus)
    key_heads = tiny_decoder.original_model.config.num_key_value_heads
    with room_for(monkeypatch, 1, lambda query: query.shape[0] // key_heads) as tried, said() as messages:
        cut = streamed(tiny_decoder, corpus)
    assert max(tried) > 1
    rows = halvings(longest(tiny_decoder, corpus), 1)
    assert messages[: len(rows)] == rows
    assert len(messages) > len(rows)
    assert all(
        re.fullmatch(r"out of memory: \d sequences of \d+ tokens in two parts", m) for m in messages[len(rows) :]
    )
    assert_close(whole, cut)


def test_one_row_that_does_not_fit_is_an_error(
    tiny_decoder: Any, corpus: ta.Corpus, monkeypatch: pytest.MonkeyPatch
) -> None:
    collectors = ta.Collectors(tiny_decoder, source="streamed")
    batches = list(collectors.batches(corpus))
    collectors.run(batches[-1])
    with (
        room_for(monkeypatch, 0, lambda query: 1),
        said(),
        pytest.raises(ModelError, match=r"out of memory on a single sequence of \d+ tokens; give shorter ones$"),
    ):
        collectors.run(batches[0])


def test_the_hooks_source_halves_batches_and_suggests_streaming(
    tiny_decoder: Any, corpus: ta.Corpus, monkeypatch: pytest.MonkeyPatch
) -> None:
    whole = ta.collect(tiny_decoder, corpus, source="hooks", progress=False)
    collectors = ta.Collectors(tiny_decoder, source="hooks")
    (batch,) = collectors.batches(corpus)
    hooks, sizes, room = collectors._choice.hooks, [], 2
    read = hooks.read

    def limited(batch: ta.Batch, *given: Any) -> None:
        sizes.append(len(batch))
        if len(batch) > room:
            raise torch.OutOfMemoryError("CUDA out of memory")
        read(batch, *given)

    monkeypatch.setattr(hooks, "read", limited)
    with said() as messages:
        collectors.run(batch)
    assert sizes == [6, 3, 1, 2, 3, 1, 2]
    assert [message.split(" of ")[1] for message in messages] == [f"memory: {n} sequences" for n in (6, 3, 3)]
    assert_close(whole, collectors.stats())
    room = 0
    with said(), pytest.raises(ModelError, match=r"or use source='streamed' \(--source streamed\)$"):
        collectors.run(batch)


def test_other_errors_are_raised(tiny_decoder: Any, corpus: ta.Corpus, monkeypatch: pytest.MonkeyPatch) -> None:
    collectors = ta.Collectors(tiny_decoder, source="hooks")

    def broken(*given: Any) -> None:
        raise RuntimeError("shapes do not match")

    monkeypatch.setattr(collectors._choice.hooks, "read", broken)
    with pytest.raises(RuntimeError, match="shapes do not match"):
        collectors.run(next(iter(collectors.batches(corpus))))
