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
            yield _sentence(tokens, number, path)
    except conllu.exceptions.ParseException as error:
        raise CorpusError(f"{path}: not valid CoNLL-U: {error}") from None


def _check_columns(path: Path, text: str) -> None:
    # The library's own error does not say which line it stumbled over.
    for line_number, line in enumerate(text.splitlines(), start=1):
        if line.strip() and not line.startswith("#"):
            columns = line.count("\t") + 1
            if columns != N_COLUMNS:
                raise CorpusError(
                    f"{path}, line {line_number}: {columns} columns, expected {N_COLUMNS} separated by tabs (CoNLL-U)"
                )


def _sentence(tokens: conllu.TokenList, number: int, path: Path) -> Sentence:
    name = tokens.metadata.get("sent_id", f"sentence {number + 1}")
    spans, text = _character_spans(tokens)
    syntactic = [token for token in tokens if isinstance(token["id"], int)]
    index_of = {token["id"]: index for index, token in enumerate(syntactic)}
    words = []
    for token in syntactic:
        head = token["head"]
        if head not in index_of and head != 0:
            raise CorpusError(
                f"{path}, {name}: word {token['id']} ({token['form']}) has head {head}, "
                f"expected 0 or the number of a word of the sentence"
            )
        start, end = spans[token["id"]]
        words.append(Word(start, end, token["upos"] or "X", index_of.get(head), token["deprel"] or "dep"))
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
