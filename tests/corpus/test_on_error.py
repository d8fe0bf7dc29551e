"""Texts on which annotator or tokenizer fails: refused by name, or skipped and listed."""

from __future__ import annotations

import copy
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
from spacy.language import Language

import tl_attnstats as ta
from tests import tiny
from tests.asserting import assert_close
from tl_attnstats.corpus import annotate
from tl_attnstats.errors import CorpusError

TEXTS = [f"The cat sat on mat {n}." for n in range(7)]
BAD = "This one is bad."


@Language.component("fails_on_bad")
def fails_on_bad(doc: Any) -> Any:
    if "bad" in doc.text:
        raise ZeroDivisionError("of no use")
    return doc


@pytest.fixture
def failing(nlp: Any) -> Iterator[Any]:
    """The pipeline, which fails on `BAD`."""
    nlp.add_pipe("fails_on_bad", last=True)
    yield nlp
    nlp.remove_pipe("fails_on_bad")


def test_a_pipeline_that_fails_is_answered_with_the_text(failing: Any) -> None:
    with pytest.raises(
        CorpusError,
        match=r"pipeline en_core_web_sm.* failed on text 4 \(.This one is bad\..…\): ZeroDivisionError: of no use",
    ):
        ta.Corpus.from_texts([*TEXTS[:3], BAD, *TEXTS[3:]], failing)


@pytest.mark.parametrize("n_process", [1, 2])
def test_a_text_on_which_the_pipeline_fails_is_skipped_and_listed(failing: Any, n_process: int) -> None:
    texts = [BAD, *TEXTS[:3], " ", BAD, *TEXTS[3:]]
    found = ta.Corpus.from_texts(texts, failing, on_error="skip", n_process=n_process, origin="cats")
    assert [s.text for s in found] == TEXTS
    assert [s.name for s in found][:4] == [f"text {n}, sentence 1" for n in (2, 3, 4, 6)]
    assert [s.number for s in found] == list(range(7))
    assert ", without 2 texts on which it failed (text 1: texts: the pipeline en_core_web_sm" in found.origin
    assert " | text 5: texts: the pipeline" in found.origin
    assert "ZeroDivisionError: of no use" in found.origin


def test_texts_that_are_refused_are_skipped_too(nlp: Any) -> None:
    texts = [TEXTS[0], "\ud800", "x" * 6000, TEXTS[1]]
    with pytest.raises(CorpusError, match=r"text 2 .*lone surrogate"):
        ta.Corpus.from_texts(texts, nlp)
    found = ta.Corpus.from_texts(texts, nlp, on_error="skip")
    assert [s.text for s in found] == TEXTS[:2]
    assert "without 2 texts" in found.origin
    assert "text 3: texts: text 3 ('xxx" in found.origin
    with pytest.raises(CorpusError, match="texts: got 5, expected strings"):  # a mistake of the caller, not of a text
        ta.Corpus.from_texts([TEXTS[0], 5], nlp, on_error="skip")  # type: ignore[list-item]
    with pytest.raises(CorpusError, match=r"on_error='pass': expected one of raise, skip"):
        ta.Corpus.from_texts(texts, nlp, on_error="pass")  # type: ignore[arg-type]


def test_nothing_but_texts_that_fail_is_an_empty_corpus(failing: Any) -> None:
    with pytest.raises(CorpusError, match="empty corpus"):
        ta.Corpus.from_texts([BAD, BAD], failing, on_error="skip")


def test_skipped_texts_are_listed_in_the_file_and_after_resuming(
    failing: Any, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(annotate, "TEXTS_AT_ONCE", 2)
    texts = [TEXTS[0], BAD, *TEXTS[1:4], BAD, TEXTS[4]]
    path = tmp_path / "corpus.parquet"
    with pytest.raises(CorpusError, match="failed on text 2"):
        ta.Corpus.from_texts(texts, failing, into=path)

    def cut() -> Iterator[str]:
        yield from texts[:5]
        raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        ta.Corpus.from_texts(cut(), failing, into=path, on_error="skip")
    found = ta.Corpus.from_texts(texts, failing, into=path, on_error="skip")
    assert [s.text for s in found] == TEXTS[:5]
    origin = ta.Corpus.from_file(path).origin
    assert "without 2 texts" in origin
    assert "(text 2: " in origin
    assert " | text 6: " in origin
    assert origin == found.origin


class Failing:
    """Makes a tokenizer fail on a text."""

    _on = ""

    def __call__(self, text: Any, **more: Any) -> Any:
        if text == self._on:
            raise KeyError("of no use")
        return super().__call__(text, **more)  # type: ignore[misc]


@pytest.fixture
def corpus() -> ta.Corpus:
    return ta.Corpus(tiny.sentences(12, seed=3))


@pytest.fixture
def model(tiny_decoder: Any, corpus: ta.Corpus, monkeypatch: pytest.MonkeyPatch) -> Any:
    """A model whose tokenizer fails on the sixth sentence."""
    tokenizer = copy.deepcopy(tiny_decoder.tokenizer)
    tokenizer.__class__ = type("Failing", (Failing, type(tokenizer)), {})  # a bridge takes no other class
    tokenizer._on = corpus[5].text
    monkeypatch.setattr(tiny_decoder, "tokenizer", tokenizer)
    return tiny_decoder


SETTINGS: dict[str, Any] = {"metrics": ["distance", "exemplars"], "batch_tokens": 64, "progress": False}


def test_a_tokenizer_that_fails_is_answered_with_the_sentence(model: Any, corpus: ta.Corpus) -> None:
    with pytest.raises(
        CorpusError,
        match=r"tokenizer: Failing failed on sentence 6 \(random 5: .*\): KeyError: 'of no use'; drop it, or",
    ):
        ta.collect(model, corpus, **SETTINGS)
    with pytest.raises(CorpusError, match=r"on_error='pass': expected one of raise, skip"):
        ta.collect(model, corpus, on_error="pass", **SETTINGS)


def test_a_sentence_that_is_skipped_is_listed_and_changes_nothing_else(
    model: Any, corpus: ta.Corpus, tmp_path: Path
) -> None:
    found = ta.collect(model, corpus, on_error="skip", **SETTINGS)
    expected = ta.collect(model, corpus.filter(lambda s: s.number != 5), **SETTINGS)
    assert_close(found, expected)
    assert found.provenance["n_skipped"] == "1"
    assert found.provenance["skipped"].startswith("sentence 6 (random 5): tokenizer: Failing failed on sentence 6")
    assert "skipped" not in expected.provenance
    found.save(tmp_path / "stats.nc")
    assert ta.load(tmp_path / "stats.nc").provenance["skipped"] == found.provenance["skipped"]


def test_what_was_skipped_is_merged_and_resumed(model: Any, corpus: ta.Corpus, tmp_path: Path) -> None:
    parts = [ta.collect(model, corpus.shard(n, 3), on_error="skip", **SETTINGS) for n in (1, 2, 3)]
    whole = ta.collect(model, corpus, on_error="skip", **SETTINGS)
    merged = parts[0].merge(parts[1]).merge(parts[2])
    assert merged.provenance["skipped"] == whole.provenance["skipped"]
    assert merged.provenance["n_skipped"] == "1"
    collectors = ta.Collectors(model, ["distance"])
    for batch in collectors.batches(corpus, on_error="skip"):
        collectors.run(batch)
    again = ta.Collectors(model, ["distance"])
    again.load_state_dict(collectors.state_dict())
    assert again.stats().provenance == collectors.stats().provenance


def test_a_document_that_fails_is_skipped_whole(model: Any, nlp: Any) -> None:
    texts = [f"The cat number {n} sat on the mat of Zürich." for n in range(3)]
    documents = ta.Corpus.from_texts(texts, nlp, sequence_kind="document")
    model.tokenizer._on = texts[1]
    found = ta.collect(model, documents, on_error="skip", **SETTINGS)
    assert found.provenance["sequences"] == 2
    assert found.provenance["skipped"].startswith("sentence 2 (text 2): tokenizer")


def test_sentences_beyond_the_context_are_skipped(tiny_decoder: Any) -> None:
    words = tuple(ta.Word(2 * n, 2 * n + 1, "X", None, "dep") for n in range(100))
    long = ta.Sentence("a " * 99 + "a", words, "long", 0)
    corpus = ta.Corpus([*tiny.sentences(3, seed=1), long])
    found = ta.collect(tiny_decoder, corpus, on_error="skip", **SETTINGS)
    assert found.provenance["sequences"] == 3
    assert "sentence 4 (long): sentence 4 (long: 'a a a" in found.provenance["skipped"]
    assert "has room for 95" in found.provenance["skipped"]
