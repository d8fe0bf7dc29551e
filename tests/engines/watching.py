"""Statistics that show which process collects, and can disturb it."""

from __future__ import annotations

import os
import signal
import time
import warnings
from pathlib import Path
from typing import Any

import tl_attnstats as ta
from tl_attnstats.errors import AttnStatsWarning


class Watched(ta.Distance):
    """The mean distance; adds a line to a file named after the process id at every batch, and then waits."""

    name = "watched"

    def __init__(self, directory: Path, seconds: float = 0):
        super().__init__()
        self.directory, self.seconds = directory, seconds

    def end_batch(self, whole: Any) -> None:
        with (self.directory / str(os.getpid())).open("a") as file:
            file.write(".")
        time.sleep(self.seconds)
        super().end_batch(whole)


class Fatal(ta.Distance):
    """Kills its process."""

    name = "fatal"

    def end_batch(self, whole: Any) -> None:
        os.kill(os.getpid(), signal.SIGKILL)


class Odd(ta.Distance):
    """Warns at every batch."""

    name = "odd"

    def end_batch(self, whole: Any) -> None:
        warnings.warn("this model is odd", AttnStatsWarning, stacklevel=2)
        warnings.warn("of another package", UserWarning, stacklevel=2)
        super().end_batch(whole)


class Broken(ta.Distance):
    """Has a mistake of its author."""

    name = "broken"

    def end_batch(self, whole: Any) -> None:
        raise TimeoutError("a mistake")
