from __future__ import annotations

from typing import Any

import matplotlib.pyplot as plt
import numpy as np
import pytest

import tl_attnstats as ta
from tests.plotting.made import collected, without, worth
from tl_attnstats.errors import FigureError, MetricError
from tl_attnstats.plotting import sinks


@pytest.fixture(scope="module")
def stats() -> ta.AttentionStats:
    return worth()


def bars(ax: Any) -> dict[str, float]:
    """The length of each bar by its label, from the top."""
    ticks = dict(zip(ax.get_yticks(), (label.get_text() for label in ax.get_yticklabels()), strict=True))
    found = {ticks[round(bar.get_y() + bar.get_height() / 2)]: bar.get_width() for bar in ax.patches}
    assert ax.yaxis_inverted()
    return found


def test_sinks_draws_heads_and_layer_means(stats: ta.AttentionStats) -> None:
    _, (left, _) = sinks(stats)
    values, errors = stats["sink_share"].values, stats["sink_share_se"].values
    points, error_bars = left.collections
    np.testing.assert_array_equal(points.get_offsets(), [(i, values[i, j]) for i in range(3) for j in range(4)])
    assert left.lines[0].get_ydata() == pytest.approx([sum(row) / 4 for row in values])
    heights = [(upper - lower)[1] / 2 for lower, upper in error_bars.get_segments()]
    assert heights == pytest.approx([sum(row) / 4 for row in errors])
    assert (left.get_xlabel(), left.get_ylabel()) == ("layer", "share of content attention")
    assert left.get_title() == "attention on sinks"
    assert left.get_ylim()[0] == 0


def test_sinks_draws_tokens_by_their_mean_as_they_are_written_in_python(stats: ta.AttentionStats) -> None:
    _, (_, right) = sinks(stats)
    by_token = {
        text: sum(stats["sink_tokens"].values[i, j, place] for i in range(3) for j in range(4)) / 12
        for place, text in enumerate(("' the'", "' '", r"'\$x'", "all others"))
    }
    drawn = bars(right)
    assert drawn == pytest.approx(by_token)
    *named, last = drawn
    assert named == sorted(named, key=lambda text: -by_token[text])
    assert last == "all others"
    assert sum(drawn.values()) == pytest.approx(stats["sink_share"].values.mean())


def test_sinks_draws_as_many_tokens_as_asked_for(stats: ta.AttentionStats) -> None:
    all_of_them = bars(sinks(stats)[1][1])
    first = next(iter(all_of_them))
    drawn = bars(sinks(stats, n=1)[1][1])
    rest = sum(width for text, width in all_of_them.items() if text != first)
    assert drawn == pytest.approx({first: all_of_them[first], "all others": rest})
    with pytest.raises(FigureError, match="n=0: expected a number of tokens from 1"):
        sinks(stats, n=0)


def test_sinks_tells_tokens_of_the_same_text_apart() -> None:
    _, (_, right) = sinks(worth(tokens=("the", "\n", "the", "unbelievably long")))
    assert {*bars(right)} == {"'the' (7)", r"'\n'", "'the' (9)", "'unbelievably lo…'", "all others"}


def test_sinks_without_any_draws_a_bar_of_no_length() -> None:
    stats = collected()
    assert stats["sink_share"].values.max() == 0
    figure, (_, right) = sinks(stats)
    figure.canvas.draw()
    assert bars(right) == {"all others": 0}


def test_sinks_leaves_out_heads_without_a_value() -> None:
    stats = worth()
    for name in ("sink_share", "sink_tokens"):
        stats.dataset[name].values[0, :2] = np.nan
    _, (left, right) = sinks(stats)
    assert left.lines[0].get_ydata()[0] == pytest.approx(stats["sink_share"].values[0, 2:].mean())
    assert sum(bars(right).values()) == pytest.approx(np.nanmean(stats["sink_share"].values))


def test_sinks_uses_the_axes_given(stats: ta.AttentionStats) -> None:
    figure, given = plt.subplots(1, 2)
    assert sinks(stats, axes=given) == (figure, list(given))
    assert plt.get_fignums() == [figure.number]


@pytest.mark.parametrize("name", ["sink_share", "sink_tokens"])
def test_sinks_names_what_is_missing(stats: ta.AttentionStats, name: str) -> None:
    with pytest.raises(MetricError, match=f"no statistic '{name}' here; there are: "):
        sinks(without(stats, name))
    assert not plt.get_fignums()
