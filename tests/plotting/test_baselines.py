"""A few figures against images that were checked by eye.

If a figure changes on purpose, look at the file that the failing test names, and replace the baseline with it.
"""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any

import matplotlib as mpl
import matplotlib.pyplot as plt
import pytest
from matplotlib.testing.compare import compare_images

import tl_attnstats as ta
from tests.plotting.made import collected, worth
from tl_attnstats.plotting import (
    alignment_excess,
    behaviours,
    head_card,
    heatmap,
    norms,
    relations,
    relations_by_layer,
    scatter,
    sinks,
)

BASELINES = Path(__file__).parent / "baselines"
TOLERANCE = 3.0
"""Largest root mean square difference of pixels (0 to 255): allows another FreeType version, not another figure."""

DRAWINGS: dict[str, Callable[[ta.AttentionStats], Any]] = {
    "heatmap": lambda stats: heatmap(stats, "distance", side_bar=True, max_error=0.15),
    "relations_by_layer": relations_by_layer,
    "scatter": lambda stats: scatter(stats, "distance", "dependency_alignment", direction="either"),
    "head_card": lambda _: head_card(worth(), "L1H2", n_exemplars=3),
    "alignment_excess": alignment_excess,
    "behaviours": lambda _: behaviours(worth(8, 8)),
    "sinks": lambda _: sinks(worth(8, 8)),
    "norms": lambda _: norms(worth(8, 8)),
    "relations": lambda _: relations(collected(n_sentences=200, metrics=["relation_accuracy"])),
}


@pytest.mark.parametrize("name", DRAWINGS)
def test_figure_looks_like_its_baseline(name: str, tmp_path: Path) -> None:
    drawn = tmp_path / f"{name}.png"
    with mpl.rc_context():
        mpl.rcdefaults()  # matplotlib's own font, whatever this machine is set to
        figure, _ = DRAWINGS[name](collected(n_sentences=30))
        figure.savefig(drawn, dpi=50)
        plt.close(figure)
    assert compare_images(str(BASELINES / drawn.name), str(drawn), TOLERANCE) is None
