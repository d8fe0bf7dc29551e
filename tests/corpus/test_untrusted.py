from __future__ import annotations

import csv
import io
import unicodedata
from pathlib import Path

import pandas as pd
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from tl_attnstats.corpus.untrusted import cell, file_name, printable


@pytest.mark.parametrize(
    "given",
    [
        "\x1b[2J",  # clears the screen
        "\x1b]0;title\x07",
        "\x9b31m",  # C1: as ESC [
        "\x08\x08\x7f",
        "gpt2\rowned",
        "\u202eabc\u202c",  # reverses the order
        "\u2066abc\u2069",
        "\0",
    ],
)
def test_what_controls_a_terminal_is_replaced(given: str) -> None:
    shown = printable(given)
    assert len(shown) == len(given)
    assert "\N{REPLACEMENT CHARACTER}" in shown
    assert not any(unicodedata.category(character) == "Cc" for character in shown)
    assert not set(shown) & set("\u202a\u202b\u202c\u202d\u202e\u2066\u2067\u2068\u2069")


@pytest.mark.parametrize(
    "given", ["", "a\tb\nc", "Zürich 日本 😀", "👩\u200d👩\u200d👧", "e\u0301", "عربي", "a\u00a0b"]
)
def test_all_other_text_is_shown_as_it_is(given: str) -> None:
    assert printable(given) == given


@settings(max_examples=200, deadline=None)
@given(st.text())
def test_printable_replaces_only_controls(text: str) -> None:
    for before, after in zip(text, printable(text), strict=True):
        assert before == after or (
            after == "\N{REPLACEMENT CHARACTER}" and unicodedata.category(before) in ("Cc", "Cf")
        )


@pytest.mark.parametrize("given", ["=1+1", "+1", "-1", "@SUM(A1)", "\t=1", "\r=1", "\n=1", "=cmd|' /C calc'!A0"])
def test_a_formula_becomes_text(given: str) -> None:
    assert cell(given) == f"'{given}"
    assert cell(f" {given}") == f" {given}"


@pytest.mark.parametrize("given", [-1, -1.5, float("-inf"), None, True, "gpt2", "", "a=1", "1-2"])
def test_numbers_and_other_texts_stay_as_they_are(given: object) -> None:
    assert cell(given) is given


def test_numbers_are_numbers_in_a_csv_file() -> None:
    frame = pd.DataFrame({"model": ["=1+1", "gpt2"], "value": [-1.5, 2.0]}).apply(lambda column: column.map(cell))
    assert list(csv.reader(io.StringIO(frame.to_csv(index=False)))) == [
        ["model", "value"],
        ["'=1+1", "-1.5"],
        ["gpt2", "2.0"],
    ]


@settings(max_examples=300, deadline=None)
@given(st.text() | st.text("./\\:~ \0a"))
def test_a_file_name_stays_in_its_directory(name: str) -> None:
    directory = Path("/directory")
    path = directory / f"{file_name(name)}.png"
    assert path.parent == directory
    assert ".." not in path.parts
    assert not {"/", "\\", "\0", ":", "\n"} & set(path.name)
    assert not file_name(name).startswith(".")


@pytest.mark.parametrize("name", ["distance", "dependency_alignment_head", "head_L10H10", "pos_to_Zürich", "a.b,c+d-e"])
def test_an_ordinary_name_is_kept(name: str) -> None:
    assert file_name(name) == name
