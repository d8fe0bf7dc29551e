"""Rows that are typical of each head: a random sample of each bin of the largest weight."""

from __future__ import annotations

import numpy as np
import torch
import xarray as xr

from tl_attnstats.attention.reductions import Reductions, comparable
from tl_attnstats.collectors.base import Collector, Shape
from tl_attnstats.collectors.exemplars import FIELDS

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
    they share sentences, too.

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
        self._hashes: dict[tuple[int, int], torch.Tensor] = {}

    def update(self, block: Reductions) -> None:
        layer = self.shape.layers.index(block.layer)
        weight = comparable(block.row_max)
        bins = (weight / PER_UNIT).long().clamp_(max=N_BINS - 1)
        slots = bins + N_BINS * torch.arange(self.shape.n_heads, device=bins.device)[:, None]  # [batch, head, query]
        counted = block.rows[:, None].expand(slots.shape)
        n_slots = self.shape.n_heads * N_BINS
        self._new_rows.append((layer, torch.bincount(slots[counted], minlength=n_slots).cpu().numpy()))
        rows = block.first_row, block.end_row
        if rows not in self._hashes:  # the same for all layers
            self._hashes[rows] = _hashes(block)
        hashes = self._hashes[rows][:, None].expand(slots.shape)
        largest = torch.from_numpy(self._sample["hash"][layer, ..., -1].ravel()).to(slots.device)[slots]
        places = (counted & (hashes <= largest) & (weight > 0)).nonzero()
        if len(places):
            self._found.append(self._read(block, layer, places, slots, hashes))

    def _read(
        self, block: Reductions, layer: int, places: torch.Tensor, slots: torch.Tensor, hashes: torch.Tensor
    ) -> Sample:
        """The rows at `places` that may stay, with their keys."""
        found = {"slot": slots, "hash": hashes}
        columns = {name: of[tuple(places.T)].cpu().numpy() for name, of in found.items()}
        sequence, head, row = places.T
        columns["number"] = block.batch.numbers[sequence].cpu().numpy()
        columns["query"] = (row + block.first_row).cpu().numpy()
        few = smallest(columns, self.k)
        sequence, head, row = (place[torch.from_numpy(few).to(places.device)] for place in (sequence, head, row))
        weights = _rows_of(block, sequence, head, row)
        key = comparable(weights).max(-1).indices  # of equal ones, the first
        query = row + block.first_row
        kept = {name: column[few] for name, column in columns.items()}
        kept["slot"] = kept["slot"] + layer * self.shape.n_heads * N_BINS
        spans = [*block.batch.spans[sequence, query].unbind(-1), *block.keys.spans[sequence, key].unbind(-1)]
        read = dict(zip(("key", *FIELDS[3:]), [key, *spans], strict=True))
        weight = weights.gather(-1, key[:, None])[:, 0].double()
        return kept | {name: part.cpu().numpy() for name, part in {**read, "weight": weight}.items()}

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
        coords = {
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


def _hashes(block: Reductions) -> torch.Tensor:
    """A hash of each row, `[batch, query]`. Tokens without characters are told apart by their positions."""
    batch, rows = block.batch, slice(block.first_row, block.end_row)
    digests = np.array([item.sentence.digest for item in batch.items], dtype=np.uint64)
    starts = batch.spans[:, rows, 0].cpu().numpy().astype(np.uint64)
    positions = np.arange(block.first_row, block.end_row, dtype=np.uint64)
    return torch.from_numpy(hashed(digests[:, None], starts, positions)).to(block.rows.device)


def _rows_of(block: Reductions, sequence: torch.Tensor, head: torch.Tensor, row: torch.Tensor) -> torch.Tensor:
    """Content weights of single rows, `[row, key]`."""
    n_batch, n_heads = block.row_mass.shape[:2]
    group = sequence * n_heads + head
    order = group.argsort(stable=True)
    sizes = torch.bincount(group, minlength=n_batch * n_heads)
    nth = torch.empty_like(group)
    nth[order] = torch.arange(len(group), device=group.device) - (sizes.cumsum(0) - sizes)[group[order]]
    rows = torch.zeros(n_batch, n_heads, int(sizes.max()), dtype=torch.int64, device=group.device)
    rows[sequence, head, nth] = row
    return block.row_weights(rows)[sequence, head, nth]


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
