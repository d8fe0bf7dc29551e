"""What the page stores is what it was given, within the bound that it names."""

from __future__ import annotations

import base64
import zlib
from typing import Any

import numpy as np
import pytest

from tests import tiny
from tl_attnstats.views.page.pack import FINE, pack_vectors, pack_weights


def unpacked(text: str, dtype: Any) -> np.ndarray:
    return np.frombuffer(zlib.decompress(base64.b64decode(text)), dtype)


@pytest.mark.parametrize("causal", [True, False])
def test_weights_are_within_half_a_step_of_their_row(causal: bool) -> None:
    pattern = tiny.patterns(1, 5, 9, causal, seed=3)[0].astype(np.float32)
    pattern[2, 8] = 0  # a head with a learned sink may give a row nothing
    stored = pack_weights(pattern)
    assert stored["causal"] == causal
    steps, largest = unpacked(stored["steps"], np.uint8).tolist(), unpacked(stored["largest"], "<f4").reshape(5, 9)
    read = np.zeros_like(pattern)
    for head in range(5):
        for query in range(9):
            for key in range(query + 1 if causal else 9):
                read[head, query, key] = steps.pop(0) / 255 * largest[head, query]
    assert steps == []
    off = np.abs(read - pattern)
    assert (off <= pattern.max(-1, keepdims=True) / 510 + 1e-7).all()
    assert 0 < off.max() <= stored["bound"] + 1e-7 <= 1 / 510 + 2e-7


@pytest.mark.parametrize(("n_tokens", "bits"), [(7, 16), (400, 8)])
def test_vectors_are_within_half_a_step_and_groups_are_stored_once(n_tokens: int, bits: int) -> None:
    rng = np.random.default_rng(0)
    queries = rng.normal(size=(6, n_tokens, 256)).astype(np.float32)
    keys = rng.normal(size=(2, n_tokens, 256)).astype(np.float32).repeat(3, 0)
    scale = np.full(6, 1 / 16)
    assert (queries.size + keys[::3].size > FINE) == (bits == 8)
    stored = pack_vectors(queries, keys, scale)
    assert (stored["bits"], stored["group"]) == (bits, [0, 0, 0, 1, 1, 1])
    dtype, most = {8: ("i1", 127), 16: ("<i2", 32767)}[bits]
    read = {}
    for kind, sizes, n in (("queries", "query_sizes", 6), ("keys", "key_sizes", 2)):
        whole = unpacked(stored[kind], dtype).reshape(n, n_tokens, 256)
        read[kind] = whole * (unpacked(stored[sizes], "<f4").reshape(n, n_tokens, 1).astype(float) / most)
    for kind, given in (("queries", queries), ("keys", keys[::3])):
        assert (np.abs(read[kind] - given) <= np.abs(given).max(-1, keepdims=True) / most * 0.501).all()
    worst = max(
        np.abs(queries[n] @ keys[n].T - read["queries"][n] @ read["keys"][n // 3].T).max() / 16 for n in range(6)
    )
    assert stored["bound"] == pytest.approx(worst, rel=1e-3)
