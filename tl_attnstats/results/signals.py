"""Signals that stop a run between two batches, so that what was counted is whole."""

from __future__ import annotations

import os
import signal
import sys
import threading
from types import FrameType
from typing import Any

STOPPING = "\nstopping after this batch; once more to leave at once\n"


class Stop:
    """While this is active, the first SIGINT or SIGTERM is only noted in `received`; the second raises at once.

    Signals that are ignored (as SIGINT is in a shell's background job) stay ignored. Python hands signals to the main
    thread alone, so that in any other thread nothing changes.
    """

    def __init__(self) -> None:
        self.received: signal.Signals | None = None
        self._before: dict[signal.Signals, Any] = {}

    def __enter__(self) -> Stop:
        if threading.current_thread() is threading.main_thread():
            for number in (signal.SIGINT, signal.SIGTERM):
                if signal.getsignal(number) not in (signal.SIG_IGN, None):
                    self._before[number] = signal.signal(number, self._receive)
        return self

    def __exit__(self, *exception: object) -> None:
        for number, handler in self._before.items():
            signal.signal(number, handler)

    def _receive(self, number: int, frame: FrameType | None) -> None:
        if self.received is not None:
            raise KeyboardInterrupt
        self.received = signal.Signals(number)
        if sys.stderr.isatty():
            os.write(2, STOPPING.encode())  # print may have been interrupted itself
