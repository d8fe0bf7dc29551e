"""`attnstats run` that is stopped goes on where it was, and has its directory to itself."""

from __future__ import annotations

import os
import re
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest

import tl_attnstats as ta
from tests import tiny
from tests.asserting import assert_resumed
from tests.cli.failing import failure
from tl_attnstats import run
from tl_attnstats.cli import main
from tl_attnstats.errors import HookError

METRICS = ["--metrics", "exemplars,bootstrap,pos_to"]

SIGNALLED = """
import os, signal, sys
from tl_attnstats import run
from tl_attnstats.cli import main

signal.signal(signal.SIGINT, signal.default_int_handler)  # which a shell's background job is without
collect, seen = run.Collectors.run, []

def signalled(self, batch):
    seen.append(batch)
    if len(seen) == 3:
        os.kill(os.getpid(), int(sys.argv[1]))
    collect(self, batch)

run.Collectors.run = signalled
sys.exit(main(sys.argv[2:]))
"""


@pytest.fixture(scope="module")
def corpus(tmp_path_factory: Any) -> Path:
    path = Path(tmp_path_factory.mktemp("corpus")) / "corpus.parquet"
    ta.Corpus(tiny.sentences(30, seed=1)).to_file(path)
    return path


def stop_before(
    n: int, monkeypatch: pytest.MonkeyPatch, error: BaseException | type[BaseException] = KeyboardInterrupt
) -> None:
    """Raise before the batch number n of the next run."""
    original, seen = run.Collectors.run, []

    def stop(self: run.Collectors, batch: Any) -> None:
        if len(seen) == n:
            raise error
        seen.append(batch)
        original(self, batch)

    monkeypatch.setattr(run.Collectors, "run", stop)


def command(model: Path, corpus: Path, out: Path, *more: str) -> list[str]:
    return ["run", str(model), "--corpus", str(corpus), "--out", str(out), "--batch-tokens", "64", *METRICS, *more]


@pytest.fixture
def interrupted(model_dir: Path, corpus: Path, tmp_path: Path, capsys: Any) -> Path:
    """The directory of a run that was stopped before its fourth batch, with a checkpoint after the third."""
    out = tmp_path / "out"
    with pytest.MonkeyPatch.context() as patch:
        stop_before(3, patch)
        assert main(command(model_dir, corpus, out, "--checkpoint-every", "1us")) == 130
    assert sorted(path.name for path in out.iterdir()) == ["checkpoint.nc", "checkpoint.previous.nc"]
    capsys.readouterr()
    return out


@pytest.mark.parametrize(("number", "code"), [(2, 130), (15, 143)])
def test_a_signal_leaves_a_checkpoint_and_the_line_that_goes_on(
    model_dir: Path, corpus: Path, tmp_path: Path, capsys: Any, number: int, code: int
) -> None:
    out = tmp_path / "out put"
    arguments = command(model_dir, corpus, out, "--fresh")
    done = subprocess.run(
        [sys.executable, "-c", SIGNALLED, str(number), *arguments], stderr=subprocess.PIPE, text=True, check=False
    )
    assert done.returncode == code, done.stderr
    again = " ".join(arguments[:-1]).replace(str(out), f"'{out}'")
    assert re.fullmatch(
        rf"attnstats: interrupted after \d+ of 30 sentences; go on with: attnstats {re.escape(again)}\n", done.stderr
    )
    assert [path.name for path in out.iterdir()] == ["checkpoint.nc"]
    assert main(arguments[:-1]) == 0
    assert re.search(rf"going on from {out / 'checkpoint.nc'}, after \d+ sentences\n", capsys.readouterr().err)
    assert sorted(path.name for path in out.iterdir()) == ["pos_to.png", "report.html", "stats.nc"]
    assert main(command(model_dir, corpus, tmp_path / "undisturbed")) == 0
    assert_resumed(ta.load(out / "stats.nc"), ta.load(tmp_path / "undisturbed" / "stats.nc"))


def test_another_run_is_refused_and_fresh_starts_anew(
    model_dir: Path, corpus: Path, interrupted: Path, capsys: Any
) -> None:
    kept = (interrupted / "checkpoint.nc").read_bytes()
    line = failure(capsys, *command(model_dir, corpus, interrupted, "--no-bos"))
    assert "checkpoint.nc is of another run (state: different" in line
    assert "give the same arguments to go on, or start anew with --fresh" in line
    assert "different sentences: 30 there, 20 here" in failure(
        capsys, *command(model_dir, corpus, interrupted, "--limit", "20")
    )
    assert (interrupted / "checkpoint.nc").read_bytes() == kept
    assert main(command(model_dir, corpus, interrupted, "--no-bos", "--fresh")) == 0
    captured = capsys.readouterr()
    assert captured.err == ""
    assert ta.load(interrupted / "stats.nc").provenance["sequences"] == 30
    assert sorted(path.name for path in interrupted.iterdir()) == ["pos_to.png", "report.html", "stats.nc"]


@pytest.mark.parametrize("error", [HookError("infinite attention in layer 1"), MemoryError()])
def test_an_error_in_a_batch_keeps_what_came_before(
    model_dir: Path, corpus: Path, tmp_path: Path, capsys: Any, monkeypatch: Any, error: Exception
) -> None:
    out = tmp_path / "out"
    with monkeypatch.context() as patch:
        stop_before(3, patch, error)
        line = failure(capsys, *command(model_dir, corpus, out))
    assert re.match(
        r"attnstats: (infinite attention in layer 1|out of memory \(MemoryError\); free some, .*); go on with: ", line
    )
    assert [path.name for path in out.iterdir()] == ["checkpoint.nc"]
    assert main(command(model_dir, corpus, out)) == 0
    assert ta.load(out / "stats.nc").provenance["sequences"] == 30


def test_two_damaged_checkpoints_are_answered_in_a_line(
    model_dir: Path, corpus: Path, interrupted: Path, capsys: Any
) -> None:
    for path in interrupted.iterdir():
        path.write_bytes(path.read_bytes()[:-50])
    line = failure(capsys, *command(model_dir, corpus, interrupted))
    assert re.search(r"checkpoint\.nc: .*; start anew with --fresh\n", line)


def test_no_checkpoint(model_dir: Path, corpus: Path, tmp_path: Path, capsys: Any, monkeypatch: Any) -> None:
    stop_before(3, monkeypatch)
    assert main(command(model_dir, corpus, tmp_path / "out", "--no-checkpoint")) == 130
    assert re.fullmatch(
        r"attnstats: interrupted after \d+ of 30 sentences; nothing was written\n", capsys.readouterr().err
    )
    assert list((tmp_path / "out").iterdir()) == []


def test_options_without_effect_and_wrong_times_are_refused(
    model_dir: Path, corpus: Path, tmp_path: Path, capsys: Any
) -> None:
    given = command(model_dir, corpus, tmp_path / "out")
    assert "--fresh: has no effect with --no-checkpoint" in failure(capsys, *given, "--fresh", "--no-checkpoint")
    both = ("--checkpoint-every", "1h", "--no-checkpoint")
    assert "--checkpoint-every: has no effect with --no-checkpoint" in failure(capsys, *given, *both)
    line = failure(capsys, *given, "--checkpoint-every", "soon")
    assert "--checkpoint-every 'soon': expected a duration such as" in line
    assert list((tmp_path).iterdir()) == []


CHILD = """
import os, signal, sys, time
from pathlib import Path
from tl_attnstats.cli.resume import alone_in

with alone_in(Path(sys.argv[1])):
    ready, begun = os.pipe()
    child = os.fork()
    if child == 0:
        os.write(begun, b".")
        while True:
            time.sleep(0.1)
    os.read(ready, 1)  # Python drops a signal that comes while it forks
    os.kill(child, signal.SIGTERM)
    print(os.waitstatus_to_exitcode(os.waitpid(child, 0)[1]))
"""


def test_sigterm_ends_processes_of_the_annotator_as_usual(tmp_path: Path) -> None:
    done = subprocess.run([sys.executable, "-c", CHILD, tmp_path], capture_output=True, text=True, check=True)
    assert (done.stdout, done.stderr) == ("-15\n", "")


HOLDING = """
import sys, time
from pathlib import Path
from tl_attnstats.cli.resume import alone_in

with alone_in(Path(sys.argv[1])):
    print(flush=True)
    time.sleep(60)
"""


def test_a_second_run_into_a_directory_is_refused_until_the_first_one_is_gone(
    model_dir: Path, corpus: Path, tmp_path: Path, capsys: Any
) -> None:
    holder = subprocess.Popen([sys.executable, "-c", HOLDING, tmp_path], stdout=subprocess.PIPE)
    try:
        assert holder.stdout is not None
        holder.stdout.readline()
        line = failure(capsys, *command(model_dir, corpus, tmp_path))
        assert f"--out {tmp_path}: another attnstats run (process {holder.pid}) is writing there; wait" in line
        assert not (tmp_path / "checkpoint.nc").exists()
    finally:
        holder.kill()
        holder.communicate()
    assert (tmp_path / ".lock").exists()
    assert main(command(model_dir, corpus, tmp_path)) == 0
    assert sorted(path.name for path in tmp_path.iterdir()) == ["pos_to.png", "report.html", "stats.nc"]


def test_what_a_killed_run_was_writing_is_swept_away(model_dir: Path, corpus: Path, tmp_path: Path) -> None:
    names = (".stats.nc.abcdefgh.nc", ".distance.png.x_y_z_01.png", ".report.html.00000000.html")
    for name in (*names, ".mine.png", "notes.txt"):
        (tmp_path / name).touch()
    assert main(command(model_dir, corpus, tmp_path)) == 0
    kept = {".mine.png", "notes.txt"}
    assert {path.name for path in tmp_path.iterdir()} == kept | {"pos_to.png", "report.html", "stats.nc"}


def test_a_directory_that_was_removed_is_made_again(
    model_dir: Path, corpus: Path, tmp_path: Path, capsys: Any, monkeypatch: Any
) -> None:
    import shutil

    out, original, seen = tmp_path / "out", run.Collectors.run, []

    def remove(self: run.Collectors, batch: Any) -> None:
        if len(seen) == 2:
            shutil.rmtree(out)
        seen.append(batch)
        original(self, batch)

    monkeypatch.setattr(run.Collectors, "run", remove)
    assert main(command(model_dir, corpus, out, "--checkpoint-every", "1us")) == 0
    assert sorted(path.name for path in out.iterdir()) == ["pos_to.png", "report.html", "stats.nc"]
    assert ta.load(out / "stats.nc").provenance["sequences"] == 30


def test_a_stream_that_is_done_is_not_run_again(
    minilm_tokenizer: Any, corpus: Path, tmp_path: Path, monkeypatch: Any, capsys: Any
) -> None:
    model = tmp_path / "tiny-t5"
    tiny.encoder_decoder("T5ForConditionalGeneration", minilm_tokenizer).save_pretrained(model)
    minilm_tokenizer.save_pretrained(model)
    given = ["run", str(model), "--corpus", str(corpus), "--metrics", "null_share", "--batch-tokens", "128"]
    assert main([*given, "--out", str(tmp_path / "undisturbed")]) == 0
    original, streams = run.Collectors.run, []

    def stop(self: run.Collectors, batch: Any) -> None:
        streams.append(self.info.stream)
        if len(streams) == n_batches + 3:
            raise KeyboardInterrupt
        original(self, batch)

    n_batches = 1000
    monkeypatch.setattr(run.Collectors, "run", stop)
    assert main([*given, "--out", str(tmp_path / "counted"), "--no-checkpoint", "--stream", "encoder"]) == 0
    n_batches = len(streams)
    streams.clear()
    assert main([*given, "--out", str(tmp_path / "out"), "--checkpoint-every", "1us"]) == 130
    assert "go on with: attnstats run" in capsys.readouterr().err
    assert (tmp_path / "out" / "encoder" / "stats.nc").exists()
    n_batches = 1000
    streams.clear()
    assert main([*given, "--out", str(tmp_path / "out")]) == 0
    assert "encoder" not in streams
    for stream in ("encoder", "decoder", "cross"):
        found, undisturbed = (tmp_path / name / stream for name in ("out", "undisturbed"))
        assert_resumed(ta.load(found / "stats.nc"), ta.load(undisturbed / "stats.nc"))
        assert {path.name for path in found.iterdir()} == {path.name for path in undisturbed.iterdir()}


def test_the_lock_names_no_process_that_it_cannot_read(tmp_path: Path) -> None:
    from tl_attnstats.cli.resume import alone_in

    with alone_in(tmp_path):
        assert (tmp_path / ".lock").read_text() == str(os.getpid())
    assert list(tmp_path.iterdir()) == []
