"""Nothing from a file is executed, controls the terminal, or decides where a file is written."""

from __future__ import annotations

import ast
import csv
import io
from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path
from typing import Any

import matplotlib.pyplot as plt
import pytest

import tl_attnstats as ta
from tests import tiny
from tests.plotting.made import collected
from tl_attnstats.cli import main
from tl_attnstats.cli.common import console
from tl_attnstats.plotting import paper_figures

PACKAGE = Path(ta.__file__).parent
# Modules that execute what they read, or start programs.
MODULES = {
    "pickle",
    "_pickle",
    "marshal",
    "shelve",
    "dill",
    "cloudpickle",
    "joblib",
    "yaml",
    "subprocess",
    "pty",
    "code",
}
BUILT_INS = {"eval", "exec", "compile", "__import__"}
ATTRIBUTES = {
    ("torch", "load"),
    ("torch", "hub"),
    ("os", "system"),
    ("os", "popen"),
    ("np", "load"),
    ("re", "template"),
}
# The modules that import others by names, which stand in the package.
IMPORTERS = {"__init__.py", "collectors/base.py", "engines/__init__.py", "views/text_attention.py"}
HOSTILE = "\x1b]0;owned\x07\x1b[2J\x9b31m\u202e[red]$\\frac[/x]"


def nodes() -> Iterator[tuple[str, ast.AST]]:
    for path in sorted(PACKAGE.rglob("*.py")):
        for node in ast.walk(ast.parse(path.read_text(encoding="utf-8"))):
            yield str(path.relative_to(PACKAGE)), node


def imports_of(node: ast.AST) -> list[str]:
    if isinstance(node, ast.Import):
        return [name.name for name in node.names]
    return [node.module or ""] if isinstance(node, ast.ImportFrom) else []


def test_nothing_that_is_read_is_executed() -> None:
    importers = set()
    for file, node in nodes():
        where = f"{file}:{getattr(node, 'lineno', 0)}"
        for module in imports_of(node):
            assert module.split(".")[0] not in MODULES, f"{where}: {module}"
        if isinstance(node, ast.Name):
            assert node.id not in BUILT_INS, f"{where}: {node.id}"
        if isinstance(node, ast.Attribute) and isinstance(node.value, ast.Name):
            assert (node.value.id, node.attr) not in ATTRIBUTES, f"{where}: {node.value.id}.{node.attr}"
        if isinstance(node, ast.Call) and ast.unparse(node.func).endswith("import_module"):
            importers.add(file)
        if isinstance(node, ast.keyword):
            assert node.arg not in ("trust_remote_code", "allow_pickle", "shell"), f"{where}: {node.arg}"
    assert importers == IMPORTERS


def test_the_check_would_find_them() -> None:
    """The names above are those by which the package imports these modules."""
    aliases = {
        (name.name, name.asname or name.name)
        for _, node in nodes()
        if isinstance(node, ast.Import)
        for name in node.names
        if name.name in ("numpy", "torch", "os")
    }
    assert aliases == {("numpy", "np"), ("torch", "torch"), ("os", "os")}


@pytest.fixture
def forged(tmp_path: Path) -> Path:
    """A file of statistics with a good checksum, and labels that nobody collects."""
    run = collected().run
    behaviour = run.sums["behaviour"]
    sums = {
        **run.sums,
        "behaviour": behaviour.assign_coords(kind=[*behaviour["kind"].values[:-1], "/../../../escaped"]),
    }
    (tmp_path / "a" / "run").mkdir(parents=True)
    replace(run, sums=sums).save(tmp_path / "a" / "run" / "stats.nc")
    return tmp_path / "a" / "run"


def test_a_label_does_not_lead_out_of_the_directory(forged: Path, tmp_path: Path) -> None:
    stats = ta.load(forged / "stats.nc")
    out = tmp_path / "a" / "b" / "out"
    paths = ta.report.write_comparison(ta.compare({"one": stats, "two": stats}), out)
    plt.close("all")
    assert {path.parent for path in paths} == {out}
    assert any("escaped" in path.name for path in paths)
    assert sorted(path.name for path in out.iterdir()) == sorted(path.name for path in paths)
    assert {path.name for path in tmp_path.iterdir()} == {"a"}
    assert {path.name for path in (tmp_path / "a").iterdir()} == {"b", "run"}


def test_a_statistic_named_as_a_path_is_drawn_in_the_directory(tmp_path: Path) -> None:
    stats = collected()
    stats.dataset = stats.dataset.assign({"../../escaped": stats.dataset["distance"].assign_attrs(long_name="escaped")})
    out = tmp_path / "a" / "b"
    assert "../../escaped" in stats.head_statistics
    paths = paper_figures(stats, out, "png")
    plt.close("all")
    assert {path.parent for path in paths} == {out}
    assert sorted(path.name for path in out.iterdir()) == sorted(path.name for path in paths)
    assert {path.name for path in tmp_path.iterdir()} == {"a"}


def hostile(tmp_path: Path) -> Path:
    """Statistics whose model, corpus, labels and texts would rewrite the screen."""
    words = (ta.Word(0, 3, "=SUM(A1)", None, "@x"), ta.Word(4, 9, "[/red]", 0, "-1"), ta.Word(10, 12, "+1", 1, "x"))
    sentence = ta.Sentence(f"cat \x1b[2J  ab {HOSTILE}", words, "hostile")
    stats = ta.collect_patterns(
        [(tiny.patterns(2, 2, 3, True, seed), replace(sentence, number=seed)) for seed in (0, 1)]
    )
    stats = tiny.renamed(stats, model=f"={HOSTILE}", null="first")
    counted = tuple(replace(part, origin=HOSTILE) for part in stats.run.counted)
    (tmp_path / "hostile").mkdir()
    replace(stats.run, counted=counted).save(tmp_path / "hostile" / "stats.nc")
    return tmp_path / "hostile"


def assert_harmless(printed: str) -> None:
    assert not set(printed) & {*map(chr, range(9)), *map(chr, range(11, 32)), *map(chr, range(127, 160)), "\u202e"}


@pytest.mark.parametrize(
    "options",
    [(), ("--head", "L0H1"), ("--top", "distance"), ("--top", "pos_to", "--label", "[/red]"), ("--top", "pos_to")],
)
def test_text_from_a_file_does_not_control_the_terminal(tmp_path: Path, capsys: Any, options: tuple[str, ...]) -> None:
    code = main(["show", str(hostile(tmp_path)), *options])
    printed = capsys.readouterr()
    assert code == (2 if options == ("--top", "pos_to") else 0)
    assert_harmless(printed.out + printed.err)
    if not options:
        assert "]0;owned" in printed.out
        assert "[red]$\\frac[/x]" in printed.out  # not read as markup


def test_a_comparison_of_hostile_names(tmp_path: Path, capsys: Any) -> None:
    run = str(hostile(tmp_path))
    assert main(["compare", run, f"two={run}", "--out", str(tmp_path / "out")]) == 0
    printed = capsys.readouterr()
    assert_harmless(printed.out + printed.err)
    text = (tmp_path / "out" / "claims.csv").read_text(encoding="utf-8")
    table = [*csv.DictReader(io.StringIO(text, newline=""))]
    assert {row["model"] for row in table} == {f"'={HOSTILE}", "two"}
    for row in table:
        for name, cell in row.items():
            if name in ("value", "se", "low", "high"):
                assert cell == "" or float(cell) is not None
            else:
                assert not cell.startswith(("=", "+", "-", "@")), (name, cell)
    page = (tmp_path / "out" / "comparison.html").read_text(encoding="utf-8")
    assert page.count("<script") == 2  # the data and the script


def test_styles_of_the_console_remain(capsys: Any) -> None:
    shown = console()
    shown.file = None
    with shown.capture() as captured:
        shown.print("bold\x1b", style="bold")
    assert captured.get() in ("bold\N{REPLACEMENT CHARACTER}\n", "\x1b[1mbold\N{REPLACEMENT CHARACTER}\x1b[0m\n")


def test_an_error_does_not_control_the_terminal(tmp_path: Path, capsys: Any) -> None:
    path = tmp_path / "\x1b[2Jcorpus.jsonl"
    path.write_text('{"format": "\x9b2J\u202e"}\n', encoding="utf-8")
    assert main(["show", str(path)]) == 2
    assert_harmless(capsys.readouterr().err)
    assert main(["run", "demo", "--corpus", str(path), "--out", str(tmp_path / "out")]) == 2
    assert_harmless(capsys.readouterr().err)
