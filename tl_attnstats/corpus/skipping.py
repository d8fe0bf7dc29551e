"""Sentences that cannot be tokenized are skipped, and listed."""

from __future__ import annotations

from collections.abc import Iterator

from tl_attnstats.corpus.batches import Framing, TokenizedSentence
from tl_attnstats.corpus.on_error import line
from tl_attnstats.corpus.sentence import Sentence
from tl_attnstats.errors import CorpusError, ModelError


class Skipping:
    """A framing that takes a sentence for empty which it cannot tokenize. Batches leave empty sentences out.

    Args:
        framing: what tokenizes.
        skipped: receives a line for each sentence, once.
    """

    def __init__(self, framing: Framing, skipped: list[str]):
        self._framing, self._skipped = framing, skipped
        self.tokenizer = framing.tokenizer

    def tokenize(self, sentence: Sentence, truncate: bool = False) -> TokenizedSentence:
        """The tokens of a sentence, or none."""
        try:
            return self._framing.tokenize(sentence, truncate)
        except (CorpusError, ModelError) as error:
            return self._empty(sentence, error)

    def windows(self, document: Sentence, stride: int | None = None) -> Iterator[TokenizedSentence]:
        """The windows of a document, or none."""
        try:
            yield from self._framing.windows(document, stride)
        except (CorpusError, ModelError) as error:
            self._empty(document, error)

    def _empty(self, sentence: Sentence, error: Exception) -> TokenizedSentence:
        said = line(f"sentence {sentence.number + 1} ({sentence.name})", error)
        if said not in self._skipped:
            self._skipped.append(said)
        return TokenizedSentence(sentence, [], [], [], [])
