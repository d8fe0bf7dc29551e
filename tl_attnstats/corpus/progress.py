"""The progress of a run in the terminal."""

from __future__ import annotations

from pathlib import Path

from rich.progress import BarColumn, MofNCompleteColumn, Progress, TextColumn, TimeRemainingColumn

from tl_attnstats.corpus.batches import Batch
from tl_attnstats.corpus.corpus import Corpus
from tl_attnstats.corpus.files import terminal
from tl_attnstats.corpus.kinds import counted


class Bar:
    """Sentences done, tokens per second and time left; hidden unless standard error is a terminal.

    Documents show windows without the time left, because their number is known only after reading.
    """

    def __init__(self, corpus: Corpus, wanted: bool):
        windows = corpus.sequence_kind == "document"
        console = terminal()
        speed = "{task.fields[speed]} tokens/s"
        columns = (
            TextColumn("{task.description}"),
            BarColumn(),
            MofNCompleteColumn(),
            *(
                (TextColumn(f"windows, {speed}"),)
                if windows
                else (TextColumn(f"sentences, {speed},"), TimeRemainingColumn(), TextColumn("left"))
            ),
        )
        self._wanted, self._kind = wanted, corpus.sequence_kind
        shown = wanted and (console.is_terminal or console.is_jupyter)
        self._progress = Progress(*columns, console=console, disable=not shown, transient=True)
        self._task = self._progress.add_task("Collecting", total=None if windows else len(corpus), speed="…")
        self._sequences = self._tokens = 0

    def __enter__(self) -> None:
        if not self._progress.disable:
            self._progress.start()

    def __exit__(self, *exception: object) -> None:
        if not self._progress.disable:  # else rich 13.0 prints an empty line
            self._progress.stop()

    def advance(self, batch: Batch) -> None:
        """Count a batch."""
        self.reach(self._sequences + len(batch), self._tokens + batch.n_tokens)

    def resume(self, path: Path, sequences: int) -> None:
        """Say that the run goes on from a file, in which so many sequences are done."""
        self.reach(sequences, 0)
        if self._wanted:
            line = f"going on from {path}, after {counted(sequences, self._kind)}"
            self._progress.console.print(line, highlight=False, markup=False, soft_wrap=True)

    def reach(self, sequences: int, tokens: int) -> None:
        """Show how much has been read. `sequences` may include those of an earlier run, `tokens` give the speed."""
        self._sequences, self._tokens = sequences, tokens
        elapsed = self._progress.tasks[0].elapsed or 0
        speed = f"{tokens / elapsed:,.0f}" if elapsed else "…"
        self._progress.update(self._task, completed=sequences, speed=speed)
