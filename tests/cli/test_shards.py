"""Shards on the command line: `run --shard`, `merge`, and `run --engine`."""

from __future__ import annotations

import re
import shlex
import signal
import subprocess
import sys
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np
import psutil
import pytest
import torch

import tl_attnstats as ta
from tests import tiny
from tests.asserting import assert_close
from tests.cli.failing import failure
from tl_attnstats.cli import main

METRICS = ("--metrics", "distance,exemplars,null_share")


@pytest.fixture(autouse=True)
def one_thread() -> Iterator[None]:
    """As many as a worker of Ray has: with another number, float32 is rounded differently."""
    before = torch.get_num_threads()
    torch.set_num_threads(1)
    yield
    torch.set_num_threads(before)


@pytest.fixture(scope="module")
def corpus(tmp_path_factory: Any) -> Path:
    path = Path(tmp_path_factory.mktemp("corpus")) / "corpus.parquet"
    ta.Corpus(tiny.sentences(60, seed=1)).to_file(path)
    return path


def attnstats(*arguments: object) -> None:
    assert main([str(argument) for argument in arguments]) == 0


def assert_same_result(out: Path, expected: Path) -> None:
    """The same files, and the same numbers to 1e-12."""
    assert {path.name for path in out.iterdir()} == {path.name for path in expected.iterdir()}
    found, wanted = ta.load(out / "stats.nc"), ta.load(expected / "stats.nc")
    assert_close(found, wanted, 1e-12)
    assert found.provenance == wanted.provenance
    np.testing.assert_array_equal(found["exemplar_number"].values, wanted["exemplar_number"].values)


def test_shards_are_files_that_merge_to_the_run(model_dir: Path, corpus: Path, tmp_path: Path, capsys: Any) -> None:
    run = ("run", model_dir, "--corpus", corpus, "--batch-tokens", 64, *METRICS)
    attnstats(*run, "--out", tmp_path / "whole")
    capsys.readouterr()
    for number in (2, 3, 1):
        attnstats(*run, "--out", tmp_path / "shards", "--shard", f"{number}/3")
    files = sorted((tmp_path / "shards").iterdir())
    assert all(re.fullmatch(r"shard-0[123]-of-3-[0-9a-f]{12}\.nc", file.name) for file in files)
    assert len(files) == 3
    captured = capsys.readouterr()
    assert re.match(rf"shard 2 of 3, \d+ sentences → {files[1]}\n", captured.out)
    assert captured.err == ""
    before = files[1].stat().st_mtime_ns
    attnstats(*run, "--out", tmp_path / "shards", "--shard", "2/3")
    assert capsys.readouterr().out == f"shard 2 of 3 is there already: {files[1]}\n"
    assert files[1].stat().st_mtime_ns == before
    attnstats(*run, "--out", tmp_path / "shards", "--shard", "2/3", "--fresh")
    assert files[1].stat().st_mtime_ns > before
    attnstats("merge", tmp_path / "shards", "--out", tmp_path / "merged")
    assert f" tokens, source streamed → {tmp_path / 'merged' / 'stats.nc'}\nfigures: " in capsys.readouterr().out
    assert_same_result(tmp_path / "merged", tmp_path / "whole")


def test_a_partial_result_says_so_wherever_it_is_shown(
    model_dir: Path, corpus: Path, tmp_path: Path, capsys: Any
) -> None:
    for number in (1, 3):
        attnstats("run", model_dir, "--corpus", corpus, *METRICS, "--out", tmp_path, "--shard", f"{number}/3")
    line = failure(capsys, "merge", tmp_path, "--out", tmp_path / "out")
    assert line == (
        f"attnstats: {tmp_path}: shard 2 of 3 not found; run what is missing, or pass --partial for a result without "
        f"it\n"
    )
    attnstats("merge", tmp_path, "--out", tmp_path / "out", "--partial")
    assert " tokens, without shard 2 of 3, source" in capsys.readouterr().out
    attnstats("show", tmp_path / "out")
    assert " tokens, without shard 2 of 3 " in " ".join(capsys.readouterr().out.split())
    page = (tmp_path / "out" / "report.html").read_text(encoding="utf-8")
    assert page.count("without shard 2 of 3") == 2  # above, and in the provenance


def test_shards_of_an_encoder_decoder_merge_by_stream(minilm_tokenizer: Any, corpus: Path, tmp_path: Path) -> None:
    model = tmp_path / "tiny-t5"
    tiny.encoder_decoder("T5ForConditionalGeneration", minilm_tokenizer).save_pretrained(model)
    minilm_tokenizer.save_pretrained(model)
    run = ("run", model, "--corpus", corpus, "--limit", 20, "--batch-tokens", 64, "--metrics", "exemplars,null_share")
    attnstats(*run, "--out", tmp_path / "whole")
    for number in (1, 2):
        attnstats(*run, "--out", tmp_path / "shards", "--shard", f"{number}/2")
    attnstats("merge", tmp_path / "shards", "--out", tmp_path / "merged")
    assert {path.name for path in (tmp_path / "merged").iterdir()} == {"encoder", "decoder", "cross"}
    for stream in ("encoder", "decoder", "cross"):
        assert_same_result(tmp_path / "merged" / stream, tmp_path / "whole" / stream)


def test_whole_runs_merge_too(model_dir: Path, tmp_path: Path) -> None:
    for name, seed in (("a", 1), ("b", 2)):
        ta.Corpus(tiny.sentences(5, seed), origin=name).to_file(tmp_path / f"{name}.parquet")
        attnstats("run", model_dir, "--corpus", tmp_path / f"{name}.parquet", *METRICS, "--out", tmp_path / name)
    attnstats("merge", tmp_path / "a", tmp_path / "b" / "stats.nc", "--out", tmp_path / "both")
    assert ta.load(tmp_path / "both" / "stats.nc").provenance["corpus"] == "a + b"


def test_mistakes_of_merge_are_answered_in_a_line(model_dir: Path, corpus: Path, tmp_path: Path, capsys: Any) -> None:
    out = ("--out", tmp_path / "out")
    (tmp_path / "empty").mkdir()
    assert "empty: no files of shards in it; expected shard-*-of-*.nc" in failure(
        capsys, "merge", tmp_path / "empty", *out
    )
    assert "none: no such file" in failure(capsys, "merge", tmp_path / "none", *out)
    assert "the following arguments are required: --out" in failure(capsys, "merge", tmp_path)
    run = ("run", model_dir, "--corpus", corpus, *METRICS, "--out", tmp_path / "shards")
    attnstats(*run, "--shard", "1/2")
    attnstats(*run, "--shard", "2/2", "--null", "none")
    line = failure(capsys, "merge", tmp_path / "shards", *out)
    assert re.match(r"attnstats: \S+/shard-0\d-of-2-\w+\.nc: different null: '\w+' here, '\w+' there; expected", line)
    (broken,) = (tmp_path / "shards").glob("shard-01-*")
    broken.write_bytes(broken.read_bytes()[:-3000])
    assert f"attnstats: {broken}: " in failure(capsys, "merge", tmp_path / "shards", *out)
    assert not (tmp_path / "out" / "stats.nc").exists()


def test_more_shards_than_sentences(model_dir: Path, corpus: Path, tmp_path: Path, capsys: Any) -> None:
    run = ("run", model_dir, "--corpus", corpus, "--limit", 3, *METRICS, "--out", tmp_path)
    assert "n_shards=4: expected 1 to 3, the number of sentences here" in failure(capsys, *run, "--shard", "1/4")
    line = failure(capsys, *run, "--engine", "ray", "--shards", 4)
    assert line.startswith("attnstats: --shards=4: expected 1 to 3, the number of sentences")


@pytest.mark.parametrize(
    ("options", "message"),
    [
        *(
            (f"--shard {given}", f"--shard {given}: expected a shard such as 3/16, from 1/16 to 16/16")
            for given in ("0/4", "5/4", "x", "3", "1/0", "1/4/4", "''")
        ),
        ("--shard -1/4", "--shard: expected one argument"),
        ("--shard 1/4 --engine ray", "--shard: --engine ray runs all shards; leave one of them out"),
        ("--shard 1/4 --save-corpus new.parquet", "--shard: all shards would write --save-corpus; save the corpus"),
        ("--shard 1/4 --no-checkpoint", "--no-checkpoint: does not apply to --shard, which keeps finished shards"),
        ("--engine ray --checkpoint-every 1h", "--checkpoint-every: does not apply to --engine, which keeps finished"),
        ("--engine dask", "--engine dask: expected one of ray"),
        ("--workers 2", "--workers: applies only to --engine"),
        ("--address auto", "--address: applies only to --engine"),
        ("--cpus-per-worker 2", "--cpus-per-worker: applies only to --engine"),
        ("--gpus-per-worker 0.5", "--gpus-per-worker: applies only to --engine"),
        ("--shards 4", "--shards: applies only to --engine"),
        ("--engine ray --workers 0", "--workers 0: expected a positive number"),
        (
            "--engine ray --gpus-per-worker half",
            "--gpus-per-worker half: expected a whole number or a fraction, such as",
        ),
    ],
)
def test_options_are_checked_before_anything_is_loaded(
    text: Path, tmp_path: Path, capsys: Any, monkeypatch: Any, options: str, message: str
) -> None:
    monkeypatch.setattr("tl_attnstats.models.loading.load_model", lambda *a, **k: pytest.fail("too late"))
    line = failure(capsys, "run", "demo", "--text", text, "--out", tmp_path / "out", *shlex.split(options))
    assert line.startswith(f"attnstats: {message}")


def test_ray_that_is_not_installed(text: Path, tmp_path: Path, capsys: Any, monkeypatch: Any) -> None:
    monkeypatch.setitem(sys.modules, "ray", None)
    line = failure(capsys, "run", "demo", "--text", text, "--out", tmp_path / "out", "--engine", "ray")
    assert "--engine='ray': needs the package ray, which is not installed; pip install 'tl-attnstats[ray]'" in line


@pytest.mark.slow
def test_ctrl_c_under_ray_keeps_the_shards_that_are_done(model_dir: Path, corpus: Path, tmp_path: Path) -> None:
    out = tmp_path / "out"
    run = ["run", model_dir, "--corpus", corpus, "--batch-tokens", 1, *METRICS]
    ray = ["--engine", "ray", "--workers", 1, "--cpus-per-worker", 1, "--shards", 10, "--out", out]
    command = [sys.executable, "-m", "tl_attnstats.cli", *map(str, [*run, *ray])]
    process = subprocess.Popen(command, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True)
    while not list((out / "shards").glob("shard-*")):
        assert process.poll() is None, process.communicate()
        time.sleep(0.01)
    workers = psutil.Process(process.pid).children(recursive=True)
    process.send_signal(signal.SIGINT)
    _, error = process.communicate()
    assert process.returncode == 128 + signal.SIGINT, error
    last = error.splitlines()[-1]
    assert re.match(
        rf"attnstats: interrupted after \d of 10 shards, which are kept in {out}/shards; go on with: ", last
    )
    again = shlex.split(last.partition("; go on with: ")[2])
    assert again == ["attnstats", *map(str, [*run, *ray])]
    _, alive = psutil.wait_procs(workers, timeout=30)
    assert alive == []
    before = {file: file.stat().st_mtime_ns for file in (out / "shards").iterdir()}
    assert 1 <= len(before) < 10
    done = subprocess.run(command, capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr
    assert "sentences, " in done.stdout
    attnstats(*run, "--out", tmp_path / "whole")
    assert_same_result(out, tmp_path / "whole")
