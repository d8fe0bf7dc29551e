"""Annotated sentences on disk: a Parquet file, read one row group at a time, so that memory does not grow with it.

The file's metadata holds the header: format, origin, sequence kind, number of sentences and identity of the corpus.
`docs/files.md` describes it.
"""

from __future__ import annotations

import hashlib
import os
from bisect import bisect_right
from collections.abc import Iterable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from itertools import accumulate
from pathlib import Path
from typing import TYPE_CHECKING, Any, BinaryIO, overload

from tl_attnstats.corpus.files import write_whole
from tl_attnstats.corpus.kinds import SequenceKind, check_kind
from tl_attnstats.corpus.seal import BROKEN, Seal, seal, seal_of, wrong_version
from tl_attnstats.corpus.sentence import Sentence, Word
from tl_attnstats.errors import CorpusError

if TYPE_CHECKING:  # pyarrow loads only when a file is read or written
    import pyarrow as pa

FORMAT = "tl_attnstats corpus 3"
UNSEALED = ("tl_attnstats corpus 2",)  # the same without a checksum of the whole file
# A row group is held in memory, so limit its sentences and its words or ids.
MOST_SENTENCES, MOST_WORDS = 2048, 50_000
_WORD_FIELDS = ("start", "end", "upos", "head", "deprel")
MAGIC = b"PAR1"  # the first and the last bytes of a Parquet file


@dataclass(frozen=True)
class Header:
    """The header of a corpus file."""

    origin: str
    sequence_kind: SequenceKind
    size: int
    identity: str


class Identity:
    """Identity of a corpus: a hash over the digests of its sentences in the order of their numbers."""

    def __init__(self, digests: Iterable[int] = ()):
        self._hash = hashlib.blake2b(digest_size=8)
        self.add(digests)

    def add(self, digests: Iterable[int]) -> None:
        """Add the digests of the next sentences."""
        self._hash.update(b"".join(digest.to_bytes(8, "big") for digest in digests))

    def __str__(self) -> str:
        return self._hash.hexdigest()


def schema() -> pa.Schema:
    """The columns; each row is a sentence. `head` is a word index, null for a root; `ids` is null for a text."""
    import pyarrow as pa

    words = {"start": pa.int32(), "end": pa.int32(), "upos": pa.string(), "head": pa.int32(), "deprel": pa.string()}
    return pa.schema(
        [
            ("name", pa.string()),
            ("text", pa.string()),
            *((field, pa.list_(kind)) for field, kind in words.items()),
            ("ids", pa.list_(pa.int64())),
        ]
    )


def table_of(sentences: Sequence[Sentence]) -> pa.Table:
    """Convert sentences to a table with `schema`."""
    import pyarrow as pa

    columns: dict[str, list[Any]] = {"name": [s.name for s in sentences], "text": [s.text for s in sentences]}
    for field in _WORD_FIELDS:
        columns[field] = [[getattr(word, field) for word in s.words] for s in sentences]
    columns["ids"] = [s.ids for s in sentences]
    try:
        return pa.table(columns, schema=schema())
    except pa.ArrowException as error:  # a text of more than 2³¹ characters
        raise CorpusError(f"sentences starting at {sentences[0].name!r} cannot be written ({error})") from None


def groups(sentences: Iterable[Sentence]) -> Iterator[list[Sentence]]:
    """Split sentences into lists small enough for a row group."""
    group: list[Sentence] = []
    n_words = 0
    for sentence in sentences:
        group.append(sentence)
        n_words += len(sentence.words) + len(sentence.ids or ())
        if len(group) >= MOST_SENTENCES or n_words >= MOST_WORDS:
            yield group
            group, n_words = [], 0
    if group:
        yield group


def write_store(
    path: Path, parts: Iterable[tuple[pa.Table, Sequence[int]]], origin: str, sequence_kind: SequenceKind
) -> None:
    """Write a corpus file, whole or not at all.

    Args:
        path: the file.
        parts: tables with `schema`, each with the digests of its sentences.
        origin: where the sentences come from.
        sequence_kind: what the model reads at once.

    Raises:
        CorpusError: there are no sentences.
    """
    size, identity = 0, Identity()
    with writer_of(path, schema()) as writer:
        for table, digests in parts:
            writer.write_table(table, row_group_size=MOST_SENTENCES)
            identity.add(digests)
            size += len(table)
        if not size:
            raise CorpusError(f"empty corpus: no sentence found in {origin}")
        header = {
            "format": FORMAT,
            "origin": origin,
            "sequence_kind": sequence_kind,
            "sentences": str(size),
            "identity": str(identity),
        }
        writer.add_key_value_metadata(header)


@contextmanager
def writer_of(path: Path, columns: pa.Schema) -> Iterator[Any]:
    """A writer of a Parquet file, which is written whole or not at all, with checksums of its pages and a seal."""
    import pyarrow.parquet as pq

    how: dict[str, Any] = {"compression": "zstd", "write_statistics": False, "write_page_checksum": True}
    with write_whole(path) as temporary:
        with pq.ParquetWriter(temporary, columns, **how) as writer:
            yield writer
        # Page checksums cover neither the headers of pages nor the footer.
        with temporary.open("rb") as file:
            tail = _footer(file)
        seal(temporary, tail)


def check_seal(path: Path) -> Seal:
    """Whether a Parquet file has a seal. Raises `CorpusError` if it is damaged."""
    with path.open("rb") as file:
        found = seal_of(file, _footer(file))
    if found == "broken":
        raise CorpusError(f"{path}: {BROKEN}")
    return found


def _footer(file: BinaryIO) -> int:
    """Number of bytes of a Parquet file's footer: the metadata, their length, and `MAGIC`."""
    file.seek(-min(8, file.seek(0, os.SEEK_END)), os.SEEK_END)
    return int.from_bytes(file.read(4), "little") + 8


@contextmanager
def damage(path: Path) -> Iterator[None]:
    """Turn pyarrow's errors about a damaged file into a `CorpusError` that names the file."""
    import pyarrow as pa

    try:
        yield
    except FileNotFoundError:
        raise CorpusError(f"{path}: no such file") from None
    except (pa.ArrowException, OSError, UnicodeDecodeError) as error:
        what = " ".join(str(error).split())[:200]
        raise CorpusError(f"{path}: cannot be read, is it cut off or damaged? ({what})") from None


def is_parquet(path: Path) -> bool:
    """Whether a file starts like a Parquet file."""
    try:
        with path.open("rb") as file:
            return file.read(len(MAGIC)) == MAGIC
    except FileNotFoundError:
        raise CorpusError(f"{path}: no such file") from None
    except OSError as error:
        raise CorpusError(f"{path}: cannot be read ({error.strerror})") from None


class StoredSentences(Sequence[Sentence]):
    """The sentences of a corpus file. Read them in order: only one row group is in memory at a time.

    Sentences are checked when they are read.

    Raises:
        CorpusError: the file is not a corpus file, or is cut off or damaged.
    """

    def __init__(self, path: Path):
        import pyarrow.parquet as pq

        self._path = path
        with damage(path):
            found = check_seal(path)
            self._file = pq.ParquetFile(path, page_checksum_verification=True)
            metadata = self._file.metadata
            columns = self._file.schema_arrow.remove_metadata()
        self.header = _header(path, metadata.metadata or {}, found)
        if not columns.equals(schema()):
            raise _not_ours(path, f"wrong columns or column types: {', '.join(columns.names)}")
        if metadata.num_rows != self.header.size:
            raise _not_ours(path, f"{metadata.num_rows} sentences, but its header says {self.header.size}")
        sizes = (metadata.row_group(group).num_rows for group in range(metadata.num_row_groups))
        self._starts = list(accumulate(sizes, initial=0))
        self._group, self._columns = -1, dict[str, list[Any]]()  # the row group in memory

    def __reduce__(self) -> tuple[Any, ...]:
        return _reopen, (self._path.absolute(), self.header)

    def __len__(self) -> int:
        return self.header.size

    @overload
    def __getitem__(self, index: int) -> Sentence: ...
    @overload
    def __getitem__(self, index: slice) -> Sequence[Sentence]: ...
    def __getitem__(self, index: int | slice) -> Sentence | Sequence[Sentence]:
        if isinstance(index, slice):
            return [self[place] for place in range(len(self))[index]]
        place = range(len(self))[index]
        group = bisect_right(self._starts, place) - 1
        if group != self._group:
            with damage(self._path):
                self._columns = self._file.read_row_group(group, use_threads=False).to_pydict()
            self._group = group
        row = place - self._starts[group]
        try:
            return self._sentence(row, place)
        except (CorpusError, ValueError, TypeError) as error:
            raise CorpusError(f"{self._path}: sentence {place + 1} is damaged: {error}") from None

    def _sentence(self, row: int, place: int) -> Sentence:
        columns = self._columns
        words = tuple(map(Word, *(columns[field][row] for field in _WORD_FIELDS)))
        if any(len(columns[field][row]) != len(words) for field in _WORD_FIELDS):
            raise ValueError("its columns have different numbers of words")
        ids = columns["ids"][row]
        return Sentence(columns["text"][row], words, columns["name"][row], place, None if ids is None else tuple(ids))


def _reopen(path: Path, header: Header) -> StoredSentences:
    """The same corpus in another process."""
    stored = StoredSentences(path)
    if stored.header != header:
        raise CorpusError(f"{path}: got {stored.header}, expected the corpus that the run began with, {header}")
    return stored


def _header(path: Path, metadata: Mapping[bytes, bytes], found: Seal) -> Header:
    try:
        said = {key.decode(): value.decode() for key, value in metadata.items()}
    except UnicodeDecodeError:
        said = {}
    if wrong := wrong_version(said.get("format"), FORMAT, found, unsealed=UNSEALED):
        raise _not_ours(path, wrong)
    missing = {"origin", "sequence_kind", "sentences", "identity"} - said.keys()
    if missing:
        raise _not_ours(path, f"its header lacks {', '.join(sorted(missing))}")
    try:
        check_kind(said["sequence_kind"])
        return Header(said["origin"], said["sequence_kind"], int(said["sentences"]), said["identity"])  # type: ignore[arg-type]
    except ValueError as error:
        raise _not_ours(path, str(error)) from None


def _not_ours(path: Path, what: str) -> CorpusError:
    return CorpusError(f"{path}: not a corpus file of tl_attnstats ({what}); expected a file written by Corpus.to_file")
