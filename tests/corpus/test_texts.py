"""Texts from files and data sets of any size."""

from __future__ import annotations

import gzip
import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import datasets
import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from tl_attnstats import Corpus, Sentence
from tl_attnstats.corpus.texts import Texts, read_lines, texts_of_dataset, texts_of_file
from tl_attnstats.errors import CorpusError

TEXTS = ["The cat sat.", "", "日本 😀", "a\tb"]


def write_text(path: Path) -> None:
    path.write_text("\n".join(TEXTS) + "\n", encoding="utf-8")


def write_jsonl(path: Path) -> None:
    path.write_text("".join(json.dumps({"id": 1, "text": text}) + "\n" for text in TEXTS), encoding="utf-8")


def write_parquet(path: Path) -> None:
    pq.write_table(pa.table({"id": range(4), "text": TEXTS}), path, row_group_size=3)


def write_large(path: Path) -> None:
    kind = pa.dictionary(pa.int32(), pa.large_string())
    pq.write_table(pa.table({"text": pa.array(TEXTS, pa.large_string()).cast(kind)}), path)


@pytest.mark.parametrize(
    ("name", "write"),
    [
        ("a.txt", write_text),
        ("a", write_text),
        ("a.jsonl", write_jsonl),
        ("a.ndjson", write_jsonl),
        ("a.parquet", write_parquet),
        ("a.pq", write_large),
    ],
)
@pytest.mark.parametrize("zipped", [False, True])
def test_texts_are_read_from_a_file(tmp_path: Path, name: str, write: Callable[[Path], None], zipped: bool) -> None:
    path = tmp_path / name
    write(path)
    if zipped and path.suffix not in (".parquet", ".pq"):
        packed = path.with_name(f"{name}.gz")
        packed.write_bytes(gzip.compress(path.read_bytes()))
        path = packed
    texts = texts_of_file(path)
    assert texts.done == 0
    for _ in range(2):  # they can be read again
        assert list(texts) == TEXTS
        assert texts.done == texts.size  # in bytes or in rows


def test_lines_end_as_python_reads_them_and_a_byte_order_mark_is_no_text(tmp_path: Path) -> None:
    path = tmp_path / "a.txt"
    path.write_bytes(b"\xef\xbb\xbfa\r\nb\rc\n\xef\xbb\xbfd\xe2\x80\xa8e\n\nf")
    assert list(read_lines(path)) == ["a", "b", "c", "\ufeffd\u2028e", "", "f"]
    assert list(read_lines(path)) == path.read_text(encoding="utf-8-sig").split("\n")


def test_a_file_is_read_as_a_stream(tmp_path: Path) -> None:
    path = tmp_path / "long.txt"
    path.write_text("A line of text.\n" * 100_000, encoding="utf-8")
    texts = texts_of_file(path)
    next(iter(texts))
    assert texts.size == 1_600_000
    assert 0 < texts.done < 100_000


def test_a_column_by_another_name(tmp_path: Path) -> None:
    write_parquet(tmp_path / "a.parquet")
    with pytest.raises(CorpusError, match=r"a\.parquet: no column 'body'; it has id, text; pass the one with the"):
        texts_of_file(tmp_path / "a.parquet", "body")
    with pytest.raises(CorpusError, match=r"a\.parquet: column 'id' has type int64, expected strings"):
        texts_of_file(tmp_path / "a.parquet", "id")
    (tmp_path / "a.jsonl").write_text('{"body": "one"}\n\n{"body": null}\n{"body": "two"}\n')
    assert list(texts_of_file(tmp_path / "a.jsonl", "body")) == ["one", "", "two"]
    with pytest.raises(CorpusError, match=r"a\.jsonl, line 1: no column 'text'; it has body; pass the one"):
        list(texts_of_file(tmp_path / "a.jsonl"))
    write_text(tmp_path / "a.txt")
    with pytest.raises(CorpusError, match=r"column='body': a\.txt is read as plain text, which has no columns"):
        texts_of_file(tmp_path / "a.txt", "body")


@pytest.mark.parametrize(
    ("line", "message"),
    [
        ("{", r"line 2: not JSON \(.*expected one object per line"),
        ("[1]", r"line 2: got '\[1\]'…, expected a JSON object with a field 'text'"),
        ('{"text": 5}', "line 2: text=5, expected a string"),
        ("[" * 100_000, "line 2: not JSON"),
    ],
)
def test_json_lines_that_are_wrong(tmp_path: Path, line: str, message: str) -> None:
    path = tmp_path / "a.jsonl"
    path.write_text('{"text": "one"}\n' + line + "\n")
    with pytest.raises(CorpusError, match=rf"a\.jsonl, {message}"):
        list(texts_of_file(path))


def test_missing_values_are_empty_texts(tmp_path: Path) -> None:
    pq.write_table(pa.table({"text": ["a", None, "b"]}), tmp_path / "a.parquet")
    assert list(texts_of_file(tmp_path / "a.parquet")) == ["a", "", "b"]


def test_files_that_cannot_be_read(tmp_path: Path) -> None:
    with pytest.raises(CorpusError, match=r"nowhere\.txt: no such file"):
        texts_of_file(tmp_path / "nowhere.txt")
    with pytest.raises(CorpusError, match="cannot be read"):
        texts_of_file(tmp_path)
    (tmp_path / "a.parquet").write_text("text")
    with pytest.raises(CorpusError, match=r"a\.parquet: not a Parquet file; expected one with a column 'text'"):
        texts_of_file(tmp_path / "a.parquet")
    write_parquet(tmp_path / "b.parquet")
    whole = (tmp_path / "b.parquet").read_bytes()
    (tmp_path / "b.parquet").write_bytes(whole[:-30])
    with pytest.raises(CorpusError, match=r"b\.parquet: cannot be read, is it cut off or damaged\?"):
        texts_of_file(tmp_path / "b.parquet")
    packed = gzip.compress(b"a line\n" * 1000)
    for damaged in (packed[:-12], packed[:5], packed[:10] + b"\xff" * 20 + packed[30:]):
        (tmp_path / "a.txt.gz").write_bytes(damaged)
        with pytest.raises(CorpusError, match=r"a\.txt\.gz: not a whole gzip file \(.*is it cut off\?"):
            list(texts_of_file(tmp_path / "a.txt.gz"))
    (tmp_path / "latin.txt").write_bytes(b"one\ntw\xe9\n")
    with pytest.raises(CorpusError, match=r"latin\.txt: not UTF-8 \(byte 6: "):
        list(texts_of_file(tmp_path / "latin.txt"))


def test_an_annotated_corpus_is_not_annotated_again(tmp_path: Path) -> None:
    Corpus([Sentence("a", (), "one")]).to_file(tmp_path / "corpus.parquet")
    with pytest.raises(
        CorpusError, match=r"corpus\.parquet: is an annotated corpus, expected texts; use Corpus\.from_"
    ):
        texts_of_file(tmp_path / "corpus.parquet")


def test_texts_of_a_list_and_of_a_generator() -> None:
    assert (Texts(TEXTS).size, Texts(iter(TEXTS)).size) == (4, None)
    assert list(Texts(TEXTS)) == TEXTS


def test_from_text_file_of_any_kind_is_the_same_corpus(tmp_path: Path, nlp: Any) -> None:
    made = []
    for name, write in (("a.txt", write_text), ("a.jsonl", write_jsonl), ("a.parquet", write_parquet)):
        write(tmp_path / name)
        made.append(Corpus.from_text_file(tmp_path / name, nlp))
        assert made[-1].origin.startswith(f"{name}, annotated by spaCy en_core_web_sm")
    assert [s.text for s in made[0]] == [text for text in TEXTS if text]
    assert len({corpus.identity for corpus in made}) == 1


# Data sets


def test_from_dataset(nlp: Any) -> None:
    dataset = datasets.Dataset.from_dict({"body": [*TEXTS, None], "label": [0, 1, 0, 1, 1]})
    texts = texts_of_dataset(dataset, "body")
    assert list(texts) == [*TEXTS, ""]
    assert texts.done == texts.size == 5
    corpus = Corpus.from_dataset(dataset, "body", nlp)
    assert corpus.identity == Corpus.from_texts(TEXTS, nlp).identity
    assert corpus.origin.startswith("data set without a name, column body, annotated by spaCy")
    streamed = Corpus.from_dataset(dataset.to_iterable_dataset(), "body", nlp, origin="my data")
    assert streamed.identity == corpus.identity
    assert streamed.origin.startswith("my data, annotated")


def test_other_objects_are_refused_as_data_sets() -> None:
    dataset = datasets.Dataset.from_dict({"body": TEXTS, "label": [0, 1, 0, 1]})
    with pytest.raises(CorpusError, match="dataset: no column 'text'; it has body, label; pass the one with the texts"):
        Corpus.from_dataset(dataset)
    with pytest.raises(CorpusError, match="dataset: got a DatasetDict with the splits train, test; pass one of them"):
        Corpus.from_dataset(datasets.DatasetDict(train=dataset, test=dataset))
    with pytest.raises(CorpusError, match="dataset: got list, expected a Dataset from the package datasets"):
        Corpus.from_dataset(TEXTS)
    with pytest.raises(CorpusError, match="dataset: row 1: label=0, expected a string"):
        list(texts_of_dataset(dataset, "label"))
