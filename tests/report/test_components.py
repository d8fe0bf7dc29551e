"""Principal components of heads, against the eigenvectors of the correlations."""

from __future__ import annotations

import numpy as np
import pytest

from tests.plotting.made import collected, planted
from tl_attnstats.report.components import components


def test_components_are_those_of_the_correlation_matrix() -> None:
    stats = planted()
    names = ("null_share", "distance", "entropy")
    stats.dataset = stats.dataset[[*names]]
    found = components([stats])
    assert found is not None
    table = np.stack([stats[name].values.ravel() for name in names], -1)
    sizes, vectors = np.linalg.eigh(np.corrcoef(table.T))
    standard = (table - table.mean(0)) / table.std(0)
    (scores,) = found.scores
    for k, at in enumerate((2, 1)):  # the largest come last
        expected = standard @ vectors[:, at] * np.sign(vectors[np.abs(vectors[:, at]).argmax(), at])
        np.testing.assert_allclose(scores[k], expected, atol=1e-9)
        assert found.explained[k] == pytest.approx(sizes[at] / 3)
        largest = names[np.abs(vectors[:, at]).argmax()].replace("_", " ")
        assert found.loadings[k].startswith(f"+ {largest}, ")


def test_a_statistic_with_labels_weighs_as_much_as_one_without() -> None:
    stats = planted()
    value = stats["distance"]
    labelled = value.expand_dims(direction=stats["direction"]).transpose("layer", "head", "direction")
    stats.dataset = stats.dataset[["entropy", "distance"]]
    alone = components([stats])
    stats.dataset = stats.dataset.assign(distance=labelled)
    together = components([stats])
    assert alone is not None
    assert together is not None
    np.testing.assert_allclose(together.scores[0], alone.scores[0], atol=1e-9)
    np.testing.assert_allclose(together.explained, alone.explained)


def test_heads_of_two_models_are_on_one_map() -> None:
    a, b = collected(3, 4, n_sentences=20), collected(5, 3, n_sentences=20)
    found = components([a, b])
    assert found is not None
    assert [scores.shape for scores in found.scores] == [(2, 12), (2, 15)]
    np.testing.assert_allclose(np.concatenate(found.scores, axis=1).mean(1), 0, atol=1e-9)


def test_a_head_without_a_value_counts_as_the_mean() -> None:
    stats = planted()
    stats.dataset = stats.dataset[["distance", "entropy"]].copy(deep=True)
    stats.dataset["distance"].values[0, 0] = np.nan
    found = components([stats])
    assert found is not None
    assert np.isfinite(found.scores[0]).all()
    values = stats["distance"].values.copy()
    stats.dataset["distance"].values[0, 0] = np.nanmean(values)
    filled = components([stats])
    assert filled is not None
    np.testing.assert_allclose(filled.scores[0], found.scores[0], atol=1e-9)


def test_too_little_has_no_components() -> None:
    assert components([collected(metrics=["distance"])]) is None
    assert components([collected(1, 2)]) is None
    assert components([collected(metrics=["exemplars"])]) is None
