"""Documents as sequences, also longer than the model's context."""

from __future__ import annotations

import itertools
import json
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch

import tl_attnstats as ta
from tests import tiny
from tests.asserting import assert_same
from tests.reference import Reference, tokens_of
from tl_attnstats.attention.scope import Scope
from tl_attnstats.errors import CorpusError

TEXTS = ["The cat sat on the mat. The dogs barked loudly!  It was late.", "One sentence only."]


def test_a_document_consists_of_its_sentences(nlp: Any) -> None:
    documents = ta.Corpus.from_texts(TEXTS, nlp, sequence_kind="document")
    sentences = ta.Corpus.from_texts(TEXTS, nlp)
    assert [d.text for d in documents] == TEXTS
    assert [d.name for d in documents] == ["text 1", "text 2"]
    first, parts = documents[0], [s for s in sentences if s.name.startswith("text 1,")]
    assert len(parts) == 3
    expected = []
    for part in parts:
        start, before = first.text.index(part.text), len(expected)
        expected += [
            (w.start + start, w.end + start, w.upos, None if w.head is None else w.head + before, w.deprel)
            for w in part.words
        ]
    assert [(w.start, w.end, w.upos, w.head, w.deprel) for w in first.words] == expected


def test_the_sequence_kind_is_kept_in_files_and_slices(nlp: Any, tmp_path: Path) -> None:
    corpus = ta.Corpus.from_texts(TEXTS, nlp, sequence_kind="document")
    corpus.to_file(tmp_path / "corpus.jsonl")
    assert ta.Corpus.from_file(tmp_path / "corpus.jsonl")[:1].sequence_kind == "document"
    assert repr(corpus).startswith("Corpus(2 documents, ")


def test_an_unknown_sequence_kind_is_refused(nlp: Any) -> None:
    with pytest.raises(CorpusError, match="sequence_kind='page': expected one of sentence, document"):
        ta.Corpus.from_texts(TEXTS, nlp, sequence_kind="page")  # type: ignore[arg-type]
    with pytest.raises(CorpusError, match="sequence_kind='page': expected one of sentence, document"):
        ta.Corpus(tiny.sentences(1), sequence_kind="page")  # type: ignore[arg-type]


@pytest.fixture(scope="module")
def document() -> ta.Sentence:
    return max(tiny.sentences(40, seed=11, most_words=160), key=lambda s: len(s.words))


@pytest.mark.parametrize("stride", [None, 1000, 60, 17])
@pytest.mark.parametrize("framed", [False, True])
def test_every_token_is_a_counted_query_in_one_window(
    smollm2_tokenizer: Any, document: ta.Sentence, stride: int | None, framed: bool
) -> None:
    framing = ta.Framing(smollm2_tokenizer, (1,) if framed else (), (2,) if framed else (), max_tokens=70)
    ids = smollm2_tokenizer(document.text, add_special_tokens=False)["input_ids"]
    assert len(ids) > 2 * 70
    windows = list(framing.windows(document, stride))
    assert all(len(window) <= 70 for window in windows)
    looked = [
        (token, span)
        for window in windows
        for t, (token, span) in enumerate(zip(window.ids, window.spans, strict=True))
        if not window.special[t] and t >= window.n_context
    ]
    whole = smollm2_tokenizer(document.text, add_special_tokens=False, return_offsets_mapping=True)
    assert looked == list(zip(ids, whole["offset_mapping"], strict=True))
    room = 68 if framed else 70
    step = room if stride is None else min(stride, room)
    assert len(windows) == 1 + -(-(len(ids) - room) // step)
    for before, after in itertools.pairwise(windows):
        kept = [t for t, special in zip(before.ids, before.special, strict=True) if not special]
        again = [t for t, special in zip(after.ids, after.special, strict=True) if not special]
        assert kept[step:] == again[: room - step]


def test_a_short_document_is_one_window(smollm2_tokenizer: Any) -> None:
    (sentence,) = tiny.sentences(1)
    framing = ta.Framing(smollm2_tokenizer, (1,), max_tokens=70)
    assert list(framing.windows(sentence, 5)) == [framing.tokenize(sentence)]
    assert list(replace(framing, max_tokens=None).windows(sentence)) == [framing.tokenize(sentence)]


def test_context_tokens_are_keys_but_not_counted_rows(smollm2_tokenizer: Any, document: ta.Sentence) -> None:
    framing = ta.Framing(smollm2_tokenizer, (1,), max_tokens=70)
    second = list(framing.windows(document, 40))[1]
    assert second.n_context == 1 + 69 - 40
    scope = Scope(ta.Batch([second]), True, "first")
    assert scope.rows[0].tolist() == [False] * 30 + [True] * 40
    assert scope.content[0].tolist() == [False] + [True] * 69


@pytest.mark.parametrize("source", ["streamed", "hooks"])
@pytest.mark.parametrize("stride", [None, 50])
def test_statistics_of_documents_equal_the_reference(
    tiny_decoder: Any, document: ta.Sentence, source: Any, stride: int | None
) -> None:
    texts = [document, *tiny.sentences(3, seed=12)]
    context = tiny_decoder.cfg.n_ctx
    bos = tiny_decoder.to_tokens("a")[0].tolist()[0]
    room, data = context - 1, []
    for number, text in enumerate(texts):
        plain = tiny_decoder.tokenizer(text.text, add_special_tokens=False, return_offsets_mapping=True)
        step, start = stride or room, 0
        while start == 0 or start < len(plain.input_ids) - room + step:
            ids = torch.tensor([[bos, *plain.input_ids[start : start + room]]])
            with torch.no_grad():
                _, cache = tiny_decoder.run_with_cache(ids)
            layers = [cache[f"blocks.{layer}.attn.hook_pattern"][0] for layer in range(3)]
            offsets = [(0, 0), *plain.offset_mapping[start : start + room]]
            tokens = tokens_of(replace(text, number=number), offsets, [True] + [False] * (len(offsets) - 1))
            tokens.n_context = 1 + room - step if start and step < room else 0
            data.append((torch.stack(layers).double().numpy(), tokens))
            start += step
    assert len(data) > len(texts) + 1
    corpus = ta.Corpus(texts, sequence_kind="document")
    stats = ta.collect(tiny_decoder, corpus, stride=stride, source=source, batch_tokens=200, progress=False)
    assert stats.provenance["sequences"] == len(data)
    assert_same(stats, Reference(data, causal=True, null="first"))


def test_the_offset_profile_of_documents_has_octaves(tiny_decoder: Any) -> None:
    texts = tiny.sentences(3, seed=12)
    octaves = [65, 129, 257, 513, 1025, 2049, 4097, 8193]
    for unit, beyond in (("sentence", [65]), ("document", octaves)):
        stats = ta.collect(tiny_decoder, ta.Corpus(texts, sequence_kind=unit), ["offset_profile"], progress=False)
        assert stats["offset_profile"]["offset"].values.tolist() == [*range(65), *beyond]
        settings = {"max_offset": 64, "octaves": len(beyond) - 1}
        assert json.loads(stats.provenance["settings"]) == {"offset_profile": settings}
        assert stats.provenance["sequence_kind"] == unit
        said = {"sentence": "3 sentences", "document": "3 windows of documents"}[unit]
        assert stats.extent == f"{said}, {stats.provenance['tokens']} tokens"
    chosen = ta.collect(
        tiny_decoder, ta.Corpus(texts, sequence_kind="document"), [ta.OffsetProfile(4, octaves=1)], progress=False
    )
    assert chosen["offset_profile"]["offset"].values.tolist() == [*range(5), 5, 9]


def test_one_window_is_named_in_the_singular(tiny_decoder: Any) -> None:
    stats = ta.collect(
        tiny_decoder, ta.Corpus(tiny.sentences(1), sequence_kind="document"), ["distance"], progress=False
    )
    assert stats.extent == f"1 window of documents, {stats.provenance['tokens']} tokens"


def test_an_interrupted_run_counts_windows(tiny_decoder: Any, monkeypatch: pytest.MonkeyPatch) -> None:
    run, batches = ta.Collectors.run, []

    def interrupted(collectors: ta.Collectors, batch: ta.Batch) -> None:
        if batches:
            raise KeyboardInterrupt
        batches.append(batch)
        run(collectors, batch)

    monkeypatch.setattr(ta.Collectors, "run", interrupted)
    corpus = ta.Corpus(tiny.sentences(3, seed=12), sequence_kind="document")
    with pytest.raises(ta.Interrupted, match=r"^interrupted after 1 window of documents$"):
        ta.collect(tiny_decoder, corpus, ["distance"], batch_tokens=1, progress=False)


def test_bad_stride_is_refused(tiny_decoder: Any, document: ta.Sentence) -> None:
    corpus = ta.Corpus([document], sequence_kind="document")
    with pytest.raises(CorpusError, match="stride=0: expected a positive number of tokens"):
        ta.collect(tiny_decoder, corpus, stride=0, progress=False)


def test_sentences_are_not_cut_into_windows(tiny_decoder: Any, document: ta.Sentence) -> None:
    with pytest.raises(CorpusError, match="the model's context has room for"):
        ta.collect(tiny_decoder, ta.Corpus([document]), progress=False)
    assert np.isfinite(ta.collect(tiny_decoder, ta.Corpus([document]), ["distance"], truncate=True)["distance"]).all()
