"""What a model reads at once: a sentence, a whole document, or a sequence of token ids."""

from __future__ import annotations

from typing import Literal, get_args

from tl_attnstats.errors import CorpusError

TextUnit = Literal["sentence", "document"]
Unit = Literal["sentence", "document", "tokens"]
TEXT_UNITS: tuple[TextUnit, ...] = get_args(TextUnit)
UNITS: tuple[Unit, ...] = get_args(Unit)
_NAMES = {"sentence": "sentence{}", "document": "document{}", "tokens": "sequence{} of token ids"}


def check_unit(unit: str, units: tuple[str, ...] = UNITS) -> None:
    """Raise `CorpusError` unless `unit` names one."""
    if unit not in units:
        raise CorpusError(f"unit={unit!r}: expected one of {', '.join(units)}")


def named(n: int, unit: str) -> str:
    """So many of a corpus, in words: "3 sentences", "1 document", "2 sequences of token ids"."""
    return f"{n} " + _NAMES.get(unit, "sentence{}").format("" if n == 1 else "s")


def counted(n_sequences: int, unit: str) -> str:
    """So many of what a model reads at once, in words: as `named`, but "1 window of documents"."""
    if unit == "document":
        return f"{n_sequences} window{'' if n_sequences == 1 else 's'} of documents"
    return named(n_sequences, unit)
