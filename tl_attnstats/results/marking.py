"""Mark the two tokens in an exemplar's sentence: split it into pieces, shorten it, render it as HTML."""

from __future__ import annotations

from collections.abc import Mapping
from html import escape
from itertools import pairwise
from typing import Any, NamedTuple

import pandas as pd

ELLIPSIS = " … "
MAX_CHARS = 160
"""About two lines in a terminal or on a page."""

# Distinguishable without colour, also in print: one has a frame, the other a double underline.
STYLES = {
    "query": "border: 1px solid currentColor; border-radius: 3px; padding: 0 2px; font-weight: bold",
    "key": "text-decoration: underline double; font-style: italic",
}
SIDES = ("attending token", "receiving token")
CROSS_SIDES = ("attending token, the decoder's", "receiving token, the encoder's")


def sides(table: pd.DataFrame) -> tuple[str, str]:
    """Names of the two tokens in the rows of `AttentionStats.exemplars`."""
    named: tuple[str, str] = table.attrs.get("sides", SIDES)
    return named


class Piece(NamedTuple):
    """A piece of text, and whether it is part of the attending token and of the receiving token."""

    text: str
    query: bool
    key: bool


def spans(row: Mapping[Any, Any]) -> dict[str, tuple[int, int]]:
    """Character spans of the two tokens, without the leading space that many tokenizers include."""
    text = str(row["text"])
    found = {}
    for token in ("query", "key"):
        start, end = int(row[f"{token}_start"]), int(row[f"{token}_end"])
        piece = text[start:end]
        found[token] = (start + len(piece) - len(piece.lstrip()), end - (len(piece) - len(piece.rstrip())))
    return found


def pieces(row: Mapping[Any, Any]) -> list[Piece]:
    """Split the text of an exemplar (a row of `AttentionStats.exemplars`) at the edges of its two tokens."""
    text = str(row["text"])
    places = spans(row)
    (q0, q1), (k0, k1) = places["query"], places["key"]
    cuts = sorted({0, len(text), *(place for span in places.values() if span[0] < span[1] for place in span)})
    return [Piece(text[a:b], q0 <= a and b <= q1, k0 <= a and b <= k1) for a, b in pairwise(cuts)]


def kept(row: Mapping[Any, Any], max_chars: int = MAX_CHARS) -> list[tuple[int, int]]:
    """The parts of an exemplar's text to show: all of it, or only around its two tokens if it is too long."""
    text = str(row["text"])
    if len(text) <= max_chars:
        return [(0, len(text))]
    places = spans(row)
    around = max(0, max_chars - sum(end - start for start, end in places.values())) // 4
    stretches: list[tuple[int, int]] = []
    for start, end in sorted(places.values()):
        left, right = _whole_words(text, start, start - around, -1), _whole_words(text, end, end + around, 1)
        left, right = start - len(text[left:start].lstrip()), end + len(text[end:right].rstrip())
        if stretches and left <= stretches[-1][1] + len(ELLIPSIS):  # too close for an ellipsis
            stretches[-1] = (stretches[-1][0], max(right, stretches[-1][1]))
        else:
            stretches.append((left, right))
    return stretches


def elided(row: Mapping[Any, Any], max_chars: int = MAX_CHARS) -> dict[str, Any]:
    """The exemplar with its text shortened to the surroundings of its two tokens, if longer than `max_chars`."""
    text, places, stretches = str(row["text"]), spans(row), kept(row, max_chars)
    if stretches == [(0, len(text))]:
        return dict(row)
    shorter, new = "", dict(row)
    for left, right in stretches:
        shorter += ELLIPSIS.lstrip() if left and not shorter else ELLIPSIS if shorter else ""
        for token, (start, end) in places.items():
            if left <= start and end <= right:
                new[f"{token}_start"], new[f"{token}_end"] = (place - left + len(shorter) for place in (start, end))
        shorter += text[left:right]
    new["text"] = shorter + (ELLIPSIS.rstrip() if stretches[-1][1] < len(text) else "")
    return new


def _whole_words(text: str, token: int, place: int, direction: int) -> int:
    """Where to cut, at most as far from the token as `place`: at a word boundary if there is one."""
    if not 0 < place < len(text):
        return min(max(place, 0), len(text))
    between = [p for p in range(token, place + direction, direction) if text[p - 1].isspace() != text[p].isspace()]
    return between[-1] if between else place


def html(row: Mapping[Any, Any], max_chars: int = MAX_CHARS) -> str:
    """The sentence as escaped HTML, with its two tokens marked by `STYLES`."""
    parts = []
    for piece in pieces(elided(row, max_chars)):
        style = "; ".join(STYLES[token] for token in ("query", "key") if getattr(piece, token))
        text = escape(piece.text)
        parts.append(f'<span style="{style}">{text}</span>' if style else text)
    return "".join(parts)


class ExemplarTable(pd.DataFrame):
    """A data frame of exemplars that notebooks render as marked sentences."""

    @property
    def _constructor(self) -> type[ExemplarTable]:
        return ExemplarTable

    def _repr_html_(self) -> str | None:
        if not {"weight", "text", "query_start", "query_end", "key_start", "key_end"} <= set(self.columns):
            return pd.DataFrame(self)._repr_html_()  # type: ignore[operator, no-any-return]
        rows = "".join(
            f"<tr><td>{rank}</td><td>{row['weight']:.3f}</td>"
            f'<td dir="auto" style="text-align: left">{html(row)}</td></tr>'
            for rank, row in enumerate(self.to_dict("records"), 1)
        )
        legend = " → ".join(
            f'<span style="{STYLES[token]}">{escape(side)}</span>'
            for token, side in zip(("query", "key"), sides(self), strict=True)
        )
        head = f'<tr><th>rank</th><th>weight</th><th style="text-align: left">{legend}</th></tr>'
        return f"<table><thead>{head}</thead><tbody>{rows}</tbody></table>"
