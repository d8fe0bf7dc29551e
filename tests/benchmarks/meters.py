"""How runs are timed on a CPU and on a GPU, and how much memory they take."""

from __future__ import annotations

import ctypes
import gc
import os
import platform
import re
import time
from collections.abc import Callable
from functools import partial
from pathlib import Path
from typing import Protocol

import torch

Run = Callable[[], None]


class Meter(Protocol):
    """A device that runs are measured on."""

    name: str
    """What it is, for the page."""
    stem: str
    """Of the names of the files with results."""
    warm_ups: int
    """Runs before the first that is timed, besides that for peak memory."""

    def seconds(self, run: Run) -> float:
        """How long a run takes."""

    def peak_memory(self, run: Run) -> float | None:
        """Peak memory of a run in MB, less what was in use before it; None where it is not known."""


class OnCpu:
    """Wall time, and resident memory by Linux's /proc."""

    warm_ups = 0
    stem = "performance"

    def __init__(self) -> None:
        cpus = Path("/proc/cpuinfo")
        lines = cpus.read_text().splitlines() if cpus.exists() else []
        names = (line.split(":")[1].strip() for line in lines if line.startswith("model name"))
        self.name = f"{next(names, platform.machine())}, {os.cpu_count()} cores, CPU only"

    def seconds(self, run: Run) -> float:
        start = time.perf_counter()
        run()
        return time.perf_counter() - start

    def peak_memory(self, run: Run) -> float | None:
        try:
            ctypes.CDLL(None).malloc_trim(0)  # return freed memory, so that this run cannot reuse it
            Path("/proc/self/clear_refs").write_text("5")  # reset the high-water mark to what is resident now
            before = _resident("VmHWM")
        except (OSError, AttributeError):
            run()
            return None
        run()
        return _resident("VmHWM") - before


class OnCuda:
    """Time between two events on the GPU, and the memory that torch allocates there."""

    warm_ups = 2  # kernels are compiled, and the clock of the GPU goes up

    def __init__(self, device: str) -> None:
        self._device = torch.device(device)
        self.name = torch.cuda.get_device_name(self._device)
        self.stem = f"performance-{slug(self.name)}"

    def seconds(self, run: Run) -> float:
        start, end = (torch.cuda.Event(enable_timing=True) for _ in range(2))
        torch.cuda.synchronize(self._device)
        start.record()
        run()
        end.record()
        torch.cuda.synchronize(self._device)
        return float(start.elapsed_time(end)) / 1000

    def peak_memory(self, run: Run) -> float | None:
        torch.cuda.empty_cache()
        torch.cuda.reset_peak_memory_stats(self._device)
        before = torch.cuda.memory_allocated(self._device)
        run()
        torch.cuda.synchronize(self._device)
        return (torch.cuda.max_memory_allocated(self._device) - before) / 2**20


def meter_of(device: str) -> Meter:
    return OnCuda(device) if device.startswith("cuda") else OnCpu()


def fitting(run: Callable[[int], None], meter: Meter, n: int, gain: float = 1.05) -> int:
    """How much to run at once: doubled from `n` until memory is short, or it is hardly quicker for its size."""
    run(n)  # to warm up
    speed = n / meter.seconds(partial(run, n))
    while True:
        try:
            now = 2 * n / meter.seconds(partial(run, 2 * n))
        except torch.OutOfMemoryError:
            gc.collect()
            return n
        if now < gain * speed:
            return n
        n, speed = 2 * n, now


def slug(name: str) -> str:
    """A name for a file: lower case, and hyphens for what is neither letter nor number."""
    return re.sub(r"[^a-z0-9]+", "-", name.lower()).strip("-")


def _resident(field: str) -> float:
    lines = Path("/proc/self/status").read_text().splitlines()
    return next(int(line.split()[1]) / 1024 for line in lines if line.startswith(field))
