"""Imports follow the picture in docs/architecture.md."""

from __future__ import annotations

import ast
import re
from collections.abc import Iterator
from graphlib import TopologicalSorter
from pathlib import Path

import tl_attnstats as ta

ROOT = Path(ta.__file__).parent
DOCS = ROOT.parent / "docs"
TESTS = Path(__file__).parent
MODULES = {
    ".".join(path.relative_to(ROOT).with_suffix("").parts).removesuffix(".__init__"): path
    for path in ROOT.rglob("*.py")
    if path != ROOT / "__init__.py"
}
MOST_LINES = 400


def test_imports_run_right_to_left_along_the_line_of_the_picture() -> None:
    (line,) = re.findall(r"^    (errors ← .*)$", (DOCS / "architecture.md").read_text(encoding="utf-8"), re.MULTILINE)
    place = {room: number for number, room in enumerate(line.split(" ← "))}
    assert set(place) == {module.split(".")[0] for module in MODULES}
    against = [
        f"{module} imports {other}"
        for module in MODULES
        for other in imported(module)
        if place[other.split(".")[0]] > place[module.split(".")[0]]
    ]
    assert against == []


def test_no_two_modules_import_each_other() -> None:
    TopologicalSorter({module: {*imported(module)} - {module} for module in MODULES}).prepare()  # or raises CycleError


def test_the_root_holds_folders_and_little_else() -> None:
    files = {path.name for path in ROOT.iterdir() if path.is_file()}
    assert files == {"__init__.py", "errors.py", "run.py", "py.typed"}


def test_modules_are_short() -> None:
    lines = {module: len(path.read_text(encoding="utf-8").splitlines()) for module, path in MODULES.items()}
    assert {module: n for module, n in lines.items() if n > MOST_LINES} == {}


def test_results_and_figures_import_neither_torch_nor_spacy() -> None:
    rooms = ("results", "plotting", "report")
    heavy = {"torch", "spacy", "transformers", "transformer_lens"}
    found = {
        module: names & heavy for module in MODULES if module.split(".")[0] in rooms and (names := foreign(module))
    }
    assert {module: names for module, names in found.items() if names} == {}


def test_collectors_know_no_model() -> None:
    wrong = [m for m in MODULES if m.startswith("collectors.") and any(o.startswith("models.") for o in imported(m))]
    assert wrong == []


def test_tests_share_code_through_modules_that_hold_no_tests() -> None:
    found = {path.relative_to(TESTS).as_posix(): imported_tests(path) for path in TESTS.rglob("*.py")}
    assert "asserting.py" in found
    assert {path: names for path, names in found.items() if names} == {}


def imported_tests(path: Path) -> list[str]:
    """Modules named test_* that a file imports, or imports from."""
    names = []
    for node in ast.walk(ast.parse(path.read_text(encoding="utf-8"))):
        if isinstance(node, ast.ImportFrom):
            names += [f"{node.module or ''}.{alias.name}" for alias in node.names]
        elif isinstance(node, ast.Import):
            names += [alias.name for alias in node.names]
    return [name for name in names if any(part.startswith("test_") for part in name.split("."))]


def imported(module: str) -> Iterator[str]:
    """Our own modules that a module imports, except for type checkers only."""
    for node in nodes(module):
        if isinstance(node, ast.ImportFrom) and (node.module or "").split(".")[0] == "tl_attnstats":
            name = str(node.module).removeprefix("tl_attnstats").removeprefix(".")
            for alias in node.names:
                whole = f"{name}.{alias.name}".removeprefix(".")
                yield whole if whole in MODULES else name


def foreign(module: str) -> set[str]:
    """Other packages that a module imports."""
    found = {str(node.module).split(".")[0] for node in nodes(module) if isinstance(node, ast.ImportFrom)}
    names = {alias.name for node in nodes(module) if isinstance(node, ast.Import) for alias in node.names}
    return found | {name.split(".")[0] for name in names}


def nodes(module: str) -> Iterator[ast.AST]:
    """All nodes of a module's ast, except those for type checkers only."""
    waiting: list[ast.AST] = [ast.parse(MODULES[module].read_text(encoding="utf-8"))]
    while waiting:
        node = waiting.pop()
        yield node
        if not (isinstance(node, ast.If) and isinstance(node.test, ast.Name) and node.test.id == "TYPE_CHECKING"):
            waiting += ast.iter_child_nodes(node)
