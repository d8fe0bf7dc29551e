from __future__ import annotations

import itertools
import re
from typing import Any

import matplotlib as mpl
import matplotlib.pyplot as plt
import numpy as np
import pytest

from tests.views.inputs import TOKENS, attention
from tl_attnstats.errors import MetricError
from tl_attnstats.views import head_view


def drawn(ax: Any, collection: int = 0) -> dict[tuple[int, int], float]:
    """The opacity of each line, by the tokens it joins."""
    lines = ax.collections[collection]
    found = {}
    for (start, end), color in zip(lines.get_segments(), lines.get_colors(), strict=True):
        assert (start[0], end[0]) == (0, 1)
        found[round(start[1]), round(end[1])] = color[3]
    assert len(found) == len(lines.get_segments())
    return found


def expected(pattern: np.ndarray, null: tuple[int, ...] = ()) -> dict[tuple[int, int], float]:
    """The weights that are visible with eight bits of opacity."""
    n = len(pattern)
    return {
        (i, j): pytest.approx(pattern[i, j])
        for i in range(n)
        for j in range(n)
        if j not in null and pattern[i, j] * 255 >= 1
    }


@pytest.mark.parametrize("causal", [True, False])
def test_head_view_draws_the_weights(causal: bool) -> None:
    given = attention(causal=causal)
    _, ax = head_view(given, "L2H1", hide_null=False)
    assert drawn(ax) == expected(given.pattern[2, 1])


def test_head_view_leaves_out_null_keys_unless_told() -> None:
    given = attention()
    _, ax = head_view(given, "L0H3")
    assert drawn(ax) == expected(given.pattern[0, 3], null=(0,))
    assert ax.get_legend().get_title().get_text() == "grey on the right: null tokens, lines hidden"
    left, right = colors(ax)
    assert right[0] != right[1]
    assert left[0] == left[1]
    _, ax = head_view(given, "L0H3", hide_null=False)
    assert ax.get_legend().get_title().get_text() == ""
    assert len(set(colors(ax)[1])) == 1


def colors(ax: Any) -> tuple[list[str], list[str]]:
    """The colours of the tokens on the left and on the right."""
    (right,) = ax.child_axes
    return [t.get_color() for t in ax.get_yticklabels()], [t.get_color() for t in right.get_yticklabels()]


def test_head_view_finds_heads_by_the_model_s_layers() -> None:
    given = attention(first_layer=7)
    _, ax = head_view(given, "L8H2", hide_null=False)
    assert drawn(ax) == expected(given.pattern[1, 2])


def test_head_view_draws_each_of_several_heads_in_its_colour() -> None:
    given = attention()
    _, ax = head_view(given, ["L0H0", "L2H3", "L1H1"], hide_null=False)
    legend = ax.get_legend()
    assert [text.get_text() for text in legend.get_texts()] == ["L0H0", "L2H3", "L1H1"]
    shown = [mpl.colors.to_rgb(line.get_color()) for line in legend.get_lines()]
    assert len(set(shown)) == 3
    for index, place in enumerate([(0, 0), (2, 3), (1, 1)]):
        assert drawn(ax, index) == expected(given.pattern[place])
        assert {tuple(color[:3]) for color in ax.collections[index].get_colors()} == {shown[index]}
    # Lines of two heads between the same tokens do not coincide.
    heights = [{end for segment in lines.get_segments() for end in segment[:, 1]} for lines in ax.collections]
    assert not (heights[0] & heights[1])
    assert not (heights[1] & heights[2])
    assert not (heights[0] & heights[2])


@pytest.mark.parametrize("query", [4, " $5", "$5"])
def test_head_view_of_one_query(query: Any) -> None:
    given = attention()
    _, ax = head_view(given, "L1H0", query=query)
    everything = expected(given.pattern[1, 0], null=(0,))
    assert drawn(ax) == {pair: weight for pair, weight in everything.items() if pair[0] == 4}
    left, _ = colors(ax)
    assert [place for place, color in enumerate(left) if color == left[4]] == [4]


def test_head_view_writes_tokens_on_both_sides_the_first_at_the_top() -> None:
    figure, ax = head_view(attention(), "L0H0")
    figure.canvas.draw()
    (right,) = ax.child_axes
    labels = ["<s>", "The", "cat", "paid", r"\$5", "to", "the", "□□", "↵", "שלום", "😀", "."]
    for side in (ax, right):
        assert [text.get_text() for text in side.get_yticklabels()] == labels
        heights = [text.get_window_extent().y0 + text.get_window_extent().y1 for text in side.get_yticklabels()]
        assert heights == sorted(heights, reverse=True)
    assert [text.get_text() for text in ax.get_xticklabels()] == ["attending", "receiving"]


def test_head_view_keeps_everything_on_the_page() -> None:
    tokens = ["<|endoftext|>", *(" incomprehensibilities" for _ in range(40)), "."]
    figure, ax = head_view(attention(1, 9, tokens), [f"L0H{head}" for head in range(9)])
    figure.canvas.draw()
    page = figure.bbox
    texts = [*ax.get_yticklabels(), *ax.child_axes[0].get_yticklabels(), *ax.get_legend().get_texts()]
    for text in [*texts, *ax.get_xticklabels()]:
        box = text.get_window_extent()
        assert page.x0 <= box.x0
        assert box.x1 <= page.x1
        assert page.y0 <= box.y0
        assert box.y1 <= page.y1
    heights = [text.get_window_extent() for text in ax.get_yticklabels()]
    assert all(above.y0 >= below.y1 - 1 for above, below in itertools.pairwise(heights))


def test_head_view_uses_the_axes_given() -> None:
    figure, (left, right) = plt.subplots(1, 2)
    assert head_view(attention(), "L0H0", ax=right) == (figure, right)
    assert not left.collections
    assert plt.get_fignums() == [figure.number]


def test_head_view_leaves_style_and_input_alone() -> None:
    given = attention()
    before = given.pattern.copy()
    style = dict(mpl.rcParams)
    figure, _ = head_view(given, "L0H0", query=3)
    figure.canvas.draw()
    assert dict(mpl.rcParams) == style
    np.testing.assert_array_equal(given.pattern, before)


@pytest.mark.parametrize("head", ["L3H0", "L0H4", "8", "L0H01", "l0h0", ""])
def test_head_view_refuses_heads_that_are_not_there(head: str) -> None:
    with pytest.raises(MetricError, match=re.escape(f"head={head!r}: expected a name from L0H0 to L2H3")):
        head_view(attention(), head)
    assert not plt.get_fignums()


def test_head_view_refuses_tokens_that_are_not_there() -> None:
    for query, message in (
        (12, "query=12: not found; expected a position from 0, or a token that occurs once: 0 <s>, 1 The"),
        (-1, "query=-1: not found"),
        ("dog", "query='dog': not found"),
    ):
        with pytest.raises(MetricError, match=re.escape(message)):
            head_view(attention(), "L0H0", query=query)
    with pytest.raises(MetricError, match="query='the': found 2 times, at 6, 12"):
        head_view(attention(tokens=[*TOKENS, "the"]), "L0H0", query="the")
    with pytest.raises(MetricError, match="heads: got none"):
        head_view(attention(), [])
    assert not plt.get_fignums()
