"""One text, or a text of two parts, as a model's input."""

from __future__ import annotations

import re
from dataclasses import replace

import torch

from tl_attnstats.corpus.align import align
from tl_attnstats.corpus.batches import Batch, Framing, TokenizedSentence
from tl_attnstats.corpus.sentence import Sentence, Word
from tl_attnstats.errors import CorpusError
from tl_attnstats.models.describe import ModelInfo

Text = str | Sentence | tuple[str, str]
# A word of a text without annotation: letters and digits with what joins them, or one other sign.
WORD = re.compile(r"\w+(?:['’-]\w+)*|[^\w\s]")


def words_of(text: str) -> tuple[Word, ...]:
    """The words of a text without annotation: runs of letters and digits, and single other signs."""
    return tuple(Word(*match.span(), "X", None, "dep") for match in WORD.finditer(text))


def input_of(info: ModelInfo, text: Text, max_tokens: int) -> tuple[Batch, tuple[int, ...]]:
    """The model's input, and the part (0 or 1) to which each token belongs; () unless one sequence has two parts.

    The two parts of a pair are the encoder's and the decoder's text in an encoder–decoder; in an encoder they are read
    as its tokenizer reads a pair; in a decoder the second follows the first as it is.

    Raises:
        CorpusError: a text is empty or has too many tokens.
    """
    first, second = text if isinstance(text, tuple) else (text, text)
    parts: tuple[int, ...] = ()
    if info.decoder_framing is not None:
        encoder, decoder = _item(info.framing, first), _item(info.decoder_framing, second)
        batch = Batch([encoder], device=info.device, decoder=Batch([decoder], device=info.device))
    elif not isinstance(text, tuple):
        batch = Batch([_item(info.framing, text)], device=info.device)
    elif info.causal:
        item = _item(info.framing, text[0] + text[1])
        parts = _running([start >= len(text[0]) and start < end for start, end in item.spans])
        batch = Batch([item], device=info.device)
    else:
        batch, parts = _pair(info, *text)
    for side in (batch, batch.decoder):
        if side is not None:
            _check_length(side.items[0], max_tokens, info.framing.max_tokens)
    return batch, parts


def _item(framing: Framing, text: str | Sentence) -> TokenizedSentence:
    sentence = text if isinstance(text, Sentence) else Sentence(text, words_of(text), "text")
    return replace(framing, max_tokens=None).tokenize(sentence)


def _pair(info: ModelInfo, first: str, second: str) -> tuple[Batch, tuple[int, ...]]:
    """Two texts as an encoder's tokenizer joins them: "[CLS] … [SEP] … [SEP]"."""
    encoded = info.framing.tokenizer(first, second, return_offsets_mapping=True, verbose=False)
    part_of = encoded.sequence_ids()
    start_of = {0: 0, 1: len(first)}
    spans = [
        (0, 0) if part is None else (start + start_of[part], end + start_of[part])
        for part, (start, end) in zip(part_of, encoded["offset_mapping"], strict=True)
    ]
    sentence = Sentence(first + second, words_of(first) + _moved(words_of(second), len(first)), "text")
    special = [part is None for part in part_of]
    item = TokenizedSentence(sentence, encoded["input_ids"], spans, align(sentence.words, spans), special)
    types = encoded.get("token_type_ids")
    batch = Batch(
        [item],
        device=info.device,
        token_type_ids=None if types is None else torch.tensor([types], device=info.device),
    )
    return batch, _running([part == 1 for part in part_of])


def _moved(words: tuple[Word, ...], by: int) -> tuple[Word, ...]:
    return tuple(replace(word, start=word.start + by, end=word.end + by) for word in words)


def _running(in_second: list[bool]) -> tuple[int, ...]:
    """The part of each token; special tokens belong to the part that they follow."""
    begun = in_second.index(True) if True in in_second else len(in_second)
    return tuple(int(at >= begun) for at in range(len(in_second)))


def _check_length(item: TokenizedSentence, max_tokens: int, context: int | None) -> None:
    if all(item.special):
        raise CorpusError(f"text: got {item.sentence.text!r}, which has no tokens; expected some text")
    if len(item) > max_tokens:
        raise CorpusError(
            f"text: has {len(item)} tokens, expected at most {max_tokens}; shorten it, or pass a larger max_tokens "
            f"(--max-tokens) if the figure may be large"
        )
    if context is not None and len(item) > context:
        raise CorpusError(f"text: has {len(item)} tokens, but the model's context has room for {context}")
