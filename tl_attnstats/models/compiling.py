"""Loops compiled by numba, where it is installed."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

try:
    import numba as numba
except ImportError:
    numba = None


def compiled(**options: Any) -> Callable[[Callable[..., Any]], Any]:
    """Compile a function at its first call and keep the result on disk; without numba, leave it as it is."""

    def decorate(function: Callable[..., Any]) -> Any:
        if numba is None:
            return function
        try:
            return numba.njit(cache=True, **options)(function)
        except RuntimeError:  # no folder to keep it in can be written to
            return numba.njit(**options)(function)

    return decorate
