"""Annotation into a file: the same as in memory, in several processes, and resumed after an interruption."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pyarrow.parquet as pq
import pytest

from tl_attnstats import Corpus
from tl_attnstats.corpus import annotate
from tl_attnstats.corpus.annotate import Annotation, Reached
from tl_attnstats.corpus.texts import Texts
from tl_attnstats.errors import CorpusError

TEXTS = [f"The cat sat on mat {n}. It was warm, and {n} dogs barked." for n in range(22)]


@pytest.fixture(autouse=True)
def few_texts_at_once(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(annotate, "TEXTS_AT_ONCE", 5)


def cut(texts: list[str], at: int) -> Iterator[str]:
    """Texts whose reader is interrupted after `at` of them."""
    yield from texts[:at]
    raise KeyboardInterrupt


@pytest.fixture
def given(nlp: Any, monkeypatch: pytest.MonkeyPatch) -> list[str]:
    """The texts that are annotated from now on."""
    seen: list[str] = []
    pipe = nlp.pipe

    def note(texts: list[str], **settings: Any) -> Any:
        seen.extend(texts)
        return pipe(texts, **settings)

    monkeypatch.setattr(nlp, "pipe", note)
    return seen


def test_annotation_into_a_file_is_the_same_as_in_memory(tmp_path: Path, nlp: Any) -> None:
    kept = Corpus.from_texts(TEXTS, nlp, origin="cats")
    path = tmp_path / "new" / "corpus.parquet"
    stored = Corpus.from_texts(iter(TEXTS), nlp, origin="cats", into=path)
    assert list(stored) == list(kept)
    assert [s.name for s in stored][-2:] == ["text 22, sentence 1", "text 22, sentence 2"]
    assert (stored.origin, stored.identity, stored.size) == (kept.origin, kept.identity, kept.size)
    assert list(Corpus.from_file(path)) == list(kept)
    assert [file.name for file in path.parent.iterdir()] == ["corpus.parquet"]  # no parts are left


@pytest.mark.parametrize("at", [4, 5, 13, 21])
def test_interrupted_annotation_is_resumed(tmp_path: Path, nlp: Any, given: list[str], at: int) -> None:
    path = tmp_path / "corpus.parquet"
    with pytest.raises(KeyboardInterrupt):
        Corpus.from_texts(cut(TEXTS, at), nlp, into=path)
    assert not path.exists()
    n_done = at // 5 * 5  # whole chunks
    assert given == TEXTS[:n_done]
    given.clear()
    corpus = Corpus.from_texts(TEXTS, nlp, into=path)
    assert given == TEXTS[n_done:]
    assert list(corpus) == list(Corpus.from_texts(TEXTS, nlp))
    assert corpus.identity == Corpus.from_texts(TEXTS, nlp).identity
    assert [file.name for file in tmp_path.iterdir()] == ["corpus.parquet"]


def test_annotation_interrupted_while_the_file_is_made_is_resumed(
    tmp_path: Path, nlp: Any, given: list[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    path = tmp_path / "corpus.parquet"

    def fail(*args: Any) -> None:
        raise OSError("disk full")

    with monkeypatch.context() as patch:
        patch.setattr("tl_attnstats.corpus.resume.write_store", fail)
        with pytest.raises(OSError, match="disk full"):
            Corpus.from_texts(TEXTS, nlp, into=path)
    given.clear()
    assert len(Corpus.from_texts(TEXTS, nlp, into=path)) == 44
    assert given == []


def test_texts_before_a_refused_text_stay_annotated(tmp_path: Path, nlp: Any, given: list[str]) -> None:
    path = tmp_path / "corpus.parquet"
    with pytest.raises(CorpusError, match=r"text 14 .*lone surrogate"):
        Corpus.from_texts([*TEXTS[:13], "\ud800", *TEXTS[13:]], nlp, into=path)
    given.clear()
    assert len(Corpus.from_texts(TEXTS, nlp, into=path)) == 44
    assert given == TEXTS[10:]


@pytest.mark.parametrize("texts", [["Another text.", *TEXTS[1:]], TEXTS[:7], [*TEXTS[:9], "New.", *TEXTS[10:]]])
def test_annotation_is_not_resumed_with_other_texts(tmp_path: Path, nlp: Any, texts: list[str]) -> None:
    path = tmp_path / "corpus.parquet"
    with pytest.raises(KeyboardInterrupt):
        Corpus.from_texts(cut(TEXTS, 12), nlp, into=path)
    with pytest.raises(CorpusError, match=r"the first 10 differ from those annotated before.*delete .*\.parts"):
        Corpus.from_texts(texts, nlp, into=path)
    assert not path.exists()
    assert len(Corpus.from_texts(TEXTS, nlp, into=path)) == 44  # the original texts can still be resumed


def test_annotation_is_not_resumed_with_another_pipeline_or_sequence_kind(tmp_path: Path, nlp: Any) -> None:
    path = tmp_path / "corpus.parquet"
    with pytest.raises(KeyboardInterrupt):
        Corpus.from_texts(cut(TEXTS, 12), nlp, into=path)
    with pytest.raises(
        CorpusError, match="started with sequence_kind sentence, but this call has document; pass the same to"
    ):
        Corpus.from_texts(TEXTS, nlp, sequence_kind="document", into=path)
    with nlp.select_pipes(disable=["ner"]), pytest.raises(CorpusError, match="started with pipeline en_core_web_sm"):
        Corpus.from_texts(TEXTS, nlp, into=path)


def test_a_damaged_part_is_refused(tmp_path: Path, nlp: Any) -> None:
    path = tmp_path / "corpus.parquet"
    with pytest.raises(KeyboardInterrupt):
        Corpus.from_texts(cut(TEXTS, 12), nlp, into=path)
    parts = sorted((tmp_path / "corpus.parquet.parts").iterdir())
    assert [part.name for part in parts] == ["00000000.parquet", "00000001.parquet"]
    whole = parts[0].read_bytes()
    parts[0].write_bytes(whole[:-9])
    with pytest.raises(CorpusError, match=r"00000000\.parquet: cannot be read, is it cut off or damaged"):
        Corpus.from_texts(TEXTS, nlp, into=path)
    assert not path.exists()
    parts[0].unlink()
    with pytest.raises(CorpusError, match=r"parts are missing in .*\.parts"):
        Corpus.from_texts(TEXTS, nlp, into=path)


def test_row_groups_are_those_of_the_parts(tmp_path: Path, nlp: Any) -> None:
    Corpus.from_texts(TEXTS, nlp, into=tmp_path / "corpus.parquet")
    file = pq.read_metadata(tmp_path / "corpus.parquet")
    assert [file.row_group(group).num_rows for group in range(file.num_row_groups)] == [10, 10, 10, 10, 4]


def test_texts_without_a_sentence_between_others(tmp_path: Path, nlp: Any) -> None:
    texts = [*TEXTS[:5], *[" "] * 30, *TEXTS[5:7]]
    stored = Corpus.from_texts(texts, nlp, into=tmp_path / "corpus.parquet")
    assert [s.text for s in stored] == [s.text for s in Corpus.from_texts(TEXTS[:7], nlp)]
    with pytest.raises(CorpusError, match="empty corpus: no sentence found in texts"):
        Corpus.from_texts([" "], nlp, into=tmp_path / "empty.parquet")
    assert not (tmp_path / "empty.parquet").exists()


def test_several_processes_give_the_same_corpus(tmp_path: Path, nlp: Any) -> None:
    one = Corpus.from_texts(TEXTS, nlp)
    assert list(Corpus.from_texts(TEXTS, nlp, n_process=2)) == list(one)
    for wrong in (0, -1, 1.5, True):
        with pytest.raises(CorpusError, match=f"n_process={wrong}: expected a positive number of processes"):
            Corpus.from_texts(TEXTS, nlp, n_process=wrong)  # type: ignore[arg-type]


def test_into_json_lines_is_refused(tmp_path: Path) -> None:
    with pytest.raises(CorpusError, match=r"corpus\.jsonl': expected a file with the suffix \.parquet"):
        Corpus.from_texts(TEXTS, into=tmp_path / "corpus.jsonl")


def test_into_a_directory_is_refused(tmp_path: Path) -> None:
    with pytest.raises(CorpusError, match="is a directory, expected a file name"):
        Corpus.from_texts(TEXTS, into=tmp_path)


def test_texts_cannot_have_the_sequence_kind_tokens() -> None:
    with pytest.raises(CorpusError, match="sequence_kind='tokens': expected one of sentence, document"):
        Corpus.from_texts(TEXTS, sequence_kind="tokens")  # type: ignore[arg-type]


def test_the_vocabulary_of_the_pipeline_does_not_grow(nlp: Any) -> None:
    before = len(nlp.vocab.strings)
    Corpus.from_texts([f"The zyx{n}q sat." for n in range(12)], nlp)
    assert len(nlp.vocab.strings) == before


def test_reached_tells_texts_apart() -> None:
    assert Reached().after(TEXTS) == Reached().after(TEXTS[:9]).after(TEXTS[9:])
    assert Reached().after(["ab", "c"]) != Reached().after(["a", "bc"])
    assert Reached().after(["a", "b"]) != Reached().after(["b", "a"])


def test_progress_has_a_total_where_it_is_known(nlp: Any, monkeypatch: pytest.MonkeyPatch, capsys: Any) -> None:
    from rich.console import Console

    monkeypatch.setattr(annotate, "terminal", lambda: Console(stderr=True, force_terminal=True, width=90))
    assert sum(len(sentences) for sentences, _ in Annotation(nlp).chunks(Texts(TEXTS))) == 44
    shown = capsys.readouterr().err
    assert "Annotating" in shown
    assert "44 sentences" in shown
    assert "/s \x1b[36m0:00:00" in shown  # time left
