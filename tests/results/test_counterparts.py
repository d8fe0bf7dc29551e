"""What remains of the paper's claims without sinks and beyond position, where the truth is known."""

from __future__ import annotations

import numpy as np
import pytest

import tl_attnstats as ta
from tests.plotting.made import by_layer, collected, planted
from tl_attnstats.results.claims import replicates_of
from tl_attnstats.results.findings import findings
from tl_attnstats.results.numbers import with_error
from tl_attnstats.results.ranking import mean_error


def of_excess(excess: np.ndarray, replicates: np.ndarray | None = None, **others: np.ndarray) -> ta.AttentionStats:
    """Statistics with this excess in either direction, and 0.5 in the others."""
    sampled = np.stack([excess] * 20) if replicates is None else replicates
    by_direction = np.stack([np.full_like(excess, 0.5), np.full_like(excess, 0.5), excess], -1)
    return planted(
        len(excess),
        alignment_excess=(("layer", "head", "direction"), by_direction),
        alignment_excess_replicates=(("replicate", "layer", "head"), sampled),
        **others,
    )


@pytest.mark.parametrize(("peak", "verdict"), [(3, "holds"), (0, "does not hold"), (6, "does not hold")])
def test_alignment_beyond_position_peaks_where_it_was_planted(peak: int, verdict: str) -> None:
    whole = by_layer(*(0.5 if layer == 3 else 0.1 for layer in range(7)))
    stats = of_excess(by_layer(*(0.3 * (layer == peak) for layer in range(7))), dependency_alignment=whole)
    (claim,) = [claim for claim in ta.claims_of(stats) if claim.name == "alignment_in_the_middle"]
    assert (claim.value, claim.verdict) == (0.5, "holds")
    after = ta.counterparts_of(stats)["alignment_in_the_middle"]
    assert after.value == pytest.approx(peak / 6)
    assert after.verdict == verdict
    assert after.statement == claim.statement
    assert "beyond position" in after.quantity


def test_a_correlation_with_distance_may_turn_round_beyond_position() -> None:
    distance = by_layer(1, 2, 3, 4, 5)
    stats = of_excess(distance / 10, distance=distance, dependency_alignment=-distance)
    (claim,) = [claim for claim in ta.claims_of(stats) if claim.name == "distance_and_alignment"]
    after = ta.counterparts_of(stats)["distance_and_alignment"]
    assert (claim.value, after.value) == (pytest.approx(-1), pytest.approx(1))
    assert (claim.verdict, after.verdict) == ("holds", "does not hold")


def test_the_error_of_a_counterpart_is_its_spread_over_replicates() -> None:
    early, late = (by_layer(*(0.3 * (layer == peak) for layer in range(5))) for peak in (1, 3))
    after = ta.counterparts_of(of_excess(early, np.stack([early] * 10 + [late] * 10)))["alignment_in_the_middle"]
    assert (after.value, after.low, after.high) == (0.25, 0.25, 0.75)
    assert after.se == pytest.approx(np.std([0.25] * 10 + [0.75] * 10, ddof=1))


def test_replicates_of_alignment_beyond_position_give_its_error() -> None:
    stats = collected(n_sentences=30)
    for name in ("alignment_by_position", "alignment_excess"):
        for direction in ("either", "to_parent"):
            sampled = replicates_of(stats, name, direction=direction)
            assert sampled is not None
            expected = stats[f"{name}_se"].sel(direction=direction).values
            np.testing.assert_allclose(sampled.std(0, ddof=1), expected, rtol=1e-9)


def test_tags_are_counted_without_sinks() -> None:
    stats = collected()
    tags = [tag for tag in stats["tag"].values if tag != "none"]
    stats.dataset["pos_to_without_sinks"].values[:] = 0.1
    stats.dataset["pos_to_without_sinks_se"].values[:] = 0
    stats.dataset["pos_to_without_sinks"].loc[{"tag": tags[0], "layer": 1, "head": 2}] = 0.9  # the mean is 0.17
    after = ta.counterparts_of(stats)["twice_mean_to"]
    assert after.value == pytest.approx(1 / len(tags))
    assert after.shown == f"1 of {len(tags)}, 1 beyond error"
    assert "pos_to_without_sinks" in after.quantity


def test_claims_without_a_counterpart_are_left_out() -> None:
    everything = ta.counterparts_of(collected())
    assert set(everything) == {"alignment_in_the_middle", "distance_and_alignment", "twice_mean_to"}
    assert ta.counterparts_of(collected(metrics=["distance", "dependency_alignment", "pos_to"])) == {}
    assert set(ta.counterparts_of(collected(metrics=["position"]))) == {"alignment_in_the_middle"}


def test_findings_tell_what_remains_of_alignment_and_its_correlation() -> None:
    stats = collected(n_sentences=30)
    either = {"direction": "either"}
    found = {finding.said.striptags(): finding.beyond.striptags() for finding in findings(stats)}
    (beyond,) = [beyond for said, beyond in found.items() if "dependencies most" in said or "alignment is" in said]
    alone, excess = (stats.head_values(f"alignment_{name}", **either).values for name in ("by_position", "excess"))
    errors = (mean_error(stats, f"alignment_{name}") for name in ("by_position", "excess"))
    alone_shown, excess_shown = map(with_error, (alone.mean(), excess.mean()), errors)
    assert beyond.startswith(
        f"Position alone gives {alone_shown} on average over heads; {excess_shown} lies beyond it."
    )
    (beyond,) = [beyond for said, beyond in found.items() if said.startswith("Over heads")]
    r = np.corrcoef(stats["distance"].values.ravel(), excess.ravel())[0, 1]
    assert beyond.startswith(f"r(distance, alignment beyond position) = {r:+.2f}"[:-1].replace("-", "−"))
    assert [said for said, beyond in found.items() if beyond and "null" in said] == []
    older = collected(metrics=["dependency_alignment"])
    assert [finding.beyond for finding in findings(older)] == [""] * len(findings(older))
