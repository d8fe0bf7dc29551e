"""Test the paper's claims again after sinks are taken out, and beyond what position alone explains."""

from __future__ import annotations

from dataclasses import replace

from tl_attnstats.results.claims import CLAIMS, TAG_QUANTITY, Claim, Test, count_tags, peak_depth, pearson, tested
from tl_attnstats.results.stats import AttentionStats

TITLE = "without sinks, or beyond position"
"""Of a column of counterparts."""


def counterparts_of(stats: AttentionStats) -> dict[str, Claim]:
    """Test the claims that sinks or position could explain on what remains without them.

    Claims about parts of speech are tested on attention without sinks, claims about alignment on the alignment that
    offsets do not explain. Errors and verdicts are those of `claims_of`.

    Args:
        stats: the statistics of a model.

    Returns:
        The counterpart of each claim by the claim's name. Claims that have none, or whose statistics were not
        collected, are left out.
    """
    found = [tested(stats, test) for test in _TESTS if set(test.needs) <= set(stats.dataset)]
    if _WITHOUT_SINKS in stats.dataset:
        found.append(count_tags(stats, _WITHOUT_SINKS, _TAG_CLAIM))
    return {claim.name: claim for claim in found}


_TESTS = (
    Test(
        replace(
            CLAIMS["alignment_in_the_middle"],
            short="depth where excess peaks",
            quantity="relative depth of the layer with the largest alignment beyond position (either direction), mean "
            "over its heads; the middle is the middle third",
        ),
        ("alignment_excess",),
        lambda heads: peak_depth(heads, "alignment_excess"),
    ),
    Test(
        replace(
            CLAIMS["distance_and_alignment"],
            short="r(distance, excess)",
            quantity="Pearson's r of distance and alignment beyond position (either direction) over heads",
        ),
        ("distance", "alignment_excess"),
        lambda heads: pearson(heads["distance"].ravel(), heads["alignment_excess"].ravel()),
    ),
)

_WITHOUT_SINKS = "pos_to_without_sinks"
_TAG_CLAIM = replace(
    CLAIMS["twice_mean_to"],
    short="tags above twice the mean, to, without sinks",
    quantity=TAG_QUANTITY.format(_WITHOUT_SINKS),
)
