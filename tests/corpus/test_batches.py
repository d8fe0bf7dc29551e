from __future__ import annotations

import logging
import re
from typing import Any

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from tests import tiny
from tl_attnstats import Batch, Framing, Sentence, TokenizedSentence, Word
from tl_attnstats.corpus import batches as module
from tl_attnstats.corpus.batches import batches, check_tokenizer
from tl_attnstats.errors import CorpusError, ModelError


class Letters:
    """A tokenizer that makes each character a token, with its code point as id."""

    is_fast = True
    pad_token_id: int | None = None

    def __call__(self, text: str, **_: Any) -> dict[str, Any]:
        return {"input_ids": [ord(letter) for letter in text], "offset_mapping": [(i, i + 1) for i in range(len(text))]}


def sentence(text: str, heads: list[int | None] | None = None, deprels: list[str] | None = None) -> Sentence:
    """Words are what white space separates; a word's tag is its first letter."""
    spans = [match.span() for match in re.finditer(r"\S+", text)]
    heads = heads or [None] * len(spans)
    deprels = deprels or ["dep"] * len(spans)
    words = [Word(*span, text[span[0]], *tree) for span, *tree in zip(spans, heads, deprels, strict=True)]
    return Sentence(text, tuple(words), "a name", 4)


def tokenized(*texts: str, framing: Framing | None = None) -> list[TokenizedSentence]:
    return [(framing or Framing(Letters())).tokenize(sentence(text)) for text in texts]


def test_tokenize_marks_prefix_and_suffix_special() -> None:
    found = Framing(Letters(), (1, 2), (3,)).tokenize(sentence("ab c"))
    assert list(found.ids) == [1, 2, ord("a"), ord("b"), ord(" "), ord("c"), 3]
    assert list(found.special) == [True, True, False, False, False, False, True]
    assert list(found.spans) == [(0, 0), (0, 0), (0, 1), (1, 2), (2, 3), (3, 4), (0, 0)]
    assert list(found.word_of_token) == [-1, -1, 0, 0, -1, 1, -1]
    assert len(found) == 7


@pytest.mark.parametrize(
    ("name", "expected"), [("smollm2_tokenizer", ["the", "Ġcat"]), ("minilm_tokenizer", ["the", "cat"])]
)
def test_tokenize_adds_no_special_tokens_of_its_own(
    name: str, expected: list[str], request: pytest.FixtureRequest
) -> None:
    tokenizer = request.getfixturevalue(name)
    found = Framing(tokenizer).tokenize(sentence("the cat"))
    assert tokenizer.convert_ids_to_tokens(found.ids) == expected
    assert list(found.special) == [False, False]


def test_tokenize_with_cls_and_sep_agrees_with_the_tokenizer(minilm_tokenizer: Any) -> None:
    framing = Framing(minilm_tokenizer, (minilm_tokenizer.cls_token_id,), (minilm_tokenizer.sep_token_id,))
    assert list(framing.tokenize(sentence("the cats sat")).ids) == minilm_tokenizer("the cats sat")["input_ids"]


def test_tokenize_too_long_names_the_sentence() -> None:
    framing = Framing(Letters(), (1,), (2,), max_tokens=5)
    assert len(framing.tokenize(sentence("abc"))) == 5
    with pytest.raises(
        CorpusError, match=r"sentence 5 \(a name: 'abcd'…\) has 4 tokens, .*room for 3; .*truncate=True"
    ):
        framing.tokenize(sentence("abcd"))


def test_tokenize_truncates_when_asked() -> None:
    found = Framing(Letters(), (1,), (2,), max_tokens=5).tokenize(sentence("ab cd"), truncate=True)
    assert list(found.ids) == [1, ord("a"), ord("b"), ord(" "), 2]
    assert list(found.special) == [True, False, False, False, True]
    assert list(found.word_of_token) == [-1, 0, 0, -1, -1]


def test_tokenize_beyond_the_tokenizers_own_limit_does_not_warn(
    minilm_tokenizer: Any, caplog: pytest.LogCaptureFixture, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Only the model's limit counts; transformers would warn of the tokenizer's own, once for each tokenizer."""
    assert minilm_tokenizer.model_max_length < 600
    logger = logging.getLogger("transformers")
    monkeypatch.setattr(logger, "handlers", [*logger.handlers, caplog.handler])
    caplog.set_level(logging.WARNING, "transformers")
    monkeypatch.setattr(minilm_tokenizer, "deprecation_warnings", {})
    assert len(Framing(minilm_tokenizer).tokenize(sentence("cat " * 600))) == 600
    assert caplog.messages == []


def test_tokenize_with_offsets_of_another_text() -> None:
    class Shouting(Letters):
        def __call__(self, text: str, **options: Any) -> dict[str, Any]:
            return super().__call__(text + "!", **options)

    with pytest.raises(ModelError, match=r"tokenizer: Shouting says that a token of 'ab c'… ends at character 5 of 4"):
        Framing(Shouting()).tokenize(sentence("ab c"))


def test_check_tokenizer_accepts_fast_ones(smollm2_tokenizer: Any, minilm_tokenizer: Any) -> None:
    check_tokenizer(smollm2_tokenizer)
    check_tokenizer(minilm_tokenizer)


def test_check_tokenizer_none() -> None:
    with pytest.raises(ModelError, match="model: has no tokenizer; pass one when booting it"):
        check_tokenizer(None)


def test_check_tokenizer_slow() -> None:
    class Tortoise:
        is_fast = False

    with pytest.raises(ModelError, match=r"tokenizer: Tortoise is a slow tokenizer.*use_fast=True"):
        check_tokenizer(Tortoise())


def test_check_tokenizer_of_unknown_kind() -> None:
    with pytest.raises(ModelError, match="tokenizer: object is a slow tokenizer"):
        check_tokenizer(object())


def test_labels_of_tokens() -> None:
    found = Framing(Letters(), (1,)).tokenize(sentence("ab c", deprels=["nmod:poss", "root"]))
    assert found.labels("upos") == ["none", "a", "a", "none", "c"]
    assert found.labels("deprel") == ["none", "nmod:poss", "nmod:poss", "none", "root"]
    assert found.labels("relation") == ["none", "nmod", "nmod", "none", "root"]


def test_dependencies_are_all_pairs_of_pieces() -> None:
    # The head of "ab" is "cde". Characters a0 b1 _2 c3 d4 e5 are tokens 1 to 6, after the prefix.
    found = Framing(Letters(), (1,), (2,)).tokenize(sentence("ab cde", heads=[1, None]))
    assert sorted(found.dependencies()) == [(1, 4), (1, 5), (1, 6), (2, 4), (2, 5), (2, 6)]


def test_dependencies_of_a_word_without_characters_are_left_out() -> None:
    words = (Word(0, 2, "VERB", None, "root"), Word(2, 2, "PRON", 0, "obj"), Word(3, 4, "NOUN", 1, "nmod"))
    found = Framing(Letters()).tokenize(Sentence("ab c", words, "multi-word"))
    assert found.dependencies() == []


def test_dependencies_on_a_truncated_head_are_left_out() -> None:
    found = Framing(Letters(), max_tokens=2).tokenize(sentence("a b c", heads=[2, 0, None]), truncate=True)
    assert found.dependencies() == []


@settings(deadline=None)
@given(st.data())
def test_dependencies_agree_with_asking_every_pair(data: st.DataObject) -> None:
    text = data.draw(st.text("ab ", max_size=12))
    n = len(text.split())
    heads = tiny.heads(n, data.draw(st.randoms(use_true_random=False)))
    made = sentence(text, heads)
    found = Framing(Letters(), (1,)).tokenize(made)
    # Character k is token k + 1; its word is the one whose span it is in.
    word_of = [next((w for w, x in enumerate(made.words) if x.start <= k < x.end), None) for k in range(len(text))]
    expected = {
        (child + 1, parent + 1)
        for child, word in enumerate(word_of)
        for parent, other in enumerate(word_of)
        if word is not None and other is not None and made.words[word].head == other
    }
    assert len(found.dependencies()) == len(expected)
    assert set(found.dependencies()) == expected
    assert all(found.word_of_token[child] != found.word_of_token[parent] for child, parent in found.dependencies())


def test_batch_pads_on_the_right() -> None:
    batch = Batch(tokenized("abc", "d", framing=Framing(Letters(), (1,), (2,))), pad_id=9)
    assert batch.input_ids.tolist() == [[1, ord("a"), ord("b"), ord("c"), 2], [1, ord("d"), 2, 9, 9]]
    assert batch.attention_mask.tolist() == [[1, 1, 1, 1, 1], [1, 1, 1, 0, 0]]
    assert batch.special.tolist() == [[True, False, False, False, True], [True, False, True, False, False]]
    assert batch.spans.tolist() == [
        [[0, 0], [0, 1], [1, 2], [2, 3], [0, 0]],
        [[0, 0], [0, 1], [0, 0], [0, 0], [0, 0]],
    ]
    assert batch.numbers.tolist() == [4, 4]
    assert (len(batch), batch.n_tokens) == (2, 8)
    assert batch.input_ids.dtype == batch.attention_mask.dtype == torch.long
    assert batch.special.dtype == torch.bool


def test_batch_dependencies_are_sentence_child_parent() -> None:
    framing = Framing(Letters())
    batch = Batch([framing.tokenize(sentence("a bc", [1, None])), framing.tokenize(sentence("a b", [None, 0]))])
    assert sorted(batch.dependencies.tolist()) == [[0, 0, 2], [0, 0, 3], [1, 2, 0]]


def test_batch_dependencies_may_be_none() -> None:
    dependencies = Batch(tokenized("a b")).dependencies
    assert dependencies.shape == (0, 3)
    assert dependencies.dtype == torch.long


def test_batch_one_hot_marks_each_token() -> None:
    names, one_hot = Batch(tokenized("b a", "b")).one_hot("upos")
    assert names == ["a", "b", "none"]
    assert one_hot.tolist() == [[[0, 1, 0], [0, 0, 1], [1, 0, 0]], [[0, 1, 0], [0, 0, 0], [0, 0, 0]]]
    assert one_hot.dtype == torch.float64


def test_batch_one_hot_relation_leaves_out_the_subtype() -> None:
    made = sentence("a b c", deprels=["nmod:poss", "nmod", "acl:relcl"])
    batch = Batch([Framing(Letters()).tokenize(made)])
    assert batch.one_hot("relation")[0] == ["acl", "nmod", "none"]
    assert batch.one_hot("deprel")[0] == ["acl:relcl", "nmod", "nmod:poss", "none"]
    column = batch.one_hot("relation")[0].index("nmod")
    assert batch.one_hot("relation")[1][0, :, column].tolist() == [1, 0, 1, 0, 0]


@settings(deadline=None)
@given(
    texts=st.lists(st.text("abc ", min_size=1, max_size=9), min_size=1, max_size=5),
    kind=st.sampled_from(["upos", "relation", "deprel"]),
)
def test_batch_one_hot_rows_sum_to_one_where_tokens_are_real(texts: list[str], kind: str) -> None:
    batch = Batch(tokenized(*texts, framing=Framing(Letters(), (1,))))
    names, one_hot = batch.one_hot(kind)
    width = max(map(len, texts)) + 1
    assert one_hot.shape == (len(texts), width, len(names))
    assert one_hot.sum(-1).tolist() == [[1] * (len(text) + 1) + [0] * (width - len(text) - 1) for text in texts]
    for row, item in enumerate(batch.items):
        assert [names[at] for at in one_hot[row, : len(item)].argmax(-1).tolist()] == item.labels(kind)


@settings(deadline=None)
@given(
    lengths=st.lists(st.integers(1, 30), min_size=1, max_size=40),
    budget=st.integers(1, 60),
    framed=st.booleans(),
    at_once=st.sampled_from([1, 7, 2048]),
)
def test_batches_partition_the_sentences(lengths: list[int], budget: int, framed: bool, at_once: int) -> None:
    framing = Framing(Letters(), (1,) if framed else (), (2,) if framed else ())
    made = [Sentence("a" * length, (), str(number), number) for number, length in enumerate(lengths)]
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(module, "SORTED_AT_ONCE", at_once)
        found = list(batches(made, framing, max_tokens=budget))
    assert sorted(n for batch in found for n in batch.numbers.tolist()) == list(range(len(made)))
    for batch in found:
        assert batch.input_ids.numel() <= budget or len(batch) == 1
        assert {number // at_once for number in batch.numbers.tolist()} == {batch.numbers[0].item() // at_once}
        for item, mask, ids in zip(batch.items, batch.attention_mask, batch.input_ids, strict=True):
            assert mask.tolist() == [1] * len(item) + [0] * (len(mask) - len(item))
            assert ids[: len(item)].tolist() == list(item.ids)
        assert batch.n_tokens == batch.attention_mask.sum().item()
    if at_once == 2048:
        widths = [batch.input_ids.shape[1] for batch in found]
        assert widths == sorted(widths, reverse=True)


def test_batches_fill_the_budget() -> None:
    made = [sentence("a" * length) for length in (2, 4, 4, 2, 3)]
    found = batches(made, Framing(Letters()), max_tokens=8)
    assert [[len(item) for item in batch.items] for batch in found] == [[4, 4], [3, 2], [2]]


@pytest.mark.parametrize(("pad", "expected"), [(None, 0), (0, 0), (7, 7)])
def test_batches_pad_with_the_tokenizers_own_token(pad: int | None, expected: int) -> None:
    tokenizer = Letters()
    tokenizer.pad_token_id = pad
    (batch,) = batches([sentence("ab"), sentence("a")], Framing(tokenizer))
    assert batch.input_ids.tolist() == [[ord("a"), ord("b")], [ord("a"), expected]]


def test_batches_leave_out_sentences_without_tokens() -> None:
    empty = Sentence("", (), "empty", 0)
    assert [len(batch) for batch in batches([empty, sentence("a")], Framing(Letters()))] == [1]
    assert list(batches([empty], Framing(Letters()))) == []


def test_batches_pass_truncate_on() -> None:
    framing = Framing(Letters(), max_tokens=2)
    (batch,) = batches([sentence("abcd"), sentence("a")], framing, truncate=True)
    assert [len(item) for item in batch.items] == [2, 1]
    with pytest.raises(CorpusError, match="sentence 5 "):
        list(batches([sentence("abcd")], framing))


@pytest.mark.parametrize("name", ["smollm2_tokenizer", "minilm_tokenizer"])
def test_batches_of_real_tokens_decode_to_the_sentences(name: str, request: pytest.FixtureRequest) -> None:
    tokenizer = request.getfixturevalue(name)
    texts = ["the cat sat", "unbelievable antidisestablishmentarianism", "mats"]
    found = list(batches([sentence(text) for text in texts], Framing(tokenizer), max_tokens=20))
    decoded = [
        tokenizer.decode(ids[mask.bool()])
        for batch in found
        for ids, mask in zip(batch.input_ids, batch.attention_mask, strict=True)
    ]
    assert sorted(decoded) == sorted(texts)
