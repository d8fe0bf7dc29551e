"""A corpus file that is damaged anywhere is refused. Earlier versions are read, or refused by name."""

from __future__ import annotations

import gzip
import hashlib
import json
from pathlib import Path

import pyarrow.parquet as pq
import pytest

from tests import tiny
from tests.damage import assert_cuts_refused, assert_flips_refused
from tl_attnstats import Corpus
from tl_attnstats.corpus.seal import seal, seal_of, wrong_version
from tl_attnstats.errors import CorpusError

MADE = tiny.sentences(3, seed=1)


@pytest.fixture(params=["parquet", "jsonl"])
def path(request: pytest.FixtureRequest, tmp_path: Path) -> Path:
    path = tmp_path / f"corpus.{request.param}"
    Corpus(MADE, "made up").to_file(path)
    return path


def read(path: Path) -> list[str]:
    return [sentence.text for sentence in Corpus.from_file(path)]


def test_a_byte_changed_anywhere_is_refused(path: Path) -> None:
    assert_flips_refused(path, read)


def test_a_file_cut_off_or_continued_is_refused(path: Path) -> None:
    assert_cuts_refused(path, read)


def test_damage_is_called_so(path: Path) -> None:
    whole = bytearray(path.read_bytes())
    whole[100] ^= 1
    path.write_bytes(whole)
    with pytest.raises(CorpusError, match=rf"{path.name}: is damaged, or was changed .* do not match its checksum"):
        Corpus.from_file(path)


def test_a_parquet_file_is_read_by_others(tmp_path: Path) -> None:
    Corpus(MADE).to_file(tmp_path / "corpus.parquet")
    assert pq.read_table(tmp_path / "corpus.parquet")["text"].to_pylist() == [s.text for s in MADE]


def test_the_last_line_of_json_lines_is_the_checksum_of_the_lines_before(tmp_path: Path) -> None:
    Corpus(MADE).to_file(tmp_path / "corpus.jsonl")
    *lines, last = (tmp_path / "corpus.jsonl").read_bytes().splitlines(keepends=True)
    assert json.loads(last) == {"sha256 of the rest": hashlib.sha256(b"".join(lines)).hexdigest()}


def test_json_lines_edited_by_hand_are_read_without_their_checksum(tmp_path: Path) -> None:
    path = tmp_path / "corpus.jsonl"
    Corpus(MADE, "made up").to_file(path)
    edited = path.read_text(encoding="utf-8").replace('"made up"', '"edited"')
    path.write_text(edited, encoding="utf-8")
    message = r"delete the last line, and set the format in the first line to 'tl_attnstats corpus 1'"
    with pytest.raises(CorpusError, match=message):
        Corpus.from_file(path)
    unsealed = edited.replace("tl_attnstats corpus 3", "tl_attnstats corpus 1").splitlines(keepends=True)[:-1]
    path.write_text("".join(unsealed), encoding="utf-8")
    assert (Corpus.from_file(path).origin, read(path)) == ("edited", [s.text for s in MADE])


def test_json_lines_are_read_gzipped(tmp_path: Path) -> None:
    Corpus(MADE).to_file(tmp_path / "corpus.jsonl")
    whole = (tmp_path / "corpus.jsonl").read_bytes()
    packed = tmp_path / "corpus.jsonl.gz"
    packed.write_bytes(gzip.compress(whole))
    assert read(packed) == [s.text for s in MADE]
    packed.write_bytes(gzip.compress(whole.replace(b"made", b"make", 1).replace(b"random", b"rondom", 1)))
    with pytest.raises(CorpusError, match="do not match its checksum"):
        read(packed)
    packed.write_bytes(gzip.compress(whole)[:-20])
    with pytest.raises(CorpusError, match="not a whole gzip file"):
        read(packed)


# Versions


def test_json_lines_of_another_version(tmp_path: Path) -> None:
    path = tmp_path / "corpus.jsonl"
    row = json.dumps({"name": "first", "text": "a", "words": []})
    for version, message in (
        (1, None),
        (3, r"line 1: its checksum is missing: it is cut off, or another program changed it"),
        (4, r"format 'tl_attnstats corpus 4' is of a newer version, expected '.* corpus 3'; update tl_attnstats"),
    ):
        header = json.dumps({"format": f"tl_attnstats corpus {version}", "origin": "made up"})
        path.write_text(f"{header}\n{row}\n", encoding="utf-8")
        if message is None:
            assert read(path) == ["a"]
        else:
            with pytest.raises(CorpusError, match=message):
                Corpus.from_file(path)


@pytest.mark.parametrize(
    ("version", "message"),
    [
        (
            1,
            r"format 'tl_attnstats corpus 1', expected 'tl_attnstats corpus 3'; make it again, because this version",
        ),
        (2, None),
        (3, "its checksum is missing"),
        (4, r"format 'tl_attnstats corpus 4' is of a newer version, expected .*; update tl_attnstats"),
    ],
)
def test_parquet_of_another_version(tmp_path: Path, version: int, message: str | None) -> None:
    Corpus(MADE, "made up").to_file(tmp_path / "now.parquet")
    table, said = pq.read_table(tmp_path / "now.parquet"), dict(pq.read_metadata(tmp_path / "now.parquet").metadata)
    said[b"format"] = f"tl_attnstats corpus {version}".encode()
    del said[b"ARROW:schema"]
    path = tmp_path / "then.parquet"
    pq.write_table(table.replace_schema_metadata(said), path)
    if message is None:
        assert list(Corpus.from_file(path)) == MADE
    else:
        with pytest.raises(CorpusError, match=rf"then\.parquet: not a corpus file of tl_attnstats \({message}"):
            Corpus.from_file(path)


@pytest.mark.parametrize(
    "found", [None, 3, "", "a", "a 3 ", "a 3\n", "a ٣", "a -3", "a 03 4", "b 4", "a 9999999999", ["a 3"]]
)
def test_what_is_no_version(found: object) -> None:
    assert wrong_version(found, "a 3", "whole", unsealed=()) == f"format {found!r}, expected 'a 3'"


# Seals


@pytest.mark.parametrize("tail", [0, 1, 5])
@pytest.mark.parametrize("size", [6, 200, 2**20, 2**20 + 7, 2**21])
def test_a_seal_is_whole_where_it_was_put(tmp_path: Path, size: int, tail: int) -> None:
    path = tmp_path / "file"
    contents = bytes(place % 251 for place in range(size))
    path.write_bytes(contents)
    seal(path, tail)
    with path.open("rb") as file:
        assert seal_of(file, tail) == "whole"
        assert seal_of(file, tail + 1) == seal_of(file, tail - 1) == "missing"
        assert seal_of(file, size + 1) == seal_of(file, -1) == seal_of(file, 10**9) == "missing"
    sealed = path.read_bytes()
    assert (sealed[: size - tail], sealed[len(sealed) - tail :]) == (contents[: size - tail], contents[size - tail :])
    digest = hashlib.sha256(contents).hexdigest()
    assert json.loads(sealed[size - tail : len(sealed) - tail]) == {"sha256 of the rest": digest}
    for place in {0, size - tail - 1, *range(len(sealed) - tail, len(sealed))}:
        damaged = bytearray(sealed)
        damaged[place] ^= 255
        path.write_bytes(damaged)
        with path.open("rb") as file:
            assert seal_of(file, tail) == "broken"


def test_a_file_that_is_too_short_has_no_seal(tmp_path: Path) -> None:
    (tmp_path / "file").write_bytes(b"")
    with (tmp_path / "file").open("rb") as file:
        assert seal_of(file) == "missing"
