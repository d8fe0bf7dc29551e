"""The reference's behaviours, sinks and position alone, on cases whose answers follow from the definitions."""

from __future__ import annotations

import math
import random

import numpy as np
import pytest

from tests import tiny
from tests.by_hand import BOS, CLS, SEP, Weight, pattern, value, words, worth
from tests.reference import DIRECTIONS
from tests.reference_worth import KINDS, bounds

# Behaviours


@pytest.mark.parametrize("causal", [True, False])
def test_a_head_that_attends_only_to_the_keys_of_a_behaviour_has_a_share_of_1(causal: bool) -> None:
    rng = random.Random(0)
    data = []
    for _ in range(3):
        x = [rng.choice([5, 6, 7]) for _ in range(12)]
        x = [BOS, *x] if causal else [CLS, *x, SEP]
        tokens = words(x, encoder=not causal)

        def previous(i: int, j: int) -> bool:
            return j == i - 1

        def duplicate(i: int, j: int, x: list[int] = x) -> bool:
            return j < i and x[j] == x[i]

        def induction(i: int, j: int, x: list[int] = x) -> bool:
            return 1 <= j <= i and x[j - 1] == x[i]

        data.append((pattern(tokens, previous, duplicate, induction, causal=causal), tokens))
    found = worth(*data, causal=causal)
    for head, kind in enumerate(KINDS):
        result, error = found.expected()[f"behaviour[{kind}]"]
        assert (result[0, head], error[0, head]) == (1, 0)
        assert all(result[0, other] < 1 for other in range(3) if other != head)


@pytest.mark.parametrize(
    ("ids", "causal", "rows", "baseline"),
    [
        # Rows 1 and 2 have no earlier copy, and the previous key of row 1 is null.
        ([BOS, 5, 6, 5, 6], True, (3, 2, 2), (3 / (2 + 3 + 4), 2 / (3 + 4), 2 / (3 + 4))),
        # An encoder's rows also reach later keys, which belong to no behaviour.
        ([CLS, 5, 6, 5, SEP], False, (2, 1, 1), (2 / 6, 1 / 3, 1 / 3)),
        # The key after an earlier copy may be the query itself. A null copy counts for induction only.
        ([5, 5, 6], True, (1, 0, 1), (1 / 2, np.nan, 1 / 1)),
    ],
)
def test_even_attention_has_the_baseline_of_every_behaviour(
    ids: list[int], causal: bool, rows: tuple[int, ...], baseline: tuple[float, ...]
) -> None:
    tokens = words(ids, encoder=not causal)
    found = worth((pattern(tokens, lambda i, j: 1, causal=causal), tokens), causal=causal)
    for kind, n_rows, chance in zip(KINDS, rows, baseline, strict=True):
        assert found.behaviour_rows(kind) == n_rows
        assert found.behaviour_baseline(kind).value() == pytest.approx(chance, nan_ok=True)
        assert found.behaviour(kind).value() == pytest.approx(np.array([[chance]]), nan_ok=True)


def test_rows_of_a_windows_context_do_not_count_but_its_keys_do() -> None:
    tokens = words([BOS, 5, 6, 5, 6], n_context=3)
    found = worth((pattern(tokens, lambda i, j: 1), tokens))
    assert [found.behaviour_rows(kind) for kind in KINDS] == [2, 2, 2]
    assert found.behaviour_baseline("previous").value() == pytest.approx(2 / (3 + 4))


# Sinks


def planted(key: int, weight: float) -> Weight:
    """A head that gives `weight` of 10 to a key wherever it reaches it, and the rest to the query itself."""
    return lambda i, j: weight * (j == key) + (10 - weight) * (j == i)


def test_a_planted_sink_is_found_with_its_token_and_share() -> None:
    tokens = words([BOS, *range(10, 21)], upos=["X", "X", "X", "DET", *["X"] * 8], deprel=["obj"] * 3 + ["det"] * 9)
    found = worth((pattern(tokens, planted(3, 4), lambda i, j: j == i), tokens))
    # In the first head, key 3 gets all of its own row, and 4 of 10 from the 8 rows after it; two rows come before it.
    share = (10 + 8 * 4) / (6 + 6 + 10 + 8 * 10)
    assert value(found, "sink_share") == pytest.approx(np.array([[share, 0]]))
    assert value(found, "sink_rate") == pytest.approx(np.array([[1, 0]]))
    assert list(found.sink_tokens()) == [12, "other"]
    assert value(found, "sink_tokens[12]") == pytest.approx(np.array([[share, 0]]))
    assert value(found, "sink_tokens[other]") == pytest.approx(np.array([[0, 0]]))
    # Only the first head has a sink, so only there the determiner is left out.
    assert value(found, "pos_to_without_sinks[DET]") == pytest.approx(np.array([[0, 1 / 11]]))
    assert value(found, "pos_to_without_sinks[X]") == pytest.approx(np.array([[1, 10 / 11]]))
    assert value(found, "dep_to_without_sinks[det]") == pytest.approx(np.array([[8 * 6 / (6 + 6 + 8 * 6), 9 / 11]]))


@pytest.mark.parametrize("causal", [True, False])
@pytest.mark.parametrize(("rows", "weight", "is_sink"), [(8, 3.001, True), (8, 3, False), (7, 9, False)])
def test_a_sink_takes_more_than_a_limit_of_enough_rows(causal: bool, rows: int, weight: float, is_sink: bool) -> None:
    """The sink is key 2. A causal model has `rows` rows after it, an encoder `rows` other words, some before it."""
    ids = [BOS, *range(10, 12 + rows)] if causal else [CLS, *range(10, 11 + rows), SEP]
    tokens = words(ids, encoder=not causal)
    found = worth((pattern(tokens, planted(2, weight), causal=causal), tokens), causal=causal)
    assert found.sinks[0].sum() == is_sink
    assert found.sinks[0][0, 0, 2] == is_sink


def test_a_keys_weight_from_its_own_row_does_not_make_it_a_sink() -> None:
    tokens = words([BOS, *range(10, 22)])
    found = worth((pattern(tokens, lambda i, j: 100 * (i == j == 2) + (j == i) + 0.25 * (j == 2)), tokens))
    assert not found.sinks[0].any()  # it gets 0.25 of 1.25 from the rows after it


def test_the_rate_is_a_mean_over_sequences_and_weights_of_null_keys_do_not_matter() -> None:
    tokens = words([BOS, *range(10, 20)])
    heads = [lambda i, j, k=k: planted(2, k)(i, j) + 1000 * (j == 0) for k in (4, 0, 0)]
    result, error = worth(*[(pattern(tokens, head), tokens) for head in heads]).expected()["sink_rate"]
    assert result == pytest.approx(np.array([[1 / 3]]))
    assert error == pytest.approx(np.array([[np.std([1, 0, 0], ddof=1) / math.sqrt(3)]]))


def test_sixty_four_sink_tokens_are_kept_and_the_rest_are_summed() -> None:
    weights = [5 if token == 99 else 4 for token in range(34, 100)]  # 66 tokens, of which the last gets most
    data = []
    for token, weight in zip(range(34, 100), weights, strict=True):
        tokens = words([BOS, token, *range(200, 209)])
        data.append((pattern(tokens, planted(1, weight)), tokens))
    found = worth(*data)
    kept = found.sink_tokens()
    assert list(kept) == [99, *range(34, 97), "other"]  # of equal ones the lower ids, so 97 and 98 are in "other"
    assert kept["other"].value() == pytest.approx(np.array([[2 * (10 + 9 * 4) / (66 * 100)]]))
    assert sum(ratio.value() for ratio in kept.values()) == pytest.approx(found.sink_share().value())


# Position alone


@pytest.mark.parametrize("causal", [True, False])
def test_a_head_whose_weights_depend_only_on_the_offset_has_no_excess(causal: bool) -> None:
    rng = random.Random(1)
    profile = [[rng.random() for _ in range(-66, 67)] for _ in range(2)]
    data = []
    for n in (6, 70, 11):  # some offsets are beyond ±64, where each side has one bin
        tokens = words([9] * n, heads=tiny.heads(n - 2 * (not causal), rng), encoder=not causal)
        heads = [lambda i, j, p=p: p[max(-65, min(65, i - j)) + 66] for p in profile]
        data.append((pattern(tokens, *heads, causal=causal), tokens))
    found = worth(*data, causal=causal)
    for direction in DIRECTIONS:
        assert (value(found, f"alignment_by_position[{direction}]") > 0.01).all()
        assert value(found, f"alignment_excess[{direction}]") == pytest.approx(np.zeros((1, 2)), abs=1e-12)


def test_a_head_that_attends_to_parents_has_excess() -> None:
    """Word 0 is null, 1 is the parent of 2 and 4, 2 that of 3. The head attends only to parents."""
    tokens = words([BOS, 5, 6, 7, 8], heads=[None, None, 1, 2, 1])
    parent = {2: 1, 3: 2, 4: 1}
    found = worth((pattern(tokens, lambda i, j: parent.get(i) == j), tokens))
    # Its offsets are 1, 1 and 3. Of the three pairs at 1, (2,1) (3,2) (4,3), two are related; the pair at 3 is, too.
    by_position = 2 / 3 * 2 / 3 + 1 / 3 * 1
    for direction, position, alignment in (("to_parent", by_position, 1), ("either", by_position, 1)):
        assert value(found, f"alignment_by_position[{direction}]") == pytest.approx(np.array([[position]]))
        assert value(found, f"alignment_excess[{direction}]") == pytest.approx(np.array([[alignment - position]]))
    assert value(found, "alignment_excess[from_parent]") == pytest.approx(np.zeros((1, 1)))


def test_a_replicate_counts_sequences_as_often_as_they_are_drawn() -> None:
    rng, data = random.Random(2), []
    for n in (4, 8, 11):
        tokens = words([9] * n, heads=tiny.heads(n, rng))
        data.append((tiny.patterns(1, 2, n, True, n), tokens))
    drawn = worth(data[0], data[0], data[2]).position_alone()
    replicate = worth(*data).position_alone([2, 0, 1])
    assert replicate.keys() == drawn.keys()
    for name, found in drawn.items():
        assert replicate[name] == pytest.approx(found)
    assert np.isnan(worth(*data).position_alone([0, 0, 0])["alignment_excess[either]"]).all()


# Best of many


@pytest.mark.parametrize("shape", [(1, 1), (12, 12)])
def test_bounds_of_all_heads_hold_at_once_with_probability_95(shape: tuple[int, int]) -> None:
    low, high = bounds(np.full(shape, 0.4), np.full(shape, 0.01))
    z = (high - 0.4) / 0.01
    assert low == pytest.approx(0.8 - high)
    assert (math.erf(z[0, 0] / math.sqrt(2))) ** z.size == pytest.approx(0.95)
    assert z == pytest.approx(np.full(shape, z[0, 0]))


def test_statistics_of_nothing_are_nan_without_warnings() -> None:
    """The head has no content attention, and one sequence has no counted row."""
    silent, last = words([BOS, 5, 6], heads=[None, None, 1]), words([BOS, 7, 8], n_context=3)
    found = worth(*[(pattern(tokens, lambda i, j: j == 0), tokens) for tokens in (silent, last)]).expected()
    for name in ("behaviour[previous]", "sink_share", "alignment_excess[either]", "pos_to_without_sinks[X]"):
        assert np.isnan(found[name][0]).all(), name
    assert found["sink_rate"][0] == 0
    assert found["behaviour_rows[previous]"][0] == 1
