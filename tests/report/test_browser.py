"""The report in a browser, opened from disk: with mouse and keyboard, on large and small screens."""

from __future__ import annotations

import random
import re
from typing import Any

import numpy as np
import pandas as pd
import pytest
import torch
from playwright.sync_api import Locator, Page, expect

import tl_attnstats as ta
from tests.plotting.made import collected, null_heads, worth
from tests.report.conftest import HOSTILE_LABELS, HOSTILE_MODEL, HOSTILE_TEXTS, Visit
from tl_attnstats.report.contents import contents
from tl_attnstats.results.character import character, sentence_of
from tl_attnstats.results.marking import elided
from tl_attnstats.results.numbers import number, to_error, with_bound, with_error
from tl_attnstats.results.ranking import headline
from tl_attnstats.results.stats import head_name


def cells(rows: Locator) -> list[list[str]]:
    """The texts of the cells of table rows, read at once, without the figure spaces that align them."""
    texts = rows.evaluate_all("rows => rows.map(row => [...row.children].map(cell => cell.textContent))")
    return [[text.strip() for text in row] for row in texts]


def assert_shows(text: str, value: float) -> None:
    """The text is the value, without an error."""
    assert text == number(value)


def assert_shows_with_error(text: str, value: float, error: float, bound: bool = False, doubtful: bool = False) -> None:
    """The text has value and error, rounded as Python rounds them, and a doubtful value is marked."""
    assert text.endswith((" †", ", doubtful")) == doubtful
    text = text.removesuffix(", doubtful").removesuffix("†").strip()
    expected = with_bound(value, error, "binning ≤") if bound else with_error(value, error)
    assert text.replace("(", "").replace(")", "") == expected.replace("(", "").replace(")", "")


def card(page: Page) -> Locator:
    return page.locator("#card[open]")


def map_of(page: Page, title: str) -> Locator:
    return page.locator(".panel", has=page.get_by_role("heading", name=title, exact=True)).locator(".map")


def heads_shown(page: Page) -> list[str]:
    return [row[0] for row in cells(page.locator("#all-heads tbody tr"))]


@pytest.mark.slow
def test_clicking_a_cell_opens_the_card_with_all_values_of_the_head(visit: Visit, real: ta.AttentionStats) -> None:
    page = visit(real)
    for head in random.Random(0).sample(contents(real)["names"], 20):
        map_of(page, "attention distance").locator(f'a[href="#{head}"]').click()
        expect(card(page).get_by_role("heading", name=head, exact=True)).to_be_visible()
        card(page).get_by_text("All values").click()
        expected = real.head_table(head)
        shown = cells(card(page).locator("details tbody tr"))
        assert len(shown) == len(expected)
        for row, (name, value, rank, mean) in zip(expected.itertuples(), shown, strict=True):
            unit = real[row.statistic].attrs["units"]
            assert name == f"{row.statistic.replace('_', ' ')} {row.label}".strip() + f" {unit}"
            assert_shows_with_error(value, row.value, row.error, row.error_kind == "bound", row.doubtful)
            n = int(real[row.statistic].notnull().sum() / real[row.statistic].size * 270)
            assert rank == f"{row.rank:.0f} / {n}"
            assert_shows(mean, row.mean)
        card(page).get_by_role("button", name="Close").click()
        expect(card(page)).to_have_count(0)


def test_card_begins_with_the_statistics_of_one_value_a_head(visit: Visit, real: ta.AttentionStats) -> None:
    page = visit(real, "#L10H1")
    shown = {row[0]: row[1] for row in cells(card(page).locator("section").first.locator("tbody tr"))}
    for name in real.head_statistics:
        attrs = real[name].attrs
        error = next(e for e in (f"{name}_se", f"{name}_error") if e in real.dataset)
        value, uncertain = (float(real[n].sel(layer=10, head=1)) for n in (name, error))
        text = shown[f"{attrs['long_name']} {attrs['units']}"]
        doubtful = bool(real.doubtful(name).sel(layer=10, head=1))
        assert_shows_with_error(text, value, uncertain, error.endswith("_error"), doubtful)


def test_card_leads_with_what_the_head_is_and_links_to_the_numbers(visit: Visit) -> None:
    stats = worth()
    head = max(contents(stats)["names"], key=lambda name: len(character(stats, name)))
    traits = character(stats, head)
    assert {trait.statistic for trait in traits} >= {"sink_share", "behaviour"}
    page = visit(stats, f"#{head}")
    expect(card(page).locator(".character")).to_have_text(sentence_of(traits))
    layer, head_number = stats.find_head(head)
    cell = page.locator("#card td:focus")
    for place, trait in enumerate(traits):
        for _ in range(2):  # again, from where the first click led
            card(page).locator(".character a").nth(place).click()
            expect(cell).to_be_in_viewport()
            labels = {dim: trait.label for dim in stats[trait.statistic].dims if dim not in ("layer", "head")}
            value, error = (
                float(stats.head_values(name, **labels).sel(layer=layer, head=head_number))
                for name in (trait.statistic, f"{trait.statistic}_se")
            )
            assert cell.inner_text().split()[0] == to_error(value, error)
            page.locator("#card").evaluate("node => node.scrollTo(0, 0)")
    page.reload()
    expect(cell).to_be_in_viewport()
    page.goto(page.url.split("#")[0] + f"#{head}/nothing-0")
    expect(card(page).get_by_role("heading", name=head, exact=True)).to_be_focused()
    card(page).get_by_role("button", name="Close").click()
    expect(card(page)).to_have_count(0)
    expect(page).to_have_url(re.compile("^[^#]*$"))


def test_card_shows_exemplars_with_both_tokens_marked(visit: Visit, real: ta.AttentionStats) -> None:
    assert_exemplars(visit(real, "#L10H1"), real.exemplars("L10H1"))


def assert_exemplars(page: Page, expected: pd.DataFrame) -> None:
    items = card(page).locator(".exemplars li")
    expect(items).to_have_count(len(expected))
    for item, row in zip(items.all(), expected.to_dict("records"), strict=True):
        assert_shows(item.locator(".weight").inner_text(), row["weight"])
        text = item.locator("p")
        assert text.get_attribute("dir") == "auto"
        assert text.text_content() == elided(row)["text"]
        for mark, token in (("query", row["query_text"]), ("key", row["key_text"])):
            assert "".join(text.locator(f".{mark}").all_text_contents()) == token.strip()


def test_marks_are_told_apart_without_colour(visit: Visit, real: ta.AttentionStats) -> None:
    page = visit(real, "#L10H1")
    style = "(node, name) => getComputedStyle(node)[name]"
    query, key = (card(page).locator(f".exemplars .{mark}").first for mark in ("query", "key"))
    assert query.evaluate(style, "borderTopStyle") == "solid"
    assert key.evaluate(style, "borderTopStyle") == "none"
    assert key.evaluate(style, "textDecorationStyle") == "double"


def test_card_shows_bars_to_one_scale_beside_the_corpus(visit: Visit, real: ta.AttentionStats) -> None:
    page = visit(real, "#L10H1")
    panel = card(page).locator(".panel", has=page.get_by_role("heading", name="By tag", exact=True))
    here = real.dataset.sel(layer=10, head=1)
    # Tags with the largest excess over their frequency in the corpus come first.
    order = np.argsort(-(here["pos_to"] - here["pos_frequency"]).values, kind="stable")
    names = ("pos_to", "pos_from", "pos_to_without_sinks", "pos_frequency")
    expected = np.stack([here[name] for name in names], 1)[order]
    errors = np.stack([here[f"{name}_se"] for name in names], 1)[order]
    shown = cells(panel.locator("tbody tr"))
    assert [row[0] for row in shown] == real["tag"].values[order].tolist()
    for row, values, uncertain in zip(shown, expected, errors, strict=True):
        for text, value, error in zip(row[1:], values, uncertain, strict=True):
            assert text.removesuffix(" †") == with_error(value, error)
    widths = panel.locator(".bar").evaluate_all("bars => bars.map(bar => bar.getBoundingClientRect().width)")
    ratio = np.reshape(widths, expected.shape) / expected.max()
    np.testing.assert_allclose(ratio, max(widths) * expected / expected.max() ** 2, atol=0.02 * ratio.max())


def test_card_shows_offsets_and_mean_pattern(visit: Visit, real: ta.AttentionStats) -> None:
    page = visit(real, "#L10H1")
    profile = real["offset_profile"].sel(layer=10, head=1).values
    heights = (
        card(page).locator("rect.offset").evaluate_all("bars => bars.map(bar => Number(bar.getAttribute('height')))")
    )
    np.testing.assert_allclose(np.array(heights) / max(heights), profile / profile.max(), atol=1e-3)
    pattern = real["mean_pattern"].sel(layer=10, head=1).values
    titles = card(page).locator(".pattern title").all_text_contents()
    places = np.argwhere(np.isfinite(pattern))
    assert len(titles) == len(places)
    for title, (query, key) in zip(titles, places, strict=True):
        place, _, value = title.rpartition(": ")
        assert place == f"from position {query} to {key}"
        assert_shows(value, pattern[query, key])


def test_bars_of_offsets_are_on_a_logarithmic_axis(visit: Visit) -> None:
    page = visit(collected(metrics=["offset_profile"]), "#L1H1")
    lefts, widths = (
        card(page).locator("rect.offset").evaluate_all(
            "(bars, name) => bars.map(bar => Number(bar.getAttribute(name)))", name
        ) for name in ("x", "width")
    )  # fmt: skip
    assert (np.diff(lefts) > 0).all()
    # The bar of d reaches from log2(d + 0.5) to log2(d + 1.5), less a fifth as the gap between bars.
    expected = np.log2(np.arange(1, 65) + 1.5) - np.log2(np.arange(1, 65) + 0.5)
    np.testing.assert_allclose(np.array(widths)[1:65] / widths[1], expected / expected[0], rtol=1e-6)
    assert lefts[-1] + widths[-1] <= 340


def test_strongest_heads_are_not_doubtful(visit: Visit, real: ta.AttentionStats) -> None:
    page = visit(real)
    rows = cells(page.locator("table.strongest tr"))
    by_title = {row[0]: row[1:] for row in rows}
    top = real.top_heads("distance", n=3, max_null=0.9)
    assert (top["se"] < 0.5 * top["distance"]).all()
    heads, _, left_out = by_title["attention distance"]
    assert [part.split("H")[0] for part in heads.split("L")[1:]] == [head[1:].split("H")[0] for head in top["head"]]
    assert left_out == f"{int(real.doubtful('distance').sum())} doubtful"
    every = real.top_heads("distance", n=270, max_null=0.9)
    every = every[every["se"] < 0.5 * every["distance"]]
    n_tied = int((every["high"] >= every["low"][0]).sum()) - 1
    assert n_tied > 0
    assert f" ({n_tied} more cannot be told apart)" in heads.split("L")[1]
    heads, _, left_out = by_title["attention on null tokens"]
    assert heads.startswith(real.top_heads("null_share", n=1)["head"][0])
    assert left_out == ""
    assert "±" not in by_title["attention variability"][0]
    assert by_title["attention variability"][0].count("(binning ≤ ") == 3


def test_offsets_of_encoders_run_both_ways(visit: Visit) -> None:
    stats = collected(causal=False)
    page = visit(stats, "#L1H1")
    labels = card(page).locator("rect.offset title").all_text_contents()
    assert [int(label.split()[1].rstrip(":")) for label in labels] == stats["offset"].values.tolist()
    ticks = card(page).locator("svg", has=page.locator("rect.offset")).locator("text").all_text_contents()
    assert {"≤ -65", "0", "≥ 65"} <= set(ticks)


def test_maps_have_layer_0_at_the_top_and_head_0_at_the_left(visit: Visit) -> None:
    stats = collected(3, 4)
    page = visit(stats)
    maps = map_of(page, "attention distance")
    boxes = {
        (layer, head): maps.locator(f'a[href="#{head_name(layer, head)}"]').bounding_box()
        for layer in range(3)
        for head in range(4)
    }
    tops = [[boxes[layer, head]["y"] for head in range(4)] for layer in range(3)]
    lefts = [[boxes[layer, head]["x"] for head in range(4)] for layer in range(3)]
    assert (np.diff(tops, axis=0) > 0).all()
    assert (np.diff(tops, axis=1) == 0).all()
    assert (np.diff(lefts, axis=1) > 0).all()
    assert maps.locator("thead th").all_text_contents() == ["0", "1", "2", "3"]
    assert maps.locator("tbody th").all_text_contents() == ["0", "1", "2"]


def test_cells_name_head_value_and_error(visit: Visit, real: ta.AttentionStats) -> None:
    page = visit(real)
    for name in real.head_statistics:
        title, unit = real[name].attrs["long_name"], real[name].attrs["units"]
        drawn = map_of(page, title).locator("a")
        labels = drawn.evaluate_all("cells => cells.map(cell => cell.getAttribute('aria-label'))")
        expect(page.get_by_text(real[name].attrs["formula"], exact=True)).to_be_visible()
        error = next(real[e] for e in (f"{name}_se", f"{name}_error") if e in real.dataset)
        heads = [head_name(layer, head) for layer in range(30) for head in range(9)]
        struck_out = drawn.evaluate_all("cells => cells.map(cell => cell.className === 'doubtful')")
        for label, head, value, uncertain, doubtful, struck in zip(
            labels, heads, real[name].values.flatten(), error.values.flatten(),
            real.doubtful(name).values.flatten(), struck_out, strict=True,
        ):  # fmt: skip
            assert label.startswith(f"{head}: ")
            assert f" {unit}" in label
            text = label.removeprefix(f"{head}: ").replace(f" {unit}", "")
            assert_shows_with_error(text, value, uncertain, name == "variability", doubtful)
            assert struck == doubtful
        assert any(struck_out) == (name != "null_share")


def test_colours_follow_values_from_0(visit: Visit, real: ta.AttentionStats) -> None:
    page = visit(real)
    colours = (
        map_of(page, "attention distance")
        .locator("a")
        .evaluate_all("cells => cells.map(cell => getComputedStyle(cell).backgroundColor)")
    )
    palette = [f"rgb({int(c[1:3], 16)}, {int(c[3:5], 16)}, {int(c[5:], 16)})" for c in contents(real)["colours"]]
    values = real["distance"].values.flatten()
    drawn = np.array([palette.index(colour) for colour in colours]) / (len(palette) - 1)
    np.testing.assert_allclose(drawn, values / values.max(), atol=0.51 / (len(palette) - 1))


def test_pointing_at_a_cell_shows_head_and_value(visit: Visit, real: ta.AttentionStats) -> None:
    page = visit(real)
    cell = map_of(page, "attention entropy").locator('a[href="#L7H3"]')
    cell.hover()
    expect(page.locator("#tip")).to_be_visible()
    expect(page.locator("#tip")).to_have_text(str(cell.get_attribute("aria-label")))
    page.get_by_role("heading", name="All heads").hover()
    expect(page.locator("#tip")).to_be_hidden()


def test_labels_are_chosen_for_the_map(visit: Visit, real: ta.AttentionStats) -> None:
    page = visit(real)
    maps = page.locator(".panel", has=page.get_by_label("statistic", exact=True)).locator(".map")
    for name, label in (("dependency_alignment", "to_parent"), ("pos_to", "VERB"), ("offset_profile", 1)):
        page.get_by_label("statistic", exact=True).select_option(label=real[name].attrs["long_name"])
        page.get_by_label("label", exact=True).select_option(label=str(label))
        dim = next(dim for dim in real[name].dims if dim not in ("layer", "head"))
        text = str(maps.locator('a[href="#L3H4"]').get_attribute("aria-label"))
        value, error = (float(real[n].sel({"layer": 3, "head": 4, dim: label})) for n in (name, f"{name}_se"))
        text = text.removeprefix("L3H4: ").replace(" share", "")
        assert_shows_with_error(text, value, error, doubtful=bool(real.doubtful(name, **{dim: label})[3, 4]))


def test_every_column_of_heads_sorts_both_ways_as_numbers(visit: Visit, real: ta.AttentionStats) -> None:
    page = visit(real)
    everyone = contents(real)["names"]
    assert heads_shown(page) == everyone
    headings = page.locator("#all-heads thead button")
    by_column = [real.head_values(name, **labels) for name, labels in headline(real)]
    assert headings.count() == 1 + len(by_column)
    for column, of in enumerate(by_column, 1):
        exact = dict(zip(everyone, of.values.flatten(), strict=True))
        headings.nth(column).click()
        expect(page.locator("#all-heads thead th").nth(column)).to_have_attribute("aria-sort", "descending")
        values = [exact[head] for head in heads_shown(page)]
        assert values == sorted(values, reverse=True)
        assert sorted(heads_shown(page)) == sorted(everyone)
        headings.nth(column).click()
        expect(page.locator("#all-heads thead th").nth(column)).to_have_attribute("aria-sort", "ascending")
        values = [exact[head] for head in heads_shown(page)]
        assert values == sorted(values)
    assert page.locator("#all-heads [aria-sort]").count() == 1
    headings.first.click()
    headings.first.click()
    assert heads_shown(page) == everyone  # L2 before L10


def test_sorting_orders_as_the_data_set_does(visit: Visit, real: ta.AttentionStats) -> None:
    texts = [f"{value:.4g}" for value in real["distance"].values.flatten()]
    assert sorted(texts) != sorted(texts, key=float)  # sorting as text gives another order
    page = visit(real)
    page.locator("#all-heads").get_by_role("button", name="distance", exact=True).click()
    assert heads_shown(page)[:10] == real.top_heads("distance")["head"].tolist()


@pytest.mark.parametrize("clicks", [1, 2])
def test_undetermined_heads_are_grey_and_sort_last(visit: Visit, clicks: int) -> None:
    page = visit(null_heads(2))
    undetermined = map_of(page, "attention distance").locator("a.undetermined")
    names = undetermined.evaluate_all("cells => cells.map(cell => cell.getAttribute('aria-label'))")
    assert names == ["L0H0: undetermined", "L0H1: undetermined"]
    for _ in range(clicks):
        page.get_by_role("button", name="distance").click()
    assert heads_shown(page)[2:] == ["L0H0", "L0H1"]
    assert "–" in cells(page.locator("#all-heads tbody tr"))[3][1]


def test_a_head_is_linked_by_the_address_and_back_and_forward_work(visit: Visit) -> None:
    page = visit(collected())
    title, overview = page.title(), page.url
    page.goto(overview + "#L1H2")
    expect(card(page).locator("h1")).to_have_text("L1H2")
    expect(page).to_have_title(f"L1H2 – {title}")
    card(page).get_by_role("link", name="L1H3").click()
    expect(card(page).locator("h1")).to_have_text("L1H3")
    page.go_back()
    expect(card(page).locator("h1")).to_have_text("L1H2")
    page.go_back()
    expect(card(page)).to_have_count(0)
    expect(page).to_have_title(title)
    page.go_forward()
    expect(card(page).locator("h1")).to_have_text("L1H2")
    page.keyboard.press("Escape")
    expect(card(page)).to_have_count(0)
    expect(page).to_have_url(overview)
    page.go_back()
    expect(card(page).locator("h1")).to_have_text("L1H2")


def test_findings_link_to_heads(visit: Visit, real: ta.AttentionStats) -> None:
    page = visit(real)
    (furthest,) = real.top_heads("distance", n=1, max_null=0.9)["head"]
    page.locator(".findings li", has_text="looks furthest").get_by_role("link", name=furthest).click()
    expect(card(page).locator("h1")).to_have_text(furthest)


def test_an_address_of_no_head_shows_the_overview(visit: Visit) -> None:
    page = visit(collected(), "#L9H9")
    expect(card(page)).to_have_count(0)
    expect(page.get_by_role("heading", name="All heads")).to_be_visible()


def test_keyboard_reaches_heads(visit: Visit) -> None:
    page = visit(collected(3, 4))
    maps = map_of(page, "attention distance")
    assert maps.locator('a[tabindex="0"]').count() == 1  # the tab key stops once, not twelve times
    focused = "document.activeElement.closest('.map')?.getAttribute('aria-label') ?? ''"
    for _ in range(60):
        page.keyboard.press("Tab")
        if page.evaluate(focused).startswith("attention distance"):
            break
    expect(maps.locator('a[href="#L0H0"]')).to_be_focused()
    expect(page.locator("#tip")).to_contain_text("L0H0")
    for key in ("ArrowRight", "ArrowDown", "ArrowDown", "ArrowUp"):
        page.keyboard.press(key)
    expect(maps.locator('a[href="#L1H1"]')).to_be_focused()
    page.keyboard.press("Enter")
    expect(card(page).locator("h1")).to_have_text("L1H1")
    page.keyboard.press("Escape")
    expect(maps.locator('a[href="#L1H1"]')).to_be_focused()
    page.keyboard.press("Tab")
    assert not page.evaluate(focused).startswith("attention distance")


@pytest.mark.parametrize("fragment", ["", "#L1H2"])
def test_a_phone_shows_all_of_the_width(visit: Visit, real: ta.AttentionStats, fragment: str) -> None:
    for stats in (real, collected(2, 40), collected(causal=False)):
        page = visit(stats, fragment, viewport={"width": 360, "height": 740}, is_mobile=True)
        assert page.evaluate("document.documentElement.scrollWidth") == 360
        assert page.evaluate("document.getElementById('card').scrollWidth") <= 360
        assert page.evaluate("visualViewport.scale") == 1


def test_dark_and_light(visit: Visit) -> None:
    def lightness(scheme: Any, what: str, name: str) -> float:
        page = visit(collected(), "#L0H0", color_scheme=scheme)
        colour = page.locator(what).evaluate("(node, name) => getComputedStyle(node)[name]", name)
        return float(np.mean([int(part) for part in colour.removeprefix("rgb(").rstrip(")").split(",")]))

    for what in ("body", "#card"):
        assert lightness("light", what, "backgroundColor") > 230 > 60 > lightness("light", what, "color")
        assert lightness("dark", what, "backgroundColor") < 60 < 200 < lightness("dark", what, "color")


def test_hostile_text_is_text(visit: Visit, hostile: ta.AttentionStats) -> None:
    page = visit(hostile)
    expect(page.locator("main h1")).to_have_text(HOSTILE_MODEL)
    expect(page.locator("dd").nth(1)).to_have_text(HOSTILE_TEXTS[0])
    assert page.title().endswith(HOSTILE_MODEL)
    for head in ("L0H0", "L1H2"):
        page.locator(f'.map a[href="#{head}"]').first.click()
        assert_exemplars(page, hostile.exemplars(head))
        panel = card(page).locator(".panel", has=page.get_by_role("heading", name="By tag", exact=True))
        labels = [row[0] for row in cells(panel.locator("tbody tr"))]
        assert set(labels) == set(HOSTILE_LABELS[: len(labels)])
        card(page).get_by_text("All values").click()
        page.keyboard.press("Escape")
    options = page.get_by_label("label", exact=True).locator("option").all_text_contents()
    assert set(options) == set(HOSTILE_LABELS)
    assert page.evaluate("window.hacked") is None
    assert page.locator("img, b, script").count() == 2  # only the data and the script
    right_to_left = page.locator("#card li p").evaluate_all("lines => lines.map(p => getComputedStyle(p).direction)")
    assert set(right_to_left) == {"ltr", "rtl"}


@pytest.mark.parametrize(
    "metrics", [["distance"], ["exemplars"], ["baselines"], ["pos_to", "variability"], ["dependency_alignment"]]
)
def test_what_was_not_collected_is_left_out(visit: Visit, metrics: list[str]) -> None:
    stats = collected(metrics=metrics)
    page = visit(stats)
    assert page.locator(".map").count() == len(stats.head_statistics) + any(
        s in metrics for s in ("pos_to", "dependency_alignment")
    )
    page.locator("#all-heads a").first.click()
    expect(card(page).locator("h1")).to_have_text("L0H0")
    assert card(page).locator(".exemplars").count() == ("exemplars" in metrics)
    assert card(page).locator(".pattern").count() == ("variability" in metrics)
    assert card(page).locator("rect.offset").count() == 0


class ReportHalves(ta.RatioCollector):
    """Share of attention on each half of a sequence; that on the second half is negative."""

    name = "report_halves"
    unit = "sheep"
    dim = "half"
    reads = ("column_mass",)

    def coordinate(self, scope: ta.Scope) -> list[str]:
        return ["first", "second"]

    def terms(self, block: ta.Reductions) -> tuple[torch.Tensor, torch.Tensor]:
        half = block.column_mass.shape[-1] // 2
        first, second = block.column_mass[..., :half].sum(-1), block.column_mass[..., half:].sum(-1)
        return torch.stack([first, -second], -1), block.content_mass


def test_a_users_statistic_has_a_map_and_a_place_in_the_card(visit: Visit) -> None:
    stats = collected(metrics=["report_halves", "distance"])
    page = visit(stats)
    page.get_by_label("label", exact=True).select_option(label="second")
    cell = page.locator(".panel", has=page.get_by_label("label", exact=True)).locator('a[href="#L2H1"]')
    second = stats["report_halves"].sel(half="second")
    assert second.min() < second.max() < 0
    text = str(cell.get_attribute("aria-label"))
    error = stats["report_halves_se"].sel(half="second", layer=2, head=1)
    assert text == f"L2H1: {with_error(float(second.sel(layer=2, head=1)), float(error))} sheep"
    cell.click()
    panel = card(page).locator(".panel", has=page.get_by_role("heading", name="By half", exact=True))
    assert [row[0] for row in cells(panel.locator("tbody tr"))] == ["first", "second"]
