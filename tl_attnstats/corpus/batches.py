"""Turn sentences into model input: tokens aligned with words, batched by length and padded."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator, Sequence
from dataclasses import dataclass, field, replace
from functools import cached_property
from itertools import accumulate, chain, pairwise
from typing import TYPE_CHECKING, Any

import torch
from jaxtyping import Bool, Float, Int
from torch import Tensor

from tl_attnstats.corpus.align import align
from tl_attnstats.corpus.devices import CPU, to_device
from tl_attnstats.corpus.kinds import SequenceKind
from tl_attnstats.corpus.on_error import OTHERWISE
from tl_attnstats.corpus.sentence import NO_LABEL as NO_LABEL  # re-exported for other modules
from tl_attnstats.corpus.sentence import Sentence
from tl_attnstats.errors import CorpusError, ModelError

if TYPE_CHECKING:
    from tl_attnstats.corpus.skipping import Skipping

# Sort this many sentences at a time by length: little padding, and memory does not grow with the corpus.
SORTED_AT_ONCE = 2048


@dataclass(frozen=True)
class TokenizedSentence:
    """The tokens of one sentence as the model reads them.

    `spans` are character spans in `sentence.text`, (0, 0) for special tokens. `word_of_token` is the index of each
    token's word, or -1. `special` marks tokens that the tokenizer added (BOS, [CLS], [SEP]). The first `n_context`
    tokens are keys only: an earlier, overlapping window of the document has already counted them as queries.
    """

    sentence: Sentence
    ids: Sequence[int]
    spans: Sequence[tuple[int, int]]
    word_of_token: Sequence[int]
    special: Sequence[bool]
    n_context: int = 0

    def __len__(self) -> int:
        return len(self.ids)

    def labels(self, kind: str) -> list[str]:
        """Each token's tag (`kind="upos"`) or relation (`"deprel"`, or `"relation"` without subtype)."""
        words = self.sentence.words
        attribute = "upos" if kind == "upos" else "deprel"
        whole = [getattr(words[word], attribute) if word >= 0 else NO_LABEL for word in self.word_of_token]
        return [label.split(":")[0] for label in whole] if kind == "relation" else whole

    def dependencies(self) -> list[tuple[int, int]]:
        """All (child token, parent token) pairs whose words are child and parent."""
        tokens_of_word: dict[int, list[int]] = {}
        for token, word in enumerate(self.word_of_token):
            tokens_of_word.setdefault(word, []).append(token)
        words = self.sentence.words
        return [
            (child, parent)
            for word, children in tokens_of_word.items()
            if word >= 0 and (head := words[word].head) is not None
            for child in children
            for parent in tokens_of_word.get(head, [])
        ]


@dataclass(frozen=True)
class Framing:
    """How a model expects its input: a tokenizer, and the ids of the special tokens before and after a text."""

    tokenizer: Any
    prefix: tuple[int, ...] = ()
    suffix: tuple[int, ...] = ()
    max_tokens: int | None = None
    vocabulary: int | None = None
    """Size of the model's vocabulary; given token ids must be below it. None skips the check."""

    def __str__(self) -> str:
        """The special tokens around a text: "[CLS] … [SEP]"."""
        prefix, suffix = (self.tokenizer.convert_ids_to_tokens(list(ids)) for ids in (self.prefix, self.suffix))
        return " ".join([*prefix, "…", *suffix])

    def tokenize(self, sentence: Sentence, truncate: bool = False) -> TokenizedSentence:
        """Tokenize a sentence and align it with its words. Raises `CorpusError` if it exceeds the model's context."""
        tokens = self._tokenize(sentence)
        if self.room is None or len(tokens) <= self.room or truncate:
            return self._frame(tokens, 0, self.room, 0)
        raise CorpusError(
            f"sentence {sentence.number + 1} ({sentence.name}: {sentence.text[:40]!r}…) has {len(tokens)} tokens, "
            f"but the model's context has room for {self.room}; drop it or pass truncate=True (--truncate)"
        )

    def windows(self, document: Sentence, stride: int | None = None) -> Iterator[TokenizedSentence]:
        """Split a document into sequences that fit the model's context.

        Args:
            document: the text.
            stride: number of tokens between the starts of successive windows; None is a whole window. With a shorter
                stride windows overlap: tokens in the overlap are keys in both windows, but queries only in the first.
        """
        tokens = self._tokenize(document)
        room = self.room or max(1, len(tokens))
        step = room if stride is None else min(stride, room)
        if step < 1:
            raise CorpusError(f"stride={stride}: expected a positive number of tokens")
        start = 0
        while True:
            overlap = room - step if start else 0
            yield self._frame(tokens, start, start + room, overlap + len(self.prefix) if overlap else 0)
            if start + room >= len(tokens):
                return
            start += step

    @property
    def room(self) -> int | None:
        """Number of text tokens that fit into the model's context; None for unlimited."""
        return None if self.max_tokens is None else max(0, self.max_tokens - len(self.prefix) - len(self.suffix))

    def reframe(self, item: TokenizedSentence, framing: Framing) -> TokenizedSentence:
        """Replace the special tokens that this framing put around a text with those of another framing."""
        before = len(self.prefix)
        n_context = item.n_context - before + len(framing.prefix) if item.n_context else 0
        return framing._frame(item, before, len(item) - len(self.suffix), n_context)

    def _given(self, sentence: Sentence, ids: Sequence[int]) -> TokenizedSentence:
        """Take token ids unchanged, with their decoded text for display; spans refer to the decoded pieces."""
        most = max(ids)
        if self.vocabulary is not None and most >= self.vocabulary:
            raise CorpusError(
                f"sentence {sentence.number + 1} ({sentence.name}) has the token id {most} at position "
                f"{list(ids).index(most)}, expected ids in the model's vocabulary, 0 to {self.vocabulary - 1}"
            )
        pieces = [self._piece(id_) for id_ in ids]
        # Separate the pieces with spaces if joining them does not give the decoded sequence.
        space = "" if "".join(pieces) == self.tokenizer.decode(list(ids)) else " "
        ends = list(accumulate(len(piece) + len(space) for piece in pieces))
        spans = [(end - len(piece) - len(space), end - len(space)) for end, piece in zip(ends, pieces, strict=True)]
        named = ("bos", "eos", "cls", "sep", "pad")
        special = {getattr(self.tokenizer, f"{name}_token_id", None) for name in named}
        decoded = sentence.decoded(space.join(pieces))
        return TokenizedSentence(decoded, ids, spans, [-1] * len(ids), [id_ in special for id_ in ids])

    def _piece(self, id_: int) -> str:
        """A token's text for display."""
        if id_ not in self._pieces:
            piece = self.tokenizer.decode([id_]) if id_ < len(self.tokenizer) else ""
            self._pieces[id_] = piece or f"<{id_}>"
        return self._pieces[id_]

    @cached_property
    def _pieces(self) -> dict[int, str]:
        return {}

    def _tokenize(self, sentence: Sentence) -> TokenizedSentence:
        """All tokens of a text, without special tokens."""
        if sentence.ids is not None:
            return self._given(sentence, sentence.ids)
        try:
            encoded = self.tokenizer(
                sentence.text, add_special_tokens=False, return_offsets_mapping=True, verbose=False
            )
        except MemoryError:
            raise
        except Exception as error:  # a tokenizer may raise anything
            raise CorpusError(
                f"tokenizer: {type(self.tokenizer).__name__} failed on sentence {sentence.number + 1} "
                f"({sentence.name}: {sentence.text[:40]!r}…): {type(error).__name__}: {error}; {OTHERWISE}"
            ) from None
        ids, spans = encoded["input_ids"], [tuple(span) for span in encoded["offset_mapping"]]
        if max((end for _, end in spans), default=0) > len(sentence.text):
            raise ModelError(
                f"tokenizer: {type(self.tokenizer).__name__} says that a token of {sentence.text[:40]!r}… ends at "
                f"character {max(end for _, end in spans)} of {len(sentence.text)}; its spans do not refer to this text"
            )
        words = align(sentence.words, spans)
        # Whitespace belongs to no word, not even inside one (French "10 000" is a single word in CoNLL-U).
        words = [-1 if sentence.text[slice(*span)].isspace() else word for word, span in zip(words, spans, strict=True)]
        return TokenizedSentence(sentence, ids, spans, words, [False] * len(ids))

    def _frame(self, tokens: TokenizedSentence, start: int, end: int | None, n_context: int) -> TokenizedSentence:
        """Tokens `start` to `end` with special tokens around them."""
        ids, before, after = tokens.ids[start:end], len(self.prefix), len(self.suffix)
        return TokenizedSentence(
            tokens.sentence,
            [*self.prefix, *ids, *self.suffix],
            [(0, 0)] * before + [*tokens.spans[start:end]] + [(0, 0)] * after,
            [-1] * before + [*tokens.word_of_token[start:end]] + [-1] * after,
            [True] * before + [*tokens.special[start:end]] + [True] * after,
            n_context,
        )


def check_tokenizer(tokenizer: Any) -> None:
    """Raise `ModelError` unless the tokenizer reports the character span of each token."""
    if tokenizer is None:
        raise ModelError("model: has no tokenizer; pass one when booting it (tokenizer=…)")
    if not getattr(tokenizer, "is_fast", False):
        raise ModelError(
            f"tokenizer: {type(tokenizer).__name__} is a slow tokenizer, which has no character spans; "
            f"load a fast one (AutoTokenizer.from_pretrained(…, use_fast=True))"
        )


@dataclass
class Batch:
    """Tokenized sentences, padded on the right to a common length.

    `input_ids` and `attention_mask` go to the model unchanged. For an encoder–decoder they are the encoder's input, and
    `decoder` holds the decoder's: the same sentences again.
    """

    items: Sequence[TokenizedSentence]
    pad_id: int = 0
    device: torch.device = CPU
    decoder: Batch | None = None
    token_type_ids: Int[Tensor, "batch token"] | None = None
    """Which part of a pair of texts each token is in, for encoders that tell them apart."""
    _on_cpu: dict[str, Tensor] = field(default_factory=dict, init=False, repr=False, compare=False)

    def _padded(self, rows: Iterable[Any], fill: Any, dtype: torch.dtype) -> Tensor:
        width = max(len(item) for item in self.items)
        return torch.tensor([[*row, *[fill] * (width - len(row))] for row in rows], dtype=dtype)

    def _once(self, name: str, make: Callable[[], Tensor]) -> Tensor:
        """Make a tensor on the CPU, once for all devices, and copy it to this one."""
        if name not in self._on_cpu:
            self._on_cpu[name] = make()
        return to_device(self._on_cpu[name], self.device)

    def on(self, device: torch.device) -> Batch:
        """The same sequences with their tensors on another device."""
        if device == self.device:
            return self
        moved = replace(self, device=device, decoder=self.decoder and self.decoder.on(device))
        moved._on_cpu = self._on_cpu
        return moved

    @cached_property
    def input_ids(self) -> Int[Tensor, "batch token"]:
        return self._once("input_ids", lambda: self._padded((item.ids for item in self.items), self.pad_id, torch.long))

    @cached_property
    def attention_mask(self) -> Int[Tensor, "batch token"]:
        return self._once(
            "attention_mask", lambda: self._padded(([1] * len(item) for item in self.items), 0, torch.long)
        )

    @cached_property
    def special(self) -> Bool[Tensor, "batch token"]:
        return self._once("special", lambda: self._padded((item.special for item in self.items), False, torch.bool))

    @cached_property
    def context(self) -> Bool[Tensor, "batch token"]:
        """Tokens that are keys only, because an earlier window has counted them as queries."""
        rows = ([t < item.n_context for t in range(len(item))] for item in self.items)
        return self._once("context", lambda: self._padded(rows, False, torch.bool))

    @cached_property
    def spans(self) -> Int[Tensor, "batch token 2"]:
        """Character span of each token in its sentence."""
        return self._once("spans", lambda: self._padded((item.spans for item in self.items), (0, 0), torch.long))

    @cached_property
    def numbers(self) -> Int[Tensor, " batch"]:
        """Each sentence's number in the corpus."""
        return self._once("numbers", lambda: torch.tensor([item.sentence.number for item in self.items]))

    @cached_property
    def dependencies(self) -> Int[Tensor, "pair 3"]:
        """Rows of (index of the sentence in the batch, child token, parent token)."""
        rows = ((b, *pair) for b, item in enumerate(self.items) for pair in item.dependencies())
        return self._once("dependencies", lambda: torch.tensor(list(rows), dtype=torch.long).reshape(-1, 3))

    def one_hot(self, kind: str) -> tuple[list[str], Float[Tensor, "batch token label"]]:
        """The sorted labels of the batch, and each token's label (`TokenizedSentence.labels`) as a one-hot vector."""
        if kind not in self._one_hots:
            rows = [item.labels(kind) for item in self.items]
            names = sorted({label for row in rows for label in row})
            index = {name: i for i, name in enumerate(names)}
            ids = self._padded(([index[label] for label in row] for row in rows), 0, torch.long)
            real = self.on(CPU).attention_mask[:, :, None]
            one_hot = torch.nn.functional.one_hot(ids, len(names)).double() * real
            self._one_hots[kind] = names, to_device(one_hot, self.device)
        return self._one_hots[kind]

    @cached_property
    def _one_hots(self) -> dict[str, tuple[list[str], Tensor]]:
        return {}

    def __len__(self) -> int:
        return len(self.items)

    def take(self, places: Sequence[int]) -> Batch:
        """The sequences at these places, on both sides of an encoder–decoder."""
        return replace(
            self, items=[self.items[at] for at in places], decoder=self.decoder and self.decoder.take(places)
        )

    def plus(self, other: Batch) -> Batch:
        """One batch with the sequences of both."""
        decoder = self.decoder.plus(other.decoder) if self.decoder and other.decoder else None
        return replace(self, items=[*self.items, *other.items], decoder=decoder)

    def split(self, n_parts: int) -> list[Batch]:
        """Split the sequences into `n_parts` batches."""
        bounds = [len(self) * part // n_parts for part in range(n_parts + 1)]
        return [self.take(range(first, end)) for first, end in pairwise(bounds)]

    def beginning(self, n: int) -> Batch:
        """The first `n` tokens of the first sequence, on both sides of an encoder–decoder."""
        parts = ("ids", "spans", "word_of_token", "special")
        item = replace(self.items[0], **{part: getattr(self.items[0], part)[:n] for part in parts}, n_context=0)
        return replace(self, items=[item], decoder=self.decoder and self.decoder.beginning(n))

    @property
    def n_tokens(self) -> int:
        """Number of tokens, without padding."""
        return sum(len(item) for item in self.items)


def batches(
    sentences: Sequence[Sentence],
    framing: Framing | Skipping,
    *,
    max_tokens: int = 1024,
    truncate: bool = False,
    sequence_kind: SequenceKind = "sentence",
    stride: int | None = None,
    device: torch.device | str = "cpu",
    shard: tuple[int, int] = (1, 1),
) -> Iterator[Batch]:
    """Batch sentences of similar length, with at most `max_tokens` tokens per batch, padding included.

    Documents are split into windows (`Framing.windows`). A sequence longer than `max_tokens` gets a batch of its own.
    The longest come first, so that a run that exceeds memory fails at its start.

    `shard=(3, 16)` yields the third of 16 consecutive parts of the batches. A model rounds differently in other
    batches, so the shards share out the very batches of the whole, rather than make their own. A shard reads only the
    sentences sorted together with its own. It may have no batch if there are few.
    """
    number, n_shards = shard
    borders = [len(sentences) * part // n_shards for part in (number - 1, number)]
    pad_id = framing.tokenizer.pad_token_id
    # Padding is masked, so any id will do if the tokenizer has no padding token.
    pad_id = 0 if pad_id is None else pad_id
    for start in range(0, len(sentences), SORTED_AT_ONCE):
        chunk = sentences[start : start + SORTED_AT_ONCE]
        # How many sentences of the chunk come before the borders of the shard.
        before = [min(max(0, border - start), len(chunk)) for border in borders]
        if before[0] == before[1]:
            continue
        tokenized: Iterable[TokenizedSentence]
        if sequence_kind == "document" and not truncate:
            tokenized = chain.from_iterable(framing.windows(document, stride) for document in chunk)
        else:
            tokenized = (framing.tokenize(sentence, truncate) for sentence in chunk)
        rows = _packed(sorted((item for item in tokenized if len(item)), key=len, reverse=True), max_tokens)
        first, end = (len(rows) * part // len(chunk) for part in before)
        yield from (Batch(items, pad_id, torch.device(device)) for items in rows[first:end])


def _packed(by_length: list[TokenizedSentence], max_tokens: int) -> list[list[TokenizedSentence]]:
    """The sequences of each batch, from sequences that are sorted by length, the longest first."""
    rows, start = [], 0
    while start < len(by_length):
        size = max(1, max_tokens // len(by_length[start]))
        rows.append(by_length[start : start + size])
        start += size
    return rows
