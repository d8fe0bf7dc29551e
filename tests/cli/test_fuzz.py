"""Whatever is typed behind `attnstats` is answered by an exit code and at most one line of error: never a traceback."""

from __future__ import annotations

import argparse
from pathlib import Path
from typing import Any

import pytest
from hypothesis import strategies as st

import tl_attnstats as ta
from tests import tiny
from tests.corpus.strategies import ODD_STRINGS
from tests.fuzzing import fuzz
from tl_attnstats import report
from tl_attnstats.cli import _parser, main

# What a shell can pass: no null character, and bytes that are not UTF-8 as lone surrogates.
TYPED = [given for given in ODD_STRINGS if "\0" not in given and "\ud800" not in given and len(given) < 100]
VALUES = [
    *(
        "0",
        "-1",
        "1e9",
        "3/4",
        "0/0",
        "4/3",
        "1,2,2",
        "9" * 400,
        "0-99",
        "5-1",
        "L0H0",
        "L99H99",
        "LxHy",
        "NaN",
        "1h",
        "-5s",
    ),
    *(
        "distance",
        "pos_to",
        "entropy,entropy",
        "all",
        "NOUN",
        "none",
        "first",
        "head",
        "self",
        "cpu",
        "cuda:99",
        "float99",
    ),
    *(
        "a=run",
        "=run",
        "a=",
        "run",
        "run/stats.nc",
        "empty",
        "broken.nc",
        "broken.parquet",
        "missing",
        "missing/x",
        "a" * 300,
    ),
    *(
        "text.txt",
        "gold.conllu",
        "corpus.jsonl",
        "corpus.parquet",
        "text.txt/x",
        ".",
        "..",
        "/",
        "~",
        "caf\udce9",
        "*",
        "%s",
        "{}",
    ),
    *("--", "-", "---", "--out", "--help=1", "-n", "@text.txt", "out.svg", "out.png", *TYPED),
]


def parsers() -> dict[str, argparse.ArgumentParser]:
    (commands,) = (action for action in _parser()._actions if isinstance(action, argparse._SubParsersAction))
    return dict(commands.choices)


@st.composite
def typed(draw: st.DrawFn) -> list[str]:
    """A command, some of its real flags, and values that may suit them or not. No model is there to be loaded."""
    name, parser = draw(st.sampled_from(sorted(parsers().items(), key=lambda item: item[0])))
    flags = sorted(option for action in parser._actions for option in action.option_strings)
    value = st.sampled_from(VALUES) | st.text(
        st.characters(exclude_categories=("Cs",), exclude_characters="\0"), max_size=5
    )
    model = st.sampled_from(["./missing", "missing/a/b", "empty/", "text.txt", "broken.gguf", "/", "~"])
    arguments = [*draw(st.lists(model if name in ("run", "models") else value, max_size=3))]
    if name == "view":
        arguments += ["--model", draw(model)]
    for flag in draw(st.lists(st.sampled_from(flags), max_size=5)):
        given = model if flag == "--model" else value
        arguments += draw(st.sampled_from([[flag], [flag, draw(given)], [f"{flag}={draw(given)}"]]))
    arguments = draw(st.permutations(arguments)) if draw(st.booleans()) else arguments
    # "demo" is the only model that would be found, by its name.
    return [name, *(argument for argument in arguments if "demo" not in argument)]


@pytest.fixture
def directory(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, gold_corpus: ta.Corpus) -> Path:
    monkeypatch.chdir(tmp_path)
    (tmp_path / "run").mkdir()
    (tmp_path / "empty").mkdir()
    data = [(tiny.patterns(1, 2, len(s.words), True, 0), s) for s in tiny.sentences(3)]
    ta.collect_patterns(data, ["distance", "pos_to", "exemplars"]).save("run/stats.nc")
    gold_corpus[:3].to_file("corpus.jsonl")
    gold_corpus[:3].to_file("corpus.parquet")
    Path("text.txt").write_text("The cat sat.\n", encoding="utf-8")
    Path("gold.conllu").write_text("1\ta\t_\tX\t_\t_\t0\troot\t_\t_\n", encoding="utf-8")
    for name, source in (
        ("broken.nc", "run/stats.nc"),
        ("broken.parquet", "corpus.parquet"),
        ("broken.gguf", "text.txt"),
    ):
        Path(name).write_bytes(Path(source).read_bytes()[:-20])
    # Figures take seconds.
    monkeypatch.setattr(report, "write_comparison", lambda comparison, out: [Path("page"), Path("table")])
    return tmp_path


def test_anything_typed_is_answered_in_one_line(directory: Path, capsys: Any) -> None:
    codes = set()

    def answer(arguments: list[str]) -> None:
        code = main(arguments)
        printed = capsys.readouterr()
        codes.add(code)
        assert code in (0, 2), arguments
        assert "Traceback" not in printed.err
        if code == 2:
            assert printed.err.startswith("attnstats: ")
            assert printed.err.count("\n") == 1, arguments

    fuzz(300, typed(), answer)
    assert codes == {0, 2}


def test_any_text_is_answered_in_one_line(directory: Path, capsys: Any) -> None:
    def answer(arguments: list[str]) -> None:
        assert main(arguments) == 2
        assert capsys.readouterr().err.count("\n") == 1

    fuzz(100, st.lists(st.text(st.characters(exclude_categories=("Cs",)), min_size=1, max_size=9), max_size=4), answer)


@pytest.mark.parametrize("name", ["a\0b", "\ud800"])
@pytest.mark.parametrize("arguments", [("show",), ("run", "demo", "--out"), ("report",), ("compare", "run", "--out")])
def test_a_path_that_no_system_takes(directory: Path, capsys: Any, arguments: tuple[str, ...], name: str) -> None:
    assert main([*arguments, name]) == 2
    assert "expected a path" in capsys.readouterr().err
