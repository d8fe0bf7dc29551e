"""The parts of the benchmark that need no GPU."""

from __future__ import annotations

import importlib
import json
from pathlib import Path
from typing import Any

import pytest
import torch

from tests.benchmarks import meters


class Clock(meters.OnCpu):
    """Takes a second for each run, and one for each thousand tokens; memory is for `room` tokens."""

    def __init__(self, room: int):
        self.room, self.ran = room, list[int]()

    def seconds(self, run: meters.Run) -> float:
        run()
        return 1 + self.ran[-1] / 1000

    def run(self, n: int) -> None:
        if n > self.room:
            raise torch.OutOfMemoryError
        self.ran.append(n)


def test_batches_grow_until_memory_is_short() -> None:
    clock = Clock(room=5000)
    assert meters.fitting(clock.run, clock, 1000) == 4000


def test_batches_grow_until_they_are_hardly_quicker() -> None:
    clock = Clock(room=10**9)
    # n thousand tokens take 1 + n seconds: twice as many are quicker by a twentieth up to n = 9.5.
    assert meters.fitting(clock.run, clock, 1000) == 16000
    assert clock.ran[-1] == 32000


def test_a_cpu_is_measured_by_wall_time_and_resident_memory() -> None:
    meter = meters.meter_of("cpu")
    assert meter.stem == "performance"
    assert "CPU only" in meter.name
    held: list[torch.Tensor] = []
    memory = meter.peak_memory(lambda: held.append(torch.ones(2**23)))  # 32 MB
    assert memory is None or 30 < memory < 64
    assert 0 < meter.seconds(lambda: None) < 1


def test_a_gpu_is_measured_by_events_and_the_allocator(monkeypatch: pytest.MonkeyPatch) -> None:
    done: list[str] = []

    class Event:
        def __init__(self, enable_timing: bool):
            assert enable_timing

        def record(self) -> None:
            done.append("event")

        def elapsed_time(self, end: Any) -> float:
            return 2500

    fakes: dict[str, Any] = {
        "Event": Event,
        "synchronize": lambda device: done.append("wait"),
        "get_device_name": lambda device: "NVIDIA H100 80GB HBM3",
        "empty_cache": lambda: None,
        "reset_peak_memory_stats": lambda device: None,
        "memory_allocated": lambda device: 2**20,
        "max_memory_allocated": lambda device: 5 * 2**20,
    }
    for name, fake in fakes.items():
        monkeypatch.setattr(torch.cuda, name, fake)
    meter = meters.meter_of("cuda")
    assert meter.stem == "performance-nvidia-h100-80gb-hbm3"
    assert meter.seconds(lambda: done.append("run")) == 2.5
    assert done == ["wait", "event", "run", "event", "wait"]
    assert meter.peak_memory(lambda: done.append("run")) == 4
    assert done[-2:] == ["run", "wait"]


def test_what_others_wrote_on_the_page_is_kept(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.syspath_prepend(str(Path(meters.__file__).parent))
    run = importlib.import_module("run")
    results = {"model": "m", "dtype": "float32", "machine": "a CPU", "threads": 1, "date": "today", "versions": {}}
    results |= {"kernel_first_calls": [1, 2], "regimes": []}
    page = tmp_path / "performance.md"
    run.write(results, tmp_path, "performance")
    first = page.read_text()
    page.write_text(f"{first}{run.KEPT}\n\n## More\n")
    run.write(results, tmp_path, "performance")
    assert page.read_text() == f"{first}{run.KEPT}\n\n## More\n"
    assert json.loads((tmp_path / "performance.json").read_text())["model"] == "m"
    assert run.KEPT in (Path(__file__).parents[1] / "docs" / "performance.md").read_text()
