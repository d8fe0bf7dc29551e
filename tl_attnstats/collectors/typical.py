"""Rows that are typical of each head: a random sample of each bin of the largest weight."""

from __future__ import annotations

from typing import Any

import numpy as np
import torch
import xarray as xr

from tl_attnstats.attention.reductions import Reductions, comparable
from tl_attnstats.collectors.base import Collector, Shape
from tl_attnstats.collectors.exemplars import FIELDS
from tl_attnstats.corpus.devices import CPU, to_device

N_BINS = 10
PER_UNIT = 100_000 // N_BINS  # `comparable` weights in a bin
DIMS = ("layer", "head", "row_max", "sample")
KEPT = ("hash", *FIELDS)
LAST = np.iinfo(np.int64).max
"""Hash of an empty place."""

Sample = dict[str, np.ndarray]  # "weight" and KEPT, each [layer, head, bin, sample] or flat


class TypicalExemplars(Collector):
    """For each head, k random rows of each tenth of the range of the row's largest content weight, and how many it has.

    The largest exemplars show what is extreme; these show what is typical. The bins have equal width, [0, 0.1) to
    [0.9, 1], so that a row's bin does not depend on the other rows. The counts of rows tell which quantiles it spans.

    Each row has a hash of its sentence and its place in it; the k rows with the smallest hashes are kept. All rows of
    a bin are thus equally likely, and neither order nor batches nor shards change which. As all heads share the hashes,
    they share sentences, too. On a GPU the host waits for each layer: one reason why this is collected by name only.

    Args:
        k: how many rows a head and bin.
    """

    name = "typical_exemplars"
    reads = ("row_max",)

    def __init__(self, k: int = 2):
        self.settings = {"k": k}
        self.k = k

    def begin(self, shape: Shape) -> None:
        super().begin(shape)
        size = (len(shape.layers), shape.n_heads, N_BINS, self.k)
        self._rows = np.zeros(size[:-1])
        self._sample: Sample = {"weight": np.zeros(size), **{field: np.full(size, -1) for field in KEPT}}
        self._sample["hash"] = np.full(size, LAST)
        self._texts: dict[int, str] = {}
        self.discard_batch()

    def discard_batch(self) -> None:
        self._new_rows: list[tuple[int, np.ndarray]] = []
        self._found: list[Sample] = []
        self._hashes: dict[tuple[int, int], tuple[np.ndarray, np.ndarray]] = {}

    def update(self, block: Reductions) -> None:
        layer = self.shape.layers.index(block.layer)
        rows = block.first_row, block.end_row
        if rows not in self._hashes:  # the same for all layers
            self._hashes[rows] = _hashes(block)
        counted, hashes = self._hashes[rows]  # [batch, 1, query]
        weight = comparable(block.row_max).cpu().numpy()
        bins = np.minimum((weight / PER_UNIT).astype(np.int64), N_BINS - 1)
        slots = bins + N_BINS * np.arange(self.shape.n_heads)[:, None]  # [batch, head, query]
        everyone = slots[np.broadcast_to(counted, slots.shape)]
        self._new_rows.append((layer, np.bincount(everyone, minlength=self.shape.n_heads * N_BINS)))
        largest = self._sample["hash"][layer, ..., -1].ravel()[slots]
        places = (counted & (hashes <= largest) & (weight > 0)).nonzero()
        if len(places[0]):
            sequence, _, row = places
            columns = {"slot": slots[places], "hash": hashes[sequence, 0, row], "query": row + block.first_row}
            columns["number"] = _numbers_of(block)[sequence]
            few = smallest(columns, self.k)
            kept = {name: column[few] for name, column in columns.items()}
            kept["slot"] = kept["slot"] + layer * self.shape.n_heads * N_BINS
            self._found.append(kept | _read(block, *(place[few] for place in places)))

    def end_batch(self, whole: Reductions) -> None:
        for layer, rows in self._new_rows:
            self._rows[layer] += rows.reshape(self._rows.shape[1:])
        if self._found:
            found = {name: np.concatenate([part[name] for part in self._found]) for name in self._found[0]}
            touched = np.unique(found["slot"])
            flat = {name: value.reshape(-1, self.k) for name, value in self._sample.items()}
            earlier = {name: value[touched].ravel() for name, value in flat.items()}
            earlier["slot"] = touched.repeat(self.k)
            both = {name: np.concatenate([earlier[name], found[name]]) for name in earlier}
            few = smallest(both, self.k)
            for name, value in flat.items():  # views of the sample
                value[touched] = both[name][few].reshape(-1, self.k)
            items = {item.sentence.number: item.sentence.text for item in whole.batch.items}
            # netCDF cannot hold the null character; the symbol for it (U+2400) takes as much room.
            self._texts |= {number: text.replace("\0", "␀") for number, text in items.items()}
            self._texts = {number: self._texts[number] for number in _numbers(self._sample)}
        self.discard_batch()

    def state_dict(self) -> xr.Dataset:
        arrays = {name: (DIMS, value.copy()) for name, value in self._sample.items()}
        coords: dict[str, Any] = {
            "layer": list(self.shape.layers),
            "head": list(range(self.shape.n_heads)),
            "row_max": np.arange(N_BINS) / N_BINS,
            "sentence": sorted(self._texts),
        }
        texts = ("sentence", [self._texts[number] for number in coords["sentence"]])
        return xr.Dataset({**arrays, "rows": (DIMS[:-1], self._rows.copy()), "text": texts}, coords=coords)

    def load_state_dict(self, state: xr.Dataset) -> None:
        self._sample = _sample(state)
        self._rows = state["rows"].values.copy()
        self._texts = dict(zip(state["sentence"].values.tolist(), state["text"].values.tolist(), strict=True))

    @classmethod
    def merge(cls, a: xr.Dataset, b: xr.Dataset) -> xr.Dataset:
        shape = a["hash"].shape
        both = {name: np.concatenate([a[name].values, b[name].values], -1) for name in ("weight", *KEPT)}
        slots = np.arange(np.prod(shape[:-1])).repeat(2 * shape[-1])
        flat = {name: value.ravel() for name, value in both.items()} | {"slot": slots}
        few = smallest(flat, shape[-1])
        merged = {name: flat[name][few].reshape(shape) for name in both}
        texts = xr.concat([a["text"], b["text"]], "sentence").drop_duplicates("sentence").sortby("sentence")
        kept = texts.sel(sentence=_numbers(merged))
        arrays = {name: (DIMS, value) for name, value in merged.items()}
        coords = {dim: a[dim] for dim in DIMS[:-1]}
        return xr.Dataset({**arrays, "rows": a["rows"] + b["rows"], "text": kept}, coords=coords)

    @classmethod
    def compute(cls, state: xr.Dataset, n: int) -> xr.Dataset:
        names = {name: f"typical_{name}" for name in ("weight", *FIELDS, "rows", "text", "sentence")}
        values = state.drop_vars("hash").rename(names)
        values["typical_weight"] = values["typical_weight"].where(values["typical_number"] >= 0)
        values["typical_weight"].attrs = {
            "long_name": "largest weights of random rows",
            "units": "share",
            "formula": "max_j w[i,j] of random i, by tenths of its range",
        }
        values["typical_rows"].attrs = {"long_name": "rows by their largest weight", "units": "count"}
        values["row_max"].attrs = {"long_name": "lower edge of the row's largest weight", "units": "share"}
        return values


def _read(block: Reductions, sequence: np.ndarray, head: np.ndarray, row: np.ndarray) -> Sample:
    """The keys of some rows, the weights of these, and where both tokens are in the text."""
    # As many rows of each sequence and head as the most that any has.
    n_batch, n_heads = block.row_mass.shape[:2]
    group = sequence * n_heads + head
    order = np.argsort(group, kind="stable")
    nth = np.empty_like(group)
    nth[order] = np.arange(len(group)) - np.searchsorted(group[order], group[order])
    rows = np.zeros((n_batch, n_heads, nth.max() + 1), dtype=np.int64)
    rows[sequence, head, nth] = row
    device = block.rows.device
    strongest = block.row_weights(to_device(torch.from_numpy(rows), device))
    key = comparable(strongest).max(-1, keepdim=True).indices  # of equal ones, the first
    places = sequence, head, nth
    weight = strongest.gather(-1, key)[..., 0].cpu().numpy()[places].astype(np.float64)
    found = key[..., 0].cpu().numpy()[places]
    query_spans, key_spans = (batch.on(CPU).spans.numpy() for batch in (block.batch, block.keys))
    spans = np.concatenate([query_spans[sequence, row + block.first_row], key_spans[sequence, found]], -1)
    return {"weight": weight, "key": found, **dict(zip(FIELDS[3:], spans.T, strict=True))}


def _numbers_of(block: Reductions) -> np.ndarray:
    return np.array([item.sentence.number for item in block.batch.items])


def _hashes(block: Reductions) -> tuple[np.ndarray, np.ndarray]:
    """Which rows count, and a hash of each, `[batch, 1, query]`.

    Tokens without characters are told apart by their positions.
    """
    rows = slice(block.first_row, block.end_row)
    digests = np.array([item.sentence.digest for item in block.batch.items], dtype=np.uint64)
    starts = block.batch.on(CPU).spans[:, rows, 0].numpy().astype(np.uint64)
    positions = np.arange(block.first_row, block.end_row, dtype=np.uint64)
    return block.rows.cpu().numpy()[:, None], hashed(digests[:, None], starts, positions)[:, None]


def smallest(rows: Sample, k: int) -> np.ndarray:
    """Indices of the k rows with the smallest hashes of each slot, by slot and hash; equal sentences by number."""
    order = np.lexsort((rows["query"], rows["number"], rows["hash"], rows["slot"]))
    slots = rows["slot"][order]
    nth = np.arange(len(slots)) - np.searchsorted(slots, slots)
    return np.asarray(order[nth < k])


def hashed(digests: np.ndarray, starts: np.ndarray, positions: np.ndarray) -> np.ndarray:
    """63-bit hashes of rows, from their sentences' digests and their places (characters and tokens)."""
    return (_mixed(digests ^ _mixed((starts << np.uint64(32)) + positions)) >> np.uint64(1)).astype(np.int64)


def _mixed(x: np.ndarray) -> np.ndarray:
    """The finaliser of splitmix64 (Steele, Lea & Flood 2014)."""
    x = x + np.uint64(0x9E3779B97F4A7C15)
    x = (x ^ (x >> np.uint64(30))) * np.uint64(0xBF58476D1CE4E5B9)
    x = (x ^ (x >> np.uint64(27))) * np.uint64(0x94D049BB133111EB)
    return np.asarray(x ^ (x >> np.uint64(31)))


def _numbers(sample: Sample) -> list[int]:
    return [number for number in np.unique(sample["number"]).tolist() if number >= 0]


def _sample(state: xr.Dataset) -> Sample:
    return {name: state[name].values.copy() for name in ("weight", *KEPT)}
