"""A disk that is full for real: a small tmpfs. Nothing is half written, and what was collected is not lost."""

from __future__ import annotations

import os
import subprocess
from collections.abc import Callable, Iterator
from contextlib import suppress
from pathlib import Path
from typing import Any

import pytest

import tl_attnstats as ta
from tests.asserting import assert_resumed
from tests.reliability import made
from tl_attnstats import plotting, report, run
from tl_attnstats.cli import main
from tl_attnstats.errors import AttnStatsWarning, CheckpointWarning
from tl_attnstats.results.checkpoint import Checkpoint

SIZE = 16 << 20
WRITTEN = ["pos_to.png", "report.html", "stats.nc"]


class Disk:
    """A small disk, which can be filled."""

    def __init__(self, path: Path):
        self.path, self._ballast = path, path / "ballast"

    def fill(self) -> None:
        with self._ballast.open("ab", buffering=0) as file:
            for size in (1 << 16, 1 << 12):
                with suppress(OSError):
                    while file.write(bytes(size)) == size:
                        pass

    def free(self) -> None:
        self._ballast.unlink()


@pytest.fixture
def disk(tmp_path: Path) -> Iterator[Disk]:
    path = tmp_path / "disk"
    path.mkdir()
    mounted = subprocess.run(
        ["mount", "-t", "tmpfs", "-o", f"size={SIZE}", "tmpfs", str(path)], capture_output=True, text=True, check=False
    )
    if mounted.returncode != 0:
        pytest.skip(f"no small disk can be mounted: {mounted.stderr.strip()}")
    yield Disk(path)
    subprocess.run(["umount", "--lazy", str(path)], check=True)


def command(model: Path, corpus: Path, out: Path) -> list[str]:
    rest = ["--out", str(out), "--batch-tokens", "64", "--metrics", "exemplars,bootstrap,pos_to"]
    return ["run", str(model), "--corpus", str(corpus), *rest]


def filling(disk: Disk, function: Callable[..., Any]) -> Callable[..., Any]:
    def filled(*given: Any, **more: Any) -> Any:
        disk.fill()
        return function(*given, **more)

    return filled


@pytest.mark.slow
@pytest.mark.parametrize(
    ("step", "done"), [("statistics", []), ("figures", ["stats.nc"]), ("report", ["pos_to.png", "stats.nc"])]
)
def test_a_full_disk_after_the_run(
    model: Path,
    corpus: Path,
    tmp_path: Path,
    disk: Disk,
    capsys: Any,
    monkeypatch: pytest.MonkeyPatch,
    step: str,
    done: list[str],
) -> None:
    target = {
        "statistics": (ta.AttentionStats, "save"),
        "figures": (plotting, "paper_figures"),
        "report": (report, "write"),
    }
    where, name = target[step]
    out = disk.path / "out"
    with monkeypatch.context() as patch:
        patch.setattr(where, name, filling(disk, getattr(where, name)))
        assert main(command(model, corpus, out)) == 2
    said = capsys.readouterr().err
    assert said.count("\n") == 1, said
    assert "No space left on device" in said
    assert "; go on with: attnstats run" in said
    assert sorted(path.name for path in out.iterdir()) == ["checkpoint.nc", *done]
    disk.free()
    monkeypatch.setattr(run.Collectors, "run", lambda *_: pytest.fail("the model is run again"))
    assert main(command(model, corpus, out)) == 0
    monkeypatch.undo()
    assert sorted(path.name for path in out.iterdir()) == WRITTEN
    assert main(command(model, corpus, tmp_path / "undisturbed")) == 0
    assert_resumed(ta.load(out / "stats.nc"), ta.load(tmp_path / "undisturbed" / "stats.nc"))


def test_a_full_disk_during_a_checkpoint(
    model: Path, corpus: Path, tmp_path: Path, disk: Disk, monkeypatch: pytest.MonkeyPatch
) -> None:
    out, original, seen = disk.path / "out", Checkpoint._write, []

    def write(self: Checkpoint) -> None:
        seen.append([path.name for path in out.iterdir()])
        if len(seen) == 3:
            disk.fill()
        if len(seen) == 4:
            disk.free()
        original(self)

    monkeypatch.setattr(Checkpoint, "_write", write)
    with pytest.warns(CheckpointWarning, match=r"No space left on device.*; the last one, after 2 batches, stays"):
        assert main([*command(model, corpus, out), "--checkpoint-every", "1us"]) == 0
    assert sorted(seen[3]) == [".lock", "checkpoint.nc", "checkpoint.previous.nc"]
    assert sorted(path.name for path in out.iterdir()) == WRITTEN
    assert main(command(model, corpus, tmp_path / "undisturbed")) == 0
    assert_resumed(ta.load(out / "stats.nc"), ta.load(tmp_path / "undisturbed" / "stats.nc"))


@pytest.mark.slow
def test_a_full_disk_for_compiled_kernels(model: Path, corpus: Path, tmp_path: Path, disk: Disk) -> None:
    disk.fill()
    done = made.attnstats(*command(model, corpus, tmp_path / "out"), NUMBA_CACHE_DIR=str(disk.path / "kernels"))
    assert done.returncode == 0, done.stderr
    assert "compiled kernels: the files that keep them cannot be used" in done.stderr
    assert "No space left on device" in done.stderr
    assert "Traceback" not in done.stderr


@pytest.mark.slow
def test_damaged_kernels_are_compiled_again(model: Path, corpus: Path, tmp_path: Path) -> None:
    kernels = tmp_path / "kernels"
    first = made.attnstats(*command(model, corpus, tmp_path / "first"), NUMBA_CACHE_DIR=str(kernels))
    assert first.returncode == 0, first.stderr
    files = [path for path in kernels.rglob("*.nb[ci]") if path.is_file()]
    assert len(files) > 5
    for path in files:
        content = bytearray(path.read_bytes())
        content[len(content) // 2] ^= 1
        path.write_bytes(content)
    second = made.attnstats(*command(model, corpus, tmp_path / "second"), NUMBA_CACHE_DIR=str(kernels))
    assert second.returncode == 0, second.stderr
    assert "is damaged); compiling them takes some seconds" in second.stderr
    assert "Traceback" not in second.stderr
    a, b = (ta.load(tmp_path / name / "stats.nc") for name in ("first", "second"))
    assert a.dataset.equals(b.dataset)
    third = made.attnstats(*command(model, corpus, tmp_path / "third"), NUMBA_CACHE_DIR=str(kernels))
    assert (third.returncode, third.stderr) == (0, "")


def test_the_disk_is_small_and_full(disk: Disk) -> None:
    """What the other tests rely on."""
    disk.fill()
    with pytest.raises(OSError, match="No space left on device"), (disk.path / "more").open("wb", buffering=0) as file:
        file.write(bytes(5000))
    assert os.statvfs(disk.path).f_blocks * os.statvfs(disk.path).f_frsize == SIZE
    assert AttnStatsWarning in CheckpointWarning.__mro__
