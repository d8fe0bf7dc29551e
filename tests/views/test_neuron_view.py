from __future__ import annotations

import re
from typing import Any

import matplotlib as mpl
import matplotlib.pyplot as plt
import numpy as np
import pytest

import tl_attnstats as ta
from tests.views.inputs import attention, with_neurons
from tl_attnstats.errors import FigureError, MetricError
from tl_attnstats.views import neuron_view


def image(ax: Any) -> np.ndarray:
    (shown,) = ax.images
    return np.asarray(shown.get_array())


def bars(ax: Any) -> list[float]:
    """Lengths of the bars, from top to bottom."""
    placed = sorted((bar.get_y() + bar.get_height() / 2, bar.get_width()) for bar in ax.patches)
    assert [place for place, _ in placed] == pytest.approx(range(len(placed)))
    return [length for _, length in placed]


@pytest.mark.parametrize("causal", [True, False])
def test_neuron_view_draws_vectors_products_scores_and_the_pattern(causal: bool) -> None:
    given = with_neurons(causal)
    vectors = given.neurons
    assert vectors is not None
    _, (q, k, products, scores, softmax) = neuron_view(given, "L5H2", 6)
    reached = 7 if causal else 12
    query, keys = vectors.queries[1, 2, 6], vectors.keys[1, 2, :reached]
    np.testing.assert_allclose(image(q), [query])
    np.testing.assert_allclose(image(k), keys)
    np.testing.assert_allclose(image(products), [query * key for key in keys])
    np.testing.assert_allclose(bars(scores), [0.25 * sum(query * key) for key in keys])
    np.testing.assert_allclose(bars(softmax), given.pattern[1, 2, 6, :reached])


@pytest.mark.parametrize("name", ["tiny_decoder", "tiny_encoder"])
def test_neuron_view_ends_in_the_pattern_of_a_model(name: str, request: Any) -> None:
    model = request.getfixturevalue(name)
    given = ta.attention_of(model, "The cat sat on the mats.", neurons=True)
    row = len(given.tokens) - 2
    _, axes = neuron_view(given, "L1H3", row)
    pattern = model.run_with_cache(model.to_tokens("The cat sat on the mats."))[1]["blocks.1.attn.hook_pattern"]
    expected = pattern[0, 3, row].numpy()
    if name == "tiny_decoder":
        expected = expected[: row + 1]
    np.testing.assert_allclose(bars(axes[4]), expected, atol=1e-4)
    np.testing.assert_allclose(image(axes[2]).sum(1) * 8**-0.5, bars(axes[3]), rtol=1e-3, atol=1e-3)


def test_neuron_view_puts_the_query_in_its_row_and_keys_from_the_top() -> None:
    figure, axes = neuron_view(with_neurons(causal=False), "L4H0", "paid")
    figure.canvas.draw()
    _, _, bottom, top = axes[0].images[0].get_extent()
    assert (top, bottom) == (2.5, 3.5)
    assert [(text.get_position()[1], text.get_text()) for text in axes[0].get_yticklabels()] == [(3, "paid")]
    _, _, bottom, top = axes[1].images[0].get_extent()
    assert (top, bottom) == (-0.5, 11.5)
    labels = ["<s>", "The", "cat", "paid", r"\$5", "to", "the", "□□", "↵", "שלום", "😀", "."]
    assert [text.get_text() for text in axes[1].get_yticklabels()] == labels
    assert {ax.get_ylim() for ax in axes} == {(11.5, -0.5)}
    assert all(ax.images[0].origin == "upper" for ax in axes[:3])


def test_neuron_view_is_blue_above_0_and_orange_below() -> None:
    _, axes = neuron_view(with_neurons(), "L4H1", 9)
    for ax in axes[:3]:
        (shown,) = ax.images
        low, high = shown.get_clim()
        assert -low == high == pytest.approx(np.abs(image(ax)).max())
        (red, _, blue, _), (white, *_), (other_red, _, other_blue, _) = shown.cmap([0.0, 0.5, 1.0])
        assert red > blue
        assert white > 0.99
        assert other_blue > other_red
    for bar in axes[3].patches:
        red, _, blue, _ = bar.get_facecolor()
        assert (blue > red) == (bar.get_width() >= 0)
    assert {bar.get_width() < 0 for bar in axes[3].patches} == {True, False}


def test_neuron_view_takes_the_last_token_that_is_not_null(tiny_encoder: Any) -> None:
    given = ta.attention_of(tiny_encoder, "The cat sat", neurons=True)
    _, axes = neuron_view(given, "L0H0")
    assert [text.get_text() for text in axes[0].get_yticklabels()] == ["sat"]


def test_neuron_view_names_head_and_scale() -> None:
    _, axes = neuron_view(with_neurons(), "L5H0", 2)
    assert [ax.get_title() for ax in axes] == ["L5H0: query q", "keys k", "products q × k", "sum × 0.25", "softmax"]


def test_neuron_view_keeps_numbers_apart() -> None:
    figure, axes = neuron_view(with_neurons(), "L5H0")
    figure.canvas.draw()
    for ax, following in zip(axes, [*axes[1:], None], strict=True):
        right_end = figure.bbox.x1 if following is None else following.get_window_extent().x0
        for text in ax.texts:
            assert text.get_window_extent().x1 <= right_end + 1
    assert [text.get_text() for text in axes[4].texts] == [f"{length:.2f}" for length in bars(axes[4])]


def test_neuron_view_uses_the_axes_given_and_leaves_the_style_alone() -> None:
    style = dict(mpl.rcParams)
    figure, axes = plt.subplots(5, 1, figsize=(5, 12))
    drawn, panels = neuron_view(with_neurons(), "L4H0", axes=axes)
    figure.canvas.draw()
    assert drawn is figure
    assert list(panels) == list(axes)
    assert plt.get_fignums() == [figure.number]
    assert dict(mpl.rcParams) == style
    with pytest.raises(FigureError, match="axes: got 4, expected 5: q, k"):
        neuron_view(with_neurons(), "L4H0", axes=axes[:4])


def test_neuron_view_refuses_what_is_not_there() -> None:
    with pytest.raises(FigureError, match="pass neurons=True to attention_of"):
        neuron_view(attention(), "L0H0")
    with pytest.raises(MetricError, match=re.escape("head='L0H0': expected a name from L4H0 to L5H2")):
        neuron_view(with_neurons(), "L0H0")
    with pytest.raises(MetricError, match="query=99: not found"):
        neuron_view(with_neurons(), "L4H0", 99)
    assert not plt.get_fignums()
