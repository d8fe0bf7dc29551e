"""Words are annotated, not tokens: a corpus has the same sentences, words, tags and relations for any tokenizer."""

from __future__ import annotations

from typing import Any

import pytest

import tl_attnstats as ta


@pytest.fixture(scope="module", params=["smollm2_tokenizer", "minilm_tokenizer"])
def tokenizer(request: pytest.FixtureRequest) -> Any:
    return request.getfixturevalue(request.param)


def test_words_tags_and_relations_do_not_depend_on_the_tokenizer(tokenizer: Any, gold_corpus: ta.Corpus) -> None:
    framing = ta.Framing(tokenizer)
    for sentence in gold_corpus[:200]:
        tokens = framing.tokenize(sentence)
        # The first token of each word must carry the word's annotation.
        first_of = {word: token for token, word in reversed(list(enumerate(tokens.word_of_token))) if word >= 0}
        # Some words have no token of their own: those without characters (the second word of French "du"), and those
        # inside a longer token, such as the quotation mark of ."
        found = {index: word for index, word in enumerate(sentence.words) if index in first_of}
        for index, word in enumerate(sentence.words):
            inside = any(
                a <= word.start and word.end <= b and (a, b) != (word.start, word.end) for a, b in tokens.spans
            )
            assert index in found or word.start == word.end or inside
        for kind in ("upos", "deprel"):
            labels = tokens.labels(kind)
            assert [labels[first_of[index]] for index in found] == [getattr(word, kind) for word in found.values()]
        edges = {(tokens.word_of_token[child], tokens.word_of_token[parent]) for child, parent in tokens.dependencies()}
        assert edges == {(child, word.head) for child, word in found.items() if word.head in found}


def test_runs_with_two_tokenizers_have_the_same_corpus(
    tiny_decoder: Any, tiny_encoder: Any, gold_corpus: ta.Corpus
) -> None:
    corpus = gold_corpus[:40]
    metrics = ["pos_to", "dep_to", "dependency_alignment"]
    a, b = (ta.collect(m, corpus, metrics, truncate=True, progress=False) for m in (tiny_decoder, tiny_encoder))
    for key in ("sequences", "corpus", "corpus_fingerprint", "numbering"):
        assert a.provenance[key] == b.provenance[key]
    assert a.provenance["tokens"] != b.provenance["tokens"]
    tags = {word.upos for sentence in corpus for word in sentence.words}
    # "none" is the tag of tokens without a word.
    assert set(a["pos_to"]["tag"].values) - {"none"} == set(b["pos_to"]["tag"].values) - {"none"} == tags
