"""What a model reads at once: a sentence, a whole document, or a sequence of token ids."""

from __future__ import annotations

from typing import Literal, get_args

from tl_attnstats.errors import CorpusError

TextKind = Literal["sentence", "document"]
SequenceKind = Literal["sentence", "document", "tokens"]
TEXT_KINDS: tuple[TextKind, ...] = get_args(TextKind)
SEQUENCE_KINDS: tuple[SequenceKind, ...] = get_args(SequenceKind)
_NAMES = {"sentence": "sentence{}", "document": "document{}", "tokens": "sequence{} of token ids"}


def check_kind(sequence_kind: str, kinds: tuple[str, ...] = SEQUENCE_KINDS) -> None:
    """Raise `CorpusError` unless `sequence_kind` is one of `kinds`."""
    if sequence_kind not in kinds:
        raise CorpusError(f"sequence_kind={sequence_kind!r}: expected one of {', '.join(kinds)}")


def named(n: int, sequence_kind: str) -> str:
    """The size of a corpus in words: "3 sentences", "1 document", "2 sequences of token ids"."""
    return f"{n} " + _NAMES.get(sequence_kind, "sentence{}").format("" if n == 1 else "s")


def counted(n_sequences: int, sequence_kind: str) -> str:
    """A number of sequences in words: as `named`, but "1 window of documents"."""
    if sequence_kind == "document":
        return f"{n_sequences} window{'' if n_sequences == 1 else 's'} of documents"
    return named(n_sequences, sequence_kind)
