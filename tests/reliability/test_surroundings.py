"""Surroundings in which a run has to do without something: memory, a home directory."""

from __future__ import annotations

import signal
import subprocess
import sys
from pathlib import Path
from typing import Any

import numpy as np
import pytest

import tl_attnstats as ta
from tests.reliability import made
from tl_attnstats.cli import main

# How a library ends the process when it gets no memory: C++ aborts, OpenBLAS exits with 1, the dynamic loader with 127.
ENDED_BY_A_LIBRARY = (-signal.SIGABRT, -signal.SIGSEGV, 1, 127)


@pytest.mark.slow
@pytest.mark.skipif(sys.platform != "linux", reason="address space is limited and measured on Linux only")
@pytest.mark.parametrize("source", ["hooks", "streamed"])
@pytest.mark.parametrize(
    ("megabytes", "batch", "answered"), [(20, 1, False), (50, 1, False), (300, 1, True), (20, 2, True)]
)
def test_memory_that_runs_out(
    smollm2_tokenizer: Any, tmp_path: Path, source: str, megabytes: int, batch: int, answered: bool
) -> None:
    """A pattern of a layer takes 32 MB, its twin in float64 as much again: either a line, or the whole result.

    Libraries take memory of their own during the first batch, and may end the process if they do not get it.
    """
    model = made.model(tmp_path / "model", smollm2_tokenizer, n_positions=2048)
    corpus = tmp_path / "corpus.parquet"
    ta.Corpus.from_token_ids([[n % 1000 + 100 for n in range(start, start + 2000)] for start in (0, 7)]).to_file(corpus)
    given = [
        "run",
        model,
        "--corpus",
        corpus,
        "--source",
        source,
        "--metrics",
        "entropy",
        "--checkpoint-every",
        "0.001s",
    ]
    arguments = [*map(str, given), "--out", str(tmp_path / "out")]
    limited = [sys.executable, "-m", "tests.reliability.memory", str(megabytes << 20), str(batch), *arguments]
    root = Path(ta.__file__).parents[1]
    done = subprocess.run(limited, cwd=root, capture_output=True, text=True, check=False)
    print(done.returncode, done.stderr[-600:])
    assert "Traceback" not in done.stderr
    if done.returncode == 2:
        assert "memory" in done.stderr.splitlines()[-1]
        assert done.stderr.splitlines()[-1].startswith("attnstats: ")
        assert {path.name for path in (tmp_path / "out").iterdir()} <= {"checkpoint.nc", "checkpoint.previous.nc"}
    elif done.returncode != 0:
        assert not answered
        assert done.returncode in ENDED_BY_A_LIBRARY
    # What has a name is whole, and with memory the same command goes on to the result of an undisturbed run.
    for path in (tmp_path / "out").glob("[!.]*.nc"):
        ta.load(path)
    assert main(arguments) == 0
    assert main([*map(str, given), "--out", str(tmp_path / "undisturbed")]) == 0
    found, expected = (ta.load(tmp_path / name / "stats.nc") for name in ("out", "undisturbed"))
    np.testing.assert_allclose(found["entropy"].values, expected["entropy"].values, rtol=1e-5)  # smaller blocks
    assert found.provenance["sequences"] == expected.provenance["sequences"] == 2
    names = [{path.name for path in (tmp_path / name).iterdir()} for name in ("out", "undisturbed")]
    assert names[0] == names[1]


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
