from __future__ import annotations

import re
from pathlib import Path

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from tests import tiny
from tl_attnstats import Corpus, Word
from tl_attnstats.corpus.conllu import read_conllu
from tl_attnstats.errors import CorpusError

GOLD = Path(__file__).parents[3] / "shared" / "data" / "en_ewt-ud-dev.conllu"
FILE = Path("some.conllu")


def row(identifier: object, form: str, head: object = "_", deprel: str = "_", upos: str = "_", misc: str = "_") -> str:
    return "\t".join([str(identifier), form, "_", upos, "_", "_", str(head), deprel, "_", misc])


def sentence(*rows: str) -> str:
    return "\n".join(rows) + "\n\n"


CAT = sentence(
    "# sent_id = cat-1",
    "# text = The cat sat.",
    row(1, "The", 2, "det", "DET"),
    row(2, "cat", 3, "nsubj", "NOUN"),
    row(3, "sat", 0, "root", "VERB", "SpaceAfter=No"),
    row(4, ".", 3, "punct", "PUNCT"),
)
# "Vámonos al mar." with two multi-word tokens, one of them followed by no space.
SEA = sentence(
    row("1-2", "Vámonos"),
    row(1, "Vamos", 0, "root", "VERB"),
    row(2, "nos", 1, "expl:pv", "PRON"),
    row("3-4", "al"),
    row(3, "a", 5, "case", "ADP"),
    row(4, "el", 5, "det", "DET"),
    row(5, "mar", 1, "obl", "NOUN", "SpaceAfter=No"),
    row(6, ".", 1, "punct", "PUNCT"),
)


def test_read_conllu_words_have_spans_tags_and_heads() -> None:
    (cat,) = read_conllu(FILE, CAT)
    assert cat.text == "The cat sat."
    assert cat.words == (
        Word(0, 3, "DET", 1, "det"),
        Word(4, 7, "NOUN", 2, "nsubj"),
        Word(8, 11, "VERB", None, "root"),
        Word(11, 12, "PUNCT", 2, "punct"),
    )


def test_read_conllu_sent_id_is_the_name() -> None:
    names = [s.name for s in read_conllu(FILE, CAT + SEA)]
    assert names == ["cat-1", "sentence 2"]


def test_read_conllu_numbers_sentences() -> None:
    assert [s.number for s in read_conllu(FILE, CAT + SEA + CAT)] == [0, 1, 2]


def test_read_conllu_multi_word_token_belongs_to_its_first_word() -> None:
    (sea,) = read_conllu(FILE, SEA)
    assert sea.text == "Vámonos al mar."
    assert [sea.text[w.start : w.end] for w in sea.words] == ["Vámonos", "", "al", "", "mar", "."]
    assert [w.head for w in sea.words] == [None, 0, 4, 4, 0, 0]
    assert [w.deprel for w in sea.words] == ["root", "expl:pv", "case", "det", "obl", "punct"]


def test_read_conllu_space_after_no_on_the_multi_word_line_counts() -> None:
    (found,) = read_conllu(
        FILE,
        sentence(
            row("1-2", "don't", misc="SpaceAfter=No"),
            row(1, "do", 0, "root"),
            row(2, "n't", 1, "advmod"),
            row(3, "!", 1, "punct"),
        ),
    )
    assert found.text == "don't!"
    assert [found.text[w.start : w.end] for w in found.words] == ["don't", "", "!"]


def test_read_conllu_space_after_no_inside_a_multi_word_token_is_ignored() -> None:
    (found,) = read_conllu(
        FILE,
        sentence(
            row("1-2", "cannot"),
            row(1, "can", 3, "aux", misc="SpaceAfter=No"),
            row(2, "not", 3, "advmod", misc="SpaceAfter=No"),
            row(3, "go", 0, "root"),
        ),
    )
    assert found.text == "cannot go"


def test_read_conllu_space_after_no_among_other_remarks() -> None:
    text = sentence(row(1, "a", 0, "root", misc="Gloss=x|SpaceAfter=No|Lang=en"), row(2, "b", 1, "dep", misc="Foo=No"))
    (found,) = read_conllu(FILE, text)
    assert found.text == "ab"


def test_read_conllu_drops_empty_nodes() -> None:
    (found,) = read_conllu(
        FILE,
        sentence(
            row("0.1", "nothing"),
            row(1, "Sue", 2, "nsubj"),
            row(2, "likes", 0, "root"),
            row(3, "coffee", 2, "obj"),
            row(4, "and", 5, "cc"),
            row(5, "Bill", 2, "conj"),
            row("5.1", "likes"),
            row(6, "tea", 5, "orphan"),
        ),
    )
    assert found.text == "Sue likes coffee and Bill tea"
    assert [w.head for w in found.words] == [1, None, 1, 4, 1, 4]


def test_read_conllu_sentence_of_empty_nodes_only() -> None:
    with pytest.raises(CorpusError, match=r"^some\.conllu, line 8: sentence 2 has only empty nodes, expected words"):
        list(read_conllu(FILE, CAT + sentence(row("0.1", "nothing"), row("0.2", "here"))))


def test_read_conllu_missing_tag_and_relation_have_stand_ins() -> None:
    """An underscore is CoNLL-U for "not given"; it becomes X and dep, as for spaCy words without a label."""
    (found,) = read_conllu(FILE, sentence(row(1, "a", 0, "root"), row(2, "b", 1)))
    assert (found.words[0].upos, found.words[1].deprel) == ("X", "dep")


@pytest.mark.parametrize("character", ["\u2028", "\x85", "\x0c", "\x1c"])
def test_read_conllu_lines_end_at_line_feeds_only(character: str) -> None:
    """A form or comment may contain other characters at which Python's splitlines() breaks."""
    (found,) = read_conllu(FILE, sentence(f"# text = a{character}b", row(1, f"a{character}b", 0, "root")))
    assert found.text == f"a{character}b"


def test_read_conllu_comments_alone_are_no_sentence() -> None:
    assert [s.name for s in read_conllu(FILE, "# a licence, in a block of its own\n\n" + CAT)] == ["cat-1"]


def test_read_conllu_last_sentence_needs_no_blank_line() -> None:
    assert len(list(read_conllu(FILE, CAT + CAT.rstrip("\n")))) == 2


@pytest.mark.parametrize(
    ("bad", "columns"),
    [("3\tsat\tsit\tVERB", 4), (row(3, "sat", 0, "root") + "\t_", 11), (row(3, "sat", 0).replace("\t", " "), 1)],
)
def test_read_conllu_wrong_columns_name_file_and_line(bad: str, columns: int) -> None:
    lines = CAT.split("\n")
    lines[4] = bad  # the fifth line, after two comments and two words
    with pytest.raises(CorpusError, match=rf"^some\.conllu, line 5: {columns} columns, expected 10"):
        list(read_conllu(FILE, "\n".join(lines)))


@pytest.mark.parametrize("head", [3, 99, -1, "_"])
def test_read_conllu_head_outside_the_sentence(head: object) -> None:
    text = sentence("# sent_id = broken", row(1, "a", 0, "root"), row(2, "bee", head, "dep"))
    message = rf"some\.conllu, line 10: word 2 \(bee\) of broken has head {head}, expected 0 or"
    with pytest.raises(CorpusError, match=message):
        list(read_conllu(FILE, CAT + text))


def test_read_conllu_own_head() -> None:
    """A word that is its own head would make its pieces each other's parents."""
    with pytest.raises(CorpusError, match=r"some\.conllu, line 2: word 2 \(bee\) of sentence 1 has head 2, expected"):
        list(read_conllu(FILE, sentence(row(1, "a", 0, "root"), row(2, "bee", 2, "dep"))))


@pytest.mark.parametrize("identifier", ["x", "1.", "3-2", "-1", "1.5.2", "0", "_"])
def test_read_conllu_broken_id(identifier: str) -> None:
    with pytest.raises(CorpusError) as raised:
        list(read_conllu(FILE, sentence(row(1, "a", 0, "root"), row(identifier, "b", 1, "dep"))))
    assert str(raised.value).startswith("some.conllu, line 2: ")
    assert identifier in str(raised.value)


@pytest.mark.parametrize(
    ("rows", "at", "shown"),
    [
        (
            [row("1-2", "ab"), row("2-3", "bc"), *"123"],
            2,
            "2-3 (bc), expected a range that starts at the next word (1)",
        ),
        ([row("1-2", "ab"), row("1-3", "abc"), *"123"], 2, "1-3 (abc), expected"),
        ([row("1-2", "ab"), "1", row("2-3", "bc"), "2", "3"], 3, "2-3 (bc), expected"),  # overlap
        ([row("1-2", "ab"), row("1-2", "ab"), *"123"], 2, "1-2 (ab), expected"),  # twice
        (["1", "2", row("1-2", "ab"), "3"], 3, "1-2 (ab), expected a range that starts at the next word (3)"),
        ([*"123", row("1-2", "ab")], 4, "1-2 (ab), expected"),
        ([row("2-3", "bc"), *"123"], 1, "2-3 (bc), expected"),  # too early
        ([row("1-9", "abc"), *"123"], 1, "1-9 (abc), expected"),
        ([*"123", row("4-5", "de")], 4, "4-5 (de), expected"),  # of no words
        ([row("1-999999999999", "abc"), *"123"], 1, "1-999999999999"),
        ([row("2-1", "ab"), *"123"], 1, "2-1 (ab), expected"),
    ],
)
def test_read_conllu_range_out_of_place(rows: list[str], at: int, shown: str) -> None:
    """A multi-word token that overlaps another, or does not directly precede its words, would lose or repeat text."""
    lines = [row(line, f"word{line}", 0, "root") if line in "123" else line for line in rows]
    with pytest.raises(CorpusError) as raised:
        list(read_conllu(FILE, sentence(*lines)))
    assert str(raised.value).startswith(f"some.conllu, line {at}: ")
    assert shown in str(raised.value)


def test_read_conllu_range_over_the_whole_sentence() -> None:
    (found,) = read_conllu(FILE, sentence(row("1-2", "Dímelo"), row(1, "Di", 0, "root"), row(2, "melo", 1, "obj")))
    assert [found.text[w.start : w.end] for w in found.words] == ["Dímelo", ""]


def test_read_conllu_empty_node_between_a_range_and_its_words() -> None:
    rows = [row("1-2", "ab"), row("0.1", "x"), row(1, "a", 0, "root"), row("1.1", "y"), row(2, "b", 1), row(3, "c", 1)]
    (found,) = read_conllu(FILE, sentence(*rows))
    assert found.text == "ab c"
    assert [(w.start, w.end) for w in found.words] == [(0, 2), (2, 2), (3, 4)]


@pytest.mark.parametrize("heads", [(2, 1), (2, 3, 1), (0, 3, 4, 2)])
def test_read_conllu_heads_in_a_circle(heads: tuple[int, ...]) -> None:
    """Two words that are each other's head would count twice, which once gave an alignment of 4/3."""
    rows = [row(number, "a", head, "dep") for number, head in enumerate(heads, start=1)]
    with pytest.raises(
        CorpusError, match=r"^some\.conllu, line 9: sentence 'sentence 2', words\[\d\]: its heads lead back"
    ):
        list(read_conllu(FILE, CAT + sentence("# a circle", *rows)))


def test_read_conllu_plus() -> None:
    with pytest.raises(CorpusError) as raised:
        list(read_conllu(FILE, "# global.columns = ID FORM\n1\ta\n\n"))
    assert str(raised.value) == (
        "some.conllu, line 1: global.columns = ID FORM (CoNLL-U Plus), expected the columns of CoNLL-U: "
        "ID FORM LEMMA UPOS XPOS FEATS HEAD DEPREL DEPS MISC"
    )


def test_read_conllu_plus_of_the_usual_columns() -> None:
    header = "# global.columns = ID FORM LEMMA UPOS XPOS FEATS HEAD DEPREL DEPS MISC\n"
    assert [s.text for s in read_conllu(FILE, header + CAT)] == ["The cat sat."]


@pytest.mark.parametrize("column", [0, 6])
def test_read_conllu_number_of_5000_digits(column: int) -> None:
    """Python refuses to read such a number, with an error of its own."""
    columns = row(1, "a", 0, "root").split("\t")
    columns[column] = "9" * 5000
    with pytest.raises(CorpusError, match=r"^some\.conllu, line 1: .*expected"):
        list(read_conllu(FILE, sentence("\t".join(columns))))


@pytest.mark.parametrize("form", ["a  b", " a", "a ", "\u00a0", "a\u3000"])
def test_read_conllu_white_space_in_a_form_is_kept(form: str) -> None:
    (found,) = read_conllu(FILE, sentence(row(1, form, 0, "root"), row(2, form, 1)))
    assert found.text == f"{form} {form}"
    assert [found.text[w.start : w.end] for w in found.words] == [form, form]


@pytest.mark.parametrize(("column", "field"), [(3, "upos"), (7, "deprel")])
def test_read_conllu_label_that_is_none(column: int, field: str) -> None:
    columns = row(1, "a", 0, "root").split("\t")
    columns[column] = ":"
    with pytest.raises(CorpusError, match=rf"^some\.conllu, line 1: sentence 'sentence 1', words\[0\]: {field}=':'"):
        list(read_conllu(FILE, sentence("\t".join(columns))))


def test_read_conllu_repeated_id() -> None:
    """Without this check, two sentences without a blank line between them would be read as one."""
    two = sentence(row(1, "a", 0, "root"), row(2, "b", 1, "dep"), row(1, "c", 2, "dep"), row(2, "d", 0, "root"))
    with pytest.raises(
        CorpusError, match=r"^some\.conllu, line 3: ID is 1, expected 3.*is there an empty line between"
    ):
        list(read_conllu(FILE, two))


def test_read_conllu_empty_last_column() -> None:
    with pytest.raises(CorpusError, match=r"^some\.conllu, line 1: column 10 is empty, expected _ for a missing value"):
        list(read_conllu(FILE, sentence(row(1, "a", 0, "root", misc=""))))


@pytest.mark.parametrize("head", ["x", "1.5"])
def test_read_conllu_head_not_a_number(head: str) -> None:
    with pytest.raises(
        CorpusError, match=rf"some\.conllu, line 1: word 1 \(a\) of sentence 1 has head {head}, expected"
    ):
        list(read_conllu(FILE, sentence(row(1, "a", head, "root"))))


def test_from_conllu_names_the_file_as_source(tmp_path: Path) -> None:
    path = tmp_path / "two.conllu"
    path.write_text(CAT + SEA, encoding="utf-8")
    corpus = Corpus.from_conllu(str(path))
    assert corpus.origin == "CoNLL-U two.conllu"
    assert [s.text for s in corpus] == ["The cat sat.", "Vámonos al mar."]


def test_from_conllu_with_windows_line_ends(tmp_path: Path) -> None:
    path = tmp_path / "crlf.conllu"
    path.write_bytes((CAT + SEA).replace("\n", "\r\n").encode())
    assert list(Corpus.from_conllu(path)) == list(read_conllu(path, CAT + SEA))


def test_from_conllu_missing_file(tmp_path: Path) -> None:
    with pytest.raises(CorpusError, match=r"nowhere\.conllu: no such file"):
        Corpus.from_conllu(tmp_path / "nowhere.conllu")


def test_from_conllu_folder_instead_of_file(tmp_path: Path) -> None:
    with pytest.raises(CorpusError, match="cannot be read"):
        Corpus.from_conllu(tmp_path)


def test_from_conllu_not_utf8_names_the_byte(tmp_path: Path) -> None:
    path = tmp_path / "latin.conllu"
    before = CAT.encode() + b"1\tcaf"
    path.write_bytes(before + "é\t_".encode("latin-1"))
    with pytest.raises(CorpusError, match=rf"latin\.conllu: not UTF-8 \(byte {len(before)}: "):
        Corpus.from_conllu(path)


@pytest.mark.parametrize("contents", ["", "\n\n \n", "# only a comment\n"])
def test_from_conllu_empty_file(tmp_path: Path, contents: str) -> None:
    path = tmp_path / "empty.conllu"
    path.write_text(contents, encoding="utf-8")
    with pytest.raises(CorpusError, match=r"empty corpus: no sentence found in CoNLL-U empty\.conllu"):
        Corpus.from_conllu(path)


@st.composite
def trees(draw: st.DrawFn) -> tuple[str, list[tuple[str, int]], str]:
    """The text of a sentence, its words as (form, head id), and its CoNLL-U."""
    forms = draw(st.lists(st.text("abc.é日😀\u0301", min_size=1, max_size=4), min_size=1, max_size=8))
    heads = tiny.heads(len(forms), draw(st.randoms(use_true_random=False)))
    text, words, rows, at = "", [], [], 1
    while at <= len(forms):
        span = draw(st.integers(1, len(forms) - at + 1)) if draw(st.booleans()) else 1
        misc = draw(st.sampled_from(["_", "SpaceAfter=No"]))
        surface = "".join(forms[at - 1 : at - 1 + span])
        if span > 1:
            rows.append(row(f"{at}-{at + span - 1}", surface, misc=misc))
        for identifier in range(at, at + span):
            head = 0 if (above := heads[identifier - 1]) is None else above + 1
            words.append((surface if identifier == at else "", head))
            rows.append(row(identifier, forms[identifier - 1], head, "dep", "X", misc if span == 1 else "_"))
        if draw(st.booleans()):
            rows.append(row(f"{at + span - 1}.1", "empty"))
        text += surface + ("" if misc == "SpaceAfter=No" else " ")
        at += span
    return text.rstrip(" "), words, sentence(*rows)


@settings(max_examples=60, deadline=None)
@given(st.lists(trees(), min_size=1, max_size=3))
def test_read_conllu_recovers_what_was_written(written: list[tuple[str, list[tuple[str, int]], str]]) -> None:
    found = list(read_conllu(FILE, "".join(source for _, _, source in written)))
    assert [s.text for s in found] == [text for text, _, _ in written]
    for read, (_, words, _) in zip(found, written, strict=True):
        assert [read.text[w.start : w.end] for w in read.words] == [form for form, _ in words]
        assert [0 if w.head is None else w.head + 1 for w in read.words] == [head for _, head in words]


@pytest.mark.skipif(not GOLD.exists(), reason="the gold treebank is not at hand")
def test_from_conllu_gold_text_is_rebuilt() -> None:
    blocks = [block.split("\n") for block in GOLD.read_text(encoding="utf-8").strip().split("\n\n")]
    corpus = Corpus.from_conllu(GOLD)
    assert len(corpus) == len(blocks) == 2001
    same = 0
    for found, lines in zip(corpus, blocks, strict=True):
        (text,) = (line.removeprefix("# text = ") for line in lines if line.startswith("# text = "))
        same += found.text == text
        rows = [line.split("\t") for line in lines if re.match(r"\d+\t", line)]
        assert [w.upos for w in found.words] == [columns[3] for columns in rows]
        assert [0 if w.head is None else w.head + 1 for w in found.words] == [int(columns[6]) for columns in rows]
        assert [w.deprel for w in found.words] == [columns[7] for columns in rows]
    assert same >= 0.99 * len(blocks)
