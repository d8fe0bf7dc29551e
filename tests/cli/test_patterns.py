"""The whole patterns of exemplars in the report of `attnstats run`."""

from __future__ import annotations

import json
import re
from pathlib import Path
from typing import Any

import pytest

import tl_attnstats as ta
from tests.cli.failing import failure
from tl_attnstats.cli import main

DATA = re.compile(r'<script type="application/json" id="data">(.*?)</script>', re.DOTALL)


def patterns_in(out: Path) -> Any:
    (data,) = DATA.findall((out / "report.html").read_text(encoding="utf-8"))
    return json.loads(data)["patterns"]


def run(model: Path, text: Path, out: Path, *options: str) -> Path:
    given = ["--metrics", "exemplars,typical_exemplars,distance", *options]
    assert main(["run", str(model), "--text", str(text), "--out", str(out), *given]) == 0
    return out


def test_a_run_writes_the_patterns_of_its_exemplars(model_dir: Path, text: Path, tmp_path: Path) -> None:
    out = run(model_dir, text, tmp_path / "out", "--no-bos", "--null", "none")
    found, stats = patterns_in(out), ta.load(out / "stats.nc")
    for head, numbers in zip(
        [f"L{x}H{y}" for x in stats["layer"].values for y in stats["head"].values], found["heads"], strict=True
    ):
        tables = (stats.exemplars(head), stats.typical_exemplars(head))
        assert numbers == sorted({int(n) for table in tables for n in table["sentence"]})
    assert not any(found["null"].values())


def test_patterns_can_be_left_out(model_dir: Path, text: Path, tmp_path: Path) -> None:
    out = run(model_dir, text, tmp_path / "out", "--no-patterns")
    assert patterns_in(out) is None
    assert main(["report", str(out)]) == 0  # without a model there are none
    assert patterns_in(out) is None


def test_documents_have_none(model_dir: Path, text: Path, tmp_path: Path) -> None:
    assert patterns_in(run(model_dir, text, tmp_path / "out", "--sequence-kind", "document")) is None


@pytest.mark.parametrize(
    ("options", "message"),
    [
        (["--shard", "1/2"], "--no-patterns: has no effect with --shard, which writes no report; leave it out"),
        (["--metrics", "distance"], "--no-patterns: has no effect without exemplars, which are not among --metrics;"),
    ],
)
def test_the_option_is_refused_where_it_has_no_effect(
    capsys: Any, tmp_path: Path, options: list[str], message: str
) -> None:
    assert message in failure(capsys, "run", "demo", "--out", tmp_path / "out", "--no-patterns", *options)
