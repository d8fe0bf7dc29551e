"""The reference's norms, on cases whose answers follow from the definitions."""

from __future__ import annotations

import math
import random
from collections.abc import Callable

import numpy as np
import pytest

from tests import tiny
from tests.by_hand import BOS, pieces, words
from tests.reference import Reference, expected
from tests.reference_norms import Norms


def normed(seed: int, scale: Callable[[np.ndarray], np.ndarray], causal: bool) -> tuple[Reference, Norms]:
    """Random patterns, random values whose norms `scale` changes, and orthonormal W_O."""
    rng, data, values = np.random.default_rng(seed), [], []
    for s in range(4):
        tokens = pieces(tiny.heads(6, random.Random(s)), causal)
        data.append((tiny.patterns(2, 3, len(tokens), causal, s), tokens))
        v = rng.normal(size=(2, 3, len(tokens), 4))
        norm = np.sqrt((v**2).sum(-1, keepdims=True))
        values.append(v / norm * scale(norm))
    output = np.linalg.qr(rng.normal(size=(2, 3, 5, 4)))[0].swapaxes(-1, -2)
    reference = Reference(data, causal=causal, null="first" if causal else "special")
    return reference, Norms(reference, values, output)


TWINS = ("pos_to[X]", "dep_to[obj]", "dependency_alignment[either]", "distance", "null_share")


@pytest.mark.parametrize("causal", [True, False])
def test_constant_norms_leave_the_twins_as_they_were(causal: bool) -> None:
    plain = expected(normed(0, lambda norm: 7 + 0 * norm, causal)[0])
    constant = normed(0, lambda norm: 7 + 0 * norm, causal)[1].expected()
    uneven = normed(0, lambda norm: norm**4, causal)[1].expected()
    for name in TWINS:
        label = name[name.index("[") :] if "[" in name else ""
        twin = name.removesuffix(label) + "_norm" + label
        for number in (0, 1):  # value and error
            assert constant[twin][number] == pytest.approx(plain[name][number], rel=1e-9, abs=1e-12)
        if name != "pos_to[X]":  # every word is an X
            assert np.abs(uneven[twin][0] - plain[name][0]).max() > 0.01


def test_a_twin_weights_each_key_by_what_it_carries() -> None:
    """Null, a and b; the row of b gives 0.5, 0.3 and 0.2 and the row of a 0.4 and 0.6, of keys of norm 1, 2 and 5."""
    tokens = words([BOS, 5, 6], upos=["X", "NOUN", "VERB"])
    weights = [[1.0, 0, 0], [0.4, 0.6, 0], [0.5, 0.3, 0.2]]
    reference = Reference([(np.array([[weights]]), tokens)], causal=True, null="first")
    v = np.array([[[[1.0, 0], [0, 2], [3, -4]]]])
    found = Norms(reference, [v], np.array([[[[1.0, 0], [0, 1]]]])).expected()

    def of(name: str) -> float:
        return found[name][0].item()

    a, b = (0.6 + 0.3) * 2, 0.2 * 5
    assert of("pos_to_norm[NOUN]") == pytest.approx(a / (a + b))
    assert of("distance_norm") == pytest.approx(0.3 * 2 / (a + b))
    assert of("null_share_norm") == pytest.approx(0.9 / (0.9 + a + b))
    outputs = [(0.4, 1.2), (0.5 + 0.6, 0.6 - 0.8)]  # the first row reaches null only
    assert of("output_norm") == pytest.approx(sum(math.hypot(*o) for o in outputs) / 2)
    assert of("output_norm_relative") == pytest.approx(1)  # the layer's only head


def test_a_head_without_an_output_projection_adds_nothing() -> None:
    reference, norms = normed(1, lambda norm: norm, True)
    output = np.eye(5) * np.array([0.0, 1, 1])[:, None, None]
    silent = Norms(reference, norms.carried, np.stack([output, output]))
    for name in ("output_norm", "output_norm_relative"):
        result = silent.expected()[name][0]
        assert (result[:, 0] == 0).all()
        assert (result[:, 1:] > 0.1).all()
    assert silent.expected()["output_norm_relative"][0].mean(1) == pytest.approx(np.ones(2))
    assert np.isnan(silent.expected()["pos_to_norm[X]"][0][:, 0]).all()
