"""Text is escaped so that matplotlib draws it as it is, without a warning."""

from __future__ import annotations

import matplotlib as mpl
import matplotlib.pyplot as plt
import pytest

from tl_attnstats.plotting.text import plain, plain_token

ODD = [
    "$x$ and $y$",
    "costs $5",
    r"a \$ and \alpha $",
    "two\nlines\tand\rmore",
    "日本 and more",
    "👨‍👩‍👧 😀",
    "שלום עולם",
    "مرحبا",
    "\x00\x1b",
    "\ud83d",
    "e\u0301",
    "",
]


@pytest.mark.parametrize("text", ODD)
def test_plain_text_is_drawn_on_a_line_without_warnings(text: str) -> None:
    figure, ax = plt.subplots()
    drawn = ax.text(0, 0, plain(text))
    figure.canvas.draw()
    assert drawn.get_window_extent().height < 40  # pixels; one line has about 20


@pytest.mark.parametrize("text", ["$x$ and $y$", "costs $5", r"a \$ and $", "plain", "100% {}_^~&#"])
def test_plain_text_looks_as_it_reads(text: str) -> None:
    """Escaped text is drawn exactly as raw text without formulas."""
    figure, ax = plt.subplots()
    escaped = ax.text(0, 0, plain(text)).get_window_extent()
    raw = ax.text(0, 0, text, parse_math=False).get_window_extent()
    assert escaped.bounds == raw.bounds
    figure.canvas.draw()


@pytest.mark.parametrize(
    ("text", "shown"),
    [("the cat", "the cat"), ("a\nb\tc\r", "a↵b⇥c↵"), ("日本 x", "□□ x"), ("$5", r"\$5"), ("\u00a0x", " x")],
)
def test_plain(text: str, shown: str) -> None:
    assert plain(text) == shown


@pytest.mark.parametrize(
    ("token", "shown"),
    [
        (" the", "the"),
        ("the", "the"),
        (" ", "␣"),
        ("  ", "␣␣"),
        ("  x", "␣x"),
        (" \n", "␣↵"),
        ("New York", "New␣York"),
        ("", ""),
        (" $", r"\$"),
        ("a" * 16, "a" * 16),
        ("a" * 17, "a" * 15 + "…"),
    ],
)
def test_plain_token(token: str, shown: str) -> None:
    assert plain_token(token) == shown


def test_plain_goes_by_the_fonts_in_use() -> None:
    with mpl.rc_context({"font.family": ["no such font", "STIXGeneral"]}):
        assert plain("😀 x") == "□ x"
    with mpl.rc_context({"font.family": ["STIXGeneral", "DejaVu Sans"]}):
        assert plain("😀 x") == "😀 x"
    with mpl.rc_context({"font.family": ["no such font"]}):
        assert plain("x") == "x"
