"""What `attnstats run` and `attnstats merge` write: statistics, figures and a report."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import TYPE_CHECKING

from tl_attnstats.cli.common import REPORT_FILE, STATS_FILE, draw_to_files
from tl_attnstats.corpus.files import sync

if TYPE_CHECKING:
    from tl_attnstats.results.stats import AttentionStats
    from tl_attnstats.results.whole import WholePatterns


def no_patterns(stats: AttentionStats) -> None:
    """Where no model is at hand."""


def write_results(
    stats: AttentionStats,
    out: Path,
    how: str = "",
    patterns: Callable[[AttentionStats], WholePatterns | None] = no_patterns,
) -> None:
    """Write everything to a directory, and print what was written.

    `how` says how it was collected; `patterns` makes the whole patterns of exemplars, after the statistics are safe.
    """
    from tl_attnstats import report

    file = out / STATS_FILE
    stats.save(file)
    sync(file)  # before what it was made of is deleted: a checkpoint, shards
    figures = _draw(stats, out)
    report.write(stats, out / REPORT_FILE, patterns=patterns(stats))
    print(f"{stats.extent}{how}, source {stats.provenance['source']} → {file}")
    print(f"figures: {', '.join(figures)}")
    print(f"report: {out / REPORT_FILE}")


def _draw(stats: AttentionStats, directory: Path) -> list[str]:
    """Draw the figures of the paper and return their file names."""
    draw_to_files()
    from tl_attnstats.plotting import paper_figures

    return [path.name for path in paper_figures(stats, directory, "png")]
