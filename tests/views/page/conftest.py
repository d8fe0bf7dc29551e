from __future__ import annotations

from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest
from playwright.sync_api import Browser, Page

import tl_attnstats as ta
from tests.browsing import opened

TEXT = "When Mary and John went to the store, John gave a drink to Mary because the unbelievable dog was asleep."


LAYERS = (3, 5, 10, 11, 12, 16)


@pytest.fixture(scope="session")
def attention(smollm2: Any) -> ta.TextAttention:
    """Some layers, so that a page loads quickly."""
    return ta.attention_of(smollm2, TEXT, layers=LAYERS)


def pattern_of(attention: ta.TextAttention, layer: int, head: int) -> Any:
    return attention.pattern[attention.layers.index(layer), head]


@pytest.fixture(scope="session")
def written(attention: ta.TextAttention, tmp_path_factory: pytest.TempPathFactory) -> Path:
    path = tmp_path_factory.mktemp("page") / "view.html"
    attention.write(path)
    return path


Visit = Callable[..., Page]


@pytest.fixture(scope="module")
def window(browser: Browser, written: Path) -> Iterator[Page]:
    """A window that the tests of a module share."""
    with opened(browser, written) as page:
        yield page


@pytest.fixture
def visit(window: Page, written: Path) -> Visit:
    """Load the page anew, at a fragment."""

    def load(fragment: str = "") -> Page:
        window.mouse.move(0, 0)  # away from the token at which the test before pointed
        window.goto("about:blank")
        window.goto(written.as_uri() + fragment)
        return ready(window)

    return load


def ready(page: Page) -> Page:
    page.locator("html[data-ready][data-drawn]").wait_for()
    return page


@pytest.fixture
def show(browser: Browser, tmp_path: Path) -> Iterator[Callable[..., Page]]:
    """Write the page of some attention, and open it in a window of its own."""
    windows = []

    def shown(attention: ta.TextAttention, fragment: str = "", options: Any = None, **more: Any) -> Page:
        path = tmp_path / f"{len(windows)}.html"
        attention.write(path, **(options or {}))
        windows.append(opened(browser, path, fragment, **more))
        return ready(windows[-1].__enter__())

    yield shown
    for window in windows:
        window.__exit__(None, None, None)
