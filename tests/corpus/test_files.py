from __future__ import annotations

import os
import stat
from collections.abc import Iterator
from pathlib import Path

import numpy as np
import pytest

import tl_attnstats as ta
from tl_attnstats.corpus.files import terminal, write_whole


def write(path: str | Path, contents: str, error: BaseException | None = None) -> None:
    """Write all, or fail half-way."""
    with write_whole(path) as temporary:
        temporary.write_text(contents, encoding="utf-8")
        if error is not None:
            raise error


def names(folder: Path) -> list[str]:
    """Everything in a folder, hidden files too."""
    return sorted(entry.name for entry in folder.iterdir())


@pytest.fixture(params=[0o022, 0o077, 0o002])
def umask(request: pytest.FixtureRequest) -> Iterator[int]:
    before = os.umask(request.param)
    yield request.param
    os.umask(before)


def test_write_whole_puts_the_file_in_place(tmp_path: Path) -> None:
    write(tmp_path / "result.json", "new")
    assert (tmp_path / "result.json").read_text(encoding="utf-8") == "new"
    assert names(tmp_path) == ["result.json"]


def test_a_file_is_synced_before_it_gets_its_name_and_the_name_after(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    synced: list[tuple[str, bool]] = []

    def sync(handle: int) -> None:
        kind = "directory" if stat.S_ISDIR(os.fstat(handle).st_mode) else "file"
        synced.append((kind, (tmp_path / "result.json").exists()))

    monkeypatch.setattr(os, "fsync", sync)
    write(tmp_path / "result.json", "new")
    assert synced == [("file", False), ("directory", True)]


def test_write_whole_takes_a_string(tmp_path: Path) -> None:
    write(str(tmp_path / "result.json"), "new")
    assert names(tmp_path) == ["result.json"]


def test_write_whole_replaces_the_old_file(tmp_path: Path) -> None:
    path = tmp_path / "result.json"
    path.write_text("old and longer", encoding="utf-8")
    write(path, "new")
    assert path.read_text(encoding="utf-8") == "new"
    assert names(tmp_path) == ["result.json"]


def test_write_whole_makes_missing_folders(tmp_path: Path) -> None:
    write(tmp_path / "a" / "b" / "result.json", "new")
    assert (tmp_path / "a" / "b" / "result.json").read_text(encoding="utf-8") == "new"


def test_write_whole_shows_nothing_before_the_end(tmp_path: Path) -> None:
    path = tmp_path / "result.nc"
    path.write_text("old", encoding="utf-8")
    with write_whole(path) as temporary:
        temporary.write_text("new", encoding="utf-8")
        assert path.read_text(encoding="utf-8") == "old"
        assert temporary.parent == path.parent  # renaming works within one file system only
        assert temporary.suffix == ".nc"  # some writers choose the format by the suffix
        assert temporary.name.startswith(".")
    assert path.read_text(encoding="utf-8") == "new"


@pytest.mark.parametrize("error", [RuntimeError("disk full"), KeyboardInterrupt("disk full")])
def test_write_whole_leaves_nothing_behind_on_error(tmp_path: Path, error: BaseException) -> None:
    with pytest.raises(type(error), match="disk full"):
        write(tmp_path / "result.json", "half", error)
    assert names(tmp_path) == []


@pytest.mark.parametrize("error", [RuntimeError("disk full"), KeyboardInterrupt("disk full")])
def test_write_whole_keeps_the_old_file_on_error(tmp_path: Path, error: BaseException) -> None:
    path = tmp_path / "result.json"
    path.write_text("old", encoding="utf-8")
    path.chmod(0o640)
    with pytest.raises(type(error), match="disk full"):
        write(path, "half", error)
    assert path.read_text(encoding="utf-8") == "old"
    assert stat.S_IMODE(path.stat().st_mode) == 0o640
    assert names(tmp_path) == ["result.json"]


def test_write_whole_onto_a_folder_leaves_it_alone(tmp_path: Path) -> None:
    (tmp_path / "result").mkdir()
    with pytest.raises(OSError, match="result"):
        write(tmp_path / "result", "new")
    assert names(tmp_path) == ["result"]
    assert names(tmp_path / "result") == []


@pytest.mark.skipif(os.name != "posix", reason="permissions are those of POSIX")
def test_write_whole_gives_the_permissions_of_any_new_file(tmp_path: Path, umask: int) -> None:
    write(tmp_path / "whole", "new")
    (tmp_path / "plain").write_text("new", encoding="utf-8")
    mode = stat.S_IMODE((tmp_path / "whole").stat().st_mode)
    assert mode == 0o666 & ~umask
    assert mode == stat.S_IMODE((tmp_path / "plain").stat().st_mode)


@pytest.mark.skipif(os.name != "posix", reason="permissions are those of POSIX")
def test_write_whole_leaves_the_umask_as_it_was(tmp_path: Path, umask: int) -> None:
    write(tmp_path / "whole", "new")
    assert os.umask(umask) == umask


def test_terminal_is_the_standard_error(capsys: pytest.CaptureFixture[str]) -> None:
    terminal().print("hello")
    captured = capsys.readouterr()
    assert (captured.out, captured.err) == ("", "hello\n")


def test_a_text_with_a_null_character_is_saved(tmp_path: Path) -> None:
    """netCDF cannot store a null character. Exemplar texts contain the symbol for it instead, which is as long."""
    words = tuple(ta.Word(at, at + 1, "X", None, "root") for at in (0, 2))
    pattern = np.array([[[[1.0, 0.0], [0.25, 0.75]]]])
    stats = ta.collect_patterns([(pattern, ta.Sentence("a\0b", words, "null"))], ["exemplars"])
    stats.save(tmp_path / "null.nc")
    assert ta.load(tmp_path / "null.nc")["exemplar_text"].values.tolist() == ["a␀b"]
