"""Does a head find the other end of a dependency? Accuracy by relation, after Clark et al. (2019)."""

from __future__ import annotations

from functools import cached_property
from typing import Any

import numpy as np
import torch
import xarray as xr
from jaxtyping import Bool, Float, Int
from torch import Tensor

from tl_attnstats.attention.reductions import Reductions
from tl_attnstats.attention.scope import Scope
from tl_attnstats.collectors.base import Collector, Shape
from tl_attnstats.corpus.batches import TokenizedSentence
from tl_attnstats.corpus.devices import to_device

WAYS = ("to_parent", "from_parent")
MOST_OFFSET = 10
OFFSETS = sorted(range(-MOST_OFFSET, MOST_OFFSET + 1), key=lambda offset: (abs(offset), offset))
"""In words, the nearest first: of equally good offsets the first is taken."""
SUMS = ("hits", "hits_squared", "hits_pairs")


class RelationAccuracy(Collector):
    """How often the word that a source word attends to most is the other end of its dependency.

    A word's attention to another is the mean over its counted rows of the sum over the other's content pieces.
    Candidates are the other words of the source's sentence that have content pieces; in causal models those before it.
    Of equal ones the earliest counts. A pair is tried where its target is a candidate. Each sequence belongs to one of
    two halves, by its digest, so that heads can be chosen on one half and scored on the other
    (`AttentionStats.best_relation_heads`). The best fixed offset between words is kept for comparison.
    """

    name = "relation_accuracy"
    reads = ("weights",)
    within_sequence = True
    needs_words = True
    sentences_only = True  # words × words for each head take too long in documents

    def begin(self, shape: Shape) -> None:
        super().begin(shape)
        self._relations: list[str] = []
        n_heads = len(shape.layers) * shape.n_heads
        self._sums: dict[str, Tensor] = {}
        for name, size in (("", n_heads), ("offset_", len(OFFSETS))):
            self._sums |= {name + key: torch.zeros(0, 2, 2, size, dtype=torch.float64) for key in SUMS}
        self._sums |= {key: torch.zeros(0, 2, 2, 1, dtype=torch.float64) for key in ("pairs", "pairs_squared")}
        self.discard_batch()

    def discard_batch(self) -> None:
        self._words: _Words | None = None
        self._batch: dict[int, Tensor] = {}

    def update(self, block: Reductions) -> None:
        if self._words is None:
            self._words = _Words(block.scope, self.shape.sequence_kind == "document")
        words = self._words
        rows = words.source[:, block.first_row : block.end_row]
        attention = torch.einsum("brs,bhrk,bkt->bhst", rows, block.weights, words.target)
        earlier = self._batch.get(block.layer)
        self._batch[block.layer] = attention if earlier is None else earlier + attention

    def end_batch(self, whole: Reductions) -> None:
        words = self._words
        assert words is not None
        if not words.relations:
            self.discard_batch()
            return
        new = [relation for relation in words.relations if relation not in self._relations]
        self._relations += new
        padding, device = (0, 0) * 3 + (0, len(new)), whole.rows.device
        self._sums = {key: torch.nn.functional.pad(to_device(x, device), padding) for key, x in self._sums.items()}
        relation = to_device(torch.tensor([self._relations.index(name) for name in words.relations]), device)
        n_batch = len(whole.batch)
        half = torch.tensor([item.sentence.digest % 2 for item in whole.batch.items])
        of_half = [to_device((half == h).nonzero()[:, 0], device) for h in (0, 1)]
        # A row for each sequence, relation and way; errors need the sums of each sequence.
        place = (words.sequence * len(words.relations) + words.relation) * 2 + words.way
        size = n_batch * len(words.relations) * 2
        pairs = _added(place, torch.ones(len(place), 1, device=device), size)
        hits = torch.cat([self._hits(words, layer) for layer in self.shape.layers], 1)
        offset_hits = (words.offset[:, None] == to_device(torch.tensor(OFFSETS), device)).double()
        found = {"pairs": pairs, "pairs_squared": pairs**2}
        for name, each in (("", hits), ("offset_", offset_hits)):
            a = _added(place, each, size)
            found |= {f"{name}hits": a, f"{name}hits_squared": a**2, f"{name}hits_pairs": a * pairs}
        for key, by_row in found.items():
            by_sequence = by_row.view(n_batch, len(words.relations), 2, -1)
            for h in (0, 1):
                self._sums[key][relation, :, h] += by_sequence[of_half[h]].sum(0)
        self.discard_batch()

    def _hits(self, words: _Words, layer: int) -> Float[Tensor, "pair head"]:
        attention = self._batch[layer].masked_fill(~words.candidates[:, None], -1)
        # Of equal ones, max() takes the first.
        chosen = attention.max(-1).indices  # [batch, head, source]
        return (chosen[words.sequence, :, words.from_word] == words.to_word[:, None]).double()

    def state_dict(self) -> xr.Dataset:
        shape = (len(self._relations), 2, 2, len(self.shape.layers), self.shape.n_heads)
        dims = ("relation", "direction", "half")
        variables: dict[str, Any] = {}
        for key, value in self._sums.items():
            array = value.cpu().numpy()
            if key.startswith("pairs"):
                variables[key] = (dims, array[..., 0])
            elif key.startswith("offset_"):
                variables[key] = ((*dims, "offset"), array)
            else:
                variables[key] = ((*dims, "layer", "head"), array.reshape(shape))
        coords = {
            "relation": np.array(self._relations, dtype=object),
            "direction": list(WAYS),
            "half": [0, 1],
            "offset": OFFSETS,
            "layer": list(self.shape.layers),
            "head": list(range(self.shape.n_heads)),
        }
        return xr.Dataset(variables, coords=coords).sortby("relation")

    def load_state_dict(self, state: xr.Dataset) -> None:
        self._relations = [str(relation) for relation in state["relation"].values]
        for key, value in self._sums.items():
            array = state[key].transpose("relation", "direction", "half", ...).values
            self._sums[key] = torch.from_numpy(array.copy()).reshape(*array.shape[:3], value.shape[-1])

    @classmethod
    def merge(cls, a: xr.Dataset, b: xr.Dataset) -> xr.Dataset:
        # An outer join sorts all labels; offsets keep their order.
        return super().merge(a, b).sel(offset=OFFSETS, direction=list(WAYS))

    @classmethod
    def compute(cls, state: xr.Dataset, n: int) -> xr.Dataset:
        value, error = accuracy(state.sum("half"), n)
        dims = ("layer", "head", "relation", "direction")
        about = {"reference": "after Clark et al. 2019"}
        said = {
            "relation_hits": ("dependencies found", "pairs", "pairs whose target has most of the source's attention"),
            "relation_pairs": ("dependencies tried", "pairs", "pairs whose target is a candidate of the source"),
            "relation_accuracy": ("accuracy by relation", "share", "relation_hits / relation_pairs, both halves"),
            "relation_accuracy_se": ("standard error of relation_accuracy", "share", "with the sequence as unit"),
        }
        found = {
            "relation_hits": state["hits"],
            "relation_pairs": state["pairs"],
            "relation_accuracy": value.transpose(*dims),
            "relation_accuracy_se": error.transpose(*dims),
        }
        for name, array in found.items():
            long_name, units, formula = said[name]
            found[name] = array.assign_attrs(long_name=long_name, units=units, formula=formula, **about)
        return xr.Dataset(found).drop_vars("offset", errors="ignore")


def accuracy(sums: xr.Dataset, n: int, prefix: str = "") -> tuple[xr.DataArray, xr.DataArray]:
    """Hits over pairs with its standard error, from sums over sequences; `prefix` is "offset_" for fixed offsets."""
    pairs = sums["pairs"].where(sums["pairs"] > 0)
    value = sums[f"{prefix}hits"] / pairs
    squares = sums[f"{prefix}hits_squared"] - 2 * value * sums[f"{prefix}hits_pairs"] + value**2 * sums["pairs_squared"]
    scale = n / (n - 1) if n > 1 else np.nan
    return value, (scale * squares.clip(min=0)) ** 0.5 / pairs


class _Words:
    """The words of a batch, and the dependencies to be tried.

    A document's sentences are told apart by the roots of their words.
    """

    def __init__(self, scope: Scope, documents: bool):
        self.scope = scope
        device = scope.rows.device
        content, counted = scope.host.content.numpy(), scope.host.rows.numpy()
        entries = [
            _Entry(item, content[b], counted[b], scope.causal, documents) for b, item in enumerate(scope.batch.items)
        ]
        n_words = max([len(entry.words) for entry in entries] + [1])
        n_tokens = scope.rows.shape[1]
        place = torch.full((len(entries), n_tokens), -1)
        sentence = torch.full((len(entries), n_words), -1)
        for b, entry in enumerate(entries):
            place[b, : len(entry.places)] = torch.tensor(entry.places)
            sentence[b, : len(entry.words)] = torch.tensor(entry.sentences, dtype=torch.long)
        one_hot = to_device(torch.nn.functional.one_hot(place.clamp_min(0), n_words) * (place >= 0)[..., None], device)
        self.source: Float[Tensor, "batch row word"] = (one_hot * scope.rows[..., None]).float()
        self.target: Float[Tensor, "batch key word"] = (one_hot * scope.content[..., None]).float()
        same = (sentence[:, :, None] == sentence[:, None, :]) & (sentence >= 0)[:, None, :]
        other = torch.ones(n_words, n_words, dtype=torch.bool).fill_diagonal_(False)
        candidates = same & (other.tril() if scope.causal else other)
        self.candidates: Bool[Tensor, "batch word word"] = to_device(candidates, device)
        tried = [(b, *pair) for b, entry in enumerate(entries) for pair in entry.tried()]
        self.relations = sorted({relation for _, relation, *_ in tried})
        numbers = {relation: number for number, relation in enumerate(self.relations)}
        rows = [(b, numbers[relation], *rest) for b, relation, *rest in tried]
        self._tried = to_device(torch.tensor(rows, dtype=torch.long).reshape(-1, 5), device)

    @cached_property
    def sequence(self) -> Int[Tensor, " pair"]:
        return self._tried[:, 0]

    @cached_property
    def relation(self) -> Int[Tensor, " pair"]:
        return self._tried[:, 1]

    @cached_property
    def way(self) -> Int[Tensor, " pair"]:
        return self._tried[:, 2]

    @cached_property
    def from_word(self) -> Int[Tensor, " pair"]:
        return self._tried[:, 3]

    @cached_property
    def to_word(self) -> Int[Tensor, " pair"]:
        return self._tried[:, 4]

    @cached_property
    def offset(self) -> Int[Tensor, " pair"]:
        """Target minus source, in words that have content pieces."""
        return self.to_word - self.from_word


class _Entry:
    """The words of a sequence that have content pieces, in order; others cannot be attended to and take no place."""

    def __init__(
        self, item: TokenizedSentence, content: np.ndarray, counted: np.ndarray, causal: bool, documents: bool
    ):
        self.item, self.causal = item, causal
        of_token = item.word_of_token
        self.words = sorted({word for token, word in enumerate(of_token) if word >= 0 and content[token]})
        self._place = {word: place for place, word in enumerate(self.words)}
        self.places = [self._place.get(word, -1) for word in of_token]
        self._looks = {word for token, word in enumerate(of_token) if word >= 0 and counted[token]}
        self.sentences = [self._root(word) if documents else 0 for word in self.words]

    def _root(self, word: int) -> int:
        """The root above a word."""
        while (head := self.item.sentence.words[word].head) is not None:
            word = head
        return word

    def tried(self) -> list[tuple[str, int, int, int]]:
        """Relation, way, and the places of source and target of each dependency that can be found."""
        found = []
        for word, place in self._place.items():
            head = self.item.sentence.words[word].head
            if head is None or head not in self._place:
                continue
            relation = self.item.sentence.words[word].deprel.split(":")[0]
            above = self._place[head]
            for way, source, target, looks in ((0, place, above, word), (1, above, place, head)):
                if looks in self._looks and (target < source or not self.causal):
                    found.append((relation, way, source, target))
        return found


def _added(place: Int[Tensor, " pair"], each: Float[Tensor, "pair any"], size: int) -> Float[Tensor, "row any"]:
    return torch.zeros(size, each.shape[1], dtype=torch.float64, device=each.device).index_add_(0, place, each.double())
