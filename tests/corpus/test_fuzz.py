"""Damaged and odd input is refused with a `CorpusError`, or gives valid sentences. `make fuzz` tries many more."""

from __future__ import annotations

import copy
import itertools
import json
import random
import re
from functools import partial
from pathlib import Path
from typing import Any

import pytest
from hypothesis import strategies as st

from tests.corpus.strategies import ODD_STRINGS, any_texts, sentences
from tests.fuzzing import fuzz
from tl_attnstats import Corpus, Framing, Sentence
from tl_attnstats.corpus.batches import batches
from tl_attnstats.errors import CorpusError

SAMPLE = Path(__file__).parents[1] / "data" / "sample.conllu"
BLOCKS = SAMPLE.read_text(encoding="utf-8").strip().split("\n\n")
# Hypothesis draws each random number itself, so that it can find the smallest input that fails.
RANDOMS = st.randoms(use_true_random=False)

ODD_VALUES = [
    *(None, True, False, -1, 0, 1, 2, 10**9, 10**30, 0.5, float("nan"), float("inf"), [], [[]], {}, {"a": 1}),
    *([0, 1, "X", None, "dep"], "abcde", *ODD_STRINGS),
]


def assert_lawful(sentence: Sentence) -> None:
    """Spans are within the text, in order and disjoint; heads are in the sentence; every word has a root above it."""
    end = 0
    for word in sentence.words:
        assert end <= word.start <= word.end <= len(sentence.text)
        assert word.upos.strip()
        assert word.deprel.strip()
        end = word.end
        above, steps = word.head, 0
        while above is not None:
            assert 0 <= above < len(sentence.words)
            above, steps = sentence.words[above].head, steps + 1
            assert steps < len(sentence.words)
    sentence.text.encode()
    assert 0 <= sentence.digest < 2**63


def assert_tokens_lawful(sentence: Sentence, framing: Framing) -> None:
    """A token belongs to the word with which it shares most characters, or to none; words are in order."""
    tokens = framing.tokenize(sentence)
    for (start, end), word in zip(tokens.spans, tokens.word_of_token, strict=True):
        assert 0 <= start <= end <= len(sentence.text)
        shares = [max(0, min(end, w.end) - max(start, w.start)) for w in sentence.words]
        blank = not sentence.text[start:end].strip()
        assert word == (-1 if blank or not max(shares, default=0) else shares.index(max(shares)))
    owners = [word for word in tokens.word_of_token if word >= 0]
    assert owners == sorted(owners)


def visible(text: str) -> str:
    return "".join(text.split())


def test_odd_texts_are_read_or_refused(nlp: Any, smollm2_tokenizer: Any, minilm_tokenizer: Any) -> None:
    framings = [Framing(smollm2_tokenizer), Framing(minilm_tokenizer)]

    def read(text: str) -> None:
        corpus = Corpus.from_texts([text], nlp, progress=False)
        assert visible("".join(s.text for s in corpus)) == visible(text)
        for sentence in corpus:
            assert_lawful(sentence)
            assert visible("".join(sentence.text[w.start : w.end] for w in sentence.words)) == visible(sentence.text)
            for framing in framings:
                assert_tokens_lawful(sentence, framing)

    found = fuzz(60, any_texts(), read)
    assert found["read"]
    assert found["refused"]


def damaged_conllu(rng: random.Random) -> bytes:
    """Two sentences with one to three bytes, fields or lines damaged."""
    lines = [*"\n\n".join(rng.sample(BLOCKS, 2)).split("\n"), "", ""]
    for _ in range(rng.randint(1, 3)):
        at = rng.randrange(len(lines))
        rows = [index for index, line in enumerate(lines) if "\t" in line]
        match rng.randrange(7):
            case 0 | 1 | 2 if rows:  # a field
                row = rng.choice(rows)
                columns = lines[row].split("\t")
                column = rng.choice([0, 1, 3, 6, 7, 9, rng.randrange(len(columns))])
                columns[column % len(columns)] = rng.choice([*ODD_STRINGS, str(rng.randint(0, 9)), "2", "1"])
                lines[row] = "\t".join(columns)
            case 3:
                del lines[at]
            case 4:
                lines.insert(rng.randrange(len(lines)), lines[at])
            case 5:
                other = rng.randrange(len(lines))
                lines[at], lines[other] = lines[other], lines[at]
            case _:
                first = rng.randint(1, 6)
                last = rng.choice([first, first + 1, first + 2, 99])
                added = [
                    f"{first}-{last}\tab\t_\t_\t_\t_\t_\t_\t_\t_",
                    f"{first}.1" + "\t_" * 9,
                    "# global.columns = ID FORM",
                ]
                lines.insert(at, rng.choice(added))
    data = bytearray("\n".join(lines).encode(errors="surrogatepass"))
    if rng.random() < 0.2:
        data[rng.randrange(len(data))] = rng.randrange(256)
    return bytes(data)


def forms_on_the_surface(text: str) -> list[str]:
    """The forms that make up the text of each sentence, joined."""
    found = []
    for block in re.split(r"\n\s*\n", text):
        covered, forms = 0, ""
        for line in block.split("\n"):
            columns = line.split("\t")
            if line.startswith("#") or len(columns) < 2 or "." in columns[0]:
                continue
            first, _, last = columns[0].partition("-")
            if int(first) > covered:
                forms += columns[1]
            covered = max(covered, int(last or first))
        if covered:
            found.append(visible(forms))
    return found


def test_damaged_conllu_is_read_or_refused(tmp_path: Path) -> None:
    path = tmp_path / "damaged.conllu"

    def read(data: bytes) -> None:
        path.write_bytes(data)
        corpus = Corpus.from_conllu(path)
        for sentence in corpus:
            assert_lawful(sentence)
        # Python's reading of the file also ends lines at carriage returns.
        assert [visible(s.text) for s in corpus] == forms_on_the_surface(path.read_text(encoding="utf-8-sig"))

    found = fuzz(400, RANDOMS.map(damaged_conllu), read)
    assert found["read"]
    assert found["refused"]


def places(value: Any, path: tuple[Any, ...] = ()) -> list[tuple[Any, ...]]:
    inside = value.items() if isinstance(value, dict) else enumerate(value) if isinstance(value, list) else ()
    return [path, *itertools.chain.from_iterable(places(below, (*path, key)) for key, below in inside)]


def damaged_corpus(lines: list[str], rng: random.Random) -> bytes:
    """A corpus file with a value replaced, a key removed or doubled, deep nesting, a line removed or a byte changed."""
    kind = rng.randrange(8)
    at = rng.randrange(len(lines))
    lines = list(lines)
    entry = json.loads(lines[at])
    way = rng.choice([place for place in places(entry) if place])
    inner = entry
    for key in way[:-1]:
        inner = inner[key]
    if kind <= 3:
        inner[way[-1]] = copy.deepcopy(rng.choice([*ODD_VALUES, rng.randint(0, 30), rng.randint(0, 5)]))
        lines[at] = json.dumps(entry)
    elif kind == 4:
        del inner[way[-1]]
        lines[at] = json.dumps(entry)
    elif kind == 5:
        lines[at] = rng.choice(
            [lines[at][:-1] + ', "name": "a"}', "[" * 100_000, "1" * 5000, "null", "{}", '"\\ud800"']
        )
    elif kind == 6:
        del lines[at]
    data = bytearray("\n".join([*lines, ""]).encode())
    if kind == 7:
        data[rng.randrange(len(data))] = rng.randrange(256)
    return bytes(data)


def unsealed_lines(path: Path) -> list[str]:
    """A corpus file of 12 sentences in the version without a checksum, which would refuse any damage."""
    Corpus.from_conllu(SAMPLE)[:12].to_file(path)
    lines = path.read_text(encoding="utf-8").splitlines()[:-1]
    return [lines[0].replace("corpus 3", "corpus 1"), *lines[1:]]


def test_damaged_corpus_files_are_read_or_refused(tmp_path: Path) -> None:
    path = tmp_path / "damaged.jsonl"
    lines = unsealed_lines(path)

    def read(data: bytes) -> None:
        path.write_bytes(data)
        corpus = Corpus.from_file(path)
        assert len(corpus) == 12
        for sentence in corpus:
            assert_lawful(sentence)

    found = fuzz(400, RANDOMS.map(partial(damaged_corpus, lines)), read)
    assert found["read"]
    assert found["refused"]


def test_a_corpus_file_cut_off_anywhere_is_refused(tmp_path: Path) -> None:
    path = tmp_path / "cut.jsonl"
    whole = ("\n".join(unsealed_lines(path)[:4]).replace('"sentences": 12', '"sentences": 3') + "\n").encode()
    path.write_bytes(whole)
    assert len(Corpus.from_file(path)) == 3
    line_ends = [place for place, byte in enumerate(whole) if byte == ord("\n")]
    # Cutting only the last line feed leaves the file whole.
    for length in sorted({*range(0, line_ends[-1], 11), *line_ends[:-1], *(end + 1 for end in line_ends[:-1])}):
        path.write_bytes(whole[:length])
        with pytest.raises(CorpusError, match="cut"):
            Corpus.from_file(path)


def test_damaged_parquet_without_a_checksum_is_read_or_refused(tmp_path: Path) -> None:
    path, damaged = tmp_path / "whole.parquet", tmp_path / "damaged.parquet"
    Corpus.from_conllu(SAMPLE)[:12].to_file(path)
    whole = path.read_bytes()
    (place,) = (match.start() for match in re.finditer(rb'\{"sha256 of the rest', whole))
    whole = (whole[:place] + whole[place + 91 :]).replace(b"tl_attnstats corpus 3", b"tl_attnstats corpus 2")
    damaged.write_bytes(whole)
    assert len([*Corpus.from_file(damaged)]) == 12

    def read(rng: random.Random) -> None:
        data = bytearray(whole)
        for _ in range(rng.randint(1, 3)):
            data[rng.randrange(len(data))] ^= 1 << rng.randrange(8)
        damaged.write_bytes(data[: rng.choice([len(data), len(data), rng.randrange(len(data))])])
        for sentence in Corpus.from_file(damaged):
            assert_lawful(sentence)

    assert fuzz(150, RANDOMS, read)["refused"]


def test_any_sentences_are_batched_with_nothing_lost(smollm2_tokenizer: Any, minilm_tokenizer: Any) -> None:
    framings = [Framing(smollm2_tokenizer, (1,)), Framing(minilm_tokenizer, (101,), (102,))]

    def read(made: list[Sentence]) -> None:
        corpus = Corpus(made)
        for framing in framings:
            items = [item for batch in batches(corpus, framing, max_tokens=40) for item in batch.items]
            assert sorted(item.sentence.number for item in items) == list(range(len(made)))
            for item in items:
                assert_tokens_lawful(item.sentence, framing)
                plain = framing.tokenizer(item.sentence.text, add_special_tokens=False)["input_ids"]
                assert [id_ for id_, special in zip(item.ids, item.special, strict=True) if not special] == plain

    assert fuzz(60, st.lists(sentences(), min_size=1, max_size=6), read)["read"]


def test_windows_of_any_document_have_every_token_once(smollm2_tokenizer: Any, minilm_tokenizer: Any) -> None:
    framings = [Framing(smollm2_tokenizer, (1,), (), 8), Framing(minilm_tokenizer, (101,), (102,), 9)]

    def read(made: tuple[Sentence, int]) -> None:
        document, stride = made
        for framing in framings:
            found: list[int] = []
            for window in framing.windows(document, stride):
                assert len(window) <= (framing.max_tokens or 0)
                here = [*zip(window.ids, window.special, strict=True)][window.n_context :]
                found += [id_ for id_, special in here if not special]
            assert found == framing.tokenizer(document.text, add_special_tokens=False)["input_ids"]

    assert fuzz(60, st.tuples(sentences(), st.integers(1, 9)), read)["read"]
