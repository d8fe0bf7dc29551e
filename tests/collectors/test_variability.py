"""Bins of variability: their borders, and the small error they add, even with almost no mass on content."""

from __future__ import annotations

import numpy as np
import pytest
import torch

import tl_attnstats as ta
from tl_attnstats.collectors.variability import N_SMALL, bin_borders, bins_of

N_BINS = N_SMALL + 256


def test_each_weight_lies_between_the_borders_of_its_bin() -> None:
    rng = np.random.default_rng(0)
    spread = np.concatenate([rng.random(20_000) ** power for power in (1, 4, 20)])
    edges = [0, 1, *(2.0**power for power in range(-45, 1)), *(1.5 * 2.0**power for power in range(-45, 0))]
    weights = np.concatenate([spread, edges]).astype(np.float32)
    bins, borders = bins_of(torch.from_numpy(weights), N_BINS).numpy(), bin_borders(N_BINS)
    assert len(borders) == N_BINS + 1
    assert (np.diff(borders) > 0).all()
    rounding = 1 + 1e-6  # of the arcsine, in float32
    assert (borders[bins] <= weights * rounding).all()
    assert (weights <= borders[bins + 1] * rounding).all()


@pytest.mark.parametrize("largest", [1, 1e-3, 1e-6])
def test_the_error_of_bins_is_small_whatever_the_mass_on_content(largest: float) -> None:
    rng = np.random.default_rng(1)
    n, n_sentences = 6, 40
    words = tuple(ta.Word(i, i + 1, "X", None, "dep") for i in range(n))
    sentence = ta.Sentence("abcdef", words, "letters")
    patterns = []
    for _ in range(n_sentences):
        weights = np.tril(largest * rng.random((1, 2, n, n)) ** 6 / n)
        weights[..., 0] = 1 - weights[..., 1:].sum(-1)
        patterns.append(weights.astype(np.float32))
    stats = ta.collect_patterns(((pattern, sentence) for pattern in patterns), ["variability"])
    content = np.stack(patterns).astype(float)[:, 0, :, :, 1:]  # [sentence, head, query, key], the first key is null
    deviation = np.abs(content - content.mean(0)).sum((0, 2, 3))
    expected = deviation / (2 * content.sum((0, 2, 3)))
    found, bound = stats["variability"].values[0], stats["variability_error"].values[0]
    assert (bound <= 0.005).all()
    assert (np.abs(found - expected) <= bound + 1e-6).all()
