"""Named sets of pairs: dependencies, and sets that users define, even of quadratic size."""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Iterator
from typing import Any

import numpy as np
import pytest
import torch

import tl_attnstats as ta
from tests import tiny
from tests.asserting import TOLERANCE
from tl_attnstats.attention.pairs import Pairs, from_parent, to_parent
from tl_attnstats.attention.scope import scope_of
from tl_attnstats.collectors.base import REGISTRY
from tl_attnstats.errors import MetricError


def earlier_occurrences(scope: ta.Scope) -> Pairs:
    """The earlier occurrences of the query's token. All queries share one list, sorted by token."""
    keys: list[int] = []
    start, end = torch.zeros(2, *scope.rows.shape, dtype=torch.long)
    for sequence, item in enumerate(scope.batch.items):
        places = defaultdict(list)
        for position, token in enumerate(item.ids):
            places[token].append(position)
        for positions in places.values():
            for earlier, position in enumerate(positions):
                start[sequence, position] = len(keys)
                end[sequence, position] = len(keys) + earlier
            keys += positions
    return Pairs(torch.tensor(keys), start, end)


class Earlier(ta.RatioCollector):
    """Share of content attention on earlier occurrences of the same token."""

    name = "test_earlier"
    reads = ("pair_mass",)
    pairs = {"earlier": earlier_occurrences}  # noqa: RUF012
    within_sequence = True

    def terms(self, block: ta.Reductions) -> tuple[torch.Tensor, torch.Tensor]:
        return block.mass_on("earlier").sum(-1), block.content_mass


@pytest.fixture(autouse=True)
def known() -> Iterator[None]:
    yield
    REGISTRY.pop("test_clash", None)


@pytest.fixture(scope="module")
def corpus() -> ta.Corpus:
    return ta.Corpus(tiny.sentences(8, seed=3, most_words=30))


def test_listed_pairs_expand_to_themselves() -> None:
    rng = np.random.default_rng(0)
    pairs = np.stack([rng.integers(0, n, 60) for n in (3, 7, 7)], 1)
    made = Pairs.listed(torch.from_numpy(pairs), 3, 7)
    for first, end in ((0, 7), (2, 5), (6, 7)):
        found = torch.stack(made.expand(first, end), 1).tolist()
        assert sorted(found) == sorted(p for p in pairs.tolist() if first <= p[1] < end)


def test_no_pairs_expand_to_none() -> None:
    made = Pairs.listed(torch.zeros(0, 3, dtype=torch.long), 2, 4)
    assert [len(x) for x in made.expand()] == [0, 0, 0]


def test_dependencies_are_the_two_directions_of_the_same_pairs(tiny_decoder: Any, corpus: ta.Corpus) -> None:
    collectors = ta.Collectors(tiny_decoder, ["distance"])
    batch = next(collectors.batches(corpus))
    scope = scope_of(collectors.info, batch)
    down, up = ({*map(tuple, torch.stack(make(scope).expand(), 1).tolist())} for make in (from_parent, to_parent))
    expected = {(s, child, parent) for s, item in enumerate(batch.items) for child, parent in item.dependencies()}
    assert up == expected
    assert down == {(s, parent, child) for s, child, parent in expected}


def test_a_set_of_pairs_takes_linear_memory(tiny_decoder: Any) -> None:
    text = " ".join(["the"] * 60)
    words = tuple(ta.Word(4 * i, 4 * i + 3, "DET", None, "dep") for i in range(60))
    collectors = ta.Collectors(tiny_decoder, [Earlier])
    batch = next(collectors.batches(ta.Corpus([ta.Sentence(text, words, "the")])))
    pairs = earlier_occurrences(scope_of(collectors.info, batch))
    assert len(pairs.keys) == len(batch.items[0])
    assert len(pairs.expand()[0]) == 59 * 58 / 2  # the first "the" is another token, because no space precedes it


@pytest.mark.parametrize("source", ["hooks", "streamed"])
@pytest.mark.parametrize("reads", [("pair_mass",), ("weights",)], ids=["reductions", "weights"])
def test_a_users_set_is_summed_as_plain_loops_do(
    source: Any,
    reads: Any,
    tiny_decoder: Any,
    corpus: ta.Corpus,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr("tl_attnstats.attention.kernels.cpu.LEAST_ROWS", 5)
    monkeypatch.setattr("tl_attnstats.attention.sources.streamed.BLOCK_ELEMENTS", 1)
    monkeypatch.setattr(Earlier, "reads", reads)
    stats = ta.collect(tiny_decoder, corpus, [Earlier, "distance"], source=source, batch_tokens=200, progress=False)
    framing = ta.describe(tiny_decoder).framing
    above, below = 0.0, 0.0
    for sentence in corpus:
        ids = framing.tokenize(sentence).ids
        _, cache = tiny_decoder.run_with_cache(torch.tensor([ids]))
        pattern = np.stack([cache[f"blocks.{layer}.attn.hook_pattern"][0].double() for layer in range(3)])
        for i in range(1, len(ids)):  # the first row reaches only the null key
            for j in range(1, i + 1):
                below = below + pattern[:, :, i, j]
                above = above + pattern[:, :, i, j] * (j < i and ids[j] == ids[i])
    np.testing.assert_allclose(stats["test_earlier"], above / below, rtol=0, atol=TOLERANCE)


def test_two_sets_of_one_name_are_refused(tiny_decoder: Any) -> None:
    class Clash(Earlier):
        name = "test_clash"
        pairs = {"earlier": to_parent}  # noqa: RUF012

    with pytest.raises(MetricError, match="test_clash and another statistic have different sets called 'earlier'"):
        ta.Collectors(tiny_decoder, [Earlier, Clash])


def test_a_set_that_was_not_announced_is_refused(tiny_decoder: Any, corpus: ta.Corpus) -> None:
    class Unannounced(Earlier):
        name = "test_clash"
        pairs = {}  # noqa: RUF012

    with pytest.raises(
        MetricError, match="pairs: 'earlier' was not announced; add it to `pairs` of the statistic's class"
    ):
        ta.collect(tiny_decoder, corpus, [Unannounced, "distance"], progress=False)
