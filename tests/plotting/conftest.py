from __future__ import annotations

from collections.abc import Iterator
from typing import Any

import matplotlib.pyplot as plt
import pytest


@pytest.fixture(autouse=True)
def figures(monkeypatch: pytest.MonkeyPatch) -> Iterator[None]:
    """Fail if a figure is shown, and close all figures after each test."""

    def show(*args: Any, **kwargs: Any) -> None:
        raise AssertionError("a figure was shown")

    plt.switch_backend("agg")
    monkeypatch.setattr(plt, "show", show)
    yield
    plt.close("all")
