"""Annotated sentences as human-readable JSON lines: a header, one sentence per line, and a line with a checksum."""

from __future__ import annotations

import itertools
import json
from collections.abc import Callable, Mapping, Set
from functools import partial
from pathlib import Path
from types import MappingProxyType
from typing import TYPE_CHECKING, Any, TypeVar

from tl_attnstats.corpus.files import write_whole
from tl_attnstats.corpus.kinds import SequenceKind, check_kind
from tl_attnstats.corpus.seal import BROKEN, Seal, is_seal, seal, seal_of, wrong_version
from tl_attnstats.corpus.sentence import Sentence, Word, check_string
from tl_attnstats.corpus.texts import open_bytes, read_lines
from tl_attnstats.errors import CorpusError, choices

if TYPE_CHECKING:
    from tl_attnstats.corpus.corpus import Corpus

FORMAT = "tl_attnstats corpus 3"
UNSEALED = ("tl_attnstats corpus 1",)  # the same without a checksum
T = TypeVar("T")

OLD_NAMES = {"source": "origin", "unit": "sequence_kind"}
"""Header keys of earlier versions, and their names now."""


def write_jsonl(path: Path, corpus: Corpus) -> None:
    """Write a corpus file."""
    header = {
        "format": FORMAT,
        "origin": corpus.origin,
        "sequence_kind": corpus.sequence_kind,
        "sentences": len(corpus),
    }
    lines = (json.dumps(entry, ensure_ascii=False) for entry in itertools.chain([header], map(_entry, corpus)))
    with write_whole(path) as temporary:
        with temporary.open("w", encoding="utf-8", newline="\n") as file:
            file.writelines(line + "\n" for line in lines)
        seal(temporary)


def _entry(sentence: Sentence) -> dict[str, Any]:
    words = [[w.start, w.end, w.upos, w.head, w.deprel] for w in sentence.words]
    entry: dict[str, Any] = {"name": sentence.name, "text": sentence.text, "words": words}
    return entry if sentence.ids is None else {**entry, "ids": sentence.ids}


def read_jsonl(path: Path) -> tuple[list[Sentence], str, SequenceKind]:
    """Read a file's sentences, origin and sequence kind.

    Raises:
        CorpusError: the file is not a corpus file, is cut off, or has a sentence with wrong annotation; the message
            names the file and line.
    """
    with open_bytes(path) as (_, file):
        found = seal_of(file)
    if found == "broken":
        raise CorpusError(
            f"{path}: {BROKEN}. If you edited it, delete the last line, and set the format in the first line to "
            f"{UNSEALED[0]!r}"
        )
    lines = read_lines(path)
    meta = _read(partial(_header, found=found), next(lines, ""), path, 1)
    rows = ((number, line) for number, line in enumerate(lines, start=2) if line and not is_seal(f"{line}\n".encode()))
    sentences = [_read(_read_sentence, line, path, number) for number, line in rows]
    # Earlier versions did not write the number of sentences.
    count = meta.get("sentences", len(sentences))
    if type(count) is not int or count != len(sentences):
        raise CorpusError(
            f"{path}: not a corpus file of tl_attnstats (it has {len(sentences)} sentences, but its header "
            f"says {count!r}; is it cut off?); expected a file written by Corpus.to_file"
        )
    return sentences, meta["origin"], meta.get("sequence_kind", "sentence")


def _read(read: Callable[[str], T], line: str, path: Path, number: int) -> T:
    try:
        return read(line)
    except (ValueError, TypeError, RecursionError) as error:
        what = str(error) if isinstance(error, CorpusError) else f"{type(error).__name__}: {error}"
        raise CorpusError(
            f"{path}: not a corpus file of tl_attnstats (line {number}: {what}); "
            f"expected a file written by Corpus.to_file"
        ) from None


def _header(line: str, found: Seal) -> dict[str, Any]:
    meta = _json_object(line, {"format", "origin"}, {"sequence_kind", "sentences"}, OLD_NAMES)
    if wrong := wrong_version(meta["format"], FORMAT, found, unsealed=UNSEALED):
        raise CorpusError(wrong)
    check_string("origin", meta["origin"], "corpus")
    check_kind(meta.get("sequence_kind", "sentence"))
    return meta


def _read_sentence(line: str) -> Sentence:
    entry = _json_object(line, {"name", "text", "words"}, {"ids"})
    if not isinstance(entry["words"], list):
        raise ValueError(f"words={entry['words']!r}, expected a list of [start, end, upos, head, deprel]")
    ids = entry.get("ids")
    ids = tuple(ids) if isinstance(ids, list) else ids
    return Sentence(entry["text"], tuple(Word(*word) for word in entry["words"]), entry["name"], ids=ids)


def _json_object(
    line: str, required: Set[str], optional: Set[str] = frozenset(), renamed: Mapping[str, str] = MappingProxyType({})
) -> dict[str, Any]:
    """Parse a line as a JSON object. Raises `ValueError` for missing, unknown or duplicate keys."""

    def unique(pairs: list[tuple[str, Any]]) -> dict[str, Any]:
        made = {renamed.get(key, key): value for key, value in pairs}
        if len(made) < len(pairs):
            raise ValueError(f"duplicate key among {', '.join(key for key, _ in pairs)}")
        return made

    made = json.loads(line, object_pairs_hook=unique)
    if not isinstance(made, dict) or not required <= made.keys() <= required | optional:
        raise ValueError(f"got {line[:60]!r}…, expected a JSON object with the keys {choices(required)}")
    return made
