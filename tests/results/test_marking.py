"""Exemplars cut into pieces, elided, and as HTML."""

from __future__ import annotations

import re
from html.parser import HTMLParser
from typing import Any

import pandas as pd
import pytest
from hypothesis import given
from hypothesis import strategies as st

import tl_attnstats as ta
from tests import tiny
from tl_attnstats.results import marking

ROOM = 60


def exemplar(text: str, query: tuple[int, int], key: tuple[int, int]) -> dict[str, Any]:
    return {
        "text": text,
        "query_start": query[0],
        "query_end": query[1],
        "key_start": key[0],
        "key_end": key[1],
    }


def token(row: dict[str, Any], which: str) -> str:
    return str(row["text"])[row[f"{which}_start"] : row[f"{which}_end"]]


@pytest.mark.parametrize(
    ("query", "key", "expected"),
    [
        ((8, 11), (4, 7), [("the ", 0, 0), ("cat", 0, 1), (" ", 0, 0), ("sat", 1, 0)]),
        ((7, 11), (3, 7), [("the ", 0, 0), ("cat", 0, 1), (" ", 0, 0), ("sat", 1, 0)]),  # a space in front
        ((4, 7), (4, 7), [("the ", 0, 0), ("cat", 1, 1), (" sat", 0, 0)]),
        ((4, 11), (4, 7), [("the ", 0, 0), ("cat", 1, 1), (" sat", 1, 0)]),
        ((4, 9), (6, 11), [("the ", 0, 0), ("ca", 1, 0), ("t s", 1, 1), ("at", 0, 1)]),
        ((0, 0), (4, 7), [("the ", 0, 0), ("cat", 0, 1), (" sat", 0, 0)]),  # a special token has no characters to mark
        ((3, 4), (0, 3), [("the", 0, 1), (" cat sat", 0, 0)]),  # nor has a token of white space
    ],
)
def test_pieces_are_cut_where_tokens_begin_and_end(
    query: tuple[int, int], key: tuple[int, int], expected: list[tuple[str, int, int]]
) -> None:
    assert marking.pieces(exemplar("the cat sat", query, key)) == expected


@given(st.data())
def test_elided_keeps_both_tokens_and_little_else(data: st.DataObject) -> None:
    words = data.draw(st.lists(st.text("abcdefgh", min_size=1, max_size=9), min_size=2, max_size=80))
    text = " ".join(words)
    places = [(m.start(), m.end()) for m in re.finditer(r"\S+", text)]
    row = exemplar(text, data.draw(st.sampled_from(places)), data.draw(st.sampled_from(places)))
    short = marking.elided(row, ROOM)
    assert [token(short, which) for which in ("query", "key")] == [token(row, which) for which in ("query", "key")]
    # Both tokens keep their order.
    assert (short["query_start"] < short["key_start"]) == (row["query_start"] < row["key_start"])
    if len(text) <= ROOM:
        assert short == row
        return
    assert len(short["text"]) <= ROOM + 3 * len(marking.ELLIPSIS)
    kept = [part for part in short["text"].split("…") if part.strip()]
    assert all(part.strip() in text for part in kept)
    # Words stay whole, because each is shorter than the room around a token.
    assert set(short["text"].replace("…", " ").split()) <= set(words)
    assert short["text"].startswith("…") != text.startswith(kept[0].strip()) or text.count(kept[0].strip()) > 1


def test_elided_shows_where_text_is_left_out() -> None:
    text = "one two three four five six seven eight nine ten eleven twelve thirteen fourteen fifteen sixteen"
    at = {word: (m.start(), m.end()) for m in re.finditer(r"\w+", text) for word in [m[0]]}
    assert marking.elided(exemplar(text, at["one"], at["sixteen"]), 44)["text"] == "one two … fifteen sixteen"
    middle = marking.elided(exemplar(text, at["eight"], at["seven"]), 44)["text"]
    assert middle == "… six seven eight nine …"


def test_elided_cuts_text_without_spaces_anywhere() -> None:
    row = exemplar("語" * 300, (150, 152), (10, 11))
    short = marking.elided(row, ROOM)
    assert len(short["text"]) <= ROOM + 3 * len(marking.ELLIPSIS)
    assert (token(short, "query"), token(short, "key")) == ("語語", "語")


class Texts(HTMLParser):
    """The text of HTML, and the texts in its spans."""

    def __init__(self, html: str):
        super().__init__()
        self.text, self.marked, self.tags = "", [], []
        self.feed(html)

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        self.tags.append((tag, dict(attrs).get("style")))
        if tag == "span":
            self.marked.append("")

    def handle_data(self, data: str) -> None:
        self.text += data
        if self.get_starttag_text() and self.marked and not self.marked[-1]:
            self.marked[-1] = data


@pytest.mark.parametrize(
    "text", ["<script>alert(1)</script> cat", "a \"b\" & 'c' cat", "שלום עולם cat", "😀👩‍👩‍👧 cat"]
)
def test_html_shows_any_text_as_text(text: str) -> None:
    end = len(text)
    found = Texts(marking.html(exemplar(text, (end - 3, end), (0, 1))))
    assert found.text == text
    assert [tag for tag, _ in found.tags] == ["span", "span"]


def test_html_marks_the_two_tokens_differently() -> None:
    found = Texts(marking.html(exemplar("the cat sat", (8, 11), (4, 7))))
    assert found.marked == ["cat", "sat"]
    assert [style for _, style in found.tags] == [marking.STYLES["key"], marking.STYLES["query"]]
    both = Texts(marking.html(exemplar("the cat sat", (4, 7), (4, 7))))
    ((_, style),) = both.tags
    assert style is not None
    assert all(one in style for one in marking.STYLES.values())
    # Neither is marked by colour.
    assert "color:" not in " ".join(marking.STYLES.values())


@pytest.fixture(scope="module")
def exemplars() -> pd.DataFrame:
    sentences = tiny.sentences(8, seed=3)
    patterns = [tiny.patterns(2, 3, len(s.words), True, s.number) for s in sentences]
    return ta.collect_patterns(zip(patterns, sentences, strict=True), ["exemplars"]).exemplars("L1H2")


def test_a_notebook_shows_exemplars_marked(exemplars: pd.DataFrame) -> None:
    shown = exemplars.head(3)._repr_html_()  # type: ignore[operator]
    assert shown.count("<tr>") == 1 + 3
    for rank, row in enumerate(exemplars.head(3).to_dict("records"), 1):
        assert f"<td>{rank}</td><td>{row['weight']:.3f}</td>" in shown
        assert marking.html(row) in shown
    assert "attending token" in shown


def test_a_notebook_shows_other_columns_as_pandas_does(exemplars: pd.DataFrame) -> None:
    part = exemplars[["weight", "query"]]
    assert part._repr_html_() == pd.DataFrame(part)._repr_html_()  # type: ignore[operator]


def test_exemplars_are_an_ordinary_data_frame(exemplars: pd.DataFrame) -> None:
    assert exemplars["weight"].round(5).is_monotonic_decreasing
    assert isinstance(exemplars.sort_values("sentence"), pd.DataFrame)
    assert len(exemplars.merge(exemplars, on="sentence")) >= len(exemplars)
