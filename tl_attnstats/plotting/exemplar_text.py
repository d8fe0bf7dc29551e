"""Write exemplars as text in a figure, with both tokens marked in a way that survives black-and-white print."""

from __future__ import annotations

import re
import unicodedata
from collections.abc import Mapping
from typing import Any, NamedTuple

import pandas as pd
from matplotlib.axes import Axes
from matplotlib.font_manager import FontProperties
from matplotlib.patches import Rectangle
from matplotlib.textpath import text_to_path

from tl_attnstats.plotting.text import plain
from tl_attnstats.results.marking import elided, pieces, sides

# Points.
FONT_SIZE, LINE, BETWEEN = 8.5, 12.5, 3.0
INDENT = 40.0  # where sentences begin, right of the weights
# A word, or a piece of a long one, so that lines can break inside text without spaces.
WORD = re.compile(r"\s+|\S{1,24}")


class _Chunk(NamedTuple):
    """A word or a piece of one, its start in points from the left, and whether it is in the query or key token."""

    text: str
    x: float
    query: bool = False
    key: bool = False


class ExemplarLines:
    """Sentences broken into lines of a given width. `height` is the height they need, in points.

    A sentence whose first letter is from a right-to-left script runs from right to left.

    Args:
        table: the result of `AttentionStats.exemplars`.
        width: in points.
    """

    def __init__(self, table: pd.DataFrame, width: float):
        self.width = width
        self._sides = sides(table)
        self._rows = [
            (f"{row['weight']:.3f}", _runs_leftwards(str(row["text"])), self._lines(elided(row)))
            for row in table.to_dict("records")
        ]
        n_lines = 1 + sum(len(lines) for _, _, lines in self._rows)
        self.height = (n_lines + 0.5) * LINE + len(self._rows) * BETWEEN

    def draw(self, ax: Axes) -> None:
        """Write the legend and the lines into axes that are `width` points wide. Sets the axes' units to points."""
        ax.set(xlim=(0, self.width), ylim=(self.height, 0))
        ax.axis("off")
        y = LINE
        _write(ax, 0, y, "weight")
        x = INDENT
        for text, query, key in (
            (self._sides[0], True, False),
            ("→", False, False),
            (self._sides[1], False, True),
        ):
            self._mark(ax, _Chunk(text, x, query, key), y)
            x += _width(text) + 8
        for weight, leftwards, lines in self._rows:
            y += BETWEEN
            _write(ax, 0, y + LINE, weight)
            for line in lines:
                y += LINE
                for chunk in line:
                    self._mark(ax, chunk, y, leftwards)

    def _lines(self, row: Mapping[Any, Any]) -> list[list[_Chunk]]:
        lines: list[list[_Chunk]] = [[]]
        x = INDENT
        for piece in pieces(row):
            for text in WORD.findall(piece.text):
                if not text.isspace() and x + _width(text) > self.width and lines[-1]:
                    lines.append([])
                    x = INDENT
                if text.isspace():
                    x += _width(" ")
                else:
                    lines[-1].append(_Chunk(text, x, piece.query, piece.key))
                    x += _width(text)
        return lines

    def _mark(self, ax: Axes, chunk: _Chunk, y: float, leftwards: bool = False) -> None:
        width = _width(chunk.text)
        x = self.width + INDENT - chunk.x - width if leftwards else chunk.x
        _write(ax, x, y, chunk.text)
        if chunk.query:
            ax.add_patch(Rectangle((x - 0.5, y - 8.6), width + 1, 11, fill=False, linewidth=0.8))
        if chunk.key:
            ax.hlines([y + 1.6, y + 3.2], x, x + width, colors="black", linewidth=0.8)


def _write(ax: Axes, x: float, y: float, text: str) -> None:
    ax.text(x, y, plain(text), fontsize=FONT_SIZE, va="baseline")


def _width(text: str) -> float:
    """The advance width of a text in points, independent of the device."""
    font = FontProperties(size=FONT_SIZE)
    shown = plain(text).replace(r"\$", "$")
    # Measure between two letters, because the width of a text alone excludes the space around its ink.
    between, alone = (text_to_path.get_text_width_height_descent(t, font, False)[0] for t in (f"n{shown}n", "nn"))
    return float(between - alone)


def _runs_leftwards(text: str) -> bool:
    strong = (unicodedata.bidirectional(character) for character in text)
    return next((kind != "L" for kind in strong if kind in ("L", "R", "AL")), False)
