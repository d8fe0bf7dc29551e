"""What half precision changes: statistics of the demo's model in bfloat16 and float16, against float32.

    python tests/benchmarks/precision.py [--sentences 64]

Prints for each statistic the largest and the median absolute difference over all heads and labels, on a CPU.
"""

from __future__ import annotations

import argparse
from collections.abc import Sequence

import numpy as np
import xarray as xr

import tl_attnstats as ta
from tl_attnstats.cli.run import SAMPLE

DTYPES = ("bfloat16", "float16")
COUNTS = ("pairs", "rows")  # units of what is counted, not measured
TOLERANCE = {
    "null_share": 0.02,
    "pos_to": 0.02,
    "pos_from": 0.01,
    "dep_to": 0.02,
    "dependency_alignment": 0.005,
    "distance": 0.2,
    "entropy": 0.2,
    "variability": 0.05,
    "mean_pattern": 0.05,
    "offset_profile": 0.01,
    "behaviour": 0.02,
    "sink_share": 0.2,
    "sink_rate": 0.5,
    "sink_tokens": 0.2,
    "pos_to_without_sinks": 0.5,
    "dep_to_without_sinks": 0.5,
    "alignment_by_position": 0.002,
    "alignment_excess": 0.005,
}
"""The most that a statistic may differ in bfloat16: twice what was measured on the first 8 sentences, rounded up."""
UNBOUNDED = ("relation_accuracy",)
"""Statistics without a tolerance: of two words with nearly equal attention, either may win."""


def collect(dtype: str, corpus: ta.Corpus) -> ta.AttentionStats:
    return ta.collect(ta.load_model("demo", device="cpu", dtype=dtype), corpus, progress=False)


def differences(found: ta.AttentionStats, expected: ta.AttentionStats) -> dict[str, np.ndarray]:
    """Absolute differences of each statistic that has a value for each head. A label that one lacks has 0 there."""
    made = {}
    for name in expected.statistics:
        array = expected[name]
        if not {"layer", "head"} <= set(array.dims) or array.attrs["units"] in COUNTS:
            continue
        a, b = xr.align(found[name], array, join="outer", fill_value=0)
        made[name] = np.abs(a - b).values[np.isfinite(a.values) & np.isfinite(b.values)]
    return made


def table(by_dtype: Sequence[dict[str, np.ndarray]], units: dict[str, str]) -> str:
    rows = [
        "| statistic | unit | bfloat16: largest | median | float16: largest | median |",
        "|---|---|---:|---:|---:|---:|",
    ]
    for name, unit in units.items():
        cells = [f"{value:.1e}" for found in by_dtype for value in (found[name].max(), np.median(found[name]))]
        rows.append(f"| `{name}` | {unit} | {' | '.join(cells)} |")
    return "\n".join(rows)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--sentences", type=int, default=64)
    corpus = ta.Corpus.from_text_file(SAMPLE)[: parser.parse_args().sentences]
    expected = collect("float32", corpus)
    found = [differences(collect(dtype, corpus), expected) for dtype in DTYPES]
    print(f"{expected.extent}\n")
    print(table(found, {name: expected[name].attrs["units"] for name in found[0]}))


if __name__ == "__main__":
    main()
