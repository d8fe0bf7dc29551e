"""A state as one array of bytes, for checkpoints: netCDF spends 6 ms on the labels of each of two hundred arrays."""

from __future__ import annotations

import json
from collections.abc import Iterator, Mapping
from typing import Any

import numpy as np
import xarray as xr

KINDS = "biufU"
"""Kinds of dtypes whose values are their bytes: numbers and texts, and no Python objects."""


def flattened(state: Mapping[str, xr.Dataset]) -> xr.Dataset:
    """All arrays of a state in the variable `bytes`, one after the other, and in `index` which is where.

    The index is JSON: the `xr.Dataset.to_dict` of each group, with the dtype of each array in place of its data.
    """
    index: dict[str, Any] = {}
    arrays: list[np.ndarray] = []
    for group, part in state.items():
        index[group] = part.to_dict(data=False)
        for name, entry in _arrays(index[group]):
            values = part[name].values
            values = values.astype(str) if values.dtype.kind not in KINDS else values
            entry["data"] = values.dtype.str
            arrays.append(np.ascontiguousarray(values).reshape(-1).view(np.uint8))
    described = np.frombuffer(json.dumps(index).encode(), np.uint8)  # an attribute may have no more than 64 kB
    return xr.Dataset({"bytes": ("byte", np.concatenate(arrays)), "index": ("index_byte", described)})


def unflattened(flat: xr.Dataset) -> dict[str, xr.Dataset]:
    """The inverse of `flattened`. Raises ValueError, TypeError or KeyError for anything else."""
    index, memory, start = json.loads(flat["index"].values.tobytes()), flat["bytes"].values.tobytes(), 0
    for part in index.values():
        for _, described in _arrays(part):
            dtype = np.dtype(described["data"])
            if dtype.kind not in KINDS:
                raise TypeError(f"an array of {dtype}, expected numbers or texts")
            size = int(np.prod(described["shape"], dtype=np.int64))
            values = np.frombuffer(memory, dtype, size, start) if size else np.empty(0, dtype)
            described["data"] = values.reshape(described["shape"]).copy()  # not read-only
            start += values.nbytes
    return {group: xr.Dataset.from_dict(part) for group, part in index.items()}


def _arrays(part: Mapping[str, Any]) -> Iterator[tuple[str, dict[str, Any]]]:
    """The coordinates and variables of the dictionary of a data set, by name."""
    yield from part["coords"].items()
    yield from part["data_vars"].items()
