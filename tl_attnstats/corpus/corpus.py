"""An annotated corpus, in memory or in a file, so that texts are annotated only once."""

from __future__ import annotations

import hashlib
import random
from array import array
from collections.abc import Callable, Iterable, Iterator, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any, overload

import numpy as np

from tl_attnstats.corpus.annotate import Annotation, load_pipeline, pipeline_name, read_docs
from tl_attnstats.corpus.conllu import read_conllu
from tl_attnstats.corpus.jsonl import read_jsonl, write_jsonl
from tl_attnstats.corpus.kinds import TEXT_KINDS, SequenceKind, TextKind, check_kind, named
from tl_attnstats.corpus.on_error import OnError, check_on_error, without
from tl_attnstats.corpus.resume import annotate_into
from tl_attnstats.corpus.sentence import Sentence, check_string
from tl_attnstats.corpus.store import Identity, StoredSentences, groups, is_parquet, table_of, write_store
from tl_attnstats.corpus.texts import COLUMN, Texts, read_lines, texts_of_dataset, texts_of_file
from tl_attnstats.errors import CorpusError

if TYPE_CHECKING:
    from spacy.language import Language
    from spacy.tokens import Doc


class Corpus(Sequence[Sentence]):
    """Annotated sentences, in order, held in memory or read on demand from a file of any size.

    Slices, `shard`, `filter` and `sample` are views: they copy nothing and keep each sentence's number and the
    identity and size of the whole corpus, so that statistics of its parts merge exactly.

    Build one with `from_texts`, `from_text_file`, `from_dataset`, `from_docs`, `from_conllu`, `from_token_ids` or
    `from_file`, or from your own sentences (`Sentence`).

    Attributes:
        origin: where the sentences come from.
        sequence_kind: what the model reads at once: a "sentence", a "document", or a sequence of token ids ("tokens").
        identity: a hash over the sentences of the whole corpus, in order.
        size: number of sentences in the whole corpus.
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
                    f"sentences: {sentence.name!r} holds {given}, which contradicts sequence_kind={sequence_kind!r}"
                )
        if not kept:
            raise CorpusError(f"empty corpus: no sentence found in {origin}")
        self._stored: Sequence[Sentence] = kept
        self._places: Sequence[int] = range(len(kept))  # of this view's sentences in _stored
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
        on_error: OnError = "raise",
        progress: bool = True,
    ) -> Corpus:
        """Annotate texts of one or more sentences with a spaCy pipeline that has a tagger and a parser.

        Args:
            texts: strings, or an open text file with one text per line. Empty texts are skipped. With `into`, they need
                not fit into memory.
            nlp: name of an installed spaCy pipeline, or the pipeline itself; None loads the small English one.
            sequence_kind: what the model reads at once: a `"sentence"`, or a whole text as a `"document"`, which is
                split into windows if it exceeds the model's context.
            origin: where the texts come from; recorded in the provenance.
            into: a corpus file (`.parquet`) to write. The corpus is then read from it, so memory does not grow with the
                number of texts. If interrupted, annotation resumes when called again with the same texts and pipeline;
                finished parts are kept in a directory beside the file (its name plus `.parts`). None keeps the
                sentences in memory.
            n_process: number of processes that annotate.
            on_error: what to do about a text on which the pipeline fails: "raise", or "skip" it. `origin` then says how
                many were skipped, which, and why.
            progress: show a progress bar on a terminal.

        Raises:
            CorpusError: there are no sentences; a text is not UTF-8, is too long for the pipeline, or has more than
                5,000 consecutive characters without whitespace, on which spaCy's tokenizer takes too long; the
                pipeline is missing or has no parser; or earlier annotation into this file used other texts or another
                pipeline.
        """
        check_kind(sequence_kind, TEXT_KINDS)  # fail before loading the pipeline
        check_on_error(on_error)
        if isinstance(texts, str):
            raise CorpusError(f"texts: got one string ({texts[:40]!r}…), expected several; pass [text]")
        if not isinstance(texts, Iterable):
            raise CorpusError(f"texts: got {texts!r}, expected strings")
        texts = texts if isinstance(texts, Texts) else Texts(texts)
        target = None if into is None else Path(into)
        if target is not None and target.suffix == ".jsonl":
            raise CorpusError(f"into={str(into)!r}: expected a file with the suffix .parquet")
        if target is not None and target.is_dir():
            raise CorpusError(f"into={str(into)!r}: is a directory, expected a file name")
        annotation = Annotation(load_pipeline(nlp), sequence_kind, n_process, progress, on_error)
        name = f"{origin or 'texts'}, annotated by spaCy {pipeline_name(annotation.pipeline)}"
        try:
            if target is None:
                kept: list[Sentence] = []
                skipped: tuple[str, ...] = ()
                for sentences, reached in annotation.chunks(texts):
                    kept += sentences
                    skipped = reached.skipped
                return cls(kept, name + without(skipped), sequence_kind)
            annotate_into(target, texts, annotation, name)
        except UnicodeDecodeError as error:
            # For an open file, Python gives only the position within its read buffer, so it is left out.
            raise CorpusError(f"texts: not UTF-8 ({error.reason}); re-encode the file") from None
        return cls.from_file(target)

    @classmethod
    def from_docs(
        cls, docs: Iterable[Doc], *, sequence_kind: TextKind = "sentence", origin: str = "spaCy docs"
    ) -> Corpus:
        """Take the sentences of spaCy documents that are already parsed and tagged, or the whole documents."""
        return cls(read_docs(docs, sequence_kind), origin, sequence_kind)

    @classmethod
    def from_conllu(cls, path: str | Path) -> Corpus:
        """Read the gold sentences of a CoNLL-U file. Handles multi-word tokens, empty nodes and `SpaceAfter=No`.

        Raises:
            CorpusError: the file cannot be read or is not CoNLL-U; the message names the line.
        """
        path = Path(path)
        return cls(read_conllu(path, "\n".join(read_lines(path))), f"CoNLL-U {_name(path)}")

    @classmethod
    def from_text_file(  # noqa: D417
        cls,
        path: str | Path,
        nlp: str | Language | None = None,
        *,
        column: str | None = None,
        sequence_kind: TextKind = "sentence",
        into: str | Path | None = None,
        n_process: int = 1,
        on_error: OnError = "raise",
        progress: bool = True,
    ) -> Corpus:
        """Annotate the texts of a file, which is read as a stream. A text may have several sentences.

        Args:
            path: UTF-8 text with one text per line; JSON lines (`.jsonl`, `.ndjson`); either of them gzipped (`.gz`);
                or Parquet. A missing value is an empty text.
            nlp: see `from_texts`.
            column: the field (JSON lines) or column (Parquet) with the texts; None is "text".
            sequence_kind, into, n_process, on_error, progress: see `from_texts`.

        Raises:
            CorpusError: as `from_texts`; or the file cannot be read or has no such column.
        """
        path = Path(path)
        return cls.from_texts(
            texts_of_file(path, column),
            nlp,
            sequence_kind=sequence_kind,
            origin=_name(path),
            into=into,
            n_process=n_process,
            on_error=on_error,
            progress=progress,
        )

    @classmethod
    def from_dataset(  # noqa: D417
        cls,
        dataset: Any,
        column: str = COLUMN,
        nlp: str | Language | None = None,
        *,
        sequence_kind: TextKind = "sentence",
        origin: str | None = None,
        into: str | Path | None = None,
        n_process: int = 1,
        on_error: OnError = "raise",
        progress: bool = True,
    ) -> Corpus:
        """Annotate the texts of a Hugging Face `datasets` data set, streaming or not.

        Args:
            dataset: a `datasets.Dataset` or `IterableDataset`; of a `DatasetDict`, pass one split.
            column: the column with the texts.
            nlp: see `from_texts`.
            sequence_kind, into, n_process, on_error, progress: see `from_texts`.
            origin: where the texts come from; None uses the name and split of the data set.

        Raises:
            CorpusError: as `from_texts`; or `dataset` is not a data set, or has no such column.
        """
        texts = texts_of_dataset(dataset, column)
        if origin is None:
            known = (dataset.info.dataset_name, dataset.info.config_name, dataset.split)
            origin = f"data set {' '.join(str(part) for part in known if part) or 'without a name'}, column {column}"
        return cls.from_texts(
            texts,
            nlp,
            sequence_kind=sequence_kind,
            origin=origin,
            into=into,
            n_process=n_process,
            on_error=on_error,
            progress=progress,
        )

    @classmethod
    def from_token_ids(cls, sequences: Iterable[Iterable[int]], *, origin: str = "token ids given in Python") -> Corpus:
        """Take sequences of token ids, which the model reads unchanged: no BOS or [CLS] is added.

        `collect(…, prepend_bos=True)` prepends BOS to each. The sequences have no words, so statistics that need words
        (`pos_to`, `dependency_alignment` and others) are left out. Exemplars show the tokens as the model's tokenizer
        decodes them. For example, repeated random tokens reveal induction heads:

        ```python
        half = torch.randint(1000, 10000, (50, 25))
        corpus = ta.Corpus.from_token_ids(torch.cat([half, half], 1))
        ```

        Args:
            sequences: lists of ids, or the rows of an array or tensor `[sequence, position]`, without padding.
            origin: where they come from; recorded in the provenance.

        Raises:
            CorpusError: there are no sequences, one is empty, or an id is not a non-negative integer. Ids outside the
                model's vocabulary are refused when the model reads them.
        """
        if isinstance(sequences, str) or not isinstance(sequences, Iterable):
            raise CorpusError(f"sequences: got {sequences!r:.60}, expected lists of token ids")
        rows = sequences.tolist() if hasattr(sequences, "tolist") else sequences
        made = (
            Sentence("", (), f"sequence {number}", ids=_ids(row, number)) for number, row in enumerate(rows, start=1)
        )
        return cls(made, origin, "tokens")

    @classmethod
    def repeated_tokens(cls, model: Any, n: int, length: int, seed: int = 0) -> Corpus:
        """Make sequences of random tokens repeated twice, the standard probe for induction heads (Olsson et al. 2022).

        Args:
            model: a model with a `tokenizer`, or the tokenizer. Special tokens are not drawn.
            n: how many sequences.
            length: the number of tokens before the repetition.
            seed: of the random numbers.

        Raises:
            CorpusError: `n` or `length` is not a whole number above 0, `seed` is not one from 0 on, or there is no
                tokenizer.
        """
        tokenizer = getattr(model, "tokenizer", model)
        if not hasattr(tokenizer, "all_special_ids"):
            raise CorpusError(f"model: got {type(model).__name__}, expected a model with a tokenizer, or a tokenizer")
        for name, number, least in (("n", n, 1), ("length", length, 1), ("seed", seed, 0)):
            if not isinstance(number, int | np.integer) or isinstance(number, bool) or number < least:
                raise CorpusError(f"{name}={number!r}: expected a whole number, at least {least}")
        # Tokens such as <|im_start|> are special without being among `all_special_ids`.
        added = getattr(tokenizer, "added_tokens_decoder", {})
        special = {*tokenizer.all_special_ids, *(id_ for id_, token in added.items() if token.special)}
        ordinary = np.setdiff1d(np.arange(len(tokenizer)), [*special])
        once = np.random.default_rng(seed).choice(ordinary, (n, length))
        return cls.from_token_ids(np.concatenate([once, once], 1), origin=f"random tokens repeated, seed {seed}")

    def to_file(self, path: str | Path) -> None:
        """Write the sentences as a new corpus: Parquet, or JSON lines if the file name ends in `.jsonl`.

        Parquet is faster and is read without loading all of it into memory. JSON lines are human-readable.
        """
        path = Path(path)
        if path.suffix == ".jsonl":
            write_jsonl(path, self)
            return
        parts = ((table_of(group), [s.digest for s in group]) for group in groups(self))
        write_store(path, parts, self.origin, self.sequence_kind)

    @classmethod
    def from_file(cls, path: str | Path) -> Corpus:
        """Read a file written by `to_file` or `from_texts(into=…)`.

        Parquet stays on disk: its sentences are read and checked one at a time, when they are used.

        Raises:
            CorpusError: the file is not a corpus file, is cut off or damaged, or has a sentence with wrong annotation;
                the message names the file and the line or sentence.
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
        """Return one of `n_shards` consecutive parts of (nearly) equal size. The first is number 1.

        Raises:
            CorpusError: `number` is not in 1 to `n_shards`, or there are more shards than sentences.
        """
        if not 1 <= n_shards <= len(self):
            raise CorpusError(f"n_shards={n_shards}: expected 1 to {len(self)}, the number of sentences here")
        if not 1 <= number <= n_shards:
            raise CorpusError(f"shard {number} of {n_shards}: expected a number from 1 to {n_shards}")
        first, end = (len(self) * part // n_shards for part in (number - 1, number))
        return self[first:end]

    @property
    def view(self) -> str:
        """A hash over the numbers of the sentences in this view, in order."""
        numbers = np.fromiter(self._places, "<i8", len(self))
        return hashlib.blake2b(numbers.tobytes(), digest_size=8).hexdigest()

    def filter(self, keep: Callable[[Sentence], bool]) -> Corpus:
        """Return the sentences for which `keep` is true. Reads every sentence once.

        Raises:
            CorpusError: `keep` is true for no sentence.
        """
        places = array("q", (place for place in self._places if keep(self._stored[place])))
        if not places:
            raise CorpusError(f"filter: keep was true for none of the {len(self)} sentences")
        return self._view(places)

    def sample(self, n: int, seed: int = 0) -> Corpus:
        """Draw `n` sentences at random, in corpus order. The same seed draws the same sentences.

        Raises:
            CorpusError: the corpus has fewer than `n` sentences.
        """
        if not 1 <= n <= len(self):
            raise CorpusError(f"sample: n={n}, expected 1 to {len(self)}, the number of sentences here")
        drawn = sorted(random.Random(seed).sample(range(len(self)), n))
        return self._view(array("q", (self._places[place] for place in drawn)))

    def _view(self, places: Sequence[int]) -> Corpus:
        part = object.__new__(type(self))
        part._stored, part._places = self._stored, places
        part.origin, part.sequence_kind = self.origin, self.sequence_kind
        part.identity, part.size = self.identity, self.size
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
        raise CorpusError(f"sentences: got {given!r}, expected Sentences; Corpus.from_texts makes them from strings")
    return given


def _ids(row: Any, number: int) -> tuple[int, ...]:
    row = row.tolist() if hasattr(row, "tolist") else row
    if isinstance(row, str) or not isinstance(row, Iterable):
        raise CorpusError(f"sequences: number {number} is {row!r:.60}, expected a list of token ids")
    # Convert elements of arrays and tensors to Python numbers.
    return tuple(id_.item() if hasattr(id_, "item") else id_ for id_ in row)


def _name(path: Path) -> str:
    """The file name, with a question mark for every byte that is not UTF-8."""
    return path.name.encode(errors="replace").decode()
