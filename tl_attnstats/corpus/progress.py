"""The progress of a run in the terminal."""

from __future__ import annotations

from rich.progress import BarColumn, MofNCompleteColumn, Progress, TextColumn, TimeRemainingColumn

from tl_attnstats.corpus.batches import Batch
from tl_attnstats.corpus.corpus import Corpus
from tl_attnstats.corpus.files import terminal


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
        shown = wanted and (console.is_terminal or console.is_jupyter)
        self._progress = Progress(*columns, console=console, disable=not shown, transient=True)
        self._task = self._progress.add_task("Collecting", total=None if windows else len(corpus), speed="…")
        self._tokens = 0

    def __enter__(self) -> None:
        self._progress.start()

    def __exit__(self, *exception: object) -> None:
        self._progress.stop()

    def advance(self, batch: Batch) -> None:
        self._tokens += batch.n_tokens
        elapsed = self._progress.tasks[0].elapsed or 0
        speed = f"{self._tokens / elapsed:,.0f}" if elapsed else "…"
        self._progress.update(self._task, advance=len(batch), speed=speed)
