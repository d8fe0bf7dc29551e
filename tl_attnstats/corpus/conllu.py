"""Read gold sentences from CoNLL-U files."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from conllu.exceptions import ParseException
from conllu.parser import parse_comment_line, parse_dict_value, parse_id_value

from tl_attnstats.corpus.sentence import Sentence, Word
from tl_attnstats.errors import CorpusError

COLUMNS = ["ID", "FORM", "LEMMA", "UPOS", "XPOS", "FEATS", "HEAD", "DEPREL", "DEPS", "MISC"]


@dataclass(frozen=True, slots=True)
class _Row:
    """The fields of a line that are used."""

    where: str  # file and line
    id: Any  # 1, (1, "-", 2) of a multi-word token, (1, ".", 1) of an empty node
    shown_id: str
    form: str
    upos: str
    head: str
    deprel: str
    space_after: bool


def read_conllu(path: Path, text: str) -> Iterator[Sentence]:
    """Yield the sentences of CoNLL-U `text`. Errors name `path`.

    Each sentence's text is rebuilt from its forms and `SpaceAfter=No`, so that character spans are exact. Empty nodes
    are dropped. The characters of a multi-word token belong to its first syntactic word.
    """
    number, name = 0, ""
    rows: list[_Row] = []
    # Split at line feeds only: splitlines() also splits at other characters, which forms may contain.
    for line_number, line in enumerate([*text.split("\n"), ""], start=1):
        if line.startswith("#"):
            remark = dict(parse_comment_line(line))
            name = remark.get("sent_id") or name
            columns = remark.get("global.columns")
            if columns and columns.split() != COLUMNS:
                raise CorpusError(
                    f"{path}, line {line_number}: global.columns = {columns} (CoNLL-U Plus), "
                    f"expected the columns of CoNLL-U: {' '.join(COLUMNS)}"
                )
        elif line.strip():
            rows.append(_row(f"{path}, line {line_number}", line.rstrip("\r").split("\t")))
        else:
            if rows:  # else the block has only comments
                yield _sentence(rows, name or f"sentence {number + 1}", number)
                number += 1
            rows, name = [], ""


def _row(where: str, columns: list[str]) -> _Row:
    if len(columns) != len(COLUMNS):
        raise CorpusError(f"{where}: {len(columns)} columns, expected {len(COLUMNS)} separated by tabs (CoNLL-U)")
    if "" in columns:
        raise CorpusError(f"{where}: column {columns.index('') + 1} is empty, expected _ for a missing value")
    shown_id, form, _, upos, _, _, head, deprel, _, misc = columns
    # The conllu package also splits lines at double spaces, which forms may contain, so pass it single columns.
    try:
        identifier = parse_id_value(shown_id)
    except (ParseException, ValueError):  # int() refuses more than 4300 digits
        raise CorpusError(f"{where}: ID is {shown_id} ({form}), expected an ID such as 1, 1-2 or 8.1") from None
    remarks = parse_dict_value(misc) or {}
    return _Row(where, identifier, shown_id, form, upos, head, deprel, remarks.get("SpaceAfter") != "No")


def _sentence(rows: list[_Row], name: str, number: int) -> Sentence:
    syntactic, spans, text = _character_spans(rows)
    if not syntactic:
        raise CorpusError(f"{rows[0].where}: {name} has only empty nodes, expected words")
    index_of: dict[str, int | None] = {row.shown_id: index for index, row in enumerate(syntactic)}
    index_of["0"] = None
    words = []
    for row, (start, end) in zip(syntactic, spans, strict=True):
        if row.head not in index_of or row.head == row.shown_id:
            raise CorpusError(
                f"{row.where}: word {row.shown_id} ({row.form}) of {name} has head {row.head}, "
                f"expected 0 or the number of another word of the sentence"
            )
        # Missing annotation gets the universal catch-all labels.
        upos = "X" if row.upos == "_" else row.upos
        deprel = "dep" if row.deprel == "_" else row.deprel
        words.append(Word(start, end, upos, index_of[row.head], deprel))
    try:
        return Sentence(text, tuple(words), name, number)
    except CorpusError as error:
        raise CorpusError(f"{rows[0].where}: {error}") from None


def _character_spans(rows: list[_Row]) -> tuple[list[_Row], list[tuple[int, int]], str]:
    """The rows of syntactic words, their spans, and the text that the spans refer to."""
    n_words = sum(isinstance(row.id, int) for row in rows)
    syntactic: list[_Row] = []
    spans: list[tuple[int, int]] = []
    text, space = "", ""
    last = 0  # the last word of the latest multi-word token
    for row in rows:
        expected = len(syntactic) + 1
        match row.id:
            case (int(), ".", int()):  # an empty node
                continue
            case (int(first), "-", int(end)):
                if not last < first == expected <= end <= n_words:
                    raise CorpusError(
                        f"{row.where}: multi-word token {row.shown_id} ({row.form}), expected a range that starts at "
                        f"the next word ({expected}), ends within the sentence ({n_words} words) and overlaps no other"
                    )
                last = end
            case int(number) if number == expected:
                syntactic.append(row)
                if len(spans) == expected:  # the first word of a multi-word token already has its span
                    continue
                if expected <= last:
                    spans.append((len(text), len(text)))
                    continue
            case _:
                raise CorpusError(
                    f"{row.where}: ID is {row.shown_id}, expected {expected}, the number of the next word, or a range "
                    f"or an empty node before it; is there an empty line between sentences?"
                )
        text += space + row.form
        spans.append((len(text) - len(row.form), len(text)))
        space = " " if row.space_after else ""
    return syntactic, spans, text
