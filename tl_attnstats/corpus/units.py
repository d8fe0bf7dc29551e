"""What a model reads at once: a sentence, or a whole document."""

from __future__ import annotations

from typing import Literal, get_args

from tl_attnstats.errors import CorpusError

Unit = Literal["sentence", "document"]
UNITS: tuple[Unit, ...] = get_args(Unit)


def check_unit(unit: str) -> None:
    """Raise `CorpusError` unless `unit` names one."""
    if unit not in UNITS:
        raise CorpusError(f"unit={unit!r}: expected one of {', '.join(UNITS)}")


def counted(n_sequences: int, unit: str) -> str:
    """So many of what a model reads at once, in words: "3 sentences", "1 window of documents"."""
    plural = "" if n_sequences == 1 else "s"
    return f"{n_sequences} window{plural} of documents" if unit == "document" else f"{n_sequences} sentence{plural}"
