"""The page of a comparison."""

from __future__ import annotations

import base64
import html
import itertools
import re
from pathlib import Path
from typing import Any

import matplotlib.pyplot as plt
import pytest
from playwright.sync_api import Browser

import tl_attnstats as ta
from tests import tiny
from tests.plotting.made import collected
from tests.report.conftest import HOSTILE_LABELS, HOSTILE_MODEL
from tl_attnstats.errors import StatsError
from tl_attnstats.report import write_comparison
from tl_attnstats.results.numbers import with_error


@pytest.fixture(scope="module")
def both() -> ta.Comparison:
    plt.switch_backend("agg")
    encoder = tiny.renamed(collected(3, 4, causal=False, n_sentences=20), null="special")
    return ta.compare({"a decoder": collected(5, 3, n_sentences=20), "an encoder": encoder})


@pytest.fixture(scope="module")
def written(both: ta.Comparison, tmp_path_factory: Any) -> Path:
    directory: Path = tmp_path_factory.mktemp("comparison")
    write_comparison(both, directory)
    return directory


@pytest.fixture(scope="module")
def page(written: Path) -> str:
    return (written / "comparison.html").read_text(encoding="utf-8")


def text_of(page: str) -> str:
    return html.unescape(re.sub(r"<[^>]*>", " ", page))


def test_page_is_one_file_without_network(page: str) -> None:
    assert page.count("<script") == 2  # the data and the script
    assert set(re.findall(r"https?://[^\"'\s]*", page)) == {"http://www.w3.org/2000/svg"}  # a namespace
    sources = re.findall(r'src="([^"]{0,22})', page)
    assert set(sources) == {"data:image/png;base64,"}


def test_page_contains_the_saved_figures(page: str, written: Path) -> None:
    embedded = {base64.b64decode(data) for data in re.findall(r'src="data:image/png;base64,([^"]*)"', page)}
    assert embedded == {path.read_bytes() for path in written.glob("*.png")}


def test_page_lists_claims_and_differences(both: ta.Comparison, page: str) -> None:
    text = " ".join(text_of(page).split())
    assert "a decoder and an encoder" in text
    for note in both.notes:
        assert note in text
    for same in zip(*both.claims.values(), strict=True):
        row = f"{same[0].statement} {same[0].quantity} {same[0].paper} "
        cells = text.split(row)[1]
        beside = (both.counterparts[model].get(claim.name) for model, claim in zip(both.models, same, strict=True))
        for claim in filter(None, itertools.chain(*zip(same, beside, strict=True))):
            marks = {"holds": "✓ holds", "does not hold": "✗ does not hold", "undecided": "? undecided"}
            expected = f"{claim.shown} {marks.get(claim.verdict, claim.verdict)}"
            assert cells.strip().startswith(expected)
            cells = cells.strip().removeprefix(expected)


def test_page_has_no_second_column_without_counterparts(tmp_path: Path) -> None:
    few = collected(2, metrics=["entropy"])
    title = "without sinks, or beyond position"
    page = write_comparison(ta.compare({"a": few, "b": few}), tmp_path)[0].read_text(encoding="utf-8")
    assert title not in page
    more = collected(2, metrics=["entropy", "position"])
    page = write_comparison(ta.compare({"a": few, "b": more}), tmp_path)[0].read_text(encoding="utf-8")
    assert page.count(title) == 2  # one for each model


def test_page_counts_verdicts(both: ta.Comparison, page: str) -> None:
    text = " ".join(text_of(page).split()).split(" together ")[1]
    for claims in both.claims.values():
        n = sum(claim.verdict == "holds" for claim in claims)
        assert n
        assert f"{n} hold" in text


def test_page_has_a_table_of_means(both: ta.Comparison, page: str) -> None:
    text = " ".join(text_of(page).split())
    rows = both.means.set_index(["statistic", "label", "model"])
    noun = rows.loc[("pos_to", "NOUN", "a decoder")]
    assert f"NOUN {with_error(noun['mean'], noun['se'])} SD " in text
    row = rows.loc[("variability", "", "an encoder")]
    assert f"{with_error(row['mean'], row['se'])} SD {row['std']:.2g}, {row['min']:.2g} to {row['max']:.2g}" in text


def test_same_comparison_gives_the_same_bytes(tmp_path: Path) -> None:
    stats = collected(2, metrics=["entropy", "pos_to", "bootstrap"])
    paths = [write_comparison(ta.compare({"a": stats, "b": stats}), tmp_path / name) for name in ("first", "second")]
    assert len(paths[0]) == 6
    for first, second in zip(*paths, strict=True):
        assert first.read_bytes() == second.read_bytes()


def test_no_text_can_become_a_tag(hostile: ta.AttentionStats, tmp_path: Path) -> None:
    path = write_comparison(ta.compare({HOSTILE_MODEL: hostile, "b": hostile}), tmp_path)[0]
    page = path.read_text(encoding="utf-8")
    assert page.count("<script") == 2
    page, _, data = page.partition('<script type="application/json"')
    assert "<" not in data.partition(">")[2].partition("</script>")[0]
    assert "onerror" not in re.sub(r"<img src=&gt;|&lt;img src=x onerror", "", page)
    tags = re.findall(r"<(\w+)[^>]*>", page)
    assert tags.count("img") == len(list(tmp_path.glob("*.png")))
    shown = text_of(page)
    for text in (HOSTILE_MODEL, *HOSTILE_LABELS):
        assert text.replace("_", " ") in shown.replace("_", " ")


def test_page_that_cannot_be_written_is_answered_with_the_path(both: ta.Comparison, tmp_path: Path) -> None:
    (tmp_path / "claims.csv").mkdir()
    with pytest.raises(StatsError, match=r"claims\.csv: cannot be written \("):
        write_comparison(both, tmp_path)


@pytest.mark.parametrize("width", [390, 1250])
@pytest.mark.parametrize("scheme", ["light", "dark"])
def test_page_reads_in_a_browser_without_javascript(browser: Browser, written: Path, width: int, scheme: Any) -> None:
    complaints: list[str] = []
    context = browser.new_context(
        viewport={"width": width, "height": 800}, color_scheme=scheme, java_script_enabled=False
    )
    page = context.new_page()
    page.on("console", lambda message: complaints.append(message.text))
    page.goto((written / "comparison.html").as_uri())
    for image in page.locator("img").all():
        box = image.bounding_box()
        assert box is not None
        assert box["x"] >= 0
        assert box["x"] + box["width"] <= width
        assert box["height"] > 50
    main = page.locator("main").bounding_box()
    assert main is not None
    assert main["width"] <= width
    details = page.locator("details").first
    details.locator("summary").click()
    assert details.locator("table").is_visible()
    context.close()
    assert complaints == []
