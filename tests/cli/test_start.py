"""Help and mistakes are answered without importing the libraries that take seconds to load."""

from __future__ import annotations

import ast
import os
import subprocess
import sys
from importlib.metadata import version
from pathlib import Path
from typing import Any

import pytest

import tl_attnstats as ta
from tl_attnstats.cli import main

HEAVY = (
    "torch",
    "transformers",
    "transformer_lens",
    "spacy",
    "matplotlib",
    "scipy",
    "numba",
    "xarray",
    "pandas",
    "pyarrow",
)


def loaded_after(code: str) -> set[str]:
    """Which heavy libraries a new interpreter has loaded after running this."""
    then = f"\nimport sys; print('loaded:', *(set(sys.modules) & set({HEAVY!r})))"
    done = subprocess.run([sys.executable, "-c", code + then], capture_output=True, text=True, check=True)
    return set(done.stdout.split("loaded:")[1].split())


def test_the_package_loads_no_heavy_library() -> None:
    assert loaded_after("import tl_attnstats") == set()


@pytest.mark.parametrize(
    ("arguments", "code"),
    [
        (["--help"], 0),
        (["--version"], 0),
        (["run", "--help"], 0),
        (["run", "demo", "--out", "out", "--nonsense"], 2),
        (["run", "demo", "--out", "out", "--layers", "5-2"], 2),
        (["run", "demo", "--out", "out", "--metrics", "nonsense"], 2),
        (["run", "demo", "--out", "out", "--dtype", "int3"], 2),
        (["run", "./nonexistent", "--out", "out"], 2),
        (["show", "nonexistent"], 2),
        (["view", "a text", "--model", "./nonexistent", "--out", "view.svg"], 2),
    ],
)
def test_help_and_mistakes_load_no_heavy_library(arguments: list[str], code: int, tmp_path: Path) -> None:
    run = (
        f"import os; os.chdir({str(tmp_path)!r}); from tl_attnstats.cli import main; assert main({arguments}) == {code}"
    )
    assert loaded_after(run) == set()


def test_a_corpus_needs_no_spacy_until_it_annotates() -> None:
    conllu = Path(__file__).parents[1] / "data" / "sample.conllu"
    assert "spacy" not in loaded_after(f"import tl_attnstats as ta; ta.Corpus.from_conllu({str(conllu)!r})")


def test_every_name_of_the_package_is_there() -> None:
    for name in ta.__all__:
        assert getattr(ta, name).__name__.removeprefix("tl_attnstats.") == name if name != "DEFAULT_METRICS" else True
        assert name in dir(ta)
    with pytest.raises(AttributeError, match="module 'tl_attnstats' has no attribute 'nonsense'"):
        ta.nonsense  # type: ignore[attr-defined]  # noqa: B018
    assert callable(ta.compare)  # not the module of the same name


def test_names_for_type_checkers_are_those_that_are_loaded() -> None:
    tree = ast.parse(Path(ta.__file__).read_text(encoding="utf-8"))
    (block,) = (node for node in tree.body if isinstance(node, ast.If) and isinstance(node.test, ast.Name))
    seen = {
        alias.name: str(node.module).removeprefix("tl_attnstats").removeprefix(".")
        for node in block.body
        if isinstance(node, ast.ImportFrom)
        for alias in node.names
    }
    assert seen == ta._MODULE_OF  # type: ignore[attr-defined]
    assert sorted(seen) == sorted(ta.__all__)
    assert (Path(ta.__file__).parent / "py.typed").is_file()


def test_version(capsys: Any) -> None:
    assert main(["--version"]) == 0
    assert capsys.readouterr().out == f"attnstats {version('tl-attnstats')}\n"


def test_the_package_of_the_command_can_be_run() -> None:
    command = [sys.executable, "-m", "tl_attnstats.cli", "--version"]
    assert subprocess.run(command, capture_output=True, text=True, check=True).stdout.startswith("attnstats ")


def test_output_that_cannot_show_every_character() -> None:
    command = [sys.executable, "-m", "tl_attnstats.cli", "run", "--help"]
    done = subprocess.run(command, capture_output=True, text=True, env=os.environ | {"PYTHONIOENCODING": "ascii"})
    assert (done.returncode, done.stderr) == (0, "")
    assert "encoder?decoder" in done.stdout


@pytest.mark.skipif(os.name != "posix", reason="pipes are those of POSIX")
def test_output_that_nobody_reads_to_its_end() -> None:
    read, write = os.pipe()
    os.close(read)
    command = [sys.executable, "-m", "tl_attnstats.cli", "--version"]
    done = subprocess.run(command, stdout=write, stderr=subprocess.PIPE, text=True)
    os.close(write)
    assert (done.returncode, done.stderr) == (1, "")
