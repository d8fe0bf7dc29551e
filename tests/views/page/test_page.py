"""The page of one text in a real browser: what it shows is the pattern; mouse, keyboard, switches, addresses."""

from __future__ import annotations

import random
import re
import xml.etree.ElementTree as ET
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from playwright.sync_api import Page, expect

import tl_attnstats as ta
from tests.views.inputs import attention as made_up
from tests.views.page.conftest import LAYERS, TEXT, Visit, pattern_of, ready
from tl_attnstats.errors import CorpusError, FigureError, MetricError, ModelError

Show = Callable[..., Page]
HOSTILE = (
    "</script><script>window.hacked=1</script>",
    "<img src=x onerror=window.hacked=1>",
    "{{ 7*7 }}",
    " 日本",
    "\n",
    "שלום",
)


def token(page: Page, side: str, at: int) -> Any:
    return page.locator(f"#tokens .{side} .token").nth(at)


def weights_beside(page: Page, side: str) -> dict[int, float]:
    """The numbers beside the tokens of a side, by position."""
    texts = page.locator(f"#tokens .{side} .token").evaluate_all(
        "tokens => tokens.map(token => token.querySelector('.weight')?.textContent ?? '')"
    )
    return {at: float(text) for at, text in enumerate(texts) if text}


def choose(page: Page, switch: str, option: str) -> None:
    page.locator(f"#{switch}").select_option(option)


def set_least(page: Page, value: float) -> None:
    page.locator("#least").evaluate(
        "(input, value) => { input.value = value; input.dispatchEvent(new Event('input')); }", value
    )


def test_numbers_on_hover_are_the_pattern(visit: Visit, attention: ta.TextAttention) -> None:
    rng = random.Random(0)
    n = len(attention.tokens)
    cells = [(rng.choice(LAYERS), rng.randrange(9), rng.randrange(1, n)) for _ in range(20)]
    page = visit()
    set_least(page, 0)
    for layer, head, query in cells:
        page.locator(f'.thumb[data-head="L{layer}H{head}"]').click()
        token(page, "queries", query).hover()
        shown = weights_beside(page, "keys")
        pattern = pattern_of(attention, layer, head)[query]
        bound = pattern.max() / 510 + 0.0005  # half a step, and rounding to three decimals
        assert {*shown} <= {*range(query + 1)}
        for key in range(query + 1):
            assert abs(shown.get(key, 0) - pattern[key]) <= bound, (layer, head, query, key)
        token(page, "queries", query).click()
        key = rng.randrange(query + 1)
        token(page, "keys", key).hover()
        said = page.locator("#said").inner_text()
        assert abs(float(said.split()[-1]) - pattern[key]) <= bound
        assert f"({query}) looks at" in said
        token(page, "queries", query).click()


def test_who_looks_at_a_token(visit: Visit, attention: ta.TextAttention) -> None:
    page = visit("#head=L10H1")
    set_least(page, 0)
    token(page, "keys", 4).hover()
    shown = weights_beside(page, "queries")
    pattern = pattern_of(attention, 10, 1)
    column = pattern[:, 4]
    for query in range(len(column)):
        assert abs(shown.get(query, 0) - column[query]) <= pattern[query].max() / 510 + 0.0005
    expect(page.locator("#said")).to_contain_text("is looked at by")


def test_a_threshold_leaves_small_weights_out(visit: Visit, attention: ta.TextAttention) -> None:
    page = visit("#head=L10H1")
    choose(page, "sinks", "show")
    for least in (0.02, 0.2):
        set_least(page, least)
        pattern = pattern_of(attention, 10, 1)
        certain = (pattern > least + 0.002).sum(), (pattern > least - 0.002).sum()
        assert certain[0] <= page.locator("#lines line").count() <= certain[1]


def test_null_tokens_and_sinks_are_dimmed_hidden_or_shown(visit: Visit, attention: ta.TextAttention) -> None:
    layer, head, query = 5, 6, len(attention.tokens) - 1
    assert attention.sinks is not None
    sinks = {0, *np.flatnonzero(attention.sinks[LAYERS.index(layer), head]).tolist()}
    assert len(sinks) > 1
    page = visit(f"#head=L{layer}H{head}&token={query}")

    def opacity(key: int) -> float:
        shade = token(page, "keys", key).evaluate("node => node.shades[0]?.[1] ?? 0")
        return float(shade)

    first = pattern_of(attention, layer, head)[query, 0]
    assert opacity(0) == pytest.approx(first / 4, abs=0.002)
    choose(page, "sinks", "show")
    assert opacity(0) == pytest.approx(first, abs=0.002)
    choose(page, "sinks", "hide")
    assert {*weights_beside(page, "keys")} & sinks == set()
    assert opacity(0) == 0
    greyed = page.locator("#tokens .keys .token.null")
    assert greyed.count() == len(sinks)


def test_words_sum_over_key_pieces_and_average_over_query_pieces(visit: Visit, attention: ta.TextAttention) -> None:
    pieces = [at for at, text in enumerate(attention.tokens) if text in (" unbelie", "vable")]
    assert len(pieces) == 2
    page = visit("#head=L10H1")
    set_least(page, 0)
    choose(page, "units", "words")
    labels = page.locator("#tokens .queries .token bdi").all_text_contents()
    assert len(labels) == len(attention.tokens) - 1
    assert labels[pieces[0]] == "unbelievable"
    pattern = pattern_of(attention, 10, 1)
    for unit, tokens in ((pieces[0], pieces), (pieces[0] + 1, [pieces[1] + 1])):
        token(page, "queries", unit).hover()
        shown = weights_beside(page, "keys")
        by_token = [sum(pattern[q, k] for q in tokens) / len(tokens) for k in range(len(attention.tokens))]
        expected = [*by_token[: pieces[0]], sum(by_token[k] for k in pieces), *by_token[pieces[1] + 1 :]]
        for key, weight in enumerate(expected):
            assert abs(shown.get(key, 0) - weight) <= 2 / 510 + 0.0005
    assert sum(shown.values()) == pytest.approx(1, abs=0.02)


def test_several_heads_have_colours_of_their_own(visit: Visit) -> None:
    page = visit("#head=L10H1")
    page.get_by_label("choose several").check()
    page.locator('.thumb[data-head="L16H0"]').click()
    assert page.locator(".chip").all_text_contents() == ["L10H1", "L16H0"]
    colours = page.locator("#lines line").evaluate_all(
        "lines => [...new Set(lines.map(l => getComputedStyle(l).stroke))]"
    )
    assert len(colours) == 2
    token(page, "queries", 9).hover()
    said = page.locator("#said").inner_text()
    assert "L10H1: " in said
    assert "L16H0: " in said
    expect(page).to_have_url(re.compile("#head=L10H1,L16H0$"))
    page.get_by_role("button", name="L10H1", exact=True).last.click()
    assert page.locator(".chip").all_text_contents() == ["L16H0"]


def test_a_long_text_is_a_paragraph_in_which_tokens_are_shaded(visit: Visit, attention: ta.TextAttention) -> None:
    page = visit("#head=L10H1")
    choose(page, "layout", "text")
    assert "".join(page.locator(".paragraph .token").all_text_contents()) == "".join(attention.tokens)
    tokens = page.locator(".paragraph .token")
    query = 12
    tokens.nth(query).hover()
    shaded = tokens.evaluate_all("tokens => tokens.map(token => token.shades?.[0]?.[1] ?? 0)")
    pattern = pattern_of(attention, 10, 1)[query]
    for key, strength in enumerate(shaded):
        dimmed = (
            4
            if attention.null[key] or (attention.sinks is not None and attention.sinks[LAYERS.index(10), 1, key])
            else 1
        )
        assert strength == pytest.approx(pattern[key] / dimmed if pattern[key] > 0.02 else 0, abs=0.003)
    tokens.nth(query).click()
    tokens.nth(11).hover()
    said = page.locator("#said").inner_text()
    assert "(12) looks at “gave” (11): L10H1 " in said
    assert float(said.split()[-1]) == pytest.approx(pattern[11], abs=1 / 510 + 0.0005)
    tokens.nth(query).click()
    choose(page, "direction", "to")
    tokens.nth(4).hover()
    expect(page.locator("#said")).to_contain_text("is looked at by")


def test_an_address_names_heads_token_and_direction(visit: Visit) -> None:
    page = visit("#head=L3H2,L10H1&token=7&direction=to")
    assert page.locator(".chip").all_text_contents() == ["L3H2", "L10H1"]
    expect(token(page, "keys", 7)).to_have_attribute("aria-pressed", "true")
    expect(page.locator("#direction")).to_have_value("to")
    choose(page, "direction", "from")
    expect(token(page, "queries", 7)).to_have_attribute("aria-pressed", "true")
    expect(page).to_have_url(re.compile("#head=L3H2,L10H1&token=7$"))
    page.evaluate("location.hash = '#head=L16H1&token=2'")
    expect(page.locator(".chip")).to_have_text("L16H1")
    expect(token(page, "queries", 2)).to_have_class(re.compile("pinned"))


@pytest.mark.parametrize("fragment", ["#head=L99H0&token=999", "#head=&token=x", "#%", "#token=-1", "#head=L3H1L"])
def test_an_address_of_nothing_shows_the_first_head(visit: Visit, fragment: str) -> None:
    page = visit(fragment)
    assert page.locator(".chip").all_text_contents() == ["L3H0"]
    expect(page.locator(".pinned")).to_have_count(0)


def test_the_keyboard_is_enough(visit: Visit) -> None:
    page = visit("#head=L10H1")
    page.locator("#several").focus()
    focused = "document.activeElement.getAttribute('aria-label') ?? ''"
    for _ in range(4):
        page.keyboard.press("Tab")
        if page.evaluate(focused) == "L10H1":
            break
    for key in ("ArrowDown", "ArrowRight", "ArrowRight", "ArrowLeft", "ArrowUp", "ArrowDown"):
        page.keyboard.press(key)
    page.keyboard.press("Enter")
    assert page.locator(".chip").all_text_contents() == ["L11H2"]
    page.keyboard.press("ArrowDown")
    page.keyboard.press("Shift+Enter")
    assert page.locator(".chip").all_text_contents() == ["L11H2", "L12H2"]
    for _ in range(8):
        page.keyboard.press("Tab")
        if page.evaluate("document.activeElement.classList.contains('token')"):
            break
    for key in ("ArrowDown", "ArrowDown", "ArrowDown"):
        page.keyboard.press(key)
    expect(token(page, "queries", 3)).to_be_focused()
    expect(page.locator("#said")).to_contain_text("“and” (3) looks at")
    page.keyboard.press("Enter")
    expect(token(page, "queries", 3)).to_have_attribute("aria-pressed", "true")
    page.keyboard.press("ArrowRight")
    expect(token(page, "keys", 3)).to_be_focused()
    expect(page.locator("#said")).to_contain_text("“and” (3) looks at “and” (3): L11H2 0.")
    page.keyboard.press("Escape")
    expect(page.locator(".pinned")).to_have_count(0)
    assert page.locator("#said").get_attribute("aria-live") == "polite"


def test_neurons_are_those_of_the_head_and_the_token(visit: Visit, attention: ta.TextAttention) -> None:
    vectors = attention.neurons
    assert vectors is not None
    query = 12
    page = visit(f"#head=L5H6&token={query}")
    texts = page.locator("#neurons text").all_text_contents()
    q, keys = vectors.queries[1, 6, query], vectors.keys[1, 6, : query + 1]
    bound = float(re.findall(r"within ([\d.e-]+),", page.locator("#neuron-note").inner_text())[0])
    scores = vectors.scale[1] * keys @ q
    numbers = [float(text) for text in texts if re.fullmatch(r"-?\d+\.\d\d", text)]
    np.testing.assert_allclose(numbers, scores, atol=bound + 0.005)  # rounding to two decimals
    weights = [float(text) for text in texts if re.fullmatch(r"\d\.\d\d\d", text)]
    np.testing.assert_allclose(weights, pattern_of(attention, 5, 6)[query, : query + 1], atol=1 / 510 + 0.0005)
    figure = page.locator("#neurons")
    figure.scroll_into_view_if_needed()
    box = figure.bounding_box()
    assert box is not None
    # The cell of dimension 20 of key 3: strips begin at x = 104 and y = 51, cells are 2.5 wide and 15 high.
    page.mouse.move(box["x"] + 104 + 20 * 2.5 + 1.25, box["y"] + 51 + 3 * 15 + 7)
    expect(page.locator("#dimension")).to_contain_text(f"(3), dimension 20: {q[20]:.2f} × {keys[3, 20]:.2f} = ")


def test_small_pictures_show_the_heads(visit: Visit, attention: ta.TextAttention) -> None:
    page = visit()
    inked = page.locator(".thumb canvas").evaluate_all(
        """canvases => canvases.map(canvas => {
            const pixels = canvas.getContext('2d').getImageData(0, 0, canvas.width, canvas.height).data;
            let sum = 0;
            for (let at = 3; at < pixels.length; at += 4) sum += pixels[at];
            return sum;
        })"""
    )
    assert len(inked) == 9 * len(LAYERS)
    assert min(inked) > 0
    before = page.locator('.thumb[data-head="L3H3"] canvas').evaluate("canvas => canvas.toDataURL()")
    token(page, "queries", 5).click()
    ready(page)
    page.wait_for_function(
        "before => document.querySelector('.thumb[data-head=L3H3] canvas').toDataURL() !== before", arg=before
    )


@pytest.mark.parametrize("view", ["model", "head", "text", "neuron"])
def test_a_view_is_saved_as_svg(visit: Visit, view: str, tmp_path: Path) -> None:
    page = visit("#head=L10H1&token=9")
    if view == "text":
        choose(page, "layout", "text")
    panel = page.locator(f"#{'head' if view == 'text' else view}-view")
    with page.expect_download() as download:
        panel.get_by_role("button", name="Save SVG").click()
    path = tmp_path / download.value.suggested_filename
    download.value.save_as(path)
    assert path.suffix == ".svg"
    source = path.read_text(encoding="utf-8")
    assert "var(" not in source
    tree = ET.fromstring(source)
    texts = ["".join(node.itertext()) for node in tree.iter("{http://www.w3.org/2000/svg}text")]
    if view == "model":
        assert len([*tree.iter("{http://www.w3.org/2000/svg}path")]) > 9 * len(LAYERS)
        assert {"3", "16"} <= {*texts}
    else:
        assert any("unbelie" in text for text in texts) == (view != "neuron")
        assert any("store" in text for text in texts)


def test_colours_follow_the_system_and_the_switch(show: Show) -> None:
    lightness = "Math.max(...getComputedStyle(document.body).backgroundColor.match(/[\\d.]+/g).map(Number))"
    page = show(made_up(), color_scheme="dark")
    assert page.evaluate(lightness) < 60
    choose(page, "theme", "light")
    assert page.evaluate(lightness) > 230
    choose(page, "theme", "dark")
    assert page.evaluate(lightness) < 60
    page = show(made_up(), color_scheme="light")
    assert page.evaluate(lightness) > 230


@pytest.mark.parametrize("layout", ["lines", "text"])
def test_a_phone_shows_all_of_the_width(show: Show, attention: ta.TextAttention, layout: str) -> None:
    for shown in (attention, made_up(2, 40)):
        page = show(shown, "#token=5", viewport={"width": 360, "height": 740}, is_mobile=True)
        choose(page, "layout", layout)
        assert page.evaluate("document.documentElement.scrollWidth") == 360
        assert page.evaluate("visualViewport.scale") == 1


def test_hostile_text_is_text(show: Show) -> None:
    page = show(made_up(tokens=HOSTILE))
    labels = page.locator("#tokens .keys .token bdi").all_text_contents()
    assert labels == [HOSTILE[0], HOSTILE[1], "{{ 7*7 }}", "日本", "↵", "שלום"]
    choose(page, "layout", "text")
    assert page.locator(".paragraph").inner_text() == "".join(HOSTILE)
    token_at = page.locator(".paragraph .token").nth(1)
    token_at.hover()
    expect(page.locator("#said")).to_contain_text("“<img src=x onerror=window.hacked=1>” (1) looks at")
    assert page.evaluate("window.hacked") is None
    assert page.locator("img").count() == 0
    assert page.locator("script").count() == 2  # the data and the script


def test_an_encoder_looks_both_ways(show: Show, minilm: Any) -> None:
    attention = ta.attention_of(minilm, "The cat sat on the mat.")
    page = show(attention, "#head=L2H3")
    set_least(page, 0)
    token(page, "queries", 2).hover()
    shown = weights_beside(page, "keys")
    for key, weight in enumerate(attention.pattern[2, 3, 2]):
        assert abs(shown.get(key, 0) - weight) <= 1 / 510 + 0.0005
    assert page.locator("#tokens .keys .token.null").all_text_contents()[0].startswith("[CLS]")


def test_a_page_of_all_heads_is_small(show: Show, smollm2: Any) -> None:
    text = (TEXT + " " + TEXT + " The store was closed, so they went home, and nobody drank.").strip()
    attention = ta.attention_of(smollm2, text, max_tokens=80)
    assert attention.pattern.shape[:2] == (30, 9)
    assert 60 <= attention.pattern.shape[2] <= 68
    page = show(attention)
    assert Path(page.evaluate("decodeURIComponent(location.pathname)")).stat().st_size < 3e6


def test_512_tokens_on_chosen_heads(show: Show, smollm2: Any) -> None:
    text = " ".join([TEXT] * 30)
    ids = smollm2.tokenizer(text, return_offsets_mapping=True)["offset_mapping"]
    text = text[: ids[510][1]]
    attention = ta.attention_of(smollm2, text, layers=[5, 10], max_tokens=512)
    assert 505 <= len(attention.tokens) <= 512
    page = show(attention, "#head=L10H1&token=400", {"heads": ["L5H6", "L10H1"]})
    assert page.locator(".thumb").count() == 2
    tokens = page.locator(".paragraph .token")
    assert tokens.count() == len(attention.tokens)
    shaded = tokens.evaluate_all("tokens => tokens.flatMap((token, at) => token.shades.length ? [at] : [])")
    pattern = attention.pattern[1, 1, 400]
    assert {*np.flatnonzero(pattern > 0.022)} <= {*shaded} <= {*np.flatnonzero(pattern > 0.018)}
    assert "The 48 largest weights of 401" in page.locator("#neuron-note").inner_text()


def repeated(n_layers: int, n_heads: int, n_tokens: int) -> ta.TextAttention:
    """One token again and again, each of which attends to itself."""
    pattern = np.broadcast_to(np.eye(n_tokens, dtype=np.float32), (n_layers, n_heads, n_tokens, n_tokens))
    return ta.TextAttention((" a",) * n_tokens, pattern, np.arange(n_tokens) == 0, tuple(range(n_layers)))


def test_what_is_too_large_or_not_there_is_refused(attention: ta.TextAttention, smollm2: Any, tmp_path: Path) -> None:
    path = tmp_path / "view.html"
    with pytest.raises(CorpusError, match=r"text: has \d+ tokens, expected at most 64; .*max_tokens"):
        ta.attention_of(smollm2, "cat " * 64 + "." * 65)
    many = repeated(1, 1, 2900)
    with pytest.raises(FigureError, match=r"page: 1 heads × 2900 × 2900 tokens are 8\.4 million weights, .* 8 million"):
        many.write(path)
    wide = repeated(4, 8, 600)
    message = r"32 heads .* choose up to 22 heads with layers= or heads= \(--layers, --heads\), or shorten the text"
    with pytest.raises(FigureError, match=message):
        wide.show()
    wide.write(path, layers=[0, 1])
    with pytest.raises(MetricError, match="head='L30H0': expected a name from L3H0 to L16H8"):
        attention.show(heads=["L30H0"])
    with pytest.raises(MetricError, match="heads: got none"):
        attention.show(heads=[])
    with pytest.raises(MetricError, match=r"heads: L5H0 is not in the layers \[10\]; leave one out"):
        attention.show(heads=["L5H0"], layers=[10])
    with pytest.raises(ModelError, match=r"layers: got \[44\], expected some of 3, 5, "):
        attention.show(layers=[44])
    (tmp_path / "directory").mkdir()
    with pytest.raises(FigureError, match="directory: cannot be written"):
        attention.write(tmp_path / "directory")


def test_a_page_is_the_same_bytes_each_time(attention: ta.TextAttention, written: Path, tmp_path: Path) -> None:
    attention.write(tmp_path / "again.html")
    assert (tmp_path / "again.html").read_bytes() == written.read_bytes()
