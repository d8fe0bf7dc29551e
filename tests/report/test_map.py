"""The map of heads and its queries, in a browser: in the report, and in a comparison of two models."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import matplotlib.pyplot as plt
import numpy as np
import pytest
from playwright.sync_api import Locator, Page, expect

import tl_attnstats as ta
from tests.plotting.made import collected, null_heads, worth
from tests.report.conftest import HOSTILE_LABELS, HOSTILE_MODEL, Visit
from tl_attnstats.report import write_comparison
from tl_attnstats.report.components import components
from tl_attnstats.report.contents import contents
from tl_attnstats.results.numbers import with_error

PLACE = "dots => dots.map(dot => dot.getAttribute('transform').match(/[-\\d.]+/g).map(Number))"


def dots(page: Page) -> Locator:
    return page.locator(".scatter .dot")


def labels(page: Page) -> list[str]:
    texts: list[str] = dots(page).evaluate_all("dots => dots.map(dot => dot.getAttribute('aria-label'))")
    return texts


def places(page: Page) -> dict[str, np.ndarray]:
    """Where the dot of each head is, in pixels of the picture."""
    return dict(zip(heads_of(labels(page)), map(np.array, dots(page).evaluate_all(PLACE)), strict=True))


def heads_of(texts: list[str]) -> list[str]:
    return [text.partition(":")[0] for text in texts]


def choose(page: Page, across: str, up: str) -> None:
    for name, title in (("across", across), ("up", up)):
        page.get_by_label(name, exact=True).select_option(label=title)


def assert_linear(pixels: np.ndarray, values: np.ndarray, sign: int) -> None:
    """The pixels follow the values on a line that rises or falls, to half a pixel.

    The page has values to a hundredth of the last place shown, and pixels to a tenth.
    """
    slope, start = np.polyfit(values, pixels, 1)
    assert np.sign(slope) == sign
    np.testing.assert_allclose(slope * values + start, pixels, atol=0.5)


def test_dots_stand_where_the_statistics_say(visit: Visit) -> None:
    stats = worth(4, 5)
    page = visit(stats)
    choose(page, "attention distance", "attention entropy")
    found = places(page)
    values = np.stack([stats[name].values.ravel() for name in ("distance", "entropy")])
    there = np.isfinite(values).all(0)
    names = [name for name, its in zip(contents(stats)["names"], there, strict=True) if its]
    assert set(found) == set(names)
    assert len(names) > 15
    for k, sign in ((0, 1), (1, -1)):
        assert_linear(np.array([found[name][k] for name in names]), values[k][there], sign)
    value, error = (float(stats[name].sel(layer=2, head=3)) for name in ("distance", "distance_se"))
    (text,) = [text for text in labels(page) if text.startswith("L2H3:")]
    assert text.startswith(f"L2H3: attention distance {with_error(value, error)}, attention entropy ")


def test_the_first_view_is_of_the_principal_components(visit: Visit) -> None:
    stats = worth(4, 5)
    page = visit(stats)
    expected = components([stats])
    assert expected is not None
    found, names = places(page), contents(stats)["names"]
    for k, sign in ((0, 1), (1, -1)):
        assert_linear(np.array([found[name][k] for name in names]), expected.scores[0][k], sign)
        expect(page.locator(".scatter .title").nth(k)).to_have_text(
            f"component {k + 1} ({round(100 * expected.explained[k])}% of variance)"
        )
        expect(page.locator(".scatter .note")).to_contain_text(expected.loadings[k])


def test_a_dot_opens_the_card_and_names_itself(visit: Visit) -> None:
    page = visit(worth())
    dot = dots(page).filter(has_not_text="x").nth(3)
    name = str(dot.get_attribute("aria-label"))
    dot.hover(force=True)
    expect(page.locator(".map-of-heads > [aria-live]")).to_have_text(name)
    dot.click(force=True)
    expect(page.locator("#card h1")).to_have_text(name.partition(":")[0])


def test_arrow_keys_go_from_left_to_right(visit: Visit) -> None:
    page = visit(worth())
    choose(page, "attention distance", "attention entropy")
    assert page.locator('.scatter .dot[tabindex="0"]').count() == 1
    page.locator('.scatter .dot[tabindex="0"]').focus()
    seen = []
    for _ in range(dots(page).count()):
        seen.append(page.evaluate("document.activeElement.getAttribute('aria-label')").partition(":")[0])
        page.keyboard.press("ArrowRight")
    found = places(page)
    assert [found[name][0] for name in seen] == sorted(place[0] for place in found.values())
    page.keyboard.press("Enter")
    expect(page.locator("#card h1")).to_have_text(seen[-1])


def test_a_lasso_lists_the_heads_inside(visit: Visit) -> None:
    page = visit(worth(4, 5))
    choose(page, "attention distance", "attention entropy")
    found = places(page)
    picture = page.locator(".scatter > svg")
    picture.scroll_into_view_if_needed()
    box = picture.bounding_box()
    assert box is not None
    scale = box["width"] / float(str(picture.get_attribute("viewBox")).split()[2])
    left, right = np.sort([place[0] for place in found.values()])[[5, 12]]
    edges = (left + 0.1, right - 0.1)  # strictly between two dots
    top, bottom = 14, float(str(picture.get_attribute("viewBox")).split()[3]) - 44
    expected = {name for name, place in found.items() if edges[0] < place[0] < edges[1] and top < place[1] < bottom}
    assert 0 < len(expected) < 12
    corners = [(edges[0], top), (edges[1], top), (edges[1], bottom), (edges[0], bottom)]
    for number, (x, y) in enumerate(corners):
        page.mouse.move(box["x"] + x * scale, box["y"] + y * scale, steps=3)
        if number == 0:
            page.mouse.down()
    page.mouse.up()
    listed = page.locator(".chosen")
    expect(listed).to_contain_text(f"{len(expected)} of 20 heads:")
    assert set(listed.get_by_role("link").all_text_contents()) == expected
    inside = dots(page).evaluate_all("dots => dots.filter(d => !d.classList.contains('out')).map(d => d.ariaLabel)")
    assert set(heads_of(inside)) == expected
    listed.get_by_role("button", name="Show all").click()
    expect(listed).to_be_empty()
    assert page.locator(".dot.out").count() == 0


@pytest.mark.parametrize(
    ("query", "holds"),
    [
        ("duplicate > 0.3 and null share < 0.5",
         lambda v: (v("behaviour", kind="duplicate") > 0.3) & (v("null_share") < 0.5)),
        ("behaviour induction>0.3", lambda v: v("behaviour", kind="induction") > 0.3),
        ("attention distance >= 1.2 OR layer = 0", lambda v: (v("distance") >= 1.2) | (v("layer") == 0)),
        ("not (sink_share < 50% or head != 1)", lambda v: ~((v("sink_share") < 0.5) | (v("head") != 1))),
        ("layer > 0 and layer < 2 or head = 3", lambda v: (v("layer") == 1) | (v("head") == 3)),
        ("pos to NOUN > 0", lambda v: v("pos_to", tag="NOUN") > 0),
        ("distance > 99", lambda v: v("distance") > 99),
    ],
)  # fmt: skip
def test_queries_choose_heads_in_map_table_and_list(visit: Visit, query: str, holds: Any) -> None:
    stats = worth()
    page = visit(stats)
    layer, head = np.meshgrid(range(3), range(4), indexing="ij")

    def value(name: str, **labels: str) -> np.ndarray:
        places = {"layer": layer, "head": head}
        return places[name] if name in places else np.asarray(stats.head_values(name, **labels).values)

    expected = {f"L{at[0]}H{at[1]}" for at in np.argwhere(holds(value))}
    page.get_by_label("filter", exact=True).fill(query)
    expect(page.locator(".map-of-heads [role=status]")).to_have_text(f"{len(expected)} of 12 heads match.")
    assert set(page.locator("#all-heads tbody tr:visible a").all_text_contents()) == expected
    assert set(page.locator(".chosen a").all_text_contents()) == expected
    assert page.locator(".dot.out").count() == 12 - len(expected)
    page.get_by_label("filter", exact=True).fill("")
    assert page.locator("#all-heads tbody tr:visible").count() == 12


@pytest.mark.parametrize(
    ("query", "message"),
    [
        ("indcution > 0.3", "“indcution” is not known; expected layer, head, or one of null share,"),
        ("induction", "expected <, <=, >, >=, = or != after “induction”"),
        ("induction >", "expected a number after “induction >”"),
        ("induction > much", "expected a number after “induction >”, got “much”"),
        ("> 0.3", "expected the name of a statistic before “>”"),
        ("induction > 0.3 and", "expected the name of a statistic at the end"),
        ("induction > 0.3 distance < 2", "expected “and” or “or” before “distance”"),
        ("(induction > 0.3", "a bracket is not closed"),
        ("induction > 0.3)", "expected “and” or “or” before “)”"),
        ("NOUN > 0.1", "“NOUN” is in"),
        ("pos to > 0.1", "“pos to” has a value for each tag; add one of"),
        ("constructor > 1", "“constructor” is not known"),
        ("<img src=x onerror=window.hacked=1> > 1", "expected the name of a statistic before “<”"),
    ],
)
def test_wrong_queries_are_answered_and_leave_all_heads(visit: Visit, query: str, message: str) -> None:
    page = visit(worth())
    field = page.get_by_label("filter", exact=True)
    field.fill(query)
    expect(page.locator(".map-of-heads [role=status]")).to_contain_text(f"Not understood: {message}")
    expect(field).to_have_attribute("aria-invalid", "true")
    assert page.locator("#all-heads tbody tr:visible").count() == 12
    assert page.evaluate("window.hacked") is None
    field.fill("layer = 0")
    assert field.get_attribute("aria-invalid") is None


def test_heads_are_coloured_by_layer_or_by_behaviour(visit: Visit) -> None:
    stats = worth()
    page = visit(stats)
    found = contents(stats)
    fills = "dots => dots.map(dot => [dot.ariaLabel.split(':')[0], dot.firstChild.getAttribute('fill')])"
    by_head = dict(dots(page).evaluate_all(fills))
    for layer, colour in ((0, found["colours"][0]), (2, found["colours"][-1])):
        assert {by_head[f"L{layer}H{head}"] for head in range(4)} == {colour}
    page.get_by_label("colour", exact=True).select_option(label="behaviour")
    by_head = dict(dots(page).evaluate_all(fills))
    kinds = dict(zip(found["names"], found["kinds"], strict=True))
    assert len(set(kinds.values())) > 1
    assert set(page.locator(".key-of-map li").all_text_contents()) == set(kinds.values())
    for one in by_head:
        for other in by_head:
            assert (by_head[one] == by_head[other]) == (kinds[one] == kinds[other])
        assert any(text.startswith(f"{one}:") and text.endswith(f", {kinds[one]}") for text in labels(page))


def test_heads_without_a_value_are_left_out_and_counted(visit: Visit) -> None:
    page = visit(null_heads(2, ("distance", "entropy")))
    choose(page, "attention distance", "attention entropy")
    expect(page.locator(".scatter .note")).to_contain_text("2 heads without a value are not shown")
    assert set(heads_of(labels(page))) == {"L0H2", "L0H3"}


def test_a_single_statistic_has_no_map(visit: Visit) -> None:
    assert visit(collected(metrics=["distance"])).locator(".map-of-heads").count() == 0


def test_hostile_labels_are_text(visit: Visit, hostile: ta.AttentionStats) -> None:
    page = visit(hostile)
    for label in HOSTILE_LABELS:
        page.get_by_label("across", exact=True).select_option(label=f"attention to part of speech: {label}")
        expect(page.locator(".scatter .title").first).to_contain_text(label)
    page.get_by_label("filter", exact=True).fill("pos to __proto__ >= 0")
    expect(page.locator(".map-of-heads [role=status]")).to_contain_text("heads match")
    assert page.evaluate("window.hacked") is None


@pytest.fixture(scope="module")
def comparison(tmp_path_factory: Any) -> tuple[dict[str, ta.AttentionStats], Path]:
    plt.switch_backend("agg")
    stats = {"a decoder": collected(5, 3, n_sentences=20), HOSTILE_MODEL: collected(3, 4, n_sentences=20)}
    return stats, write_comparison(ta.compare(stats), tmp_path_factory.mktemp("comparison"))[0]


@pytest.mark.parametrize(("width", "scheme"), [(1250, "light"), (360, "dark")])
def test_two_models_are_on_one_map(visit: Visit, comparison: Any, width: int, scheme: str) -> None:
    stats, path = comparison
    page = visit(path, viewport={"width": width, "height": 800}, color_scheme=scheme)
    assert dots(page).count() == 27
    assert page.locator(".key-of-map li").all_text_contents() == list(stats)
    choose(page, "attention distance", "attention entropy")
    texts = labels(page)
    for model, of in stats.items():
        mine = [text for text in texts if text.startswith(f"{model} L")]
        assert len(mine) == of["distance"].size
        assert all(text.endswith(f", {model}") for text in mine)
    page.get_by_label("filter", exact=True).fill("layer >= 3")
    expect(page.locator(".chosen")).to_contain_text("6 of 27 heads:")
    assert page.evaluate("document.documentElement.scrollWidth") == width
    assert page.evaluate("window.hacked") is None
