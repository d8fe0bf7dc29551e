"""Compiled loops are kept on disk; files that are damaged, or cannot be written, cost a warning and no more."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any

import numba
import pytest

from tl_attnstats.errors import AttnStatsWarning
from tl_attnstats.models import compiling
from tl_attnstats.models.compiling import compiled


def add_seven(x: int) -> int:
    return x + 7


@pytest.fixture
def make(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Callable[[], Any]:
    """Compiles `add_seven` as a new process would, with its files in `tmp_path`."""
    monkeypatch.setattr(numba.config, "CACHE_DIR", str(tmp_path))
    return lambda: compiled()(add_seven)


def files(directory: Path) -> list[Path]:
    return sorted(path for path in directory.rglob("*") if path.is_file())


def hits(function: Any) -> int:
    return sum(function.stats.cache_hits.values())


def test_what_was_compiled_is_kept(make: Callable[[], Any], tmp_path: Path) -> None:
    first, second = make(), make()
    assert (first(1), hits(first)) == (8, 0)
    assert [path.suffix for path in files(tmp_path)] == [".nbc", ".nbi"]
    assert (second(1), hits(second)) == (8, 1)


@pytest.mark.parametrize("suffix", [".nbc", ".nbi"])
@pytest.mark.parametrize("place", [0, 0.5, -1])
def test_a_flipped_byte_is_compiled_again(make: Callable[[], Any], tmp_path: Path, suffix: str, place: float) -> None:
    make()(1)
    (path,) = (path for path in files(tmp_path) if path.suffix == suffix)
    content = bytearray(path.read_bytes())
    content[int(place * len(content)) if 0 < place < 1 else int(place)] ^= 1
    path.write_bytes(content)
    again, healed = make(), make()
    with pytest.warns(AttnStatsWarning, match=r"compiled kernels: .* is damaged\); compiling them takes some seconds"):
        assert again(1) == 8
    assert (healed(1), hits(healed)) == (8, 1)


def test_a_file_that_is_cut_off_or_empty_is_compiled_again(make: Callable[[], Any], tmp_path: Path) -> None:
    make()(1)
    for path in files(tmp_path):
        path.write_bytes(path.read_bytes()[: 50 if path.suffix == ".nbi" else 0])
    with pytest.warns(AttnStatsWarning, match="is damaged"):
        assert make()(1) == 8


def test_a_file_that_cannot_be_written_is_said(make: Callable[[], Any], monkeypatch: pytest.MonkeyPatch) -> None:
    def full(self: Any, *_: Any) -> None:
        raise OSError(28, "No space left on device")

    monkeypatch.setattr(compiling._Files, "save", full)
    with pytest.warns(AttnStatsWarning, match=r"No space left on device\); compiling them takes some seconds"):
        assert make()(1) == 8


def test_without_a_folder_that_can_be_written_to_nothing_is_kept(monkeypatch: pytest.MonkeyPatch) -> None:
    def refuse(function: Any) -> None:
        raise RuntimeError("cannot cache function 'add_seven': no locator available")

    monkeypatch.setattr(compiling, "_Cache", refuse)
    assert compiled()(add_seven)(1) == 8
