"""Stream texts from files and data sets of any size."""

from __future__ import annotations

import gzip
import json
import sys
import zlib
from collections.abc import Iterable, Iterator, Sized
from contextlib import contextmanager
from pathlib import Path
from typing import TYPE_CHECKING, Any, BinaryIO

from tl_attnstats.corpus.store import damage, is_parquet
from tl_attnstats.errors import CorpusError, choices

if TYPE_CHECKING:
    from datasets import Dataset, IterableDataset

GZIP_MAGIC = b"\x1f\x8b"
JSON_SUFFIXES = (".jsonl", ".ndjson")
COLUMN = "text"  # the usual name of a text column
ROWS_AT_ONCE = 1024


class Texts:
    """Texts that can be iterated again, with the progress of the iteration: `done` of `size` (None if unknown).

    For text files both count bytes, otherwise texts. A missing value in a table is an empty text.
    """

    def __init__(self, texts: Iterable[Any]):
        self._texts = texts
        self.size = len(texts) if isinstance(texts, Sized) else None
        self.done = 0

    def __iter__(self) -> Iterator[Any]:
        self.done = 0
        for text in self._texts:
            self.done += 1
            yield text


class LinesOfText(Texts):
    """A file with one text per line. Gzip is detected by content."""

    def __init__(self, path: Path):
        self.path, self.done = path, 0
        with damage(path):
            self.size = path.stat().st_size

    def __iter__(self) -> Iterator[str]:
        return read_lines(self.path, self)


class JsonLines(LinesOfText):
    """A file with one JSON object per line and the text in one of its fields."""

    def __init__(self, path: Path, column: str):
        super().__init__(path)
        self.column = column

    def __iter__(self) -> Iterator[str]:
        for number, line in enumerate(super().__iter__(), start=1):
            if line.strip():
                yield self._text(line, f"{self.path}, line {number}")

    def _text(self, line: str, where: str) -> str:
        try:
            row = json.loads(line)
        except (ValueError, RecursionError) as error:
            raise CorpusError(f"{where}: not JSON ({error}), expected one object per line") from None
        if not isinstance(row, dict):
            raise CorpusError(f"{where}: got {line[:40]!r}…, expected a JSON object with a field {self.column!r}")
        if self.column not in row:
            raise CorpusError(f"{where}: {no_column(self.column, row)}")
        text = row[self.column]
        if text is not None and not isinstance(text, str):
            raise CorpusError(f"{where}: {self.column}={text!r:.60}, expected a string")
        return text or ""


class ParquetTexts(Texts):
    """A Parquet file with the texts in one of its columns."""

    def __init__(self, path: Path, column: str):
        import pyarrow as pa
        import pyarrow.parquet as pq

        self.path, self.column = path, column
        with damage(path):
            file = pq.ParquetFile(path)
            columns, self.size, self.done = file.schema_arrow, file.metadata.num_rows, 0
        if (file.metadata.metadata or {}).get(b"format", b"").startswith(b"tl_attnstats corpus "):
            raise CorpusError(f"{path}: is an annotated corpus, expected texts; use Corpus.from_file (--corpus)")
        if column not in columns.names:
            raise CorpusError(f"{path}: {no_column(column, columns.names)}")
        kind = columns.field(column).type
        kind = kind.value_type if pa.types.is_dictionary(kind) else kind
        if not (pa.types.is_string(kind) or pa.types.is_large_string(kind) or pa.types.is_string_view(kind)):
            raise CorpusError(f"{path}: column {column!r} has type {kind}, expected strings")

    def __iter__(self) -> Iterator[str]:
        import pyarrow.parquet as pq

        self.done = 0
        with damage(self.path):
            rows = pq.ParquetFile(self.path).iter_batches(ROWS_AT_ONCE, columns=[self.column], use_threads=False)
        while True:
            with damage(self.path):
                batch = next(rows, None)
            if batch is None:
                return
            for text in batch.column(0).to_pylist():
                self.done += 1
                yield text or ""


class DatasetTexts(Texts):
    """A column of a Hugging Face data set."""

    def __init__(self, dataset: Dataset | IterableDataset, column: str):
        self._rows, self.column, self.done = dataset.select_columns([column]), column, 0
        self.size = len(dataset) if isinstance(dataset, Sized) else None

    def __iter__(self) -> Iterator[str]:
        self.done = 0
        for rows in self._rows.iter(ROWS_AT_ONCE):
            for text in rows[self.column]:
                self.done += 1
                if text is not None and not isinstance(text, str):
                    raise CorpusError(f"dataset: row {self.done}: {self.column}={text!r:.60}, expected a string")
                yield text or ""


def texts_of_file(path: Path, column: str | None = None) -> Texts:
    """The texts of a file in any of its formats: Parquet, JSON lines (`.jsonl`, `.ndjson`) or plain text, also gzipped.

    Raises:
        CorpusError: there is no such file or column.
    """
    if is_parquet(path):
        return ParquetTexts(path, column or COLUMN)
    name = path.with_suffix("") if path.suffix == ".gz" else path
    if name.suffix in JSON_SUFFIXES:
        return JsonLines(path, column or COLUMN)
    if path.suffix == ".parquet":
        raise CorpusError(f"{path}: not a Parquet file; expected one with a column {column or COLUMN!r}")
    if column is not None:
        raise CorpusError(
            f"column={column!r}: {path.name} is read as plain text, which has no columns; "
            f"expected a file of JSON lines ({' or '.join(JSON_SUFFIXES)}) or Parquet"
        )
    return LinesOfText(path)


def texts_of_dataset(dataset: Any, column: str) -> Texts:
    """The texts of a Hugging Face data set. Raises `CorpusError` if it is not a data set or has no such column.

    `datasets` is not imported here: whoever has a data set has already imported it.
    """
    package = sys.modules.get("datasets")
    if package is not None and isinstance(dataset, package.DatasetDict | package.IterableDatasetDict):
        splits = ", ".join(dataset)
        raise CorpusError(f"dataset: got a {type(dataset).__name__} with the splits {splits}; pass one of them")
    if package is None or not isinstance(dataset, package.Dataset | package.IterableDataset):
        raise CorpusError(
            f"dataset: got {type(dataset).__name__}, expected a Dataset from the package datasets; "
            f"for any other strings use Corpus.from_texts"
        )
    # A streaming data set may not know its columns before it is read.
    if dataset.column_names is not None and column not in dataset.column_names:
        raise CorpusError(f"dataset: {no_column(column, dataset.column_names)}")
    return DatasetTexts(dataset, column)


def no_column(column: str, names: Iterable[str]) -> str:
    """The message that a column is missing, with the columns that exist."""
    return f"no column {column!r}; it has {choices(names) or 'none'}; pass the one with the texts (column=…)"


def read_lines(path: Path, progress: Texts | None = None) -> Iterator[str]:
    """Yield the lines of a UTF-8 file, plain or gzipped, without line ends and byte order mark.

    Raises:
        CorpusError: the file cannot be read or is not UTF-8; the message says why and where.
    """
    at = 0
    with open_bytes(path) as (raw, file):
        for line in file:
            if progress is not None:
                progress.done = raw.tell()
            try:
                text = line.decode().removesuffix("\n").removesuffix("\r")
            except UnicodeDecodeError as error:
                where = f"byte {at + error.start}: {error.reason}"
                raise CorpusError(f"{path}: not UTF-8 ({where}); re-encode the file") from None
            text = text if at else text.removeprefix("\ufeff")  # a byte order mark
            at += len(line)
            yield from text.split("\r") if "\r" in text else (text,)


@contextmanager
def open_bytes(path: Path) -> Iterator[tuple[BinaryIO, BinaryIO]]:
    """Open a file, plain or gzipped: the file on disk, and its contents.

    Raises:
        CorpusError: the file cannot be opened, or reading it fails within the block.
    """
    try:
        with path.open("rb") as raw:
            zipped = raw.read(2) == GZIP_MAGIC
            raw.seek(0)
            yield raw, gzip.GzipFile(fileobj=raw) if zipped else raw  # type: ignore[misc]
    except FileNotFoundError:
        raise CorpusError(f"{path}: no such file") from None
    except (EOFError, zlib.error, gzip.BadGzipFile) as error:
        raise CorpusError(f"{path}: not a whole gzip file ({error}); is it cut off?") from None
    except OSError as error:
        raise CorpusError(f"{path}: cannot be read ({error.strerror})") from None
