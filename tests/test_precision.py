"""Half precision: each statistic stays within the tolerance that is documented for it."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest

import tl_attnstats as ta
from tests.benchmarks import precision


@pytest.mark.slow
def test_bfloat16_stays_within_the_documented_tolerance(smollm2: Any, sample_corpus: ta.Corpus) -> None:
    corpus = sample_corpus[:8]
    expected = ta.collect(smollm2, corpus, progress=False)
    found = precision.differences(precision.collect("bfloat16", corpus), expected)
    assert set(found) == {*precision.TOLERANCE, *precision.UNBOUNDED}
    for name, tolerance in precision.TOLERANCE.items():
        assert found[name].max() <= tolerance, name
    assert found["entropy"].max() > 1e-4  # it did compute in bfloat16


def test_the_tolerances_are_documented() -> None:
    page = (Path(__file__).parents[1] / "docs" / "performance.md").read_text(encoding="utf-8")
    rows = {row.split("`")[1]: row for row in page.splitlines() if row.startswith("| `") and row.count("|") == 8}
    found = {name: row.rsplit("|", 2)[1].strip() for name, row in rows.items()}
    expected = {name: f"{tolerance:g}" for name, tolerance in precision.TOLERANCE.items()}
    assert found == {**expected, **dict.fromkeys(precision.UNBOUNDED, "none")}
