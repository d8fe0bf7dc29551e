"""`attnstats show`."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest

import tl_attnstats as ta
from tests import tiny
from tests.cli.failing import failure
from tl_attnstats.cli import main
from tl_attnstats.results.numbers import with_error
from tl_attnstats.results.ranking import mean_error


def test_show_prints_tables_and_marked_exemplars(model_dir: Path, text: Path, tmp_path: Path, capsys: Any) -> None:
    out = tmp_path / "out"
    main(["run", str(model_dir), "--text", str(text), "--out", str(out)])
    stats = ta.load(out / "stats.nc")
    capsys.readouterr()
    assert main(["show", str(out)]) == 0
    shown = capsys.readouterr().out
    mean = with_error(stats["null_share"].values.mean(), mean_error(stats, "null_share"))
    assert f"mean over heads {mean}," in shown
    assert "r(distance, entropy)" in shown
    assert main(["show", str(out / "stats.nc"), "--head", "L1H0"]) == 0
    shown = capsys.readouterr().out
    value, error = (stats[name].sel(layer=1, head=0).item() for name in ("distance", "distance_se"))
    assert with_error(value, error) in shown
    best = stats.exemplars("L1H0").iloc[0]
    assert f"[{best['query_text'].strip()}" in shown or f"[{{{best['query_text'].strip()}" in shown
    assert main(["show", str(out), "--top", "pos_to", "--label", "NOUN", "-n", "2"]) == 0
    top = stats.top_heads("pos_to", tag="NOUN", n=2)
    shown = capsys.readouterr().out
    assert all(head in shown for head in top["head"])


@pytest.fixture(scope="module")
def out(tiny_decoder: Any, tmp_path_factory: Any) -> Path:
    """A directory with statistics of every kind, of three layers with four heads."""
    directory: Path = tmp_path_factory.mktemp("out")
    ta.collect(tiny_decoder, ta.Corpus(tiny.sentences(6)), progress=False).save(directory / "stats.nc")
    return directory


@pytest.mark.parametrize(
    ("options", "message"),
    [
        (["--label", "NOUN"], "--label NOUN: applies only to --top STATISTIC, which is missing"),
        (["-n", "3"], "-n 3: applies only to --top STATISTIC, which is missing"),
        (["--head", "L0H0", "-n", "3"], "-n 3: applies only to --top STATISTIC, which is missing"),
        (["--top", "distance", "-n", "0"], "-n 0: expected a positive number"),
        (["--top", "distance", "-n", "-2"], "-n -2: expected a positive number"),
        (["--top", ""], "--top '': expected a non-empty text"),
        (["--head", ""], "--head '': expected a name such as L8H6"),
        (["--head", "8.6"], "--head 8.6: expected a name such as L8H6"),
        (["--head", "L3H0"], "--head='L3H0': expected a name from L0H0 to L2H3"),
        (
            ["--top", "distnace"],
            "--top distnace: no statistic of this name with one value per head; expected alignment_by_position",
        ),
        (["--top", "pos_frequency"], "--top pos_frequency: no statistic of this name with one value per head"),
        (["--top", "mean_pattern"], "--top mean_pattern: no statistic of this name with one value per head"),
        (["--top", "exemplar_text"], "--top exemplar_text: no statistic of this name with one value per head"),
        (["--top", "distance_replicates"], "--top distance_replicates: no statistic of this name with one"),
        (["--top", "distance", "--label", "NOUN"], "--label NOUN: distance has one value per head and takes no label"),
        (["--top", "pos_to"], "--top pos_to: has a value for each tag; choose one with --label: ADJ, NOUN,"),
        (["--top", "pos_to", "--label", "noun"], "--label noun: pos_to has no such tag; expected one of ADJ, NOUN,"),
        (["--top", "pos_to", "--label", ""], "--label '': pos_to has no such tag; expected one of ADJ, NOUN,"),
        (
            ["--top", "offset_profile", "--label", "99"],
            "--label 99: offset_profile has no such offset; expected",
        ),
    ],
)
def test_mistakes_are_answered_in_a_line_that_names_the_option(
    out: Path, capsys: Any, options: list[str], message: str
) -> None:
    assert failure(capsys, "show", out, *options).startswith(f"attnstats: {message}")


def test_what_has_one_value_a_head_can_be_ranked(out: Path, capsys: Any) -> None:
    for options in (
        ["distance"],
        ["distance_se"],
        ["pos_to", "--label", "NOUN"],
        ["dependency_alignment", "--label", "either"],
        ["offset_profile", "--label", "1"],
    ):
        assert main(["show", str(out), "--top", *options, "-n", "12"]) == 0
        assert "L2H3" in capsys.readouterr().out


def test_files_that_are_no_statistics(tmp_path: Path, capsys: Any) -> None:
    assert f"{tmp_path / 'none'}: no such file; expected a file written by attnstats run" in failure(
        capsys, "show", tmp_path / "none"
    )
    for content in (b"", b"CDF", b"\x89HDF\r\n\x1a\n"):
        (tmp_path / "stats.nc").write_bytes(content)
        assert "stats.nc: not a readable file of tl_attnstats (" in failure(capsys, "show", tmp_path)
