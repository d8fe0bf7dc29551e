"""What the page shows, as JSON."""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING, Any

import numpy as np

from tl_attnstats.errors import FigureError, MetricError, ModelError
from tl_attnstats.results.stats import find_head, head_name
from tl_attnstats.views.page.cards import cards_of
from tl_attnstats.views.page.pack import pack_vectors, pack_weights

if TYPE_CHECKING:
    from tl_attnstats.results.stats import AttentionStats
    from tl_attnstats.views.text_attention import TextAttention

MOST_WEIGHTS = 8_000_000
"""More weights make a page that is slow to load: this many take about 6 MB in the file."""
MOST_NUMBERS = 4_000_000
"""More numbers of query and key vectors are left out."""


def contents(
    attention: TextAttention, layers: Sequence[int] | None = None, heads: Sequence[str] | None = None
) -> dict[str, Any]:
    """The data of the page.

    Args:
        attention: the attention of one text.
        layers: the layers to show; None for all.
        heads: the heads to show ("L8H6"); None for all.

    Raises:
        MetricError: a head does not exist, or there is none.
        ModelError: a layer is not here.
        FigureError: there are too many weights.
    """
    # Cross-attention first, because the text of the decoder is what one asks about.
    found = [(one, _chosen(one, layers, heads)) for one in (attention, *attention.others)]
    _check_size(found)
    return {"model": attention.model, "streams": [_stream(one, chosen, attention.stats) for one, chosen in found]}


def _chosen(attention: TextAttention, layers: Sequence[int] | None, heads: Sequence[str] | None) -> list[list[int]]:
    """Layer and head numbers of the heads to show, in order."""
    n_heads = attention.pattern.shape[1]
    if layers is not None and (not len(layers) or set(layers) - set(attention.layers)):
        here = ", ".join(map(str, attention.layers))
        raise ModelError(f"layers: got {list(layers)}, expected some of {here}")
    if heads is not None and not len(heads):
        raise MetricError("heads: got none, expected names such as L8H6, or None for all")
    shown = [layer for layer in attention.layers if layers is None or layer in layers]
    every = [[layer, head] for layer in shown for head in range(n_heads)]
    if heads is not None:
        named = {find_head(name, attention.layers, range(n_heads)) for name in heads}
        if lost := sorted(named - {(layer, head) for layer, head in every}):
            raise MetricError(f"heads: {head_name(*lost[0])} is not in the layers {list(layers or [])}; leave one out")
        every = [place for place in every if tuple(place) in named]
    return every


def _check_size(found: list[tuple[TextAttention, list[list[int]]]]) -> None:
    n_weights = sum(len(chosen) * one.pattern[0, 0].size for one, chosen in found)
    if n_weights <= MOST_WEIGHTS:
        return
    one, chosen = max(found, key=lambda each: len(each[1]) * each[0].pattern[0, 0].size)
    n_queries, n_keys = one.pattern.shape[2:]
    most = MOST_WEIGHTS // (n_queries * n_keys * len(found))
    choose = f"choose up to {most} heads with layers= or heads= (--layers, --heads), or " if most else ""
    raise FigureError(
        f"page: {len(chosen)} heads × {n_queries} × {n_keys} tokens are {n_weights / 1e6:.1f} million weights, "
        f"expected at most {MOST_WEIGHTS / 1e6:.0f} million; {choose}shorten the text"
    )


def _stream(attention: TextAttention, chosen: list[list[int]], stats: AttentionStats | None) -> dict[str, Any]:
    rows = [attention.layers.index(layer) for layer, _ in chosen]
    numbers = [head for _, head in chosen]
    vectors = _vectors(attention, rows, numbers)
    crosses = bool(attention.keys)
    return {
        "name": attention.stream,
        "queries": _side(attention.tokens, attention.words, attention.parts),
        "keys": _side(attention.keys, attention.key_words, ()) if crosses else None,
        "null": np.flatnonzero(attention.null).tolist(),
        "sinks": _sinks(attention, rows, numbers),
        "heads": chosen,
        "names": [head_name(*place) for place in chosen],
        "cards": cards_of(stats, chosen, attention.stream),
        "reach": [_reach(attention.pattern[row]) for row in rows],
        **pack_weights(attention.pattern[rows, numbers]),
        "vectors": vectors,
        "no_vectors": "" if vectors else _why_no_vectors(attention),
    }


def _side(tokens: Sequence[str], words: Sequence[int], parts: Sequence[int]) -> dict[str, Any]:
    return {"tokens": list(tokens), "words": list(words) or [-1] * len(tokens), "parts": list(parts) or None}


def _sinks(attention: TextAttention, rows: list[int], numbers: list[int]) -> list[list[int]]:
    if attention.sinks is None:
        return [[] for _ in rows]
    return [np.flatnonzero(attention.sinks[row, head]).tolist() for row, head in zip(rows, numbers, strict=True)]


def _reach(pattern: np.ndarray) -> int:
    """The largest distance at which any head of a layer attends: less than the text where it has a window."""
    _, query, key = np.nonzero(pattern)
    return int(np.abs(query - key).max()) if len(query) else 0


def _vectors(attention: TextAttention, rows: list[int], numbers: list[int]) -> dict[str, Any] | None:
    vectors = attention.neurons
    if vectors is None:
        return None
    queries, keys = vectors.queries[rows, numbers], vectors.keys[rows, numbers]
    if queries.size + keys.size > MOST_NUMBERS:
        return None
    return pack_vectors(queries, keys, vectors.scale[rows])


def _why_no_vectors(attention: TextAttention) -> str:
    if attention.neurons is not None:
        return "the vectors of so many heads and tokens would make the page slow; choose fewer with layers= or heads="
    return attention.why_no_neurons or "query and key vectors were not kept (neurons=False)"
