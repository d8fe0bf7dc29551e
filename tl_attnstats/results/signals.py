"""Signals that stop a run between two batches, so that what was counted is whole, or between two shards."""

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


class Insist:
    """While this is active, `check` raises again what the handler of SIGINT or SIGTERM has raised.

    Python drops an exception raised in a destructor or in the callback of a weak reference, and Ray runs many of them.
    """

    def __init__(self) -> None:
        self._raised: BaseException | None = None
        self._before: dict[signal.Signals, Any] = {}

    def __enter__(self) -> Insist:
        if threading.current_thread() is threading.main_thread():
            for number in (signal.SIGINT, signal.SIGTERM):
                if callable(handler := signal.getsignal(number)):
                    self._before[number] = handler
                    signal.signal(number, self._receive)
        return self

    def __exit__(self, *exception: object) -> None:
        for number, handler in self._before.items():
            signal.signal(number, handler)

    def check(self) -> None:
        """Raise what a handler has raised since this became active."""
        if self._raised is not None:
            raise self._raised

    def _receive(self, number: int, frame: FrameType | None) -> None:
        try:
            self._before[signal.Signals(number)](number, frame)
        except BaseException as error:
            self._raised = error
            raise
