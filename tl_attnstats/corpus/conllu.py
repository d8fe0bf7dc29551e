"""Gold sentences from a CoNLL-U file."""

from __future__ import annotations

import io
from collections.abc import Iterator
from pathlib import Path

import conllu

from tl_attnstats.corpus.sentence import Sentence, Word
from tl_attnstats.errors import CorpusError

N_COLUMNS = 10


def read_conllu(path: Path, text: str) -> Iterator[Sentence]:
    """Yield the sentences of CoNLL-U `text`; `path` is named in errors.

    The text of a sentence is rebuilt from its forms and `SpaceAfter=No`, so that every character is accounted
    for. Empty nodes are dropped. The characters of a multi-word token belong to its first syntactic word.
    """
    _check_columns(path, text)
    try:
        for number, tokens in enumerate(conllu.parse_incr(io.StringIO(text))):
            if tokens:  # not a block of comments only
                yield _sentence(tokens, number, path)
    except conllu.exceptions.ParseException as error:
        raise CorpusError(f"{path}: not valid CoNLL-U: {error}") from None


def _check_columns(path: Path, text: str) -> None:
    # The library's own error does not say which line it stumbled over.
    # Lines end at line feeds only: splitlines() would also break at other characters, which forms may contain.
    for line_number, line in enumerate(text.split("\n"), start=1):
        if line.strip() and not line.startswith("#"):
            columns = line.rstrip("\r").split("\t")
            if len(columns) != N_COLUMNS:
                raise CorpusError(
                    f"{path}, line {line_number}: {len(columns)} columns, "
                    f"expected {N_COLUMNS} separated by tabs (CoNLL-U)"
                )
            if "" in columns:
                raise CorpusError(
                    f"{path}, line {line_number}: column {columns.index('') + 1} is empty, expected _ for nothing"
                )


def _sentence(tokens: conllu.TokenList, number: int, path: Path) -> Sentence:
    name = tokens.metadata.get("sent_id", f"sentence {number + 1}")
    syntactic = [token for token in tokens if isinstance(token["id"], int)]
    ids = [token["id"] for token in syntactic]
    if ids != list(range(1, len(ids) + 1)) or any(token["id"] is None for token in tokens):
        raise CorpusError(
            f"{path}, {name}: words are numbered {ids}, expected 1, 2, 3 and so on; "
            f"is there an empty line between sentences?"
        )
    spans, text = _character_spans(tokens)
    index_of = {identifier: index for index, identifier in enumerate(ids)}
    words = []
    for token in syntactic:
        head = token["head"]
        if (head not in index_of and head != 0) or head == token["id"]:
            raise CorpusError(
                f"{path}, {name}: word {token['id']} ({token['form']}) has head {head}, "
                f"expected 0 or the number of another word of the sentence"
            )
        start, end = spans[token["id"]]
        # The universal labels for what has no better one stand in for an annotation that is missing.
        upos = "X" if token["upos"] in (None, "_") else token["upos"]
        deprel = "dep" if token["deprel"] in (None, "_") else token["deprel"]
        words.append(Word(start, end, upos, index_of.get(head), deprel))
    return Sentence(text, tuple(words), name, number)


def _character_spans(tokens: conllu.TokenList) -> tuple[dict[int, tuple[int, int]], str]:
    """The span of every syntactic word, by id, and the text the spans refer to."""
    spans: dict[int, tuple[int, int]] = {}
    text = ""
    inside_until = 0  # last id of the multi-word token whose characters have been placed already
    for token in tokens:
        match token["id"]:
            case int(identifier) if identifier <= inside_until:
                spans.setdefault(identifier, (len(text.rstrip()), len(text.rstrip())))
                continue
            case int(identifier):
                first = identifier
            case (int(first), "-", int(last)):
                inside_until = last
            case _:  # an empty node, such as 8.1
                continue
        spans[first] = (len(text), len(text) + len(token["form"]))
        text += token["form"]
        if (token["misc"] or {}).get("SpaceAfter") != "No":
            text += " "
    return spans, text.rstrip(" ")
