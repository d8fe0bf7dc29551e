"""Mistakes with `attnstats compare`. What it writes is tested in tests/results/test_compare.py."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest

from tests.cli.failing import failure


@pytest.mark.parametrize(
    ("given", "message"),
    [
        (["=out"], "[NAME=]DIR =out: expected DIR or NAME=DIR"),
        (["name="], "[NAME=]DIR name=: expected DIR or NAME=DIR"),
        ([""], "[NAME=]DIR '': expected a non-empty text"),
        (["nowhere", "name=nowhere"], "nowhere: no such file; expected a file written by attnstats run"),
    ],
)
def test_arguments_that_name_no_statistics_are_refused(
    given: list[str], message: str, tmp_path: Path, capsys: Any
) -> None:
    line = failure(capsys, "compare", *given, "--out", tmp_path / "out")
    assert line.startswith(f"attnstats: {message}")
    assert not (tmp_path / "out").exists()


def test_a_directory_that_cannot_be_written_is_found_before_statistics_are_read(tmp_path: Path, capsys: Any) -> None:
    for name in ("a", "b"):
        (tmp_path / name).mkdir()
        (tmp_path / name / "stats.nc").write_bytes(b"")
    line = failure(capsys, "compare", tmp_path / "a", tmp_path / "b", "--out", tmp_path / "a" / "stats.nc")
    assert "stats.nc: cannot write there (File exists)" in line
