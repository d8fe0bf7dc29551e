"""Loops compiled by numba, where it is installed."""

from __future__ import annotations

import hashlib
import io
from collections.abc import Callable, Iterator
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import Any
from warnings import warn

from tl_attnstats.errors import AttnStatsWarning

try:
    import numba as numba
    from numba.core.caching import FunctionCache, IndexDataCacheFile
except ImportError:
    numba = None
    FunctionCache = IndexDataCacheFile = object

LENGTH = 32  # of a checksum


def compiled(**options: Any) -> Callable[[Callable[..., Any]], Any]:
    """Compile a function at its first call and keep the result on disk; without numba, leave it as it is."""

    def decorate(function: Callable[..., Any]) -> Any:
        if numba is None:
            return function
        dispatcher = numba.njit(**options)(function)
        with suppress(RuntimeError):  # no folder to keep it in can be written to
            dispatcher._cache = _Cache(function)
        return dispatcher

    return decorate


class _Cache(FunctionCache):  # type: ignore[misc]
    """numba's cache, except that what goes wrong with its files costs a warning and some seconds, not the run."""

    def __init__(self, function: Callable[..., Any]):
        super().__init__(function)
        stamp = self._impl.locator.get_source_stamp()
        self._cache_file = _Files(self._cache_path, f"{self._impl.filename_base}.checked", stamp)

    def load_overload(self, *given: Any) -> Any:
        try:
            return super().load_overload(*given)
        except Exception as error:
            _tell(error)
        with suppress(Exception):
            self.flush()
        return None

    def save_overload(self, *given: Any) -> None:
        try:
            super().save_overload(*given)
        except Exception as error:
            _tell(error)


class _Files(IndexDataCacheFile):  # type: ignore[misc]
    """The files of the cache with a checksum at their end, without which a flipped byte would be run as code."""

    @contextmanager
    def _open_for_write(self, filepath: str) -> Iterator[io.BytesIO]:
        with super()._open_for_write(filepath) as file:
            written = io.BytesIO()
            yield written
            file.write(written.getvalue() + _checksum(written.getvalue()))

    def _load_index(self) -> Any:
        _check(Path(self._index_path))
        return super()._load_index()

    def _load_data(self, name: str) -> Any:
        _check(Path(self._data_path(name)))
        return super()._load_data(name)


def _checksum(content: bytes) -> bytes:
    return hashlib.blake2b(content, digest_size=LENGTH).digest()


def _check(path: Path) -> None:
    """Raise `ValueError` for a damaged file. One that is not there is none of our concern."""
    with suppress(FileNotFoundError):
        content = path.read_bytes()
        if _checksum(content[:-LENGTH]) != content[-LENGTH:]:
            raise ValueError(f"{path} is damaged")


def _tell(error: Exception) -> None:
    warn(
        f"compiled kernels: the files that keep them cannot be used ({error}); compiling them takes some seconds",
        AttnStatsWarning,
        stacklevel=4,
    )
