"""The two directions in which heads differ most: principal components of all their statistics."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
from jaxtyping import Float

from tl_attnstats.results.stats import HEAD_DIMS, AttentionStats

N_LOADINGS = 3
"""Statistics that are named for a component."""


@dataclass(frozen=True)
class Components:
    """The first two principal components of the heads of one or several models.

    Attributes:
        scores: of each model, the place of every head, `[component, layer * head]`.
        explained: the share of variance of each component.
        loadings: the statistics that weigh most in each component, with their signs: "+ distance, − entropy".
    """

    scores: list[Float[np.ndarray, "component head"]]
    explained: tuple[float, ...]
    loadings: tuple[str, ...]


def components(every: Sequence[AttentionStats]) -> Components | None:
    """The first two components over the heads of all models; None for fewer than three heads or two columns.

    Columns are the statistics, one for each label that all models have. Each is standardised over all heads, and
    divided by √n for n labels, so that a statistic with many labels counts no more than one with a single value. A head
    without a value counts as the mean. The largest loading of a component is positive.
    """
    names, columns = _columns(every)
    if not names:
        return None
    table = np.concatenate([np.stack(of, -1) for of in columns])  # [head, column]
    weights = np.array([weight for _, weight in names])
    there = np.isfinite(table)
    mean = np.where(there, table, 0).sum(0) / there.sum(0).clip(min=1)
    centred = np.where(there, table - mean, 0)
    spread = np.sqrt((centred**2).mean(0))
    varies = spread > 1e-6 * np.abs(mean) + 1e-12  # beyond rounding
    if len(table) < 3 or varies.sum() < 2:
        return None
    scaled = centred[:, varies] / spread[varies] * weights[varies]
    left, sizes, right = np.linalg.svd(scaled, full_matrices=False)
    signs = np.sign(right[np.arange(2), np.abs(right[:2]).argmax(1)])
    scores = (left[:, :2] * sizes[:2] * signs).T
    ends = np.cumsum([len(of[0]) for of in columns])
    kept = [name for (name, _), keep in zip(names, varies, strict=True) if keep]
    return Components(
        np.split(scores, ends[:-1], axis=1),
        tuple((sizes[:2] ** 2 / (sizes**2).sum()).tolist()),
        tuple(_largest(row * sign, kept) for row, sign in zip(right[:2], signs, strict=True)),
    )


def _columns(every: Sequence[AttentionStats]) -> tuple[list[tuple[str, float]], list[list[np.ndarray]]]:
    """Name and weight of each column, and its values in each model."""
    first = every[0]
    names: list[tuple[str, float]] = []
    columns: list[list[np.ndarray]] = [[] for _ in every]
    for name in first.statistics:
        dims = [dim for dim in first[name].dims if dim not in HEAD_DIMS]
        if len(dims) > 1 or not all(name in of.dataset and {*HEAD_DIMS, *dims} == {*of[name].dims} for of in every):
            continue
        labels: list[dict[Any, Any]] = (
            [{}] if not dims else [{dims[0]: label} for label in _shared(every, name, str(dims[0]))]
        )
        for chosen in labels:
            said = " ".join([name, *map(str, chosen.values())]).replace("_", " ")
            names.append((said, 1 / np.sqrt(len(labels))))
            for of, its in zip(every, columns, strict=True):
                its.append(of[name].sel(chosen).transpose(*HEAD_DIMS).values.ravel().astype(float))
    return names, columns


def _shared(every: Sequence[AttentionStats], name: str, dim: str) -> list[object]:
    """The labels of a statistic that all models have."""
    others = [set(of[name][dim].values.tolist()) for of in every[1:]]
    return [label for label in every[0][name][dim].values.tolist() if all(label in other for other in others)]


def _largest(loadings: np.ndarray, names: list[str]) -> str:
    places = np.argsort(-np.abs(loadings), kind="stable")[:N_LOADINGS]
    return ", ".join(f"{'+' if loadings[i] > 0 else '−'} {names[i]}" for i in places)
