from __future__ import annotations

import itertools

import matplotlib as mpl
import matplotlib.pyplot as plt
import numpy as np
import pytest

from tests.views.inputs import attention
from tl_attnstats.views import model_view


@pytest.mark.parametrize("hide_null", [True, False])
def test_model_view_draws_every_weight_in_the_cell_of_its_head(hide_null: bool) -> None:
    given = attention(3, 4)
    n = len(given.tokens)
    _, ax = model_view(given, hide_null=hide_null)
    (lines,) = ax.collections  # one collection for all heads, because one per head is slow to draw
    found = np.zeros_like(given.pattern)
    for (start, end), color in zip(lines.get_segments(), lines.get_colors(), strict=True):
        head, layer = round((start[0] + end[0]) / 2), round(start[1])
        assert start[0] < head < end[0]
        # The first token is at the top of the cell, where values are small, and the last at the bottom.
        query, key = (round((end_[1] - layer + 0.4) / 0.8 * (n - 1)) for end_ in (start, end))
        assert found[layer, head, query, key] == 0
        found[layer, head, query, key] = color[3]
    expected = given.pattern.copy()
    if hide_null:
        expected[..., 0] = 0
    np.testing.assert_allclose(found, np.where(expected * 255 >= 1, expected, 0), atol=1e-6)


def test_model_view_stays_inside_its_cells() -> None:
    _, ax = model_view(attention(3, 4))
    within = np.concatenate(ax.collections[0].get_segments())
    assert np.abs(within - np.round(within)).max() <= 0.4 + 1e-9


def test_model_view_has_layer_0_at_the_top_and_head_0_at_the_left() -> None:
    figure, ax = model_view(attention(3, 4))
    figure.canvas.draw()
    assert ax.get_ylim() == (2.5, -0.5)
    assert ax.get_xlim() == (-0.5, 3.5)
    assert (ax.get_xlabel(), ax.get_ylabel()) == ("head", "layer")


def test_model_view_names_the_model_s_layers() -> None:
    _, ax = model_view(attention(3, 4, first_layer=5))
    assert [text.get_text() for text in ax.get_yticklabels()] == ["5", "6", "7"]
    assert [text.get_text() for text in ax.get_xticklabels()] == ["0", "1", "2", "3"]


@pytest.mark.parametrize(("n_layers", "n_heads"), [(12, 12), (30, 9), (48, 64), (1, 1)])
def test_model_view_of_other_sizes(n_layers: int, n_heads: int) -> None:
    figure, ax = model_view(attention(n_layers, n_heads))
    figure.canvas.draw()
    boxes = [text.get_window_extent() for text in ax.get_yticklabels()]
    assert len(boxes) == n_layers
    assert all(above.y0 > below.y1 for above, below in itertools.pairwise(boxes))
    across = [text.get_window_extent() for text in ax.get_xticklabels()]
    assert all(left.x1 < right.x0 for left, right in itertools.pairwise(across))
    cell = ax.transData.transform([[0, 0], [1, 1]])
    width, height = np.abs(cell[1] - cell[0]) / figure.dpi
    assert min(width, height) > 0.3  # inches


def test_model_view_of_one_token_and_of_heads_that_see_only_null() -> None:
    given = attention(2, 2, ["cat"])
    figure, ax = model_view(given)
    assert not ax.collections[0].get_segments()
    figure.canvas.draw()
    _, ax = model_view(given, hide_null=False)
    assert len(ax.collections[0].get_segments()) == 4


def test_model_view_uses_the_axes_given_and_leaves_the_style_alone() -> None:
    style = dict(mpl.rcParams)
    figure, (left, right) = plt.subplots(1, 2)
    assert model_view(attention(), ax=right) == (figure, right)
    figure.canvas.draw()
    assert not left.collections
    assert plt.get_fignums() == [figure.number]
    assert dict(mpl.rcParams) == style
