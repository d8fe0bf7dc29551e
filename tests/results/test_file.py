"""The file of a run: what is in it, who can read it, and that damage anywhere is refused."""

from __future__ import annotations

import hashlib
import json
from pathlib import Path

import h5netcdf
import h5py
import numpy as np
import pytest
import xarray as xr

import tl_attnstats as ta
from tests import tiny
from tests.damage import assert_cuts_refused, assert_flips_refused
from tl_attnstats.errors import StatsError
from tl_attnstats.results.file import read_state, write_state
from tl_attnstats.results.flat import flattened, unflattened


@pytest.fixture(scope="module")
def stats() -> ta.AttentionStats:
    patterns = [(tiny.patterns(1, 2, len(s.words), True, 0), s) for s in tiny.sentences(4)]
    return ta.collect_patterns(patterns, ["distance", "pos_to"])


@pytest.fixture
def path(stats: ta.AttentionStats, tmp_path: Path) -> Path:
    stats.save(tmp_path / "stats.nc")
    return tmp_path / "stats.nc"


def test_a_byte_changed_anywhere_is_refused(path: Path) -> None:
    assert_flips_refused(path, ta.load)


def test_a_file_cut_off_or_continued_is_refused(path: Path) -> None:
    assert_cuts_refused(path, ta.load)


def test_a_file_changed_by_another_program_is_refused(path: Path) -> None:
    with h5py.File(path, "a") as file:
        file["distance"][:] = 1
    with pytest.raises(StatsError, match=r"stats\.nc: not a file .*its checksum is missing: .* another program"):
        ta.load(path)


def test_the_last_line_is_the_checksum_of_all_before(path: Path) -> None:
    whole = path.read_bytes()
    assert json.loads(whole[-91:]) == {"sha256 of the rest": hashlib.sha256(whole[:-91]).hexdigest()}


def test_xarray_reads_the_file_as_it_is(stats: ta.AttentionStats, path: Path) -> None:
    for engine in (None, "h5netcdf"):
        with xr.open_dataset(path, engine=engine) as values:
            np.testing.assert_array_equal(values["distance"], stats["distance"])
    with xr.open_dataset(path, group="state/distance", engine="h5netcdf") as state:
        xr.testing.assert_equal(state.load(), stats.run.sums["distance"])


def test_a_state_is_written_without_values(stats: ta.AttentionStats, tmp_path: Path) -> None:
    path = tmp_path / "state.nc"
    write_state(path, stats.run.state_dict(), None)
    assert list(xr.load_dataset(path)) == []
    xr.testing.assert_identical(ta.load(path).dataset, stats.dataset)
    assert_cuts_refused(path, read_state)


def test_a_state_in_one_array_is_the_same_state(stats: ta.AttentionStats, tmp_path: Path) -> None:
    path, state = tmp_path / "state.nc", stats.run.state_dict()
    write_state(path, state, None, quick=True)
    found = read_state(path)
    assert list(found) == list(state)
    for name, part in state.items():
        xr.testing.assert_identical(found[name], part)
        assert all(found[name][v].dtype == part[v].dtype for v in part.variables)
    found["distance"]["a"].values[:] = 0  # not read-only
    xr.testing.assert_identical(ta.load(path).dataset, stats.dataset)
    assert_cuts_refused(path, read_state)


@pytest.mark.parametrize(
    ("old", "new", "error"),
    [
        ('"data": "<f8"', '"data": "|O8"', TypeError("an array of object, expected numbers or texts")),
        ('"shape": [1, 2]', '"shape": [9, 9]', ValueError("buffer is smaller than requested size")),
        ('"dims": ["layer", "head"]', '"dims": ["layer"]', ValueError("Could not convert tuple of form")),
    ],
)
def test_an_array_that_is_not_what_its_index_says(
    stats: ta.AttentionStats, old: str, new: str, error: Exception
) -> None:
    flat = flattened({"distance": stats.run.sums["distance"]})
    index = flat["index"].values.tobytes().decode()
    assert old in index
    flat["index"] = "index_byte", np.frombuffer(index.replace(old, new).encode(), np.uint8)
    with pytest.raises(type(error), match=str(error)):
        unflattened(flat)


@pytest.mark.parametrize(
    ("version", "message"),
    [
        (1, "format 'tl_attnstats 1', expected 'tl_attnstats 3'; make it again, because this version is no longer"),
        (2, None),
        (3, "its checksum is missing: it is cut off, or another program changed it"),
        (4, "format 'tl_attnstats 4' is of a newer version, expected 'tl_attnstats 3'; update tl_attnstats"),
    ],
)
def test_a_file_of_another_version(stats: ta.AttentionStats, path: Path, version: int, message: str | None) -> None:
    path.write_bytes(path.read_bytes()[:-91])
    with h5netcdf.File(path, "a") as file:
        file.attrs["format"] = f"tl_attnstats {version}"
    if message is None:
        xr.testing.assert_identical(ta.load(path).dataset, stats.dataset)
    else:
        with pytest.raises(StatsError, match=rf"stats\.nc: not a file of tl_attnstats \({message}"):
            ta.load(path)
