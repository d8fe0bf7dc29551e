from __future__ import annotations

from typing import Any

import matplotlib.pyplot as plt
import numpy as np
import pandas as pd
import pytest
from matplotlib.collections import LineCollection
from matplotlib.patches import Rectangle

from tl_attnstats.plotting.exemplar_text import INDENT, LINE, ExemplarLines

WIDTH = 400.0


def table(text: str, query: str, key: str) -> pd.DataFrame:
    spans = {f"{t}_{end}": p for t, w in (("query", query), ("key", key)) for end, p in
             (("start", text.index(w)), ("end", text.index(w) + len(w)))}  # fmt: skip
    return pd.DataFrame([{"weight": 0.5, "text": text, **spans}])


def draw(exemplars: pd.DataFrame, width: float = WIDTH) -> tuple[Any, ExemplarLines]:
    lines = ExemplarLines(exemplars, width)
    figure = plt.figure(figsize=(width / 72, lines.height / 72), dpi=144)
    ax = figure.add_axes((0, 0, 1, 1))
    lines.draw(ax)
    figure.canvas.draw()
    return ax, lines


def words(ax: Any) -> list[Any]:
    """The text below the legend, without the weight."""
    return [t for t in ax.texts if t.get_position()[1] > LINE + 1 and t.get_position()[0] >= INDENT]


def framed(ax: Any) -> list[str]:
    """Framed texts below the legend."""
    frames = [p for p in ax.patches if isinstance(p, Rectangle) and p.get_y() > LINE]
    return [t.get_text() for f in frames for t in words(ax) if _holds(f.get_x(), f.get_width(), f.get_y(), t)]


def _holds(x: float, width: float, y: float, text: Any) -> bool:
    return abs(text.get_position()[0] - x) < 1 and 0 < text.get_position()[1] - y < LINE and width > 0


def underlined(ax: Any) -> list[str]:
    """Texts below the legend that are underlined by two lines of their width."""
    found = []
    for lines in (c for c in ax.collections if isinstance(c, LineCollection)):
        (start, end), (start_2, end_2) = lines.get_segments()
        assert start[0] == start_2[0]
        assert end[0] == end_2[0]
        found += [t.get_text() for t in words(ax)
                  if abs(t.get_position()[0] - start[0]) < 1 and 0 < start[1] - t.get_position()[1] < 4]  # fmt: skip
    return found


def extents(ax: Any) -> list[Any]:
    return [text.get_window_extent() for text in words(ax)]


def test_exemplar_lines_frame_the_attending_and_underline_the_receiving_token() -> None:
    ax, _ = draw(table("the cat sat on unbelievable mats", query="mats", key="believ"))
    assert [t.get_text() for t in words(ax)] == ["the", "cat", "sat", "on", "un", "believ", "able", "mats"]
    assert framed(ax) == ["mats"]
    assert underlined(ax) == ["believ"]
    assert [t.get_text() for t in ax.texts][:4] == ["weight", "attending token", "→", "receiving token"]
    assert "0.500" in [t.get_text() for t in ax.texts]


def test_exemplar_lines_mark_a_token_that_attends_to_itself_twice() -> None:
    ax, _ = draw(table("the cat sat", query="cat", key="cat"))
    assert framed(ax) == underlined(ax) == ["cat"]


def test_exemplar_lines_stand_where_running_text_would() -> None:
    text = "the unbelievable cat"
    ax, _ = draw(table(text, query="believ", key="the"))
    whole = ax.text(INDENT, LINE * 5, text, fontsize=words(ax)[0].get_fontsize()).get_window_extent()
    pixel = 144 / 72
    assert extents(ax)[-1].x1 == pytest.approx(whole.x1, abs=2 * pixel)


def test_exemplar_lines_break_where_the_width_ends() -> None:
    text = " ".join(["word"] * 30)
    ax, lines = draw(table(text, "word", "word"), width=200)
    heights = [t.get_position()[1] for t in words(ax)]
    assert len(set(heights)) > 3
    assert lines.height > LINE * (1 + len(set(heights)))
    frame = ax.get_window_extent()
    assert all(frame.x0 <= box.x0 and box.x1 <= frame.x1 + 1 for box in extents(ax))
    assert all(frame.y0 <= box.y0 and box.y1 <= frame.y1 for box in extents(ax))
    assert [t.get_text() for t in words(ax)] == ["word"] * 30


def test_exemplar_lines_break_text_without_spaces() -> None:
    text = "日本" * 60
    ax, _ = draw(table(text, "日", "本"))
    assert "".join(t.get_text() for t in words(ax)) == "□" * 120  # no font here has these characters
    frame = ax.get_window_extent()
    assert all(box.x1 <= frame.x1 + 1 for box in extents(ax))
    assert len({t.get_position()[1] for t in words(ax)}) > 1


def test_exemplar_lines_run_from_right_to_left_where_the_script_does() -> None:
    ax, _ = draw(table("שלום לכם חברים", query="לכם", key="שלום"))
    first, second, third = extents(ax)
    assert first.x0 > second.x1 > second.x0 > third.x1
    assert ax.get_window_extent().x1 - first.x1 < 5
    assert framed(ax) == ["לכם"]
    ax, _ = draw(table("Zürich שלום 12", query="12", key="שלום"))
    first, second, third = extents(ax)
    assert first.x1 < second.x0 < third.x0


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        ("costs $5 or $6 here", ["c", "osts", r"\$5", "or", r"\$6", "here"]),
        ("x_1^2 $$ \\alpha here", ["x", "_1^2", r"\$\$", "\\alpha", "here"]),
        ("tab\there\nline 😀", ["t", "ab", "here", "line", "😀"]),
        ("\U00013080 \uffff here", ["□", "□", "here"]),
    ],
)
def test_exemplar_lines_draw_any_text_as_it_stands(text: str, expected: list[str]) -> None:
    ax, _ = draw(table(text, query="here", key=text[:1]))
    assert [t.get_text() for t in words(ax)] == expected
    assert framed(ax) == ["here"]
    assert underlined(ax) == [expected[0]]


def test_exemplar_lines_of_a_long_sentence_are_elided() -> None:
    text = "begin " + "filler " * 60 + "cat sat " + "filler " * 60 + "end"
    ax, _ = draw(table(text, query="sat", key="cat"))
    shown = [t.get_text() for t in words(ax)]
    assert "…" in shown
    assert "begin" not in shown
    assert framed(ax) == ["sat"]
    assert underlined(ax) == ["cat"]


def test_exemplar_lines_are_as_high_as_their_text() -> None:
    one, two = (ExemplarLines(pd.concat([table("a cat sat", "sat", "cat")] * n), WIDTH).height for n in (1, 2))
    assert np.isclose(two - one, LINE + 3)
