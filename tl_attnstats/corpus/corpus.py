"""An annotated corpus: where sentences come from, and the file that spares annotating them twice."""

from __future__ import annotations

import hashlib
import itertools
import json
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import replace
from pathlib import Path
from typing import overload

from rich.progress import track
from spacy.language import Language
from spacy.tokens import Doc

from tl_attnstats.corpus.annotate import Unit, check_unit, load_pipeline, pipeline_name, read_docs
from tl_attnstats.corpus.conllu import read_conllu
from tl_attnstats.corpus.sentence import Sentence, Word
from tl_attnstats.errors import CorpusError
from tl_attnstats.files import terminal, write_whole

FORMAT = "tl_attnstats corpus 1"


class Corpus(Sequence[Sentence]):
    """Annotated sentences, in order. Slices keep each sentence's number, so shards of a corpus merge exactly.

    Build one with `from_texts`, `from_docs`, `from_conllu` or `from_file`, or from `Sentence`s of your own making.
    """

    def __init__(
        self, sentences: Iterable[Sentence], source: str = "sentences given in Python", unit: Unit = "sentence"
    ):
        check_unit(unit)
        self.unit = unit
        self._sentences = [replace(s, number=number) for number, s in enumerate(sentences)]
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
            CorpusError: no sentences, text that is not UTF-8, pipeline missing or without a parser.
        """
        check_unit(unit)  # before the pipeline is loaded
        if isinstance(texts, str):
            raise CorpusError(f"texts: got one string ({texts[:40]!r}…), expected several; pass [text]")
        pipeline = load_pipeline(nlp)
        stripped = (text.strip() for text in texts)
        docs = pipeline.pipe(text for text in stripped if text)
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
        """The gold sentences of a CoNLL-U file: multi-word tokens, empty nodes and `SpaceAfter=No` understood."""
        path = Path(path)
        return cls(read_conllu(path, read_text(path)), f"CoNLL-U {path.name}")

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
        return cls.from_texts(read_text(path).split("\n"), nlp, unit=unit, source=path.name, progress=progress)

    def to_file(self, path: str | Path) -> None:
        """Write the annotated sentences as JSON lines: a header, then a sentence a line."""
        header = json.dumps({"format": FORMAT, "source": self.source, "unit": self.unit}, ensure_ascii=False)
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
        """Read what `to_file` wrote."""
        path = Path(path)
        header, *rows = read_text(path).split("\n")
        try:
            meta = json.loads(header)
            source, unit = meta["source"], meta.get("unit", "sentence")
            if meta["format"] != FORMAT:
                raise ValueError(meta["format"])
            entries = [json.loads(row) for row in rows if row]
            sentences = [
                Sentence(entry["text"], tuple(Word(*word) for word in entry["words"]), entry["name"])
                for entry in entries
            ]
        except (ValueError, KeyError, TypeError) as error:
            raise CorpusError(
                f"{path}: not a corpus file of tl_attnstats ({type(error).__name__}: {error}); "
                f"expected what Corpus.to_file writes"
            ) from None
        return cls(sentences, source, unit)

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
