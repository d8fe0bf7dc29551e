"""Damaged and odd input is refused with a `CorpusError`, or gives valid sentences.

Quick, and the same in each run. `FUZZ=100 pytest tests/corpus/test_fuzz.py` tries a hundred times as many inputs.
"""

from __future__ import annotations

import copy
import itertools
import json
import os
import random
import re
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from tl_attnstats import Corpus, Framing, Sentence
from tl_attnstats.errors import CorpusError

TIMES = int(os.environ.get("FUZZ", "1"))
SAMPLE = Path(__file__).parents[1] / "data" / "sample.conllu"
BLOCKS = SAMPLE.read_text(encoding="utf-8").strip().split("\n\n")

ODD_STRINGS = [
    *("", " ", "\0", "\x07", "\x1f", "\x85", "\u2028", "\u200b", "\ufeff", "\ud800", "a\udfffb", "\u0301"),
    *("😀", "👩\u200d👩\u200d👧", "日本語", "e\u0301\u0302", "عربي", "\u202eabc", "ﬁ", "İ", "\U0010ffff"),
    *("_", "#", "=", "none", ":", "a:", ":a", "\t", "\n", "\r\n", "1-2", "2-1", "1-99", "3-3", "1.1", "0", "-1", "01"),
    *("²", "1e9", "9" * 5000, "SpaceAfter=No", "don't", "(((", '"""'),
]
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


def outcomes(n: int, make: Callable[[random.Random], Any], read: Callable[[Any], Any]) -> tuple[int, int]:
    """How many of n inputs were read, and how many refused. Any error but a `CorpusError` is raised."""
    n_read = 0
    for seed in range(n * TIMES):
        made = make(random.Random(seed))
        try:
            read(made)
            n_read += 1
        except CorpusError:
            pass
    print(f"{n_read} read, {n * TIMES - n_read} refused")  # shown by pytest -s
    return n_read, n * TIMES - n_read


def odd_text(rng: random.Random) -> str:
    words = [
        "The",
        "cat",
        "sat",
        "on",
        "it",
        ".",
        "don't",
        "U.S.",
        "http://a.b/c?d=e",
        "x@y.org",
        "...",
        "3,000.5",
        "A",
        "I",
    ]
    alphabet = "ab .,'\"()-\n\tÉ日😀\u0301\u200d\x00\x85"
    parts = [
        lambda: rng.choice(words),
        lambda: rng.choice(ODD_STRINGS[:9] + ODD_STRINGS[11:]) if rng.random() < 0.8 else "",
        lambda: "".join(rng.choices(alphabet, k=rng.randint(1, 12))),
        lambda: chr(rng.randrange(0x110000)) if rng.random() < 0.1 else chr(rng.randrange(0x3000)),
        lambda: rng.choice("()😀\"'.-=a1") * rng.randint(1, 60),
    ]
    return "".join(rng.choice(parts)() + rng.choice(["", " ", " ", "  "]) for _ in range(rng.randint(1, 25)))


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

    n_read, n_refused = outcomes(60, odd_text, read)
    assert n_read
    assert n_refused


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

    n_read, n_refused = outcomes(400, damaged_conllu, read)
    assert n_read
    assert n_refused


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


def test_damaged_corpus_files_are_read_or_refused(tmp_path: Path) -> None:
    path = tmp_path / "damaged.jsonl"
    Corpus.from_conllu(SAMPLE)[:12].to_file(path)
    lines = path.read_text(encoding="utf-8").splitlines()

    def read(data: bytes) -> None:
        path.write_bytes(data)
        corpus = Corpus.from_file(path)
        assert len(corpus) == 12
        for sentence in corpus:
            assert_lawful(sentence)

    n_read, n_refused = outcomes(400, lambda rng: damaged_corpus(lines, rng), read)
    assert n_read
    assert n_refused


def test_a_corpus_file_cut_off_anywhere_is_refused(tmp_path: Path) -> None:
    path = tmp_path / "cut.jsonl"
    Corpus.from_conllu(SAMPLE)[:3].to_file(path)
    whole = path.read_bytes()
    line_ends = [place for place, byte in enumerate(whole) if byte == ord("\n")]
    # Cutting only the last line feed leaves the file whole.
    for length in sorted({*range(0, line_ends[-1], 11), *line_ends[:-1], *(end + 1 for end in line_ends[:-1])}):
        path.write_bytes(whole[:length])
        with pytest.raises(CorpusError, match="cut"):
            Corpus.from_file(path)
