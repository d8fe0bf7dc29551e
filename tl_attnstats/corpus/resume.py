"""Annotate texts into a corpus file, resuming where an earlier call was interrupted.

Finished sentences are kept in numbered files (parts) in a directory beside the target, each written whole or not at
all. The last part records the progress. At the end the parts are joined into one file.
"""

from __future__ import annotations

import json
import shutil
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import TYPE_CHECKING

from tl_attnstats.corpus.annotate import Annotation, OtherTextsError, Reached, pipeline_name
from tl_attnstats.corpus.on_error import without
from tl_attnstats.corpus.sentence import Sentence
from tl_attnstats.corpus.store import check_seal, damage, table_of, write_store, writer_of
from tl_attnstats.corpus.texts import Texts
from tl_attnstats.errors import CorpusError

if TYPE_CHECKING:
    import pyarrow as pa

FORMAT = "tl_attnstats part of a corpus 2"
DIGEST = "digest"  # the column of the sentences' digests


def annotate_into(path: Path, texts: Texts, annotation: Annotation, origin: str) -> None:
    """Annotate texts into a corpus file, resuming an earlier call that was interrupted.

    Raises:
        CorpusError: as `Annotation.chunks`; or the earlier call had another pipeline, sequence kind or other texts.
    """
    parts = _Parts(path, annotation)
    before = reached = parts.reached()
    try:
        for sentences, reached in annotation.chunks(texts, before):
            parts.add(sentences, reached)
    except OtherTextsError as error:
        raise CorpusError(f"{error}, or delete {parts.directory} to start over") from None
    write_store(path, parts.read(), origin + without(reached.skipped), annotation.sequence_kind)
    parts.remove()


class _Parts:
    """The finished parts of an unfinished corpus file."""

    def __init__(self, path: Path, annotation: Annotation):
        self.directory = path.with_name(f"{path.name}.parts")
        pipeline = annotation.pipeline
        self._settings = {
            "format": FORMAT,
            "pipeline": f"{pipeline_name(pipeline)} ({', '.join(pipeline.pipe_names)})",
            "sequence_kind": annotation.sequence_kind,
        }
        self._paths = sorted(self.directory.glob("[0-9]*.parquet"))

    def reached(self) -> Reached:
        """The progress that the last part records."""
        import pyarrow.parquet as pq

        if not self._paths:
            return Reached()
        last = self._paths[-1]
        if last.name != self._name(len(self._paths) - 1):
            raise CorpusError(f"into: parts are missing in {self.directory}; delete it to start over")
        with damage(last):
            check_seal(last)
            found = {key.decode(): value.decode() for key, value in (pq.read_metadata(last).metadata or {}).items()}
        for key, expected in self._settings.items():
            if found.get(key) != expected:
                raise CorpusError(
                    f"into: {self.directory} holds an annotation started with {key} {found.get(key)}, but this call "
                    f"has {expected}; pass the same to resume, or delete the directory to start over"
                )
        return Reached(int(found["texts"]), found["texts_digest"], tuple(json.loads(found.get("skipped", "[]"))))

    @staticmethod
    def _name(number: int) -> str:
        return f"{number:08d}.parquet"

    def add(self, sentences: Sequence[Sentence], reached: Reached) -> None:
        """Write the next part."""
        import pyarrow as pa

        table = table_of(sentences).append_column(DIGEST, pa.array([s.digest for s in sentences], pa.int64()))
        path = self.directory / self._name(len(self._paths))
        with writer_of(path, table.schema) as writer:
            writer.write_table(table)
            said = {**self._settings, "texts": str(reached.n_texts), "texts_digest": reached.digest}
            said["skipped"] = json.dumps(reached.skipped)
            writer.add_key_value_metadata(said)
        self._paths.append(path)

    def read(self) -> Iterator[tuple[pa.Table, list[int]]]:
        """Yield the sentences of each part as a table, and their digests."""
        import pyarrow.parquet as pq

        for path in self._paths:
            with damage(path):
                check_seal(path)
                table = pq.read_table(path, page_checksum_verification=True, use_threads=False)
            yield table.drop_columns([DIGEST]).replace_schema_metadata(None), table[DIGEST].to_pylist()

    def remove(self) -> None:
        """Delete the parts once the corpus file holds them."""
        shutil.rmtree(self.directory, ignore_errors=True)
