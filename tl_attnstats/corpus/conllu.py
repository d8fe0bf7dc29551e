"""Gold sentences from a CoNLL-U file."""

from __future__ import annotations

import re
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

from tl_attnstats.corpus.sentence import Sentence, Word
from tl_attnstats.errors import CorpusError

COLUMNS = ["ID", "FORM", "LEMMA", "UPOS", "XPOS", "FEATS", "HEAD", "DEPREL", "DEPS", "MISC"]
RANGE = re.compile(r"([1-9][0-9]{0,8})-([1-9][0-9]{0,8})")  # a multi-word token, such as 1-2
EMPTY_NODE = re.compile(r"(0|[1-9][0-9]*)\.[1-9][0-9]*")  # such as 8.1


@dataclass(frozen=True, slots=True)
class _Row:
    """What is read of a line."""

    where: str  # file and line
    id: str
    form: str
    upos: str
    head: str
    deprel: str
    space_after: bool


def read_conllu(path: Path, text: str) -> Iterator[Sentence]:
    """Yield the sentences of CoNLL-U `text`; `path` is named in errors.

    The text of a sentence is rebuilt from its forms and `SpaceAfter=No`, so that every character is accounted
    for. Empty nodes are dropped. The characters of a multi-word token belong to its first syntactic word.
    """
    number, name = 0, ""
    rows: list[_Row] = []
    # Lines end at line feeds only: splitlines() would also break at other characters, which forms may contain.
    for line_number, line in enumerate([*text.split("\n"), ""], start=1):
        if line.startswith("#"):
            key, _, value = (part.strip() for part in line[1:].partition("="))
            if key == "sent_id":
                name = value
            elif key == "global.columns" and value.split() != COLUMNS:
                raise CorpusError(
                    f"{path}, line {line_number}: global.columns = {value} (CoNLL-U Plus), "
                    f"expected the columns of CoNLL-U: {' '.join(COLUMNS)}"
                )
        elif line.strip():
            rows.append(_row(f"{path}, line {line_number}", line.rstrip("\r").split("\t")))
        else:
            if rows:  # not a block of comments only
                yield _sentence(rows, name or f"sentence {number + 1}", number)
                number += 1
            rows, name = [], ""


def _row(where: str, columns: list[str]) -> _Row:
    if len(columns) != len(COLUMNS):
        raise CorpusError(f"{where}: {len(columns)} columns, expected {len(COLUMNS)} separated by tabs (CoNLL-U)")
    if "" in columns:
        raise CorpusError(f"{where}: column {columns.index('') + 1} is empty, expected _ for nothing")
    identifier, form, _, upos, _, _, head, deprel, _, misc = columns
    return _Row(where, identifier, form, upos, head, deprel, "SpaceAfter=No" not in misc.split("|"))


def _sentence(rows: list[_Row], name: str, number: int) -> Sentence:
    syntactic, spans, text = _character_spans(rows)
    if not syntactic:
        raise CorpusError(f"{rows[0].where}: {name} has empty nodes only, expected words")
    index_of: dict[str, int | None] = {row.id: index for index, row in enumerate(syntactic)}
    index_of["0"] = None
    words = []
    for row, (start, end) in zip(syntactic, spans, strict=True):
        if row.head not in index_of or row.head == row.id:
            raise CorpusError(
                f"{row.where}: word {row.id} ({row.form}) of {name} has head {row.head}, "
                f"expected 0 or the number of another word of the sentence"
            )
        # The universal labels for what has no better one stand in for an annotation that is missing.
        upos = "X" if row.upos == "_" else row.upos
        deprel = "dep" if row.deprel == "_" else row.deprel
        words.append(Word(start, end, upos, index_of[row.head], deprel))
    try:
        return Sentence(text, tuple(words), name, number)
    except CorpusError as error:
        raise CorpusError(f"{rows[0].where}: {error}") from None


def _character_spans(rows: list[_Row]) -> tuple[list[_Row], list[tuple[int, int]], str]:
    """The rows of syntactic words, the span of each, and the text the spans refer to."""
    n_words = sum(row.id.isdigit() for row in rows)
    syntactic: list[_Row] = []
    spans: list[tuple[int, int]] = []
    text, space = "", ""
    last = 0  # the last word of the latest multi-word token
    for row in rows:
        expected = len(syntactic) + 1
        if multi_word := RANGE.fullmatch(row.id):
            first, previous_last, last = int(multi_word[1]), last, int(multi_word[2])
            if not previous_last < first == expected <= last <= n_words:
                raise CorpusError(
                    f"{row.where}: multi-word token {row.id} ({row.form}), expected a range that begins with the next "
                    f"word ({expected}), ends within the sentence ({n_words} words) and overlaps no other"
                )
        elif row.id == str(expected):
            syntactic.append(row)
            if len(spans) == expected:  # the first word of a multi-word token, whose characters it has
                continue
            if expected <= last:
                spans.append((len(text), len(text)))
                continue
        elif EMPTY_NODE.fullmatch(row.id):
            continue
        else:
            raise CorpusError(
                f"{row.where}: ID is {row.id}, expected {expected}, the number of the next word, or a range or an "
                f"empty node before it; is there an empty line between sentences?"
            )
        text += space + row.form
        spans.append((len(text) - len(row.form), len(text)))
        space = " " if row.space_after else ""
    return syntactic, spans, text
