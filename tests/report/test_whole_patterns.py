"""Exemplars in the report with their whole patterns, and typical rows, in a browser and without one."""

from __future__ import annotations

import random
import re
from decimal import ROUND_HALF_UP, Decimal
from typing import Any

import numpy as np
import pytest
from playwright.sync_api import Locator, Page, expect

import tl_attnstats as ta
from tests import tiny
from tests.report.conftest import Visit
from tests.running import run_alone
from tl_attnstats.errors import MetricError, ModelError
from tl_attnstats.report.contents import contents
from tl_attnstats.results.numbers import number, to_error
from tl_attnstats.results.whole import ERROR, in_8_bits

METRICS = ["distance", "entropy", "exemplars", "typical_exemplars"]


@pytest.fixture(scope="module")
def corpus() -> ta.Corpus:
    return ta.Corpus(tiny.sentences(25, seed=3))


@pytest.fixture(scope="module", params=["tiny_decoder", "tiny_encoder"])
def model(request: Any) -> Any:
    return request.getfixturevalue(request.param)


@pytest.fixture(scope="module")
def stats(model: Any, corpus: ta.Corpus) -> ta.AttentionStats:
    return ta.collect(model, corpus, METRICS, progress=False)


@pytest.fixture(scope="module")
def patterns(model: Any, stats: ta.AttentionStats) -> Any:
    return ta.exemplar_patterns(model, stats)


def opened(page: Page, place: int) -> Locator:
    """An exemplar of the open card, with its pattern shown."""
    item = page.locator("#card .exemplars li").nth(place)
    item.get_by_text("whole pattern").click()
    expect(item.locator(".told")).to_be_visible()
    return item


def share(token: Locator) -> float:
    return float(str(token.get_attribute("title")).rpartition(": ")[2])


def test_pointing_at_tokens_shows_the_pattern_of_the_model(
    visit: Visit, model: Any, corpus: ta.Corpus, stats: ta.AttentionStats, patterns: Any
) -> None:
    rng = random.Random(1)
    for head in ("L0H1", "L2H3"):
        layer, at = stats.find_head(head)
        page = visit(stats, f"#{head}", patterns=patterns)
        for place in (0, 3):
            row = stats.exemplars(head).iloc[place]
            pattern, tokens = run_alone(model, corpus[int(row["sentence"])])
            item = opened(page, place)
            shown = item.locator(".token")
            assert shown.count() == len(tokens)
            assert shown.nth(int(row["query"])).get_attribute("aria-pressed") == "true"
            for _ in range(10):
                query, key = rng.randrange(len(tokens)), rng.randrange(len(tokens))
                shown.nth(query).hover()
                assert abs(share(shown.nth(key)) - pattern[layer, at, query, key]) <= ERROR + 0.0005
            item.get_by_label("direction").select_option(label="what looks at it")
            shown.nth(key).hover()
            assert abs(share(shown.nth(query)) - pattern[layer, at, query, key]) <= ERROR + 0.0005


def test_the_strongest_are_told_in_words_and_reached_with_the_keyboard(
    visit: Visit, stats: ta.AttentionStats, patterns: Any
) -> None:
    head = "L1H2"
    page = visit(stats, f"#{head}", patterns=patterns)
    item = opened(page, 0)
    (focusable,) = item.locator('.token[tabindex="0"]').all()
    focusable.focus()
    page.keyboard.press("End")
    sentence = int(stats.exemplars(head).iloc[0]["sentence"])
    weights, names = patterns.patterns[head][sentence][-1], patterns.tokens[sentence]
    order = [k for k in np.argsort(-weights.astype(int), kind="stable")[:3] if weights[k]]
    expected = ", ".join(f"“{names[k].strip() or '␣'}” {to_error(weights[k] / 255, ERROR)}" for k in order)
    expect(item.locator(".told")).to_have_text(f"“{names[-1].strip() or '␣'}” looks at {expected}.")
    assert item.locator(".told").get_attribute("aria-live") == "polite"
    strongest = item.locator(".token").nth(int(order[0])).evaluate("node => getComputedStyle(node).backgroundColor")
    weakest = (
        item.locator(".token").nth(int(weights.argmin())).evaluate("node => getComputedStyle(node).backgroundColor")
    )
    assert strongest != weakest


def test_typical_rows_are_shown_by_bin(visit: Visit, stats: ta.AttentionStats) -> None:
    head = "L1H1"
    page = visit(stats, f"#{head}")
    layer, at = stats.find_head(head)
    counts = stats["typical_rows"].sel(layer=layer, head=at).values
    bins = page.locator("#card .typical > li")
    expect(bins).to_have_count(int((counts > 0).sum()))
    table = stats.typical_exemplars(head)
    for item, bin_ in zip(bins.all(), np.flatnonzero(counts), strict=True):
        ends = [Decimal(float(n / counts.sum())) for n in (counts[:bin_].sum(), counts[: bin_ + 1].sum())]
        low, high = (end.quantize(Decimal("0.01"), ROUND_HALF_UP) for end in ends)
        expect(item.locator("h3")).to_have_text(
            f"{bin_ / 10:.1f} to {bin_ / 10 + 0.1:.1f}: {number(100 * counts[bin_] / counts.sum())}% of rows "
            f"quantiles {low} to {high}"
        )
        expected = table[np.isclose(table["row_max"], bin_ / 10)]
        assert item.locator(".weight").all_text_contents() == [number(w) for w in expected["weight"]]


def test_without_a_model_there_are_no_patterns(visit: Visit, stats: ta.AttentionStats) -> None:
    page = visit(stats, "#L0H0")
    assert page.locator("#card .exemplars li").count() > 0
    assert page.locator(".whole").count() == 0
    assert contents(stats)["patterns"] is None


def test_eight_bits_keep_a_weight_to_half_a_level() -> None:
    weights = np.linspace(0, 1, 10_001).reshape(73, 137)
    assert np.abs(in_8_bits(weights) / 255 - weights).max() <= ERROR * (1 + 1e-9)


def test_another_model_is_refused(tiny_decoder: Any, tiny_encoder: Any, corpus: ta.Corpus) -> None:
    stats = ta.collect(tiny_decoder, corpus, ["exemplars"], progress=False)
    with pytest.raises(
        ModelError, match=r"model: \d+ of its patterns do not have the weights of the exemplars; pass the"
    ):
        ta.exemplar_patterns(tiny_encoder, stats)


def test_what_has_no_patterns_is_refused(tiny_decoder: Any, corpus: ta.Corpus) -> None:
    with pytest.raises(MetricError, match="stats: have no exemplars; collect with metrics that include 'exemplars'"):
        ta.exemplar_patterns(tiny_decoder, ta.collect(tiny_decoder, corpus, ["distance"], progress=False))
    ids = ta.Corpus.from_token_ids([[5, 6, 7, 8]])
    of_ids = ta.collect(tiny_decoder, ids, ["exemplars"], progress=False)
    with pytest.raises(MetricError, match="stats: of sequence_kind='tokens' and stream='self'; whole patterns are of"):
        ta.exemplar_patterns(tiny_decoder, of_ids)


def test_long_sentences_are_left_out_and_the_page_says_so(visit: Visit, tiny_decoder: Any, corpus: ta.Corpus) -> None:
    stats = ta.collect(tiny_decoder, corpus, ["exemplars"], progress=False)
    patterns = ta.exemplar_patterns(tiny_decoder, stats, max_tokens=20)
    assert re.fullmatch(r"\d+ sentences with more than 20 tokens have none\.", patterns.said)
    assert 0 < max(map(len, patterns.tokens.values())) <= 20
    page = visit(stats, "#L0H0", patterns=patterns)
    expect(page.locator("#card")).to_contain_text(f"Whole patterns: {patterns.said}")
    assert page.locator("#card .whole").count() == len(patterns.patterns.get("L0H0", {}))
