"""Checksums and versions of the package's files: a damaged file is refused before anything is made of its contents.

A seal is one line of JSON with the SHA-256 of all other bytes of the file. It is where readers of the format do not
look: after the end of a netCDF file, before the footer of a Parquet file; in JSON lines it is the last line.
"""

from __future__ import annotations

import hashlib
import os
import re
from collections.abc import Collection
from pathlib import Path
from typing import BinaryIO, Literal

Seal = Literal["whole", "broken", "missing"]
BROKEN = (
    "is damaged, or was changed after it was written: its contents do not match its checksum; "
    "use another copy, or make it again"
)
_LINE = '{{"sha256 of the rest": "{}"}}\n'
_PATTERN = re.compile(_LINE.format("[0-9a-f]{64}").encode())
_LENGTH = len(_LINE.format("0" * 64))
_AT_ONCE = 2**20


def seal(path: Path, tail: int = 0) -> None:
    """Put a seal into a finished file, `tail` bytes before its end."""
    with path.open("r+b") as file:
        digest = _digest(file, (0, file.seek(0, os.SEEK_END)))
        file.seek(-tail, os.SEEK_END)
        last = file.read()
        file.seek(-tail, os.SEEK_END)
        file.write(_LINE.format(digest).encode() + last)


def seal_of(file: BinaryIO, tail: int = 0) -> Seal:
    """Whether the seal `tail` bytes before the end of an open file is there, and matches all other bytes."""
    size = file.seek(0, os.SEEK_END)
    start = size - tail - _LENGTH
    if tail < 0 or start < 0:
        return "missing"
    file.seek(start)
    line = file.read(_LENGTH)
    if not is_seal(line):
        return "missing"
    digest = _digest(file, (0, start), (start + _LENGTH, size))
    return "whole" if line == _LINE.format(digest).encode() else "broken"


def is_seal(line: bytes) -> bool:
    """Whether a line, with its line feed, is a seal."""
    return _PATTERN.fullmatch(line) is not None


def _digest(file: BinaryIO, *parts: tuple[int, int]) -> str:
    """SHA-256 of parts of a file, each given by the places of its first byte and of the byte after its last."""
    digest = hashlib.sha256()
    for first, end in parts:
        file.seek(first)
        while first < end and (block := file.read(min(_AT_ONCE, end - first))):
            digest.update(block)
            first += len(block)
    return digest.hexdigest()


def wrong_version(found: object, current: str, seal: Seal, *, unsealed: Collection[str]) -> str | None:
    """What is wrong with the format that a file names, or None.

    Args:
        found: the format, a name with a number; None if the file names none.
        current: the format that is written now.
        seal: of the file.
        unsealed: earlier formats that are still read. They had no seal.
    """
    name, number = current.rsplit(" ", 1)
    match = re.fullmatch(rf"{name} ([0-9]{{1,9}})", found) if isinstance(found, str) else None
    if match and int(match[1]) > int(number):
        return f"format {found!r} is of a newer version, expected {current!r}; update tl_attnstats"
    if found in unsealed:
        return None
    if found != current:
        again = "; make it again, because this version is no longer supported" if match else ""
        return f"format {found!r}, expected {current!r}{again}"
    if seal == "missing":
        return "its checksum is missing: it is cut off, or another program changed it"
    return None
