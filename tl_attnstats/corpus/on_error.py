"""What happens to a text on which annotator or tokenizer fails: the run stops, or goes on without it and says so."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Literal, get_args

from tl_attnstats.errors import CorpusError

OnError = Literal["raise", "skip"]
ON_ERROR: tuple[OnError, ...] = get_args(OnError)
OTHERWISE = "drop it, or pass on_error='skip' (--on-error skip)"
AND = " | "  # between what was skipped
MOST_CHARACTERS = 200


def check_on_error(on_error: str) -> None:
    """Raise `CorpusError` unless `on_error` is "raise" or "skip"."""
    if on_error not in ON_ERROR:
        raise CorpusError(f"on_error={on_error!r}: expected one of {', '.join(ON_ERROR)}")


def line(which: str, error: Exception) -> str:
    """A text that was skipped, and why, in a line."""
    reason = " ".join(str(error).split()).replace(AND, " / ").removesuffix(f"; {OTHERWISE}")
    return f"{which}: {reason if len(reason) <= MOST_CHARACTERS else reason[:MOST_CHARACTERS] + '…'}"


def without(skipped: Sequence[str]) -> str:
    """The end of a corpus' origin: how many texts were skipped, and which."""
    texts = f"{len(skipped)} text{'' if len(skipped) == 1 else 's'}"
    return f", without {texts} on which it failed ({AND.join(skipped)})" if skipped else ""


def said_of(skipped: Sequence[str]) -> dict[str, str]:
    """What the provenance says about sentences that were skipped: how many, and which."""
    lines = dict.fromkeys(skipped)
    return {"n_skipped": str(len(lines)), "skipped": AND.join(lines)} if lines else {}


def skipped_of(said: Mapping[str, str]) -> list[str]:
    """The inverse of `said_of`."""
    return said["skipped"].split(AND) if "skipped" in said else []
