from __future__ import annotations

import itertools
from typing import Any

import matplotlib.pyplot as plt
import numpy as np
import pandas as pd
import pytest

import tl_attnstats as ta
from tests.plotting.made import collected
from tl_attnstats.errors import FigureError, MetricError
from tl_attnstats.plotting import relations

TABLE = pd.DataFrame(
    [
        ("det", "from_parent", "L0H1", 0.8, 0.01, "-1", 0.7, 0.02, 400),
        ("obj", "to_parent", "L1H2, L2H0", 0.5, 0.03, "-2, -3", 0.6, 0.04, 50),
        ("rare", "to_parent", "L0H0", np.nan, np.nan, "1", np.nan, np.nan, 30),
        ("$x", "to_parent", "L2H3", 0.9, 0.05, "2", 0.4, 0.06, 1200),
    ],
    columns=["relation", "direction", "head", "accuracy", "se", "best_offset", "offset_accuracy", "offset_se", "pairs"],
)
ORDER = [3, 0, 1]
"""By the gain: 0.5, 0.1, -0.1; one has no accuracy."""


@pytest.fixture
def stats(monkeypatch: pytest.MonkeyPatch) -> ta.AttentionStats:
    monkeypatch.setattr(ta.AttentionStats, "best_relation_heads", lambda self: TABLE)
    return collected(metrics=["relation_accuracy"])


def rows(ax: Any) -> list[str]:
    """The label of each row, from the top."""
    assert list(ax.get_yticks()) == list(range(len(ax.get_yticklabels())))
    assert ax.yaxis_inverted()
    return [label.get_text() for label in ax.get_yticklabels()]


def spreads(bars: Any) -> list[float]:
    return [float((right - left)[0] / 2) for left, right in bars.get_segments()]


def test_relations_draws_accuracies_with_errors_sorted_by_gain(stats: ta.AttentionStats) -> None:
    _, ax = relations(stats)
    assert rows(ax) == [r"\$x to parent", "det from parent", "obj to parent"]
    expected = TABLE.iloc[ORDER]
    drawn = {container.get_label(): container for container in ax.containers}
    for label, value, error in (
        ("best head", "accuracy", "se"),
        ("best fixed offset", "offset_accuracy", "offset_se"),
    ):
        points, _, (bars,) = drawn[label]
        assert list(points.get_xdata()) == list(expected[value])
        assert list(points.get_ydata()) == [0, 1, 2]
        assert spreads(bars) == pytest.approx(list(expected[error]))
    assert ax.get_xlabel() == "accuracy, held out (share of pairs)"


def test_relations_names_heads_offsets_and_pairs_beside_their_rows(stats: ta.AttentionStats) -> None:
    figure, ax = relations(stats)
    figure.canvas.draw()
    by_row: dict[float, list[Any]] = {}
    for text in ax.texts:
        by_row.setdefault(text.xy[1], []).append(text)
    found = {row: [text.get_text() for text in texts] for row, texts in by_row.items()}
    assert found == {
        -1: ["head", "offset (words)", "pairs"],
        0: ["L2H3", "2", "1200"],
        1: ["L0H1", "−1", "400"],
        2: ["L1H2, L2H0", "−2, −3", "50"],
    }
    edge = ax.get_window_extent().x1
    for texts in by_row.values():
        boxes = [text.get_window_extent() for text in texts]
        assert edge < boxes[0].x0
        assert all(a.x1 < b.x0 for a, b in itertools.pairwise(boxes))
        assert boxes[-1].x1 <= figure.bbox.x1
    top = max(text.get_window_extent().y1 for text in by_row[-1])
    assert top <= figure.bbox.y1


def test_relations_of_a_run_has_the_rows_that_have_accuracies() -> None:
    stats = collected(n_sentences=200, metrics=["relation_accuracy"])
    table = stats.best_relation_heads()
    scored = table[table["accuracy"].notna()]
    assert 0 < len(scored) < len(table)
    _, ax = relations(stats)
    assert {*rows(ax)} == {
        f"{r} {d.replace('_', ' ')}" for r, d in zip(scored["relation"], scored["direction"], strict=True)
    }


def test_relations_uses_the_axes_given(stats: ta.AttentionStats) -> None:
    figure, (left, right) = plt.subplots(1, 2)
    assert relations(stats, ax=right) == (figure, right)
    assert not left.containers
    assert plt.get_fignums() == [figure.number]


def test_relations_says_what_is_missing() -> None:
    with pytest.raises(MetricError, match="no relation_accuracy here; collect with metrics that include it"):
        relations(collected(metrics=["distance"]))
    few = "relations: no relation has 20 pairs in either half of the corpus, got 6 sentences, .*; collect over more"
    with pytest.raises(FigureError, match=few):
        relations(collected(metrics=["relation_accuracy"]))
    one = collected(n_sentences=1, metrics=["relation_accuracy"])
    with pytest.raises(FigureError, match="no relation has 20 pairs"):
        relations(one)
    assert not plt.get_fignums()
