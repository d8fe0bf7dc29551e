from __future__ import annotations

import json
import re
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from tests.corpus.strategies import sentences
from tl_attnstats import Corpus, Sentence, Word
from tl_attnstats.errors import CorpusError


def words(*spans: tuple[int, int]) -> tuple[Word, ...]:
    return tuple(Word(start, end, "NOUN", None, "root") for start, end in spans)


A = Sentence("a cat", (Word(0, 1, "DET", 1, "det"), Word(2, 5, "NOUN", None, "root")), "first")
B = Sentence("日本 😀", words((0, 2), (3, 4)), "second")
C = Sentence("see", words((0, 3)), "third")


def test_corpus_numbers_its_sentences() -> None:
    corpus = Corpus([replace(A, number=7), B, replace(C, number=7)])
    assert [s.number for s in corpus] == [0, 1, 2]
    assert [s.name for s in corpus] == ["first", "second", "third"]


def test_corpus_is_a_sequence() -> None:
    corpus = Corpus([A, B, C])
    assert len(corpus) == 3
    assert corpus[1].text == B.text
    assert corpus[-1].text == C.text
    assert [s.text for s in reversed(corpus)] == [C.text, B.text, A.text]
    with pytest.raises(IndexError):
        corpus[3]


def test_corpus_slice_keeps_numbers_and_identity() -> None:
    corpus = Corpus([A, B, C], "made up")
    part = corpus[1:]
    assert isinstance(part, Corpus)
    assert [(s.text, s.number) for s in part] == [(B.text, 1), (C.text, 2)]
    assert len(part) == 2
    assert (part.identity, part.size, part.origin) == (corpus.identity, 3, "made up")
    assert [s.number for s in part[1:]] == [2]
    assert part[1:].identity == corpus.identity


def test_corpus_shards_have_every_sentence_once() -> None:
    corpus = Corpus([A, B, C, A, B])
    shards = [corpus[start::2] for start in range(2)]
    assert [[s.number for s in shard] for shard in shards] == [[0, 2, 4], [1, 3]]


def test_corpus_identity_is_of_its_sentences() -> None:
    assert Corpus([A, B]).identity == Corpus([A, B], "another source").identity
    assert Corpus([A, B]).identity != Corpus([A, C]).identity
    assert Corpus([A, B]).identity != Corpus([A]).identity
    assert Corpus([A, A]).identity != Corpus([A]).identity
    assert len(Corpus([A, B]).identity) == 16


def test_corpus_without_sentences() -> None:
    with pytest.raises(CorpusError, match="empty corpus: no sentence found in my notes"):
        Corpus([], "my notes")


def test_corpus_repr_names_size_and_source() -> None:
    assert repr(Corpus([A, B], "my notes")) == "Corpus(2 sentences, my notes)"


@pytest.mark.parametrize(
    "other",
    [
        replace(A, text="a cot"),
        replace(A, text="a cat "),
        replace(A, words=A.words[1:]),
        replace(A, words=(replace(A.words[0], start=1), A.words[1])),
        replace(A, words=(replace(A.words[0], end=2), A.words[1])),
        replace(A, words=(replace(A.words[0], upos="PRON"), A.words[1])),
        replace(A, words=(replace(A.words[0], head=None), A.words[1])),
        replace(A, words=(replace(A.words[0], deprel="nmod"), A.words[1])),
    ],
)
def test_sentence_digest_changes_with_text_and_annotation(other: Sentence) -> None:
    assert other.digest != A.digest


def test_sentence_digest_does_not_depend_on_number() -> None:
    assert replace(A, number=41).digest == A.digest


@settings(max_examples=50, deadline=None)
@given(sentences())
def test_sentence_digest_is_below_2_to_the_63(sentence: Sentence) -> None:
    assert 0 <= sentence.digest < 2**63


def test_to_file_writes_a_header_and_a_sentence_a_line(tmp_path: Path) -> None:
    path = tmp_path / "new" / "corpus.jsonl"
    Corpus([A, B], "made up").to_file(path)
    header, first, second, _ = path.read_text(encoding="utf-8").splitlines()
    assert json.loads(header) == {
        "format": "tl_attnstats corpus 3",
        "origin": "made up",
        "sequence_kind": "sentence",
        "sentences": 2,
    }
    assert json.loads(first) == {
        "name": "first",
        "text": "a cat",
        "words": [[0, 1, "DET", 1, "det"], [2, 5, "NOUN", None, "root"]],
    }
    assert "日本 😀" in second  # not escaped


@settings(max_examples=60, deadline=None)
@given(made=st.lists(sentences(), min_size=1, max_size=5), origin=st.text(max_size=8))
def test_from_file_recovers_what_to_file_wrote(
    tmp_path_factory: pytest.TempPathFactory, made: list[Sentence], origin: str
) -> None:
    path = tmp_path_factory.getbasetemp() / "corpus.jsonl"
    corpus = Corpus(made, origin)
    corpus.to_file(str(path))
    again = Corpus.from_file(str(path))
    assert list(again) == [replace(s, number=number) for number, s in enumerate(made)]
    assert (again.origin, again.identity, again.size) == (origin, corpus.identity, len(made))


HEADER = json.dumps({"format": "tl_attnstats corpus 1", "origin": "made up"})
ROW = json.dumps({"name": "first", "text": "a", "words": [[0, 1, "DET", None, "root"]]})


@pytest.mark.parametrize(
    "contents",
    [
        "",
        "The cat sat.\n",
        "[]\n",
        "null\n",
        "{}\n",
        json.dumps({"format": "tl_attnstats corpus 99", "origin": "made up"}) + f"\n{ROW}\n",
        json.dumps({"format": "tl_attnstats corpus 1"}) + f"\n{ROW}\n",  # no source
        f"{HEADER}\n{ROW[:-9]}\n",  # cut off
        f"{HEADER}\n[1, 2]\n",
        f"{HEADER}\n" + ROW.replace('"text"', '"txt"') + "\n",
        f"{HEADER}\n" + ROW.replace(', "root"', "") + "\n",  # a word without its relation
    ],
)
def test_from_file_of_something_else(tmp_path: Path, contents: str) -> None:
    path = tmp_path / "wrong.jsonl"
    path.write_text(contents, encoding="utf-8")
    with pytest.raises(CorpusError, match=r"wrong\.jsonl: not a corpus file of tl_attnstats .*Corpus\.to_file"):
        Corpus.from_file(path)


@pytest.mark.parametrize(
    ("row", "message"),
    [
        ('{"name": "a", "text": "abc", "words": [[0, 4, "X", null, "dep"]]}', r"words\[0\]: start=0, end=4, expected"),
        ('{"name": "a", "text": "abc", "words": [[0, 1e400, "X", null, "dep"]]}', r"words\[0\]: start=0, end=inf"),
        ('{"name": "a", "text": "abc", "words": [[0, NaN, "X", null, "dep"]]}', r"words\[0\]: start=0, end=nan"),
        ('{"name": "a", "text": "abc", "words": [[false, 1, "X", null, "dep"]]}', r"words\[0\]: start=False"),
        ('{"name": "a", "text": "abc", "words": [[0, 1, "X", 1, "dep"]]}', r"words\[0\]: head=1, expected"),
        ('{"name": "a", "text": "abc", "words": [[0, 1, "X", 0, "dep"]]}', r"words\[0\]: head=0, expected"),
        ('{"name": "a", "text": "abc", "words": [[0, 1, "", null, "dep"]]}', r"words\[0\]: upos='', expected"),
        ('{"name": "a", "text": "abc", "words": [[0, 1, "X", null, 5]]}', r"words\[0\]: deprel=5, expected"),
        ('{"name": "a", "text": "abc", "words": [[0, 1, "X", 1, "a"], [1, 2, "X", 0, "b"]]}', "lead back to it"),
        ('{"name": "a", "text": "abc", "words": {}}', "words={}, expected a list of"),
        ('{"name": "a", "text": "abc", "words": null}', "words=None, expected a list of"),
        ('{"name": "a", "text": "abc", "words": [[0, 1]]}', "TypeError"),
        ('{"name": "a", "text": null, "words": []}', "sentence 'a': text=None, expected a string"),
        ('{"name": null, "text": "abc", "words": []}', "name=None, expected a string"),
        ('{"name": "a", "text": "\\ud800", "words": []}', r"text has a lone surrogate \('\\ud800'\) at 0"),
        ('{"name": "a", "text": "abc", "text": "abd", "words": []}', "duplicate key among name, text, text, words"),
        (
            '{"name": "a", "text": "abc", "words": [], "more": 1}',
            "expected a JSON object with the keys name, text, words",
        ),
        pytest.param("[" * 100_000, "RecursionError", id="deep"),
        pytest.param("1" * 5000, "ValueError", id="digits"),
    ],
)
def test_from_file_of_a_damaged_sentence_names_its_line(tmp_path: Path, row: str, message: str) -> None:
    path = tmp_path / "damaged.jsonl"
    path.write_text(f"{HEADER}\n{ROW}\n{row}\n", encoding="utf-8")
    with pytest.raises(CorpusError, match=rf"damaged\.jsonl: not a corpus file of tl_attnstats \(line 3: .*{message}"):
        Corpus.from_file(path)


def test_from_file_reads_headers_of_earlier_versions(tmp_path: Path) -> None:
    path = tmp_path / "old.jsonl"
    old = {"format": "tl_attnstats corpus 1", "source": "made up", "unit": "document"}
    path.write_text(f"{json.dumps(old)}\n{ROW}\n", encoding="utf-8")
    corpus = Corpus.from_file(path)
    assert (corpus.origin, corpus.sequence_kind, len(corpus)) == ("made up", "document", 1)


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"source": "made up"}, "duplicate key among format, origin, source"),
        ({"origin": None}, "corpus: origin=None, expected a string"),
        ({"origin": "\ud800"}, "origin has a lone surrogate"),
        ({"sequence_kind": "page"}, "sequence_kind='page': expected one of sentence, document"),
        ({"sequence_kind": None}, "sequence_kind=None"),
        ({"sorce": "x"}, "expected a JSON object with the keys format, origin"),
        ({"sentences": 2}, "1 sentences, but its header says 2; is it cut off?"),
        ({"sentences": 0}, "1 sentences, but its header says 0"),
        ({"sentences": True}, "1 sentences, but its header says True"),
        ({"sentences": None}, "1 sentences, but its header says None"),
    ],
)
def test_from_file_of_a_damaged_header(tmp_path: Path, change: dict[str, object], message: str) -> None:
    path = tmp_path / "damaged.jsonl"
    path.write_text(json.dumps(json.loads(HEADER) | change) + f"\n{ROW}\n", encoding="utf-8")
    with pytest.raises(CorpusError, match=rf"damaged\.jsonl: not a corpus file .*{re.escape(message)}"):
        Corpus.from_file(path)


def test_from_file_cut_off_at_a_line_s_end(tmp_path: Path) -> None:
    path = tmp_path / "cut.jsonl"
    path.write_text(json.dumps(json.loads(HEADER) | {"sentences": 3}) + f"\n{ROW}\n{ROW}\n", encoding="utf-8")
    with pytest.raises(CorpusError, match=r"cut\.jsonl: .* 2 sentences, but its header says 3; is it cut off"):
        Corpus.from_file(path)


def test_from_file_of_an_earlier_version_without_a_count(tmp_path: Path) -> None:
    path = tmp_path / "old.jsonl"
    path.write_text(f"{HEADER}\n{ROW}\n{ROW}\n", encoding="utf-8")
    assert [s.text for s in Corpus.from_file(path)] == ["a", "a"]


@pytest.mark.parametrize("given", [["a text"], [None], [A, (0, 1)]])
def test_corpus_of_something_else_than_sentences(given: list[Any]) -> None:
    with pytest.raises(
        CorpusError, match=r"sentences: got .*, expected Sentences; Corpus\.from_texts makes them from str"
    ):
        Corpus(given)


def test_source_of_a_file_whose_name_is_not_utf8(tmp_path: Path) -> None:
    path = tmp_path / "caf\udce9.conllu"
    path.write_text("\t".join(["1", "a", "_", "_", "_", "_", "0", "root", "_", "_"]) + "\n", encoding="utf-8")
    assert Corpus.from_conllu(path).origin == "CoNLL-U caf?.conllu"


def test_from_file_with_a_header_alone(tmp_path: Path) -> None:
    path = tmp_path / "bare.jsonl"
    path.write_text(HEADER + "\n", encoding="utf-8")
    with pytest.raises(CorpusError, match="empty corpus: no sentence found in made up"):
        Corpus.from_file(path)


def test_from_file_missing(tmp_path: Path) -> None:
    with pytest.raises(CorpusError, match=r"nowhere\.jsonl: no such file"):
        Corpus.from_file(tmp_path / "nowhere.jsonl")


def test_from_file_not_utf8_names_the_byte(tmp_path: Path) -> None:
    path = tmp_path / "latin.jsonl"
    path.write_bytes(HEADER.encode() + b"\n\xff")
    with pytest.raises(CorpusError, match=rf"latin\.jsonl: not UTF-8 \(byte {len(HEADER) + 1}: "):
        Corpus.from_file(path)
