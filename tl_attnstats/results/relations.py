"""The best head of each dependency relation, chosen on one half of the corpus and scored on the other."""

from __future__ import annotations

from typing import Any

import numpy as np
import pandas as pd
import xarray as xr

from tl_attnstats.collectors.relations import accuracy

LEAST_PAIRS = 20
"""With fewer pairs in either half, a relation gets no accuracy."""

COLUMNS = ("relation", "direction", "head", "accuracy", "se", "best_offset", "offset_accuracy", "offset_se", "pairs")


def best_relation_heads(state: xr.Dataset, n: int) -> pd.DataFrame:
    """See `AttentionStats.best_relation_heads`; `n` is the number of sequences."""
    if not state["relation"].size:
        return pd.DataFrame(columns=list(COLUMNS))
    by_head = state.stack(place=("layer", "head"))
    halves = {
        "": [accuracy(by_head.sel(half=half), n) for half in (0, 1)],
        "offset_": [accuracy(state.sel(half=half), n, "offset_") for half in (0, 1)],
    }
    rows = []
    for relation in state["relation"].values:
        for direction in state["direction"].values:
            where = {"relation": relation, "direction": direction}
            pairs = state["pairs"].sel(where).values
            if not pairs.sum():
                continue
            head, *score = _held_out(by_head["hits"].sel(where).values, halves[""], where, pairs)
            offset, *offset_score = _held_out(state["offset_hits"].sel(where).values, halves["offset_"], where, pairs)
            places = by_head["place"].values
            rows.append(
                {
                    **{key: str(value) for key, value in where.items()},
                    "head": ", ".join(dict.fromkeys(f"L{layer}H{h}" for layer, h in (places[i] for i in head))),
                    "accuracy": score[0],
                    "se": score[1],
                    "best_offset": ", ".join(dict.fromkeys(str(state["offset"].values[i]) for i in offset)),
                    "offset_accuracy": offset_score[0],
                    "offset_se": offset_score[1],
                    "pairs": int(pairs.sum()),
                }
            )
    return pd.DataFrame(rows, columns=list(COLUMNS))


def _held_out(
    hits: np.ndarray, halves: Any, where: dict[str, Any], pairs: np.ndarray
) -> tuple[list[int], float, float]:
    """What was chosen on either half, and the mean accuracy on the other with its error."""
    chosen = [int(np.argmax(hits[half])) for half in (0, 1)]  # the first of several
    if pairs.min() < LEAST_PAIRS:
        return chosen, np.nan, np.nan
    scores = [(float(v.sel(where)[i]), float(e.sel(where)[i])) for i, (v, e) in zip(chosen, halves[::-1], strict=True)]
    (first, first_error), (second, second_error) = scores
    return chosen, (first + second) / 2, float(np.hypot(first_error, second_error)) / 2
