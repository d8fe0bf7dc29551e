"""Helpers for output: files written whole or not at all, and the terminal."""

from __future__ import annotations

import glob
import os
import tempfile
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from rich.console import Console


@contextmanager
def write_whole(path: str | Path) -> Iterator[Path]:
    """Yield a temporary file beside `path`.

    If the block succeeds, it is synced, replaces `path`, and the directory is synced. If not, it is deleted.
    """
    path = Path(path)
    path.parent.mkdir(parents=True, exist_ok=True)
    handle, name = tempfile.mkstemp(dir=path.parent, prefix=f".{path.name}.", suffix=path.suffix)
    os.close(handle)
    temporary = Path(name)
    try:
        yield temporary
        # mkstemp creates files that only the owner can read; give the result the permissions of any new file.
        umask = os.umask(0)
        os.umask(umask)
        temporary.chmod(0o666 & ~umask)
        sync(temporary)
        temporary.replace(path)
        sync(path.parent)
    finally:
        temporary.unlink(missing_ok=True)


def sync(path: Path) -> None:
    """Wait until a file, or the names in a directory, are on disk."""
    handle = os.open(path, os.O_RDONLY)
    try:
        os.fsync(handle)
    except OSError:
        if path.is_file():  # not every file system can sync a directory
            raise
    finally:
        os.close(handle)


def temporaries(path: Path) -> list[Path]:
    """The temporary files beside `path` that processes left behind which were killed while writing it."""
    return list(path.parent.glob(f".{glob.escape(path.name)}.*{glob.escape(path.suffix)}"))


def terminal() -> Console:
    """The console for progress: standard error, so that standard output can be piped."""
    from rich.console import Console

    return Console(stderr=True)
