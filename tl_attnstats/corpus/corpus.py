"""An annotated corpus: where sentences come from, and the file that spares annotating them twice."""

from __future__ import annotations

import hashlib
import itertools
import json
from collections.abc import Iterable, Iterator, Sequence, Set
from pathlib import Path
from typing import TYPE_CHECKING, Any, overload

from rich.progress import track

from tl_attnstats.corpus.annotate import check_texts, load_pipeline, pipeline_name, read_docs
from tl_attnstats.corpus.conllu import read_conllu
from tl_attnstats.corpus.sentence import Sentence, Word, check_string
from tl_attnstats.corpus.units import Unit, check_unit
from tl_attnstats.errors import CorpusError, choices
from tl_attnstats.files import terminal, write_whole

if TYPE_CHECKING:
    from spacy.language import Language
    from spacy.tokens import Doc

FORMAT = "tl_attnstats corpus 1"


class Corpus(Sequence[Sentence]):
    """Annotated sentences, in order. Slices keep each sentence's number, so shards of a corpus merge exactly.

    Build one with `from_texts`, `from_docs`, `from_conllu` or `from_file`, or from `Sentence`s of your own making.
    """

    def __init__(
        self, sentences: Iterable[Sentence], source: str = "sentences given in Python", unit: Unit = "sentence"
    ):
        check_unit(unit)
        check_string("source", source, "corpus")
        self.unit = unit
        self._sentences = [s.numbered(number) for number, s in enumerate(map(_expect_sentence, sentences))]
        self.source = source
        # In their order, for it is what numbers refer to.
        digests = b"".join(s.digest.to_bytes(8, "big") for s in self._sentences)
        self.identity = hashlib.blake2b(digests, digest_size=8).hexdigest()
        self.size = len(self._sentences)
        if not self._sentences:
            raise CorpusError(f"empty corpus: no sentence found in {source}")

    @classmethod
    def from_texts(
        cls,
        texts: Iterable[str],
        nlp: str | Language | None = None,
        *,
        unit: Unit = "sentence",
        source: str | None = None,
        progress: bool = True,
    ) -> Corpus:
        """Annotate texts, each of one or more sentences, with a spaCy pipeline that has a tagger and a parser.

        Args:
            texts: strings, or an open text file (a text a line). Empty ones are skipped.
            nlp: name of an installed spaCy pipeline, or the pipeline itself; None is the small English one.
            unit: what becomes one sequence of the model: a `"sentence"`, or a text whole, as a `"document"`, which is
                cut into windows where it exceeds the model's context.
            source: where the texts come from, for the provenance.
            progress: show a bar on a terminal.

        Raises:
            CorpusError: no sentences; text that is not UTF-8, is longer than the pipeline takes, or has more than 5,000
                characters in a row without white space, which spaCy's tokenizer takes too long for; a pipeline that is
                missing or has no parser.
        """
        check_unit(unit)  # before the pipeline is loaded
        if isinstance(texts, str):
            raise CorpusError(f"texts: got one string ({texts[:40]!r}…), expected several; pass [text]")
        if not isinstance(texts, Iterable):
            raise CorpusError(f"texts: got {texts!r}, expected strings")
        pipeline = load_pipeline(nlp)
        docs = pipeline.pipe(check_texts(texts, pipeline))
        console = terminal()
        shown = track(docs, "Annotating", console=console, disable=not progress, transient=True)
        name = f"{source or 'texts'}, annotated by spaCy {pipeline_name(pipeline)}"
        try:
            return cls(read_docs(shown if console.is_terminal else docs, unit), name, unit)
        except UnicodeDecodeError as error:
            # Of an open file Python tells the place within what it had read at once only.
            raise CorpusError(f"texts: not UTF-8 ({error.reason}); re-encode the file") from None

    @classmethod
    def from_docs(cls, docs: Iterable[Doc], *, unit: Unit = "sentence", source: str = "spaCy docs") -> Corpus:
        """The sentences of spaCy documents that are parsed and tagged already, or the documents whole."""
        return cls(read_docs(docs, unit), source, unit)

    @classmethod
    def from_conllu(cls, path: str | Path) -> Corpus:
        """The gold sentences of a CoNLL-U file: multi-word tokens, empty nodes and `SpaceAfter=No` understood.

        Raises:
            CorpusError: a file that cannot be read or is not CoNLL-U; the message names the line.
        """
        path = Path(path)
        return cls(read_conllu(path, read_text(path)), f"CoNLL-U {_name(path)}")

    @classmethod
    def from_text_file(
        cls,
        path: str | Path,
        nlp: str | Language | None = None,
        *,
        unit: Unit = "sentence",
        progress: bool = True,
    ) -> Corpus:
        """Annotate a UTF-8 file with a text, of one or more sentences, on each line."""
        path = Path(path)
        return cls.from_texts(read_text(path).split("\n"), nlp, unit=unit, source=_name(path), progress=progress)

    def to_file(self, path: str | Path) -> None:
        """Write the annotated sentences as JSON lines: a header, then a sentence a line."""
        meta = {"format": FORMAT, "source": self.source, "unit": self.unit, "sentences": len(self)}
        header = json.dumps(meta, ensure_ascii=False)
        rows = (
            json.dumps(
                {
                    "name": s.name,
                    "text": s.text,
                    "words": [[w.start, w.end, w.upos, w.head, w.deprel] for w in s.words],
                },
                ensure_ascii=False,
            )
            for s in self
        )
        with write_whole(path) as temporary, temporary.open("w", encoding="utf-8") as file:
            file.writelines(line + "\n" for line in itertools.chain([header], rows))

    @classmethod
    def from_file(cls, path: str | Path) -> Corpus:
        """Read what `to_file` wrote.

        Raises:
            CorpusError: a file that is something else, has been cut off, or has a sentence with wrong annotation; the
                message names file and line.
        """
        path = Path(path)
        header, *rows = read_text(path).split("\n")
        line, sentences = 1, []
        try:
            meta = _header(header)
            for row in rows:
                line += 1
                if row:
                    sentences.append(_read_sentence(row))
            # Files of earlier versions do not say how many sentences they have.
            count = meta.get("sentences", len(sentences))
            if type(count) is not int or count != len(sentences):
                raise ValueError(f"{len(sentences)} sentences, expected {count!r} as the header says; is it cut off?")
        except (ValueError, TypeError, RecursionError) as error:
            what = str(error) if isinstance(error, CorpusError) else f"{type(error).__name__}: {error}"
            raise CorpusError(
                f"{path}: not a corpus file of tl_attnstats (line {line}: {what}); expected what Corpus.to_file writes"
            ) from None
        return cls(sentences, meta["source"], meta.get("unit", "sentence"))

    def __len__(self) -> int:
        return len(self._sentences)

    def __iter__(self) -> Iterator[Sentence]:
        return iter(self._sentences)

    @overload
    def __getitem__(self, index: int) -> Sentence: ...
    @overload
    def __getitem__(self, index: slice) -> Corpus: ...
    def __getitem__(self, index: int | slice) -> Sentence | Corpus:
        if not isinstance(index, slice):
            return self._sentences[index]
        part = object.__new__(Corpus)
        part._sentences = self._sentences[index]
        part.source, part.identity, part.size, part.unit = self.source, self.identity, self.size, self.unit
        return part

    def __repr__(self) -> str:
        return f"Corpus({len(self)} {self.unit}s, {self.source})"


def _expect_sentence(given: Any) -> Sentence:
    if not isinstance(given, Sentence):
        raise CorpusError(f"sentences: got {given!r}, expected Sentences; Corpus.from_texts makes them of strings")
    return given


def _header(line: str) -> dict[str, Any]:
    meta = _json_object(line, {"format", "source"}, {"unit", "sentences"})
    if meta["format"] != FORMAT:
        raise ValueError(f"format={meta['format']!r}, expected {FORMAT!r}")
    check_string("source", meta["source"], "corpus")
    check_unit(meta.get("unit", "sentence"))
    return meta


def _read_sentence(line: str) -> Sentence:
    entry = _json_object(line, {"name", "text", "words"})
    if not isinstance(entry["words"], list):
        raise ValueError(f"words={entry['words']!r}, expected a list of [start, end, upos, head, deprel]")
    return Sentence(entry["text"], tuple(Word(*word) for word in entry["words"]), entry["name"])


def _json_object(line: str, required: Set[str], optional: Set[str] = frozenset()) -> dict[str, Any]:
    """The JSON object in a line. Raises `ValueError` unless it has these keys, each once, and no others."""
    made = json.loads(line, object_pairs_hook=_unique)
    if not isinstance(made, dict) or not required <= made.keys() <= required | optional:
        raise ValueError(f"got {line[:60]!r}…, expected a JSON object with the keys {choices(required)}")
    return made


def _unique(pairs: list[tuple[str, Any]]) -> dict[str, Any]:
    made = dict(pairs)
    if len(made) < len(pairs):
        raise ValueError(f"a key comes twice among {', '.join(key for key, _ in pairs)}")
    return made


def _name(path: Path) -> str:
    """The name of a file, with question marks for what is not UTF-8 in it."""
    return path.name.encode(errors="replace").decode()


def read_text(path: Path) -> str:
    """The contents of a UTF-8 file, or a `CorpusError` that says why not."""
    try:
        return path.read_text(encoding="utf-8-sig")  # with or without a byte order mark
    except FileNotFoundError:
        raise CorpusError(f"{path}: no such file") from None
    except UnicodeDecodeError as error:
        raise CorpusError(f"{path}: not UTF-8 (byte {error.start}: {error.reason}); re-encode the file") from None
    except OSError as error:
        raise CorpusError(f"{path}: cannot be read ({error.strerror})") from None
