"""Claims of the paper, on made-up statistics for which the truth is known."""

from __future__ import annotations

import math

import numpy as np
import pytest

import tl_attnstats as ta
from tests.plotting.made import by_layer, collected, planted


def claim(stats: ta.AttentionStats, name: str) -> ta.Claim:
    (found,) = [claim for claim in ta.claims_of(stats) if claim.name == name]
    return found


@pytest.mark.parametrize(("low", "high", "verdict"), [
    (0.6, 0.7, "holds"), (0.5, 0.7, "undecided"), (0.4, 0.6, "undecided"), (0.4, 0.5, "does not hold"),
    (0.9, 0.95, "undecided"), (0.93, 0.95, "does not hold"), (0.1, 0.99, "undecided"),
    (math.nan, math.nan, "error unknown"),
])  # fmt: skip
def test_verdict_needs_both_bounds_on_one_side(low: float, high: float, verdict: str) -> None:
    made = ta.Claim("a", "A.", "a", "a", "", within=(0.5, 0.93), value=0.6, low=low, high=high)
    assert made.verdict == verdict


def test_verdict_without_a_value() -> None:
    assert ta.Claim("a", "A.", "a", "a", "", within=(0, 1)).verdict == "no value"


@pytest.mark.parametrize(("value", "se", "shown"), [
    (0.5744, 0.0123, "0.574 ± 0.012"), (-0.73, 0.3, "−0.7 ± 0.3"), (0.25, 0, "0.250 ± 0"), (0.25, 1e-17, "0.250 ± 0"),
    (0.123456, 0.00019, "0.12346 ± 0.00019"), (-0.5, math.nan, "−0.500"), (math.nan, math.nan, "–"),
])  # fmt: skip
def test_a_value_is_shown_with_as_many_digits_as_its_error(value: float, se: float, shown: str) -> None:
    assert ta.Claim("a", "A.", "a", "a", "", within=(0, 1), value=value, se=se).shown == shown


@pytest.mark.parametrize(("n_layers", "peak", "verdict"), [
    (7, 3, "holds"), (7, 2, "holds"), (7, 4, "holds"), (7, 1, "does not hold"), (7, 6, "does not hold"),
    (12, 3, "does not hold"), (12, 4, "holds"), (12, 7, "holds"), (12, 8, "does not hold"), (4, 1, "holds"),
])  # fmt: skip
def test_alignment_peaks_where_it_was_planted(n_layers: int, peak: int, verdict: str) -> None:
    means = [0.2 + 0.3 * (layer == peak) for layer in range(n_layers)]
    found = claim(planted(n_layers, dependency_alignment=by_layer(*means)), "alignment_in_the_middle")
    assert found.value == pytest.approx(peak / (n_layers - 1))
    assert found.verdict == verdict


def test_alignment_peak_that_moves_from_replicate_to_replicate_is_undecided() -> None:
    middle, early = by_layer(0.1, 0.2, 0.3, 0.5, 0.1), by_layer(0.1, 0.5, 0.3, 0.4, 0.1)
    replicates = np.stack([middle] * 12 + [early] * 8)
    stats = planted(
        5, dependency_alignment=by_layer(0.1, 0.2, 0.6, 0.5, 0.1), dependency_alignment_replicates=replicates
    )
    found = claim(stats, "alignment_in_the_middle")
    assert (found.value, found.low, found.high) == (0.5, 0.25, 0.75)
    mean = (12 * 0.75 + 8 * 0.25) / 20
    assert found.se == pytest.approx(math.sqrt((12 * (0.75 - mean) ** 2 + 8 * (0.25 - mean) ** 2) / 19))
    assert found.verdict == "undecided"


@pytest.mark.parametrize("order", [(0, 1, 2, 3, 4), (4, 3, 2, 1, 0), (2, 0, 1, 4, 3), (3, 1, 4, 0, 2)])
def test_rank_correlation_of_layer_and_distance(order: tuple[int, ...]) -> None:
    distance = by_layer(*(math.exp(rank) for rank in order))
    found = claim(planted(5, distance=distance), "deep_layers_look_far")
    squares = sum((layer - rank) ** 2 for layer, rank in enumerate(order))
    expected = 1 - 6 * squares / (5 * 24)
    assert found.value == pytest.approx(expected)
    assert found.verdict == ("holds" if expected > 0 else "does not hold")


def test_correlations_over_heads_are_those_planted() -> None:
    distance = np.random.default_rng(1).uniform(2, 9, size=(7, 4))
    stats = planted(distance=distance, entropy=3 * distance + 1, dependency_alignment=1 - 0.1 * distance)
    up, down = claim(stats, "distance_and_entropy"), claim(stats, "distance_and_alignment")
    assert (up.value, down.value) == (pytest.approx(1), pytest.approx(-1))
    assert (up.verdict, down.verdict) == ("holds", "holds")


def test_heads_without_a_value_do_not_correlate() -> None:
    distance, entropy = np.random.default_rng(2).uniform(1, 2, size=(2, 7, 4))
    distance[1, 2] = entropy[5, 0] = math.nan
    pairs = [(x, y) for x, y in zip(distance.flat, entropy.flat, strict=True) if not math.isnan(x + y)]
    mean_x, mean_y = (sum(values) / len(pairs) for values in zip(*pairs, strict=True))
    cross = sum((x - mean_x) * (y - mean_y) for x, y in pairs)
    norms = math.sqrt(sum((x - mean_x) ** 2 for x, _ in pairs) * sum((y - mean_y) ** 2 for _, y in pairs))
    found = claim(planted(distance=distance, entropy=entropy), "distance_and_entropy")
    assert found.value == pytest.approx(cross / norms)


def test_error_of_a_correlation_is_its_spread_over_replicates() -> None:
    stats = collected(n_layers=4, n_heads=5, n_sentences=12)
    found = claim(stats, "distance_and_entropy")
    rs = []
    for distance, entropy in zip(stats["distance_replicates"].values, stats["entropy_replicates"].values, strict=True):
        both = np.isfinite(distance) & np.isfinite(entropy)
        rs.append(np.corrcoef(distance[both], entropy[both])[0, 1])
    assert found.value == pytest.approx(stats.correlation("distance", "entropy").r)
    assert (found.low, found.high) == (pytest.approx(np.percentile(rs, 2.5)), pytest.approx(np.percentile(rs, 97.5)))
    assert found.se == pytest.approx(np.std(rs, ddof=1))
    assert 0 < found.se < 1


@pytest.mark.parametrize(("mean", "largest", "verdicts"), [
    (0.7, 0.98, ("holds", "holds")), (0.3, 0.9, ("does not hold", "does not hold")),
])  # fmt: skip
def test_null_share(mean: float, largest: float, verdicts: tuple[str, str]) -> None:
    null = np.full((7, 4), mean)
    null[3, 1], null[3, 2] = largest, 2 * mean - largest
    stats = planted(null_share=null)
    found = [claim(stats, name) for name in ("null_attention", "null_heads")]
    assert [c.value for c in found] == [pytest.approx(mean), pytest.approx(largest)]
    assert tuple(c.verdict for c in found) == verdicts


def test_tags_above_twice_the_mean_with_and_without_their_error() -> None:
    rng = np.random.default_rng(4)
    tags = ["ADJ", "NOUN", "VERB", "X", "none"]
    values, errors = rng.uniform(0, 1, size=(7, 4, 5)) ** 3, rng.uniform(0, 0.3, size=(7, 4, 5))
    values[..., 0] = 0.5  # no head stands out
    values[2, 2, 4], errors[2, 2, 4] = 9, 0  # "none" is the label of tokens without a word, and no tag
    dims = ("layer", "head", "tag")
    stats = planted(pos_to=(dims, values), pos_to_se=(dims, errors))
    stats.dataset = stats.dataset.assign_coords(tag=tags)
    plain = certain = 0
    for tag in range(4):
        heads = [(values[i, j, tag], errors[i, j, tag]) for i in range(7) for j in range(4)]
        twice = 2 * sum(value for value, _ in heads) / 28
        plain += any(value > twice for value, _ in heads)
        certain += any(value - 1.96 * error > twice for value, error in heads)
    assert 0 < certain <= plain == 3
    found = claim(stats, "twice_mean_to")
    assert (found.low, found.value, found.high) == (certain / 4, plain / 4, plain / 4)
    assert found.shown == f"{plain} of 4, {certain} beyond error"
    assert claim(stats, "twice_mean_from").verdict == "no value"


def test_without_replicates_the_error_is_unknown_and_claims_undecided() -> None:
    stats = collected(n_layers=4, metrics=["distance", "entropy", "dependency_alignment", "null_share"])
    found = ta.claims_of(stats)
    assert {c.verdict for c in found if not c.name.startswith("twice")} == {"error unknown"}
    assert claim(stats, "distance_and_entropy").value == pytest.approx(stats.correlation("distance", "entropy").r)
    assert all(math.isnan(c.se) for c in found)


def test_what_was_not_collected_has_no_value() -> None:
    verdicts = {c.name: c.verdict for c in ta.claims_of(collected(n_layers=4, metrics=["distance"]))}
    assert verdicts.pop("deep_layers_look_far") == "error unknown"
    assert set(verdicts.values()) == {"no value"}


def test_one_layer_has_no_rank_correlation_and_a_peak_at_0() -> None:
    stats = planted(1)
    assert claim(stats, "deep_layers_look_far").verdict == "no value"
    assert claim(stats, "alignment_in_the_middle").value == 0


def test_depth_is_within_the_whole_model_where_the_file_has_some_of_its_layers() -> None:
    stats = planted(11, layers=[2, 4, 8], dependency_alignment=by_layer(0.1, 0.4, 0.2))
    assert claim(stats, "alignment_in_the_middle").value == pytest.approx(0.4)


def test_replicates_without_a_value_are_left_out_and_too_few_give_no_error() -> None:
    distance = by_layer(1, 2, 3, 4, 5)
    replicates = np.stack([distance] * 20)
    for n_empty, verdict in ((4, "holds"), (12, "error unknown")):
        replicates[:n_empty] = math.nan
        stats = planted(5, distance=distance, distance_replicates=replicates)
        assert claim(stats, "deep_layers_look_far").verdict == verdict
