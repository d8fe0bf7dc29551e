"""`attnstats view`."""

from __future__ import annotations

import json
import re
from pathlib import Path
from typing import Any

import pytest

from tests.cli.failing import failure
from tests.plotting.made import collected as made_up
from tl_attnstats.cli import main
from tl_attnstats.cli.view import SUFFIXES
from tl_attnstats.plotting.save import UNDATED

SENTENCE = "The cat sat on $5 of mats."


@pytest.mark.parametrize(
    ("suffix", "begins", "options"),
    [
        ("svg", b"<?xml", ["--kind", "head", "--head", "L1H0, L0H1", "--query", "1", "--show-null"]),
        ("png", b"\x89PNG", ["--kind", "neuron", "--head", "L1H1", "--query", "cat", "--bos"]),
        ("pdf", b"%PDF", []),
    ],
)
def test_view_draws_a_text(
    model_dir: Path, tmp_path: Path, capsys: Any, suffix: str, begins: bytes, options: list[str]
) -> None:
    drawn = []
    for name in ("first", "second"):
        out = tmp_path / "new" / f"{name}.{suffix}"
        assert main(["view", SENTENCE, "--model", str(model_dir), *options, "--out", str(out)]) == 0
        drawn.append(out.read_bytes())
        captured = capsys.readouterr()
        assert captured.out == f"{out}\n"
        assert captured.err == ""
    assert drawn[0].startswith(begins)
    assert drawn[0] == drawn[1]


def test_view_options_reach_the_view(model_dir: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    from tl_attnstats import views

    given: list[tuple[Any, dict[str, Any]]] = []

    def spy(attention: Any, **options: Any) -> Any:
        given.append((attention, options))
        return drawn(attention, **options)

    drawn = views.model_view
    monkeypatch.setattr(views, "model_view", spy)
    view = ["view", SENTENCE, "--model", str(model_dir), "--out", str(tmp_path / "view.png")]
    assert main([*view, "--layers", "1", "--no-bos", "--show-null"]) == 0
    assert main([*view, "--bos"]) == 0
    (plain, shown), (bos, hidden) = given
    assert (plain.layers, bos.layers) == ((1,), (0, 1))
    assert "".join(plain.tokens) == SENTENCE
    assert bos.tokens[1:] == plain.tokens
    assert (shown, hidden) == ({"hide_null": False}, {"hide_null": True})


def data_of(page: Path) -> Any:
    (text,) = re.findall(r'<script type="application/json" id="data">(.*?)</script>', page.read_text(encoding="utf-8"))
    return json.loads(text)


def test_view_writes_a_page(model_dir: Path, tmp_path: Path, capsys: Any) -> None:
    out = tmp_path / "new" / "view.html"
    view = ["view", SENTENCE, "--model", str(model_dir), "--out", str(out)]
    assert main(view) == 0
    assert capsys.readouterr().out == f"{out}\n"
    (stream,) = data_of(out)["streams"]
    assert stream["names"] == ["L0H0", "L0H1", "L1H0", "L1H1"]
    assert stream["vectors"]["bits"] == 16
    assert main([*view, "--heads", "L1H1,L1H0", "--second", " It slept.", "--no-bos"]) == 0
    (stream,) = data_of(out)["streams"]
    assert stream["names"] == ["L1H0", "L1H1"]
    tokens, parts = stream["queries"]["tokens"], stream["queries"]["parts"]
    assert "".join(tokens[: parts.index(1)]) == SENTENCE
    assert "".join(tokens[parts.index(1) :]) == " It slept."
    assert main([*view, "--layers", "1"]) == 0
    assert data_of(out)["streams"][0]["names"] == ["L1H0", "L1H1"]


def test_view_names_heads_by_statistics_of_the_same_model(model_dir: Path, tmp_path: Path, capsys: Any) -> None:
    out = tmp_path / "view.html"
    (tmp_path / "sentences.txt").write_text("The cat sat on the mat.\nThe dog slept.\n" * 3, encoding="utf-8")
    run = ["run", str(model_dir), "--text", str(tmp_path / "sentences.txt"), "--metrics", "distance"]
    assert main([*run, "--out", str(tmp_path / "run")]) == 0
    capsys.readouterr()
    view = ["view", SENTENCE, "--model", str(model_dir), "--out", str(out)]
    assert main([*view, "--stats", str(tmp_path / "run")]) == 0
    capsys.readouterr()
    cards = data_of(out)["streams"][0]["cards"]
    assert {*cards} == {"L0H0", "L0H1", "L1H0", "L1H1"}
    assert [name for name, _ in cards["L0H0"]["rows"]] == ["attention distance"]
    made_up().save(tmp_path / "other.nc")
    out.unlink()
    line = failure(capsys, *view, "--stats", tmp_path / "other.nc")
    assert "stats: got statistics of " in line
    assert "but the text is read by" in line
    assert not out.exists()


def test_options_of_figures_are_refused_for_a_page_and_the_other_way_round(tmp_path: Path, capsys: Any) -> None:
    page = ("view", SENTENCE, "--model", "demo", "--out", tmp_path / "view.html")
    for options in (("--kind", "head"), ("--head", "L0H0"), ("--query", "1"), ("--show-null",)):
        assert f"{options[0]}: applies only to figures; in a page" in failure(capsys, *page, *options)
    assert "no such file" in failure(capsys, *page, "--stats", tmp_path / "nothing")
    figure = ("view", SENTENCE, "--model", "demo", "--out", tmp_path / "view.svg")
    for options in (("--stats", tmp_path), ("--heads", "L0H0")):
        line = failure(capsys, *figure, *options)
        assert f"{options[0]}: applies only to a page, got {tmp_path / 'view.svg'}, expected --out FILE.html" in line
    line = failure(capsys, *page, "--heads", "L1H0", "--layers", "0")
    assert "--heads L1H0: layer 1 is not among --layers; leave --layers out, or add it" in line


def test_view_mistakes_are_answered_before_the_model_is_loaded(
    tmp_path: Path, capsys: Any, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("tl_attnstats.models.loading.load_model", lambda *a, **k: pytest.fail("too late"))
    view = ("view", SENTENCE, "--model", "demo", "--out")
    svg = tmp_path / "view.svg"
    assert "view.jpg: got the suffix '.jpg', expected one of .html, .pdf, .png, .svg" in failure(
        capsys, *view, tmp_path / "view.jpg"
    )
    for kind, expected in (
        ("head", "got none, expected one or several comma-separated heads"),
        ("neuron", "got none, expected one head, such"),
    ):
        assert expected in failure(capsys, *view, svg, "--kind", kind)
    several = failure(capsys, *view, svg, "--kind", "neuron", "--head", "L0H0,L1H0")
    assert "--head: --kind neuron got L0H0,L1H0, expected one head, such as L8H6" in several
    assert "--head 8.6: expected a name such as L8H6" in failure(capsys, *view, svg, "--kind", "head", "--head", "8.6")
    assert "the model view shows all heads" in failure(capsys, *view, svg, "--head", "L0H0")
    with_null = failure(capsys, *view, svg, "--kind", "neuron", "--head", "L0H0", "--show-null")
    assert "--show-null applies only to --kind head or model" in with_null
    assert "--layers x: expected numbers" in failure(capsys, *view, svg, "--layers", "x")
    (tmp_path / "file").write_text("in the way")
    assert "cannot write there" in failure(capsys, *view, tmp_path / "file" / "view.svg")
    assert not svg.exists()


def test_view_mistakes_with_the_text_are_answered_in_a_line(model_dir: Path, tmp_path: Path, capsys: Any) -> None:
    svg = tmp_path / "view.svg"
    end = ("--model", model_dir, "--out", svg)
    head = ("--kind", "head", "--head", "L1H0")
    assert "tokens, expected at most 3" in failure(capsys, "view", SENTENCE, *end, "--max-tokens", "3")
    assert "text: got '', which has no tokens" in failure(capsys, "view", "", *end)
    assert "head='L2H0': expected a name from L0H0 to L1H1" in failure(
        capsys, "view", SENTENCE, *end, "--kind", "head", "--head", "L2H0"
    )
    assert "query='dog': not found" in failure(capsys, "view", SENTENCE, *end, *head, "--query", "dog")
    assert "query=77: not found" in failure(capsys, "view", SENTENCE, *end, *head, "--query", "77")
    assert not svg.exists()


@pytest.mark.parametrize(
    ("options", "message"),
    [
        (["--query", ""], "--query '': expected a non-empty text"),
        (["--head", ""], "--head '': expected comma-separated names without duplicates"),
        (["--kind", "head", "--head", "L0H0,,L1H0"], "--head L0H0,,L1H0: expected comma-separated names"),
        (["--kind", "tail"], "--kind tail: expected one of head, model, neuron"),
        (
            ["--kind", "head", "--head", "L1H0", "--layers", "0"],
            "--head L1H0: layer 1 is not among --layers; leave --layers out, or add it",
        ),
        (["--layers", "3-1"], "--layers 3-1: expected ranges from a smaller to a larger number, such as 1-3"),
        (["--max-tokens", "0"], "--max-tokens 0: expected a positive number"),
        (["--max-tokens", "inf"], "--max-tokens inf: expected a positive number"),
        (["--model", "./nonexistent"], "--model: ./nonexistent: no such directory; expected"),
    ],
)
def test_mistakes_with_options_name_them(
    tmp_path: Path, capsys: Any, monkeypatch: pytest.MonkeyPatch, options: list[str], message: str
) -> None:
    monkeypatch.setattr("tl_attnstats.models.loading.load_model", lambda *a, **k: pytest.fail("too late"))
    line = failure(capsys, "view", SENTENCE, "--model", "demo", "--out", tmp_path / "view.svg", *options)
    assert line.startswith(f"attnstats: {message}")


def test_a_directory_in_the_place_of_the_figure(tmp_path: Path, capsys: Any) -> None:
    (tmp_path / "view.svg").mkdir()
    line = failure(capsys, "view", SENTENCE, "--model", "./nonexistent", "--out", tmp_path / "view.svg")
    assert f"--out {tmp_path / 'view.svg'}: a directory of this name already exists" in line


def test_a_layer_that_is_not_there(model_dir: Path, tmp_path: Path, capsys: Any) -> None:
    line = failure(capsys, "view", SENTENCE, "--model", model_dir, "--out", tmp_path / "view.svg", "--layers", "5")
    assert "--layers: got [5], expected some of 0 to 1" in line


def test_suffixes_are_those_of_figures() -> None:
    assert set(SUFFIXES) == set(UNDATED)
