"""A corpus on disk: the same sentences, numbers and identity as in memory; views; damage."""

from __future__ import annotations

import pickle
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any

import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

import tl_attnstats as ta
from tests import tiny
from tests.corpus.strategies import sentences
from tl_attnstats import Corpus, Sentence, Word
from tl_attnstats.corpus import store
from tl_attnstats.errors import CorpusError

MADE = tiny.sentences(40, seed=1)


@pytest.fixture
def path(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A corpus file of 40 sentences in groups of 7."""
    monkeypatch.setattr(store, "MOST_SENTENCES", 7)
    path = tmp_path / "corpus.parquet"
    Corpus(MADE, "made up").to_file(path)
    assert pq.read_metadata(path).num_row_groups == 6
    return path


@settings(max_examples=40, deadline=None)
@given(made=st.lists(sentences(), min_size=1, max_size=9), origin=st.text(max_size=8), most=st.integers(1, 4))
def test_what_to_file_wrote_is_read_again(
    tmp_path_factory: pytest.TempPathFactory, made: list[Sentence], origin: str, most: int
) -> None:
    path = tmp_path_factory.getbasetemp() / "again.parquet"
    corpus = Corpus(made, origin)
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(store, "MOST_SENTENCES", most)
        corpus.to_file(path)
    again = Corpus.from_file(str(path))
    assert list(again) == [replace(s, number=number) for number, s in enumerate(made)]
    assert (again.origin, again.sequence_kind, again.identity, again.size) == (
        origin,
        "sentence",
        corpus.identity,
        len(made),
    )


def test_groups_are_bounded_by_words_too(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(store, "MOST_WORDS", 3)
    words = (Word(0, 1, "X", None, "dep"), Word(1, 2, "X", None, "dep"))
    Corpus([Sentence("ab", words, "two words")] * 6).to_file(tmp_path / "corpus.parquet")
    file = pq.read_metadata(tmp_path / "corpus.parquet")
    assert [file.row_group(group).num_rows for group in range(file.num_row_groups)] == [2, 2, 2]


def test_a_corpus_on_disk_does_what_one_in_memory_does(path: Path) -> None:
    stored, kept = Corpus.from_file(path), Corpus(MADE, "made up")
    assert repr(stored) == repr(kept) == "Corpus(40 sentences, made up)"
    assert len(stored) == 40
    assert list(stored) == list(kept) == list(stored)  # can be read again
    assert [stored[at] for at in (0, 39, -1, 6, 7, 33, 2)] == [kept[at] for at in (0, 39, -1, 6, 7, 33, 2)]
    assert list(reversed(stored)) == list(reversed(kept))
    for index in (40, -41):
        with pytest.raises(IndexError):
            stored[index]
    for part in (slice(5, 20), slice(None, None, 3), slice(30, 2, -4), slice(0, 0)):
        assert list(stored[part]) == list(kept[part])
    first, second = iter(stored), iter(stored)  # two readers take turns
    assert [next(first).number, next(second).number, *(s.number for s in first)] == [0, *range(40)]


def test_the_header_is_in_the_parquet_metadata(path: Path) -> None:
    metadata = pq.read_metadata(path).metadata
    assert {key.decode(): value.decode() for key, value in metadata.items() if key != b"ARROW:schema"} == {
        "format": "tl_attnstats corpus 3",
        "origin": "made up",
        "sequence_kind": "sentence",
        "sentences": "40",
        "identity": Corpus(MADE).identity,
    }


def test_other_tools_can_read_it(path: Path) -> None:
    frame = pq.read_table(path).to_pandas()
    assert frame["text"].tolist() == [s.text for s in MADE]
    assert frame["upos"][3].tolist() == [w.upos for w in MADE[3].words]


def test_identity_depends_on_the_order() -> None:
    """Sentence numbers refer to the order, so exemplars of two orders must not be mixed."""
    assert Corpus(MADE).identity != Corpus(MADE[::-1]).identity


@pytest.fixture(params=["memory", "disk"])
def corpus(request: Any, path: Path) -> Corpus:
    return Corpus(MADE, "made up") if request.param == "memory" else Corpus.from_file(path)


def assert_view(part: Corpus, numbers: list[int], whole: Corpus) -> None:
    assert [s.number for s in part] == numbers
    assert list(part) == [MADE[number] for number in numbers]
    assert len(part) == len(numbers)
    assert (part.identity, part.size, part.origin) == (whole.identity, 40, "made up")


def test_shards_have_every_sentence_once(corpus: Corpus) -> None:
    for n in (1, 3, 7, 40):
        shards = [corpus.shard(number, n) for number in range(1, n + 1)]
        assert [s.number for shard in shards for s in shard] == list(range(40))
        assert max(map(len, shards)) - min(map(len, shards)) <= 1
    assert_view(corpus.shard(2, 4), list(range(10, 20)), corpus)
    assert_view(corpus[3:].filter(lambda s: s.number % 2 == 0).shard(2, 2)[1:3], [24, 26], corpus)


@pytest.mark.parametrize(
    ("number", "n", "message"),
    [
        (0, 4, "shard 0 of 4: expected a number from 1 to 4"),
        (5, 4, "shard 5 of 4: expected a number from 1 to 4"),
        (-1, 4, "shard -1 of 4"),
        (1, 0, "n_shards=0: expected 1 to 40, the number of sentences here"),
        (1, 41, "n_shards=41: expected 1 to 40"),
    ],
)
def test_shards_that_are_not_there(corpus: Corpus, number: int, n: int, message: str) -> None:
    with pytest.raises(CorpusError, match=message):
        corpus.shard(number, n)


def test_filter_keeps_numbers(corpus: Corpus) -> None:
    wanted = [s.number for s in MADE if "NATO" in s.text]
    assert 2 < len(wanted) < 38
    assert_view(corpus.filter(lambda s: "NATO" in s.text), wanted, corpus)
    with pytest.raises(CorpusError, match="filter: keep was true for none of the 40 sentences"):
        corpus.filter(lambda s: False)


def test_sample_is_drawn_at_random_and_again_the_same(corpus: Corpus) -> None:
    drawn = [s.number for s in corpus.sample(12, seed=3)]
    assert drawn == sorted(set(drawn))
    assert len(drawn) == 12
    assert_view(corpus.sample(12, seed=3), drawn, corpus)
    assert drawn != [s.number for s in corpus.sample(12, seed=4)]
    assert {s.number for s in corpus[10:20].sample(10)} == set(range(10, 20))
    seen = {s.number for seed in range(30) for s in corpus.sample(12, seed)}
    assert seen == set(range(40))  # a sentence is missing from all 30 samples with a chance of 2e-5
    for n in (0, 41):
        with pytest.raises(CorpusError, match=f"sample: n={n}, expected 1 to 40"):
            corpus.sample(n)


def test_shards_on_disk_merge_to_the_whole(path: Path, tiny_decoder: Any) -> None:
    corpus = Corpus.from_file(path)
    whole = ta.collect(tiny_decoder, corpus, progress=False)
    parts = [ta.collect(tiny_decoder, corpus.shard(number, 3), progress=False) for number in (1, 2, 3)]
    merged = parts[2].merge(parts[0]).merge(parts[1])
    for name in whole.dataset.data_vars:
        if whole[name].dtype.kind == "f":
            # float32 attention depends on the rest of the batch by 1e-6.
            assert abs(whole[name] - merged[name]).max() < 1e-5, name
    assert merged.provenance["corpus_fingerprint"] == whole.provenance["corpus_fingerprint"]
    in_memory = ta.collect(tiny_decoder, Corpus(MADE, "made up"), progress=False)
    assert in_memory.dataset.identical(whole.dataset)


# Damage


def rewritten(path: Path, change: Callable[[pa.Table], pa.Table], **header: str | None) -> Path:
    """The file, rewritten with another table or header."""
    table = change(pq.read_table(path)).replace_schema_metadata(None)
    said = {key.decode(): value.decode() for key, value in pq.read_metadata(path).metadata.items()}
    said = {key: value for key, value in {**said, **header}.items() if value is not None and key != "ARROW:schema"}
    other = path.with_name("other.parquet")
    with store.writer_of(other, table.schema) as writer:
        writer.write_table(table)
        writer.add_key_value_metadata(said)
    return other


@pytest.mark.parametrize(
    ("header", "message"),
    [
        ({"format": "another 1"}, "format 'another 1', expected 'tl_attnstats corpus 3'"),
        ({"format": None}, "format None, expected"),
        ({"identity": None, "sequence_kind": None}, "its header lacks identity, sequence_kind"),
        ({"sequence_kind": "page"}, "sequence_kind='page': expected one of"),
        ({"sentences": "many"}, "invalid literal for int"),
        ({"sentences": "41"}, "40 sentences, but its header says 41"),
    ],
)
def test_a_header_that_is_wrong(path: Path, header: dict[str, Any], message: str) -> None:
    other = rewritten(path, lambda table: table, **header)
    with pytest.raises(CorpusError, match=rf"other\.parquet: not a corpus file of tl_attnstats \({message}"):
        Corpus.from_file(other)


def test_columns_that_are_wrong(path: Path) -> None:
    message = (
        r"not a corpus file of tl_attnstats \(wrong columns or column types: name, text, start, end, head, deprel, ids"
    )
    with pytest.raises(CorpusError, match=message):
        Corpus.from_file(rewritten(path, lambda table: table.drop_columns(["upos"])))


def changed(column: str, row: int, value: Any) -> Callable[[pa.Table], pa.Table]:
    def change(table: pa.Table) -> pa.Table:
        rows = table[column].to_pylist()
        rows[row] = value
        field = table.schema.field(column)
        return table.set_column(table.schema.get_field_index(column), field, pa.array(rows, field.type))

    return change


@pytest.mark.parametrize(
    ("column", "value", "message"),
    [
        ("text", None, "text=None, expected a string"),
        ("head", [0], r"words\[0\]: head=0, expected"),
        ("start", [9], r"words\[0\]: start=9, end=\d+, expected integers"),
        ("start", [0, 0], "its columns have different numbers of words"),
        ("upos", None, "NoneType"),
        ("upos", [None], "upos=None, expected"),
        ("deprel", [":"], "deprel=':', expected"),
        ("ids", [-1], r"ids\[0\]: got -1, expected"),
    ],
)
def test_a_sentence_that_is_wrong_is_named(path: Path, column: str, value: Any, message: str) -> None:
    corpus = Corpus.from_file(rewritten(path, changed(column, 1, value)))  # the second one has one word
    assert corpus[0] == MADE[0]
    with pytest.raises(CorpusError, match=rf"other\.parquet: sentence 2 is damaged: .*{message}"):
        corpus[1]


def test_a_file_that_is_cut_off(path: Path) -> None:
    whole = path.read_bytes()
    for length in (4, 5, len(whole) // 2, len(whole) - 1):
        path.write_bytes(whole[:length])
        with pytest.raises(CorpusError, match=r"corpus\.parquet: cannot be read, is it cut off or damaged\? \("):
            list(Corpus.from_file(path))


def test_no_corpus_is_written_of_nothing(path: Path) -> None:
    before = path.read_bytes()
    with pytest.raises(CorpusError, match="empty corpus: no sentence found in made up"):
        Corpus.from_file(path)[5:5].to_file(path)
    assert path.read_bytes() == before
    assert [file.name for file in path.parent.iterdir()] == ["corpus.parquet"]


def test_a_view_is_written_as_a_corpus_of_its_own(path: Path, tmp_path: Path) -> None:
    Corpus.from_file(path)[10:13].to_file(tmp_path / "part.parquet")
    part = Corpus.from_file(tmp_path / "part.parquet")
    assert [(s.number, s.text) for s in part] == [(n, MADE[10 + n].text) for n in range(3)]
    assert part.identity == Corpus(MADE[10:13]).identity
    assert part.size == 3


def test_a_file_can_be_written_over_while_it_is_read(path: Path) -> None:
    corpus = Corpus.from_file(path)
    corpus[::2].to_file(path)
    assert list(corpus) == MADE
    assert len(Corpus.from_file(path)) == 20


def test_a_corpus_on_disk_is_opened_again_in_another_process(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    Corpus(tiny.sentences(9, seed=1)).to_file("corpus.parquet")
    part = Corpus.from_file("corpus.parquet")[2:7]
    shipped = pickle.dumps(part)
    assert len(shipped) < 1000  # not the sentences
    (tmp_path / "elsewhere").mkdir()
    monkeypatch.chdir(tmp_path / "elsewhere")
    again = pickle.loads(shipped)
    assert list(again) == list(part)
    assert (again.identity, again.view, again.size) == (part.identity, part.view, part.size)
    Corpus(tiny.sentences(9, seed=2)).to_file(tmp_path / "corpus.parquet")
    with pytest.raises(CorpusError, match=r"corpus.parquet: got Header\(.*\), expected the corpus that the run began"):
        pickle.loads(shipped)


def test_a_view_is_told_by_its_sentences() -> None:
    corpus = Corpus(tiny.sentences(9, seed=1))
    assert corpus[2:7].view == corpus.filter(lambda sentence: 2 <= sentence.number < 7).view
    views = [corpus.view, corpus[2:7].view, corpus[2:8].view, corpus[::-1].view, corpus.sample(5).view]
    assert len(set(views)) == len(views)
