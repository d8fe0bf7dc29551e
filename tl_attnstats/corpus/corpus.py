"""An annotated corpus: where sentences come from, and the file that spares annotating them twice."""

from __future__ import annotations

import random
from array import array
from collections.abc import Callable, Iterable, Iterator, Sequence
from itertools import chain
from pathlib import Path
from typing import TYPE_CHECKING, Any, overload

from tl_attnstats.corpus.annotate import Annotation, load_pipeline, pipeline_name, read_docs
from tl_attnstats.corpus.conllu import read_conllu
from tl_attnstats.corpus.jsonl import read_jsonl, write_jsonl
from tl_attnstats.corpus.kinds import TEXT_KINDS, SequenceKind, TextKind, check_kind, named
from tl_attnstats.corpus.resume import annotate_into
from tl_attnstats.corpus.sentence import Sentence, check_string
from tl_attnstats.corpus.store import Identity, StoredSentences, groups, is_parquet, table_of, write_store
from tl_attnstats.corpus.texts import COLUMN, Texts, read_lines, texts_of_dataset, texts_of_file
from tl_attnstats.errors import CorpusError

if TYPE_CHECKING:
    from spacy.language import Language
    from spacy.tokens import Doc


class Corpus(Sequence[Sentence]):
    """Annotated sentences, in order, in memory or in a file of any size, which is read as it is gone through.

    Slices, `shard`, `filter` and `sample` are views: they copy nothing, and keep each sentence's number and the
    identity and size of the whole corpus, so that statistics of its parts merge exactly.

    Build one with `from_texts`, `from_text_file`, `from_dataset`, `from_docs`, `from_conllu`, `from_token_ids` or
    `from_file`, or from `Sentence`s of your own making.

    Attributes:
        origin: where the sentences come from.
        sequence_kind: what the model reads at once: a "sentence", a "document", or a sequence of token ids ("tokens").
        identity: a hash over the sentences of the whole corpus in their order.
        size: how many sentences the whole corpus has.
    """

    def __init__(
        self,
        sentences: Iterable[Sentence],
        origin: str = "sentences given in Python",
        sequence_kind: SequenceKind = "sentence",
    ):
        check_kind(sequence_kind)
        check_string("origin", origin, "corpus")
        kept = [s.numbered(number) for number, s in enumerate(map(_expect_sentence, sentences))]
        for sentence in kept:
            if (sentence.ids is not None) != (sequence_kind == "tokens"):
                given = "token ids" if sentence.ids is not None else "a text"
                raise CorpusError(
                    f"sentences: {sentence.name!r} is of {given}, which does not go with "
                    f"sequence_kind={sequence_kind!r}"
                )
        if not kept:
            raise CorpusError(f"empty corpus: no sentence found in {origin}")
        self._stored: Sequence[Sentence] = kept
        self._places: Sequence[int] = range(len(kept))  # of the sentences of this view in what is stored
        self.origin, self.sequence_kind = origin, sequence_kind
        self.identity, self.size = str(Identity(s.digest for s in kept)), len(kept)

    @classmethod
    def from_texts(
        cls,
        texts: Iterable[str],
        nlp: str | Language | None = None,
        *,
        sequence_kind: TextKind = "sentence",
        origin: str | None = None,
        into: str | Path | None = None,
        n_process: int = 1,
        progress: bool = True,
    ) -> Corpus:
        """Annotate texts, each of one or more sentences, with a spaCy pipeline that has a tagger and a parser.

        Args:
            texts: strings, or an open text file (a text a line). Empty ones are skipped. With `into` there may be more
                than memory can hold.
            nlp: name of an installed spaCy pipeline, or the pipeline itself; None is the small English one.
            sequence_kind: what the model reads at once: a `"sentence"`, or a whole text, as a `"document"`, which is
                cut into windows where it exceeds the model's context.
            origin: where the texts come from, for the provenance.
            into: a corpus file (`.parquet`) to annotate into, which the corpus is then read from; memory does not grow
                with it. Cut off, annotation goes on where it was when it is called again with the same texts and
                pipeline: till then, what is finished is kept in a directory beside the file (its name and `.parts`).
                Else the sentences are kept in memory.
            n_process: how many processes annotate.
            progress: show a bar on a terminal.

        Raises:
            CorpusError: no sentences; text that is not UTF-8, is longer than the pipeline takes, or has more than 5,000
                characters in a row without white space, which spaCy's tokenizer takes too long for; a pipeline that is
                missing or has no parser; other texts or another pipeline than those that annotation into the file was
                begun with.
        """
        check_kind(sequence_kind, TEXT_KINDS)  # before the pipeline is loaded
        if isinstance(texts, str):
            raise CorpusError(f"texts: got one string ({texts[:40]!r}…), expected several; pass [text]")
        if not isinstance(texts, Iterable):
            raise CorpusError(f"texts: got {texts!r}, expected strings")
        texts = texts if isinstance(texts, Texts) else Texts(texts)
        target = None if into is None else Path(into)
        if target is not None and target.suffix == ".jsonl":
            raise CorpusError(f"into={str(into)!r}: a corpus is annotated into a .parquet file; give that suffix")
        if target is not None and target.is_dir():
            raise CorpusError(f"into={str(into)!r}: a directory, expected the name of a file")
        annotation = Annotation(load_pipeline(nlp), sequence_kind, n_process, progress)
        name = f"{origin or 'texts'}, annotated by spaCy {pipeline_name(annotation.pipeline)}"
        try:
            if target is None:
                chunks = annotation.chunks(texts)
                return cls(chain.from_iterable(sentences for sentences, _ in chunks), name, sequence_kind)
            annotate_into(target, texts, annotation, name)
        except UnicodeDecodeError as error:
            # Of an open file Python tells the place within what it had read at once only.
            raise CorpusError(f"texts: not UTF-8 ({error.reason}); re-encode the file") from None
        return cls.from_file(target)

    @classmethod
    def from_docs(
        cls, docs: Iterable[Doc], *, sequence_kind: TextKind = "sentence", origin: str = "spaCy docs"
    ) -> Corpus:
        """The sentences of spaCy documents that are parsed and tagged already, or the documents whole."""
        return cls(read_docs(docs, sequence_kind), origin, sequence_kind)

    @classmethod
    def from_conllu(cls, path: str | Path) -> Corpus:
        """The gold sentences of a CoNLL-U file: multi-word tokens, empty nodes and `SpaceAfter=No` understood.

        Raises:
            CorpusError: a file that cannot be read or is not CoNLL-U; the message names the line.
        """
        path = Path(path)
        return cls(read_conllu(path, "\n".join(read_lines(path))), f"CoNLL-U {_name(path)}")

    @classmethod
    def from_text_file(
        cls,
        path: str | Path,
        nlp: str | Language | None = None,
        *,
        column: str | None = None,
        sequence_kind: TextKind = "sentence",
        into: str | Path | None = None,
        n_process: int = 1,
        progress: bool = True,
    ) -> Corpus:
        """Annotate the texts of a file, each of one or more sentences; the file is read as a stream.

        Args:
            path: UTF-8 text, a text a line; JSON lines (`.jsonl`, `.ndjson`); either may be packed by gzip (`.gz`); or
                Parquet. A missing value is an empty text.
            nlp: see `from_texts`.
            column: of JSON lines and Parquet, where the texts are; None is "text".
            sequence_kind: see `from_texts`, as for the others.
            into: see `from_texts`.
            n_process: see `from_texts`.
            progress: see `from_texts`.

        Raises:
            CorpusError: as `from_texts`; a file that cannot be read or has no such column.
        """
        path = Path(path)
        return cls.from_texts(
            texts_of_file(path, column),
            nlp,
            sequence_kind=sequence_kind,
            origin=_name(path),
            into=into,
            n_process=n_process,
            progress=progress,
        )

    @classmethod
    def from_dataset(
        cls,
        dataset: Any,
        column: str = COLUMN,
        nlp: str | Language | None = None,
        *,
        sequence_kind: TextKind = "sentence",
        origin: str | None = None,
        into: str | Path | None = None,
        n_process: int = 1,
        progress: bool = True,
    ) -> Corpus:
        """Annotate the texts of a data set of the package `datasets`, streamed or not.

        Args:
            dataset: a `datasets.Dataset` or `IterableDataset`: of a `DatasetDict`, one split.
            column: where the texts are.
            nlp: see `from_texts`, as for the others.
            sequence_kind: see `from_texts`.
            origin: where the texts come from; None is the name and split of the data set.
            into: see `from_texts`.
            n_process: see `from_texts`.
            progress: see `from_texts`.

        Raises:
            CorpusError: as `from_texts`; something else than a data set, or a data set without this column.
        """
        texts = texts_of_dataset(dataset, column)
        if origin is None:
            known = (dataset.info.dataset_name, dataset.info.config_name, dataset.split)
            origin = f"data set {' '.join(str(part) for part in known if part) or 'without a name'}, column {column}"
        return cls.from_texts(
            texts, nlp, sequence_kind=sequence_kind, origin=origin, into=into, n_process=n_process, progress=progress
        )

    @classmethod
    def from_token_ids(cls, sequences: Iterable[Iterable[int]], *, origin: str = "token ids given in Python") -> Corpus:
        """Sequences of token ids, which the model reads exactly as they are: without BOS or [CLS], unless you put them.

        `collect(…, prepend_bos=True)` puts BOS before each. There is no text and there are no words, so what needs
        words (`pos_to`, `dependency_alignment` and others) is left out. Exemplars show the tokens as the model's
        tokenizer decodes them. A first use is random tokens repeated, by which induction heads are found:

        ```python
        half = torch.randint(1000, 10000, (50, 25))
        corpus = ta.Corpus.from_token_ids(torch.cat([half, half], 1))
        ```

        Args:
            sequences: lists of ids, or the rows of an array or tensor `[sequence, position]`, without padding.
            origin: where they come from, for the provenance.

        Raises:
            CorpusError: none, an empty one, or something else than whole numbers from 0. Ids that the model does not
                have are refused when it reads them.
        """
        if isinstance(sequences, str) or not isinstance(sequences, Iterable):
            raise CorpusError(f"sequences: got {sequences!r:.60}, expected lists of token ids")
        rows = sequences.tolist() if hasattr(sequences, "tolist") else sequences
        made = (
            Sentence("", (), f"sequence {number}", ids=_ids(row, number)) for number, row in enumerate(rows, start=1)
        )
        return cls(made, origin, "tokens")

    def to_file(self, path: str | Path) -> None:
        """Write the sentences as a corpus of its own: Parquet, or JSON lines where the file's name ends in `.jsonl`.

        Parquet is quicker, and is read without holding all of it in memory. People can read JSON lines.
        """
        path = Path(path)
        if path.suffix == ".jsonl":
            write_jsonl(path, self)
            return
        parts = ((table_of(group), [s.digest for s in group]) for group in groups(self))
        write_store(path, parts, self.origin, self.sequence_kind)

    @classmethod
    def from_file(cls, path: str | Path) -> Corpus:
        """Read what `to_file` or `from_texts(into=…)` wrote.

        Parquet stays on disk: its sentences are read, and checked, as the corpus is gone through.

        Raises:
            CorpusError: a file that is something else, has been cut off or is damaged, or has a sentence with wrong
                annotation; the message names the file and the line or sentence.
        """
        path = Path(path)
        if not is_parquet(path):
            return cls(*read_jsonl(path))
        corpus = object.__new__(cls)
        stored = StoredSentences(path)
        header = stored.header
        corpus._stored, corpus._places = stored, range(len(stored))
        corpus.origin, corpus.sequence_kind = header.origin, header.sequence_kind
        corpus.identity, corpus.size = header.identity, header.size
        return corpus

    def shard(self, number: int, n_shards: int) -> Corpus:
        """One of `n_shards` parts of (nearly) equal size, one after the other. The first is number 1.

        Raises:
            CorpusError: a number outside 1 to `n_shards`, or more shards than sentences.
        """
        if not 1 <= n_shards <= len(self):
            raise CorpusError(f"n_shards={n_shards}: expected 1 to {len(self)}, the number of sentences here")
        if not 1 <= number <= n_shards:
            raise CorpusError(f"shard {number} of {n_shards}: expected a number from 1 to {n_shards}")
        first, end = (len(self) * part // n_shards for part in (number - 1, number))
        return self[first:end]

    def filter(self, keep: Callable[[Sentence], bool]) -> Corpus:
        """The sentences for which `keep` is true. Goes through all of them once.

        Raises:
            CorpusError: there are none.
        """
        places = array("q", (place for place in self._places if keep(self._stored[place])))
        if not places:
            raise CorpusError(f"filter: keep was true for none of the {len(self)} sentences")
        return self._view(places)

    def sample(self, n: int, seed: int = 0) -> Corpus:
        """`n` sentences drawn at random, in the order of the corpus; the same ones for the same seed.

        Raises:
            CorpusError: fewer sentences than that.
        """
        if not 1 <= n <= len(self):
            raise CorpusError(f"sample: n={n}, expected 1 to {len(self)}, the number of sentences here")
        drawn = sorted(random.Random(seed).sample(range(len(self)), n))
        return self._view(array("q", (self._places[place] for place in drawn)))

    def _view(self, places: Sequence[int]) -> Corpus:
        part = object.__new__(type(self))
        part._stored, part._places = self._stored, places
        part.origin, part.identity, part.size, part.sequence_kind = (
            self.origin,
            self.identity,
            self.size,
            self.sequence_kind,
        )
        return part

    def __len__(self) -> int:
        return len(self._places)

    def __iter__(self) -> Iterator[Sentence]:
        return (self._stored[place] for place in self._places)

    @overload
    def __getitem__(self, index: int) -> Sentence: ...
    @overload
    def __getitem__(self, index: slice) -> Corpus: ...
    def __getitem__(self, index: int | slice) -> Sentence | Corpus:
        if isinstance(index, slice):
            return self._view(self._places[index])
        return self._stored[self._places[index]]

    def __repr__(self) -> str:
        return f"Corpus({named(len(self), self.sequence_kind)}, {self.origin})"


def _expect_sentence(given: Any) -> Sentence:
    if not isinstance(given, Sentence):
        raise CorpusError(f"sentences: got {given!r}, expected Sentences; Corpus.from_texts makes them of strings")
    return given


def _ids(row: Any, number: int) -> tuple[int, ...]:
    row = row.tolist() if hasattr(row, "tolist") else row
    if isinstance(row, str) or not isinstance(row, Iterable):
        raise CorpusError(f"sequences: number {number} is {row!r:.60}, expected a list of token ids")
    # Elements of an array or tensor become numbers of Python.
    return tuple(id_.item() if hasattr(id_, "item") else id_ for id_ in row)


def _name(path: Path) -> str:
    """The name of a file, with question marks for what is not UTF-8 in it."""
    return path.name.encode(errors="replace").decode()
