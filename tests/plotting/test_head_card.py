from __future__ import annotations

import itertools
from typing import Any

import matplotlib as mpl
import matplotlib.pyplot as plt
import numpy as np
import pytest

import tl_attnstats as ta
from tests.plotting.made import collected, null_heads, worth
from tl_attnstats.errors import FigureError, MetricError
from tl_attnstats.plotting import head_card
from tl_attnstats.results.character import character, sentence_of
from tl_attnstats.results.numbers import number, with_bound, with_error

SECTIONS = ["exemplars", "numbers", "offsets", "parts", "pattern"]


@pytest.fixture(scope="module")
def stats() -> ta.AttentionStats:
    return collected(n_sentences=30)


def lines_of(ax: Any) -> list[list[str]]:
    """The texts of a table by line, from left to right."""
    by_line = itertools.groupby(
        sorted(ax.texts, key=lambda t: (t.get_position()[1], t.get_position()[0])), key=lambda t: t.get_position()[1]
    )
    return [[text.get_text() for text in line] for _, line in by_line]


def test_head_card_has_every_section(stats: ta.AttentionStats) -> None:
    figure, axes = head_card(stats, "L1H2")
    assert sorted(axes) == SECTIONS
    assert figure.texts[0].get_text() == "L1H2: layer 1, head 2"
    assert "30 sentences" in figure.texts[1].get_text()
    assert len(plt.get_fignums()) == 1


@pytest.mark.parametrize("head", ["L0H0", "L1H2", "L2H3"])
def test_head_card_leads_with_what_the_head_is(head: str) -> None:
    stats = worth()  # with tokens such as "$x", which no formula may come of
    figure, _ = head_card(stats, head)
    expected = sentence_of(character(stats, head))
    assert expected
    title, subject, said = figure.texts
    assert said.get_text().replace("\n", " ").replace(r"\$", "$") == expected
    figure.canvas.draw()
    boxes = [text.get_window_extent() for text in (title, said, subject)]
    assert all(upper.y0 > lower.y1 for upper, lower in itertools.pairwise(boxes))
    assert boxes[1].x0 >= 0
    assert boxes[1].x1 <= figure.bbox.x1
    assert max(ax.get_tightbbox().y1 for ax in figure.axes) < boxes[2].y0


def test_head_card_says_nothing_if_nothing_stands_out(stats: ta.AttentionStats) -> None:
    assert character(stats, "L1H2") == []
    figure, _ = head_card(stats, "L1H2")
    assert len(figure.texts) == 2


def test_head_card_gives_values_errors_and_ranks(stats: ta.AttentionStats) -> None:
    _, axes = head_card(stats, "L1H2")
    header, *rows, note = lines_of(axes["numbers"])
    assert header == ["", "value", "± error", "rank\nof 12", "mean\nof all"]
    by_name = {name: cells for name, *cells in rows}
    assert note == ["≤ bound of binning, no standard error"]
    value, bound = (float(stats[name][1, 2]) for name in ("variability", "variability_error"))
    shown, bound_shown, *_ = by_name["variability"]
    assert f"{shown} ({bound_shown})" == with_bound(value, bound, "≤")
    directions = [f"dependency_alignment {d}" for d in ("either", "from_parent", "to_parent")]
    assert set(by_name) == {"null_share", "distance", "entropy", "variability", "sink_share", "sink_rate", *directions}
    distance = stats["distance"].values
    here = distance[1, 2]
    value, error, rank, mean = by_name["distance"]
    assert f"{value} ± {error}" == with_error(here, stats["distance_se"].values[1, 2])
    assert int(rank) == 1 + sum(v > here for v in distance.flatten())
    assert mean == number(distance.mean())
    value, error, *_ = by_name["dependency_alignment to_parent"]
    at = {"layer": 1, "head": 2, "direction": "to_parent"}
    expected = (float(stats[name].sel(at)) for name in ("dependency_alignment", "dependency_alignment_se"))
    assert f"{value} ± {error}" == with_error(*expected)


def test_head_card_marks_doubtful_values() -> None:
    stats = collected(n_sentences=30)
    stats.dataset["null_share"].values[1, 2] = 0.95
    _, axes = head_card(stats, "L1H2")
    lines = lines_of(axes["numbers"])
    names = [name for name, *cells in lines if cells and name]
    assert "null_share" in names
    assert all(name.endswith(" †") for name in names if name != "null_share")
    assert ["† doubtful: null share above 0.9, or error above 50% of the value"] in lines


def test_head_card_draws_parts_of_speech_beside_their_frequency(stats: ta.AttentionStats) -> None:
    _, axes = head_card(stats, "L1H2")
    ax = axes["parts"]
    beyond = stats["pos_to"].sel(layer=1, head=2) - stats["pos_frequency"]
    tags = stats["tag"].values[np.argsort(-beyond.values)].tolist()  # sorted by attention beyond the tag's frequency
    assert tags != stats["tag"].values.tolist()
    assert [label.get_text() for label in ax.get_xticklabels()] == tags
    drawn = {bars.get_label(): [bar.get_height() for bar in bars] for bars in ax.containers if hasattr(bars, "patches")}
    for name in ("to", "from"):
        assert drawn[name] == stats[f"pos_{name}"].sel(layer=1, head=2, tag=tags).values.tolist()
    (strokes,) = [c for c in ax.collections if c.get_label() == "frequency among keys"]
    for place, ((left, low), (right, high)) in enumerate(strokes.get_segments()):
        assert left < place < right
        assert low == high == stats["pos_frequency"].sel(tag=tags[place])
    hatches = {bars.get_label(): bars.patches[0].get_hatch() for bars in ax.containers if hasattr(bars, "patches")}
    assert hatches["to"] != hatches["from"]


def test_head_card_draws_the_mean_pattern(stats: ta.AttentionStats) -> None:
    _, axes = head_card(stats, "L1H2")
    expected = stats["mean_pattern"].sel(layer=1, head=2).transpose("query_position", "key_position").values
    drawn = axes["pattern"].images[0].get_array()
    np.testing.assert_array_equal(np.ma.filled(drawn, np.nan), expected)
    assert axes["pattern"].images[0].origin == "upper"
    assert (axes["pattern"].get_xlabel(), axes["pattern"].get_ylabel()) == ("to position", "from position")


def test_head_card_draws_the_offset_profile(stats: ta.AttentionStats) -> None:
    _, axes = head_card(stats, "L1H2")
    shares = stats["offset_profile"].sel(layer=1, head=2).values
    np.testing.assert_array_equal(axes["offsets"].lines[0].get_ydata(), shares[:-1])
    assert axes["offsets"].get_title("left") == "Attention by offset; dotted: dependencies by distance"
    _, axes = head_card(collected(metrics=["offset_profile"]), "L1H2")
    assert axes["offsets"].get_title("left") == "Attention by offset"


@pytest.mark.parametrize("n", [1, 4])
def test_head_card_lists_the_strongest_exemplars(stats: ta.AttentionStats, n: int) -> None:
    _, axes = head_card(stats, "L1H2", n_exemplars=n)
    weights = stats.exemplars("L1H2")["weight"].tolist()
    assert len(weights) > 4
    written = [t.get_text() for t in axes["exemplars"].texts if t.get_position()[0] == 0]
    assert written == ["weight", *(f"{weight:.3f}" for weight in weights[:n])]


@pytest.mark.parametrize("causal", [True, False])
def test_head_card_keeps_its_sections_apart_and_on_the_page(causal: bool) -> None:
    figure, _ = head_card(collected(causal=causal, n_sentences=30), "L2H0")
    figure.canvas.draw()
    page = figure.bbox
    # All but the twin axis, which overlaps its partner.
    boxes = [ax.get_tightbbox() for ax in figure.axes if not ax.get_ylabel().startswith("P(")]
    assert all(page.x0 <= b.x0 and b.x1 <= page.x1 and page.y0 <= b.y0 and b.y1 <= page.y1 for b in boxes)
    assert not any(a.overlaps(b) for a, b in itertools.combinations(boxes, 2))
    assert min(text.get_window_extent().y0 for text in figure.texts) > max(box.y1 for box in boxes)
    assert figure.get_figwidth() < figure.get_figheight() < 11.7


@pytest.mark.parametrize("scale", [1, 10, 3000])  # in documents, distances reach thousands
def test_head_card_texts_of_the_table_do_not_overlap(scale: int) -> None:
    stats = collected(n_sentences=30)
    stats.dataset["distance"] *= scale
    figure, axes = head_card(stats, "L1H2")
    figure.canvas.draw()
    boxes = [text.get_window_extent() for text in axes["numbers"].texts if text.get_text()]
    assert not any(a.overlaps(b) for a, b in itertools.combinations(boxes, 2))


@pytest.mark.parametrize(
    ("metrics", "sections"),
    [
        (["distance"], ["numbers"]),
        (["variability"], ["numbers", "pattern"]),
        (["dependency_alignment"], ["numbers"]),
        (["pos_from"], ["parts"]),
        (["pos_to", "baselines"], ["parts"]),
        (["offset_profile"], ["offsets"]),
        (["exemplars"], ["exemplars"]),
        (["distance", "exemplars", "dep_to"], ["exemplars", "numbers"]),
    ],
)
def test_head_card_leaves_out_statistics_that_the_file_lacks(metrics: list[str], sections: list[str]) -> None:
    figure, axes = head_card(collected(metrics=metrics), "L0H1")
    figure.canvas.draw()
    assert sorted(axes) == sections
    full, _ = head_card(collected(), "L0H1")
    assert figure.get_figheight() < full.get_figheight()
    boxes = [ax.get_tightbbox() for ax in figure.axes]
    assert all(box.y0 >= 0 and box.y1 <= figure.bbox.y1 for box in boxes)


def test_head_card_of_a_head_without_values_says_so() -> None:
    figure, axes = head_card(null_heads(2, metrics=None), "L0H1")
    figure.canvas.draw()
    assert "exemplars" not in axes
    rows = {name: cells for name, *cells in lines_of(axes["numbers"])}
    assert rows["distance"][:3] == ["–", "–", "–"]
    assert rows["null_share"][0] == "1.00"


def test_head_card_leaves_the_style_alone(stats: ta.AttentionStats) -> None:
    before = dict(mpl.rcParams)
    figure, _ = head_card(stats, "L1H2")
    figure.canvas.draw()
    assert dict(mpl.rcParams) == before


def test_head_card_draws_names_with_dollar_signs() -> None:
    stats = collected()
    stats.dataset.attrs |= {"model": "a$b$c", "corpus": "日本$ $x"}
    figure, _ = head_card(stats, "L0H0")
    figure.canvas.draw()
    assert figure.texts[1].get_text().splitlines()[0] == r"a\$b\$c"


def test_head_card_refuses_what_it_cannot_draw(stats: ta.AttentionStats) -> None:
    with pytest.raises(MetricError, match="head='L9H9': expected a name from L0H0 to L2H3"):
        head_card(stats, "L9H9")
    with pytest.raises(FigureError, match="n_exemplars=-1: expected 0 or more"):
        head_card(stats, "L0H0", n_exemplars=-1)
    with pytest.raises(MetricError, match="head_card: no statistic here has a value for each head"):
        head_card(collected(metrics=["baselines"]), "L0H0")
    assert not plt.get_fignums()
