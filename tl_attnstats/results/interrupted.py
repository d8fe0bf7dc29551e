"""What a run raises that was interrupted."""

from __future__ import annotations

from signal import Signals

from tl_attnstats.results.stats import AttentionStats


class Interrupted(KeyboardInterrupt):
    """Ctrl-C during `collect`, or with a checkpoint also SIGTERM.

    Attributes:
        stats: what was collected until then, the longest sentences first, or None.
        signal: which of the two it was.
    """

    def __init__(self, stats: AttentionStats | None, done: str, signal: Signals = Signals.SIGINT):
        super().__init__(f"interrupted after {done}")
        self.stats, self.signal = stats, signal
