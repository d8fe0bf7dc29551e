"""The sentences that excite each head most."""

from __future__ import annotations

import torch
import xarray as xr
from torch import Tensor

from tl_attnstats.attention.reductions import Reductions, comparable
from tl_attnstats.collectors.base import Collector, Shape
from tl_attnstats.corpus.devices import to_device

DIMS = ("layer", "head", "rank")
FIELDS = ("number", "query", "key", "query_start", "query_end", "key_start", "key_end")
"""What is stored beside the weight: the sentence's number, the positions of the two tokens, their characters."""
MOST_NEW = 1_000_000  # characters of sentences that may be kept until it is known whether they are exemplars

Heap = dict[str, Tensor]  # "weight" and FIELDS, each [layer, head, rank]


class Exemplars(Collector):
    """For each head, the k sequences with the largest content weight: the weight, its query and key, the text.

    Ties within a sequence go to the first (query, key) in row order, between sequences to the earlier one. Weights
    that agree to five decimals are ties: the beginnings that many sentences share differ by rounding only.

    Args:
        k: how many a head.
        exclude_self: leave out self-attention, which a fifth of a model's top exemplars are.
    """

    name = "exemplars"

    def __init__(self, k: int = 10, exclude_self: bool = False):
        self.settings = {"k": k, "exclude_self": exclude_self}
        self.k, self.exclude_self = k, exclude_self
        self.within_sequence = exclude_self
        self.reads = ("row_max", "row_max_others") if exclude_self else ("row_max",)

    def begin(self, shape: Shape) -> None:
        super().begin(shape)
        size = (len(shape.layers), shape.n_heads, self.k)
        self._heap: Heap = {"weight": torch.zeros(size, dtype=torch.float64)}
        self._heap |= {field: torch.full(size, -1) for field in FIELDS}
        self._texts: dict[int, str] = {}
        self._n_new = 0
        self.discard_batch()

    def discard_batch(self) -> None:
        self._batch: dict[int, tuple[Tensor, Tensor, Tensor]] = {}

    def update(self, block: Reductions) -> None:
        weight, query, key = block.peak(self.exclude_self)
        if block.layer in self._batch:
            # Rows come in order: an equal weight in a later row does not replace an earlier one.
            earlier = self._batch[block.layer]
            better = comparable(weight) > comparable(earlier[0])
            new = (weight, query, key)
            weight, query, key = (torch.where(better, mine, old) for mine, old in zip(new, earlier, strict=True))
        self._batch[block.layer] = weight, query, key

    def end_batch(self, whole: Reductions) -> None:
        batch = whole.batch
        stacked = (torch.stack(parts) for parts in zip(*(self._batch[x] for x in self.shape.layers), strict=True))
        weight, query, key = (part.transpose(1, 2) for part in stacked)  # [layer, head, batch]
        numbers = batch.numbers.expand(weight.shape)
        place = torch.arange(len(batch), device=weight.device).expand(weight.shape)
        spans = [*batch.spans[place, query].unbind(-1), *whole.keys.spans[place, key].unbind(-1)]
        found: Heap = {"weight": weight.double()} | dict(zip(FIELDS, [numbers, query, key, *spans], strict=True))
        self._heap = strongest(self._heap, found, self.k)
        # netCDF cannot hold the null character; the symbol for it (U+2400) takes as much room.
        self._texts |= {item.sentence.number: item.sentence.text.replace("\0", "␀") for item in batch.items}
        self._n_new += sum(len(item.sentence.text) for item in batch.items)
        if self._n_new > MOST_NEW:
            self._drop_texts()
        self.discard_batch()

    def _drop_texts(self) -> None:
        """Keep only texts of exemplars. Done now and then, because on a GPU the host has to wait for their numbers."""
        self._texts = {number: self._texts[number] for number in _numbers(self._heap)}
        self._n_new = 0

    def state_dict(self) -> xr.Dataset:
        self._drop_texts()
        arrays = {field: (DIMS, value.cpu().numpy()) for field, value in self._heap.items()}
        coords = {
            "layer": list(self.shape.layers),
            "head": list(range(self.shape.n_heads)),
            "sentence": sorted(self._texts),
        }
        texts = ("sentence", [self._texts[number] for number in coords["sentence"]])
        return xr.Dataset({**arrays, "text": texts}, coords=coords)

    def load_state_dict(self, state: xr.Dataset) -> None:
        self._heap = _heap(state)
        self._texts = dict(zip(state["sentence"].values.tolist(), state["text"].values.tolist(), strict=True))

    @classmethod
    def merge(cls, a: xr.Dataset, b: xr.Dataset) -> xr.Dataset:
        heap = strongest(_heap(a), _heap(b), a.sizes["rank"])
        texts = xr.concat([a["text"], b["text"]], "sentence").drop_duplicates("sentence").sortby("sentence")
        kept = texts.sel(sentence=_numbers(heap))
        arrays = {field: (DIMS, value.numpy()) for field, value in heap.items()}
        return xr.Dataset({**arrays, "text": kept}, coords={"layer": a["layer"], "head": a["head"]})

    @classmethod
    def compute(cls, state: xr.Dataset, n: int) -> xr.Dataset:
        values = state.rename({name: f"exemplar_{name}" for name in ("weight", *FIELDS, "text")})
        values["exemplar_weight"] = values["exemplar_weight"].where(values["exemplar_number"] >= 0)
        values["exemplar_weight"].attrs = {
            "long_name": "largest weights, a sequence each",
            "units": "share",
            "formula": "max_{i,j} w[i,j], by sequence",
            "reference": "Vig & Belinkov 2019, sec. 5.4, tables 1-3",
        }
        return values


def _numbers(heap: Heap) -> list[int]:
    return sorted({number for number in heap["number"].flatten().tolist() if number >= 0})


def _heap(state: xr.Dataset) -> Heap:
    return {field: torch.from_numpy(state[field].values.copy()) for field in ("weight", *FIELDS)}


def strongest(heap: Heap, found: Heap, k: int) -> Heap:
    """The k exemplars with the largest weights of both; of equal weights the earlier sentence comes first.

    A weight of zero is none: it leaves its place empty, with number -1.
    """
    both = {
        field: torch.cat([to_device(value, found[field].device), found[field]], -1) for field, value in heap.items()
    }
    both["number"] = torch.where(both["weight"] > 0, both["number"], -1)
    by_number = both["number"].argsort(dim=-1, stable=True)
    both = {field: value.gather(-1, by_number) for field, value in both.items()}
    by_weight = comparable(both["weight"]).argsort(dim=-1, stable=True, descending=True)[..., :k]
    return {field: value.gather(-1, by_weight) for field, value in both.items()}
