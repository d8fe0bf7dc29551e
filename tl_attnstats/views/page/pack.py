"""Put attention and vectors into few bytes, which the page's script unpacks (`store.js`)."""

from __future__ import annotations

import base64
import zlib
from typing import Any

import numpy as np
from jaxtyping import Float

STEPS = 255
"""A weight is stored as a whole number of steps, of which the largest weight of its row has this many."""
FINE = 600_000
"""Vectors of up to so many numbers are stored in 16 bits, more in 8."""


def packed(array: np.ndarray) -> str:
    """The bytes of an array, little-endian, compressed, as base64."""
    little = np.ascontiguousarray(array, dtype=array.dtype.newbyteorder("<"))
    return base64.b64encode(zlib.compress(little.tobytes(), 9)).decode()


def pack_weights(pattern: Float[np.ndarray, "head query key"]) -> dict[str, Any]:
    """Weights in 8 bits, and the largest weight of each row.

    Each weight is off by at most half a step, 1/510 of the largest weight of its row. If no query attends to a later
    key, only the keys up to each query are stored.
    """
    largest = pattern.max(-1)
    steps = np.rint(pattern / np.where(largest > 0, largest, 1)[..., None] * STEPS).astype(np.uint8)
    causal = pattern.shape[1] == pattern.shape[2] and not np.triu(pattern, 1).any()
    kept = steps[(slice(None), *np.tril_indices(steps.shape[1]))] if causal else steps
    return {
        "causal": causal,
        "largest": packed(largest.astype(np.float32)),
        "steps": packed(kept),
        "bound": float(largest.max() / (2 * STEPS)),
    }


def pack_vectors(
    queries: Float[np.ndarray, "head token d_head"],
    keys: Float[np.ndarray, "head token d_head"],
    scale: Float[np.ndarray, " head"],
) -> dict[str, Any]:
    """Query and key vectors in 8 or 16 bits with the largest magnitude of each vector; keys of a group only once.

    `bound` is the largest error that this makes in any product, scaled, before the softmax.
    """
    own = [n for n in range(len(keys)) if n == 0 or not np.array_equal(keys[n], keys[n - 1])]
    group = [sum(start <= n for start in own) - 1 for n in range(len(keys))]
    dtype = np.int16 if queries.size + keys[own].size <= FINE else np.int8
    (q, q_size, q_read), (k, k_size, k_read) = (_pack(v, dtype) for v in (queries, keys[own]))
    off = [
        factor * np.abs(one @ two.T - one_read @ k_read[at].T).max()
        for one, two, one_read, at, factor in zip(queries, keys, q_read, group, scale, strict=True)
    ]
    return {
        "bits": 8 * np.dtype(dtype).itemsize,
        "size": queries.shape[-1],
        "group": group,
        "scale": [float(factor) for factor in scale],
        "queries": q,
        "query_sizes": q_size,
        "keys": k,
        "key_sizes": k_size,
        "bound": float(max(off)),
    }


def _pack(vectors: Float[np.ndarray, "head token d_head"], dtype: Any) -> tuple[str, str, np.ndarray]:
    """The whole numbers, the magnitudes, and the vectors as the page will read them."""
    most = np.iinfo(dtype).max
    size = np.abs(vectors).max(-1).astype(np.float32)
    whole = np.rint(vectors / np.where(size > 0, size, 1).astype(np.float64)[..., None] * most).astype(dtype)
    return packed(whole), packed(size), whole * (size[..., None].astype(np.float64) / most)
