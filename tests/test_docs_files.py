"""docs/files.md names every group, variable and dimension of a file of statistics, and says how to verify it."""

from __future__ import annotations

import json
import re
import shutil
import subprocess
from pathlib import Path
from typing import Any

import h5netcdf
import pytest
import xarray as xr

import tl_attnstats as ta
from tests import tiny
from tl_attnstats.collectors import BUILT_IN
from tl_attnstats.corpus import jsonl, resume, store
from tl_attnstats.results import file

PAGE = (Path(__file__).parents[1] / "docs" / "files.md").read_text(encoding="utf-8")
SUMS = {"a", "b", "aa", "ab", "bb"}


@pytest.fixture(scope="module")
def path(tiny_decoder: Any, tmp_path_factory: pytest.TempPathFactory) -> Path:
    path = tmp_path_factory.mktemp("files") / "stats.nc"
    ta.collect(tiny_decoder, ta.Corpus(tiny.sentences(12)), [*BUILT_IN], source="hooks", progress=False).save(path)
    return path


def rows(heading: str) -> list[list[str]]:
    """The cells of the table whose header begins with `heading`."""
    _, found, rest = PAGE.partition(f"\n| {heading} |")
    assert found, heading
    table = rest.partition("\n\n")[0].split("\n")[2:]
    return [[cell.strip() for cell in row.split("|")[1:-1]] for row in table]


def code(cell: str) -> list[str]:
    return re.findall(r"`([^`]+)`", cell)


def test_the_page_has_every_variable_of_a_file_and_its_dimensions(path: Path) -> None:
    documented = {name: tuple(cell.split(", ")) for names, cell in rows("variable") for name in code(names)}
    values = xr.load_dataset(path)
    found = {str(name): value.dims for name, value in values.data_vars.items() if not str(name).endswith("_se")}
    assert documented == found


def test_the_page_has_every_dimension(path: Path) -> None:
    documented = {name for names, _ in rows("dimension") for name in code(names)}
    assert documented == {str(dim) for dim in xr.load_dataset(path).dims}


def test_the_page_has_every_group_and_what_is_in_it(path: Path) -> None:
    documented = {
        code(group)[0]: {
            f"{name.removesuffix('*')}{s}" for name in code(names) for s in (SUMS if name[-1] == "*" else [""])
        }
        for group, names, _ in rows("group")
    }
    with h5netcdf.File(path) as opened:
        assert list(opened.groups) == ["state"]
        groups = list(opened["state"].groups)
    assert set(groups) == {*BUILT_IN, "run"}
    assert documented.keys() <= {*groups}
    for group in groups:
        found = {str(name) for name in xr.load_dataset(path, group=f"state/{group}").data_vars}
        assert documented.get(group, SUMS) == found, group
    books = xr.load_dataset(path, group="state/run")
    assert set(books.attrs) == {"reading", "said"}


def test_the_page_has_the_formats_of_today() -> None:
    written = [cell for *_, cell in rows("file")]
    assert [code(cell) for cell in written] == [[file.FORMAT], [store.FORMAT], [jsonl.FORMAT]]
    read = {code(names)[0] for names, _, what in rows("format") if what == "read"}
    assert read == {*file.UNSEALED, *store.UNSEALED, *jsonl.UNSEALED}
    assert f"`{resume.FORMAT}`" in PAGE


def test_the_page_has_the_columns_of_parquet() -> None:
    assert sorted(name for names, *_ in rows("column") for name in code(names)) == sorted(store.schema().names)


@pytest.mark.skipif(shutil.which("sha256sum") is None, reason="the command is of GNU")
def test_the_seal_is_verified_as_the_page_says(path: Path) -> None:
    (command,) = re.findall(r"`(head -c [^`]+)`", PAGE)
    printed = subprocess.run(command, shell=True, cwd=path.parent, capture_output=True, text=True, check=True).stdout
    last = subprocess.run("tail -c 91 stats.nc", shell=True, cwd=path.parent, capture_output=True, check=True).stdout
    assert json.loads(last) == {"sha256 of the rest": printed.split()[0]}
    assert len(last) == 91


def test_the_python_of_the_page_runs(path: Path) -> None:
    (block,) = re.findall(r"```python\n(.*?)```", PAGE, re.DOTALL)
    names: dict[str, Any] = {}
    exec(block.replace("out/demo/stats.nc", str(path)).replace("layer=3", "layer=2"), names)
    assert float(names["values"]["distance"].sel(layer=2, head=2)) == float(ta.load(path)["distance"][2, 2])
    names["values"].close()
    names["sums"].close()
