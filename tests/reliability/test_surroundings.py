"""Surroundings in which a run has to do without something: memory, a home directory."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest

import tl_attnstats as ta
from tests.reliability import made

LIMITED = """
import os, resource, sys
from pathlib import Path

import tl_attnstats.plotting, tl_attnstats.report
from tl_attnstats import run
from tl_attnstats.cli import main

collect_with = run.collect_with

def limited(*given, **more):
    '''Leave so many bytes from here on.'''
    pages = int(Path("/proc/self/statm").read_text().split()[0])
    limit = pages * resource.getpagesize() + int(sys.argv[1])
    resource.setrlimit(resource.RLIMIT_AS, (limit, limit))
    return collect_with(*given, **more)

run.collect_with = limited
sys.exit(main(sys.argv[2:]))
"""


@pytest.mark.slow
@pytest.mark.skipif(sys.platform != "linux", reason="address space is limited and measured on Linux only")
@pytest.mark.parametrize("megabytes", [20, 100, 300])
@pytest.mark.parametrize("source", ["hooks", "streamed"])
def test_memory_that_runs_out(smollm2_tokenizer: Any, tmp_path: Path, source: str, megabytes: int) -> None:
    """A pattern of a layer takes 32 MB, its twin in float64 as much again: either a line, or the whole result."""
    model = made.model(tmp_path / "model", smollm2_tokenizer, n_positions=2048)
    corpus = tmp_path / "corpus.parquet"
    ta.Corpus.from_token_ids([[n % 1000 + 100 for n in range(start, start + 2000)] for start in (0, 7)]).to_file(corpus)
    arguments = [
        "run",
        model,
        "--corpus",
        corpus,
        "--out",
        tmp_path / "out",
        "--source",
        source,
        "--metrics",
        "entropy",
    ]
    done = subprocess.run(
        [sys.executable, "-c", LIMITED, str(megabytes << 20), *map(str, arguments)],
        capture_output=True,
        text=True,
        check=False,
    )
    print(done.returncode, done.stderr[-600:])
    assert "Traceback" not in done.stderr
    if done.returncode == 0:
        assert ta.load(tmp_path / "out" / "stats.nc").provenance["sequences"] == 2
        return
    assert done.returncode == 2, done.stderr
    assert "memory" in done.stderr.splitlines()[-1]
    assert done.stderr.splitlines()[-1].startswith("attnstats: ")
    assert {path.name for path in (tmp_path / "out").iterdir()} <= {"checkpoint.nc"}


@pytest.mark.slow
@pytest.mark.parametrize("home", [None, "missing", "/dev/null"])
def test_no_home(model: Path, corpus: Path, tmp_path: Path, home: str | None) -> None:
    text = tmp_path / "text.txt"
    text.write_text("The cat sat on the mat.\n")
    home = None if home is None else str(tmp_path / home)  # an absolute path stays as it is
    done = made.attnstats(
        "run", model, "--text", text, "--out", tmp_path / "out", HOME=home, XDG_CACHE_HOME=None, XDG_CONFIG_HOME=None
    )
    assert done.returncode == 0, done.stderr
    assert "Traceback" not in done.stderr
    assert (tmp_path / "out" / "report.html").exists()
