"""Pages with statistics, of two texts, of several streams; in a notebook; and for everybody."""

from __future__ import annotations

import os
import re
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
import transformers
from playwright.sync_api import Browser, Page, expect
from transformer_lens.model_bridge import TransformerBridge

import tl_attnstats as ta
from tests import tiny
from tests.browsing import opened
from tests.views.inputs import attention as made_up
from tests.views.page.conftest import TEXT, ready
from tl_attnstats.errors import FigureError, StatsError
from tl_attnstats.results.character import character, sentence_of
from tl_attnstats.views import head_view, model_view, neuron_view

Show = Callable[..., Page]
ROOT = Path(__file__).parents[3]
DOCS = ROOT / "docs"
AXE = ROOT / "node_modules" / "axe-core" / "axe.min.js"
PAIR = ("The cat sat on the mat.", " It was asleep.")


def choose(page: Page, switch: str, option: str) -> None:
    page.locator(f"#{switch}").select_option(option)


def lines(page: Page) -> set[tuple[int, int]]:
    """Query and key of each line that is drawn."""
    found = page.locator("#lines line").evaluate_all(
        "lines => lines.map(line => [line.y1.baseVal.value, line.y2.baseVal.value])"
    )
    return {(int(query // 22), int(key // 22)) for query, key in found}


@pytest.fixture(scope="module")
def named(smollm2: Any, sample_corpus: ta.Corpus) -> ta.TextAttention:
    stats = ta.collect(smollm2, sample_corpus[:30], progress=False)
    return ta.attention_of(smollm2, TEXT, stats=stats)


def test_statistics_name_the_heads_and_a_click_opens_the_card(show: Show, named: ta.TextAttention) -> None:
    stats = named.stats
    assert stats is not None
    page = show(named, "#head=L10H1")
    title = page.locator('.thumb[data-head="L10H1"]').get_attribute("aria-label")
    assert title is not None
    assert "previous token" in title
    page.get_by_role("button", name="card of L10H1").click()
    card = page.locator("#card[open]")
    expect(card.locator("h2")).to_have_text("L10H1")
    expect(card.locator("p")).to_have_text(sentence_of(character(stats, "L10H1")))
    rows = card.locator("tr").evaluate_all("rows => rows.map(row => [...row.children].map(cell => cell.textContent))")
    shown = dict(rows)
    for name in ("distance", "entropy"):
        value, error = (float(stats[n].sel(layer=10, head=1)) for n in (name, f"{name}_se"))
        number, _, rest = shown[stats[name].attrs["long_name"]].partition(" ± ")
        digits = len(number.partition(".")[2])
        assert abs(float(number) - value) <= 0.5 * 10**-digits
        assert error / 100 < 10**-digits <= max(1, error)
        assert float(rest.split()[0]) == pytest.approx(error, abs=0.5 * 10**-digits)
    assert " (binning ≤ 0." in shown[stats["variability"].attrs["long_name"]]
    page.keyboard.press("Escape")
    expect(card).to_have_count(0)
    page = show(replace(named, stats=None))
    expect(page.get_by_role("button", name=re.compile("card of"))).to_have_count(0)


def test_statistics_of_another_model_are_refused(tiny_decoder: Any, named: ta.TextAttention) -> None:
    stats = named.stats
    assert stats is not None
    message = (
        r"stats: got statistics of .*SmolLM2.* \(weights [0-9a-f]{16}, expected [0-9a-f]{16}\), .* by tiny-decoder"
    )
    with pytest.raises(StatsError, match=message):
        ta.attention_of(tiny_decoder, "The cat", stats=stats)
    with pytest.raises(StatsError, match="got statistics of other, but the text is read by tiny-decoder; pass"):
        ta.attention_of(tiny_decoder, "The cat", stats=tiny.renamed(stats, model="other", model_fingerprint=""))


def test_a_decoder_reads_the_second_part_after_the_first(tiny_decoder: Any) -> None:
    attention = ta.attention_of(tiny_decoder, PAIR, prepend_bos=False)
    whole = ta.attention_of(tiny_decoder, "".join(PAIR), prepend_bos=False)
    np.testing.assert_allclose(attention.pattern, whole.pattern, atol=1e-6)
    begun = attention.parts.index(1)
    assert "".join(attention.tokens[:begun]) == PAIR[0]
    assert "".join(attention.tokens[begun:]) == PAIR[1]
    assert set(attention.parts[:begun]) == {0}
    assert set(attention.parts[begun:]) == {1}


def test_an_encoder_reads_a_pair_as_its_tokenizer_does(show: Show, minilm: Any, minilm_path: Path) -> None:
    attention = ta.attention_of(minilm, PAIR)
    tokenizer = transformers.AutoTokenizer.from_pretrained(minilm_path)
    model = transformers.AutoModel.from_pretrained(minilm_path, attn_implementation="eager").eval()
    with torch.no_grad():
        expected = model(**tokenizer(*PAIR, return_tensors="pt"), output_attentions=True).attentions
    for layer, pattern in enumerate(expected):
        np.testing.assert_allclose(attention.pattern[layer], pattern[0], atol=1e-5)
    end = attention.tokens.index("[SEP]")
    assert attention.parts == (0,) * (end + 1) + (1,) * (len(attention.tokens) - end - 1)
    page = show(attention, "#head=L2H3")
    page.locator("#least").evaluate("input => { input.value = 0; input.dispatchEvent(new Event('input')); }")
    drawn = {}
    for option in ("all", "within", "across", "0>0", "0>1", "1>0", "1>1"):
        choose(page, "parts", option)
        drawn[option] = lines(page)
    parts = attention.parts
    assert drawn["within"] == {(q, k) for q, k in drawn["all"] if parts[q] == parts[k]}
    assert drawn["across"] == drawn["all"] - drawn["within"]
    for option in ("0>0", "0>1", "1>0", "1>1"):
        query, key = map(int, option.split(">"))
        assert drawn[option] == {(q, k) for q, k in drawn["all"] if (parts[q], parts[k]) == (query, key)}
        assert drawn[option]
    expect(page.locator("#tokens .begins")).to_have_count(2)


@pytest.mark.parametrize("architecture", ["T5ForConditionalGeneration", "BartForConditionalGeneration"])
def test_an_encoder_decoder_has_three_streams(show: Show, minilm_tokenizer: Any, architecture: str) -> None:
    # Bridging changes a model, so the expected attention is of another one with the same weights.
    hf_model, bridged = (tiny.encoder_decoder(architecture, minilm_tokenizer) for _ in range(2))
    model = TransformerBridge.boot_transformers(architecture, hf_model=bridged, tokenizer=minilm_tokenizer)
    texts = ("The cat sat on the mat.", "Die Katze saß da.")
    attention = ta.attention_of(model, texts)
    source = minilm_tokenizer(texts[0], return_tensors="pt")
    target = hf_model.prepare_decoder_input_ids_from_labels(
        minilm_tokenizer(texts[1], return_tensors="pt")["input_ids"]
    )
    with torch.no_grad():
        expected = hf_model(**source, decoder_input_ids=target, output_attentions=True)
    found = {one.stream: one for one in (attention, *attention.others)}
    for stream in ("encoder", "decoder", "cross"):
        for layer, pattern in enumerate(expected[f"{stream}_attentions"]):
            np.testing.assert_allclose(found[stream].pattern[layer], pattern[0], atol=1e-5)
    assert (attention.stream, attention.keys) == ("cross", found["encoder"].tokens)
    page = show(attention, "#stream=cross&head=L1H2")
    page.locator("#least").evaluate("input => { input.value = 0; input.dispatchEvent(new Event('input')); }")
    token = page.locator("#tokens .queries .token").nth(3)
    token.hover()
    shown = page.locator("#tokens .keys .token").evaluate_all(
        "tokens => tokens.map(token => Number(token.querySelector('.weight')?.textContent ?? 0))"
    )
    np.testing.assert_allclose(shown, expected["cross_attentions"][1][0, 2, 3], atol=1 / 510 + 0.0005)
    choose(page, "layout", "text")
    assert page.locator(".paragraph").count() == 2
    choose(page, "stream", "1")
    expect(page).to_have_url(re.compile("#stream=encoder&head=L0H0$"))
    ready(page)
    choose(page, "stream", "2")
    expect(page.locator(".paragraph")).to_have_count(1)
    for draw in (
        lambda: model_view(attention),
        lambda: head_view(attention, "L0H0"),
        lambda: neuron_view(attention, "L0H0"),
    ):
        with pytest.raises(FigureError, match=r"figures draw one text, not cross-attention; use attention\.show\(\)"):
            draw()
    if architecture.startswith("T5"):
        assert "a position bias" in attention.others[0].why_no_neurons


@pytest.mark.parametrize("scheme", ["light", "dark"])
def test_axe_finds_no_serious_fault(show: Show, named: ta.TextAttention, scheme: str) -> None:
    if not AXE.is_file():
        if os.environ.get("CI") == "true":
            pytest.fail("no axe-core here; make check")
        pytest.skip("no axe-core here; make check")
    script = AXE.read_text(encoding="utf-8") + "; null"
    page = show(named, "#head=L10H1,L5H6&token=12", color_scheme=scheme)
    for step in (
        lambda: None,
        lambda: choose(page, "layout", "text"),
        lambda: page.get_by_role("button", name="card of L10H1").click(),
    ):
        step()
        page.evaluate(script)
        faults = page.evaluate("axe.run().then(found => found.violations)")
        told = [(fault["id"], fault["impact"], [node["target"] for node in fault["nodes"]][:3]) for fault in faults]
        assert [fault for fault in told if fault[1] in ("serious", "critical")] == []


NOTEBOOK = """import numpy as np
import tl_attnstats as ta
pattern = np.tril(np.full((2, 3, 4, 4), 0.25))
pattern[..., 0] += 1 - pattern.sum(-1)
ta.TextAttention(("The", " cat", " <b>sat</b>", "."), pattern, np.arange(4) == 0, (0, 1)).show()"""


@pytest.mark.filterwarnings("ignore")  # of Jupyter's own
def test_a_notebook_shows_the_page_and_so_does_its_html(browser: Browser, tmp_path: Path) -> None:
    nbclient, nbconvert, nbformat = map(pytest.importorskip, ("nbclient", "nbconvert", "nbformat"))
    cells = [nbformat.v4.new_code_cell(NOTEBOOK)]
    notebook = nbformat.v4.new_notebook(cells=cells)
    nbclient.NotebookClient(notebook, timeout=120, kernel_name="python3").execute()
    (output,) = (one for one in notebook.cells[0].outputs if one["output_type"] == "execute_result")
    assert output["data"]["text/html"].startswith("<iframe srcdoc=")
    exporter = nbconvert.HTMLExporter()
    # Its templates load MathJax and RequireJS; here it shall do without the network.
    html = re.sub(r'<script[^>]*src="http[^>]*>\s*</script>', "", exporter.from_notebook_node(notebook)[0])
    path = tmp_path / "notebook.html"
    path.write_text(html, encoding="utf-8")
    context = browser.new_context()
    page = context.new_page()
    errors: list[str] = []
    page.on("pageerror", lambda error: errors.append(str(error)))
    page.goto(path.as_uri())
    frame = page.frame_locator("iframe")
    frame.locator("html[data-ready][data-drawn]").wait_for()
    frame.locator("#tokens .queries .token").nth(3).hover()
    shown = frame.locator("#tokens .keys .weight").all_text_contents()
    assert shown == ["0.250"] * 4
    frame.locator('.thumb[data-head="L1H2"]').click()
    expect(frame.locator(".chip")).to_have_text("L1H2")
    with page.expect_download() as download:
        frame.get_by_role("button", name="Save SVG").first.click()
    assert download.value.suggested_filename == "model-L1H2.svg"
    context.close()
    assert errors == []


def test_a_frame_escapes_its_page() -> None:
    shown = made_up(tokens=('"><script>alert(1)</script>', " a")).show(height=500)._repr_html_()
    assert shown.count("<") == 2  # <iframe …></iframe>
    assert "height: 500px" in shown
    assert 'sandbox="allow-scripts allow-downloads"' in shown


def test_only_some_heads_are_written(browser: Browser, tmp_path: Path) -> None:
    made_up(3, 4, first_layer=2).write(tmp_path / "some.html", heads=["L4H3", "L2H1"])
    with opened(browser, tmp_path / "some.html") as page:
        ready(page)
        names = page.locator(".thumb").evaluate_all("thumbs => thumbs.map(thumb => thumb.dataset.head)")
        assert names == ["L2H1", "L4H3"]


def test_the_python_of_the_docs_runs_from_the_top(
    named: ta.TextAttention, smollm2: Any, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    assert named.stats is not None
    monkeypatch.chdir(tmp_path)
    Path("out/demo").mkdir(parents=True)
    named.stats.save("out/demo/stats.nc")
    monkeypatch.setattr(ta, "load_model", lambda name: {"demo": smollm2}[name])
    names: dict[str, Any] = {}
    blocks = re.findall(r"```python\n(.*?)```", (DOCS / "page.md").read_text(encoding="utf-8"), re.DOTALL)
    assert len(blocks) == 3
    for block in blocks:
        exec(block, names)
    assert Path("view.html").is_file()
    assert names["attention"].parts[-1] == 1
