from __future__ import annotations

from collections.abc import Iterator
from typing import Any

import matplotlib.pyplot as plt
import pytest


@pytest.fixture(autouse=True)
def figures(monkeypatch: pytest.MonkeyPatch) -> Iterator[None]:
    """Nothing may be shown; what was drawn is closed after each test."""

    def show(*args: Any, **kwargs: Any) -> None:
        raise AssertionError("a figure was shown")

    plt.switch_backend("agg")
    monkeypatch.setattr(plt, "show", show)
    yield
    plt.close("all")
