from __future__ import annotations

from collections.abc import Callable, Iterator
from functools import cache
from pathlib import Path
from typing import Any

import pytest
from playwright.sync_api import Browser, Page

import tl_attnstats as ta
from tests import tiny
from tl_attnstats.report import build

HOSTILE_TEXTS = (
    "<script>window.hacked=1</script> said \"no\" & 'yes' </script> <img src=x onerror=window.hacked=1>",
    "😀 שלום עולם <!-- <script> 👩‍👩‍👧 {{ 7*7 }} &lt;b&gt; ${window.hacked=1}",
)
HOSTILE_LABELS = (
    "NOUN",
    "<b>X</b>",
    "</script><script>window.hacked=1</script>",
    'a"b',
    "__proto__",
    "&amp;",
    "{{ 7*7 }}",
)
HOSTILE_MODEL = "<img src=x onerror=window.hacked=1> </title><script>window.hacked=1</script>"


@pytest.fixture(scope="session")
def real(smollm2: Any, sample_corpus: ta.Corpus) -> ta.AttentionStats:
    return ta.collect(smollm2, sample_corpus[:30], progress=False)


@pytest.fixture(scope="session")
def hostile() -> ta.AttentionStats:
    data = []
    for number, text in enumerate(HOSTILE_TEXTS):
        words: list[ta.Word] = []
        for index, form in enumerate(text.split()):
            start = text.index(form, words[-1].end if words else 0)
            label = HOSTILE_LABELS[index % len(HOSTILE_LABELS)]
            words.append(ta.Word(start, start + len(form), label, index - 1 if index else None, label))
        sentence = ta.Sentence(text, tuple(words), "hostile", number)
        data.append((tiny.patterns(2, 3, len(words), True, number), sentence))
    stats = ta.collect_patterns(data)
    return tiny.renamed(stats, model=HOSTILE_MODEL, corpus=HOSTILE_TEXTS[0])


Visit = Callable[..., Page]


@pytest.fixture(scope="session")
def rendered() -> Callable[[ta.AttentionStats], str]:
    """The report of statistics, built once."""
    return cache(build.render)


@pytest.fixture
def visit(browser: Browser, tmp_path: Path, rendered: Callable[[ta.AttentionStats], str]) -> Iterator[Visit]:
    """Open a report of statistics, or a page, from disk. Fail if the page logs anything or requests another file."""
    complaints: list[str] = []
    requests: list[str] = []
    contexts = []
    allowed = set()

    def opened(given: ta.AttentionStats | Path, fragment: str = "", patterns: Any = None, **options: Any) -> Page:
        path = given if isinstance(given, Path) else tmp_path / f"{len(contexts)}.html"
        if not isinstance(given, Path):
            build.write_text(rendered(given) if patterns is None else build.render(given, patterns), path)
        allowed.add(path.as_uri())
        contexts.append(browser.new_context(**options))
        page = contexts[-1].new_page()
        page.on("console", lambda message: complaints.append(message.text))
        page.on("pageerror", lambda error: complaints.append(str(error)))
        page.on("request", lambda request: requests.append(request.url.split("#")[0]))
        page.goto(path.as_uri() + fragment)
        return page

    yield opened
    for context in contexts:
        context.close()
    assert complaints == []
    assert set(requests) == allowed
