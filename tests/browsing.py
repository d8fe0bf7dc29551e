"""A real browser for tests of pages: nothing may be logged, and nothing requested but the page itself."""

from __future__ import annotations

import os
import shutil
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import pytest
from playwright.sync_api import Browser, Page, sync_playwright


@contextmanager
def chromium() -> Iterator[Browser]:
    """The browser of this machine; the test is skipped where there is none."""
    found = next(filter(None, map(shutil.which, ("chromium", "chromium-browser", "google-chrome"))), None)
    if found is None:
        reason = "no Chromium here to look at the page with; make chromium"
        if os.environ.get("CI") == "true":
            pytest.fail(reason)
        pytest.skip(reason)
    with sync_playwright() as playwright:
        browser = playwright.chromium.launch(executable_path=found, args=["--no-sandbox"])
        yield browser
        browser.close()


@contextmanager
def opened(browser: Browser, path: Path, fragment: str = "", **options: Any) -> Iterator[Page]:
    """A file in a window of its own. Fails if the page logs anything, or requests anything but itself."""
    complaints: list[str] = []
    requests: set[str] = set()
    context = browser.new_context(**options)
    context.set_default_timeout(60_000)  # a busy machine may take long
    page = context.new_page()
    page.on("console", lambda message: complaints.append(message.text))
    page.on("pageerror", lambda error: complaints.append(str(error)))
    page.on("request", lambda request: requests.add(request.url.split("#")[0]))
    page.goto(path.as_uri() + fragment)
    yield page
    context.close()
    assert complaints == [], complaints
    assert {url for url in requests if not url.startswith(("about:", "blob:"))} == {path.as_uri()}
