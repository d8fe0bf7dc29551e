"""A run that is killed at any moment goes on to the result of one that was not, and leaves nothing else behind."""

from __future__ import annotations

import json
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest

import tl_attnstats as ta
from tests.reliability import made

KILLS = 25  # in each of two tests, which may run side by side
# What a killed run may leave: its results, checkpoints, lock, and files that it was writing.
NAMED = {
    "stats.nc",
    "report.html",
    "pos_to.png",
    "checkpoint.nc",
    "checkpoint.previous.nc",
    "checkpoint.new.nc",
    ".lock",
}


@pytest.mark.slow
@pytest.mark.parametrize("seed", [1, 2])
def test_a_run_that_was_killed_is_resumed(model: Path, tmp_path: Path, seed: int) -> None:
    """Raises in the other process if a result differs."""
    corpus = made.corpus(tmp_path / "corpus.parquet", 60)
    command = [sys.executable, "-m", "tests.reliability.killing", model, corpus, tmp_path, KILLS, seed]
    root = Path(ta.__file__).parents[1]
    done = subprocess.run([*map(str, command)], cwd=root, capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stdout + done.stderr
    reports: list[dict[str, Any]] = [json.loads(line) for line in done.stdout.splitlines() if line.startswith("{")]
    print(done.stdout)
    assert len(reports) == KILLS
    assert {name for report in reports for name in report["more"]} == set()
    left = {name for report in reports for name in report["left"]}
    assert {name for name in left - NAMED if not name.startswith(tuple(f".{known}." for known in NAMED))} == set()
    # The moments are spread over the life of a run: early ones leave nothing, late ones a checkpoint, and more than
    # a third of them something half written.
    assert sum(report["killed"] for report in reports) >= KILLS - 5
    assert sum(report["resumed"] for report in reports) >= KILLS // 3
    assert any(name.startswith(".checkpoint.new.nc.") for name in left)
