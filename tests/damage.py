"""Damage to a file, and that its reader refuses it."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

from tl_attnstats.errors import AttnStatsError

Read = Callable[[Path], object]


def assert_flips_refused(path: Path, read: Read) -> None:
    """Whichever byte is changed in a bit, the file is refused with an error that names it."""
    whole = path.read_bytes()
    read(path)
    for place, byte in enumerate(whole):
        _write_byte(path, place, byte ^ 1 << place % 8)
        _assert_refused(path, read, f"byte {place} of {len(whole)}")
        _write_byte(path, place, byte)
    read(path)


def assert_cuts_refused(path: Path, read: Read, *, step: int = 100) -> None:
    """Cut off anywhere, also within the last bytes, or with something behind its end, the file is refused."""
    whole = path.read_bytes()
    read(path)
    for length in {*range(0, len(whole), step), *range(max(0, len(whole) - step), len(whole))}:
        path.write_bytes(whole[:length])
        _assert_refused(path, read, f"cut to {length} of {len(whole)} bytes")
    for behind in (b"\0", b"\n", b" ", whole[-1:], whole):
        path.write_bytes(whole + behind)
        _assert_refused(path, read, f"with {behind[:9]!r} behind it")
    path.write_bytes(whole)


def _write_byte(path: Path, place: int, byte: int) -> None:
    with path.open("r+b") as file:
        file.seek(place)
        file.write(bytes([byte]))


def _assert_refused(path: Path, read: Read, damage: str) -> None:
    refused = ""
    try:
        read(path)
    except AttnStatsError as error:
        refused = str(error)
    assert str(path) in refused, f"{path.name}, {damage}: {refused or 'was read'}"
