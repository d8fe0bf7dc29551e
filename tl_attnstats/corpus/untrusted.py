"""Text from files made harmless where it leaves the program: in the terminal, in tables, in names of files.

HTML is escaped by its templates.
"""

from __future__ import annotations

import re
from typing import Any

_REPLACEMENT = "\N{REPLACEMENT CHARACTER}"
# Control characters but line feed and tab: they move the cursor, rewrite the screen or its title, or ring the bell.
# Lone surrogates, which cannot be encoded. And characters that reverse the order of the text around them.
_CONTROLS = dict.fromkeys(
    [
        *range(9),
        *range(11, 32),
        *range(127, 160),
        *range(0xD800, 0xE000),
        0x061C,
        0x200E,
        0x200F,
        *range(0x202A, 0x202F),
        *range(0x2066, 0x206A),
    ],
    _REPLACEMENT,
)
_FORMULA = ("=", "+", "-", "@", "\t", "\r", "\n")


def printable(text: str) -> str:
    """The text for a terminal, with a replacement character for each character that would control it."""
    return text.translate(_CONTROLS)


def cell(value: Any) -> Any:
    """A value for a CSV file: a string that a spreadsheet would run as a formula starts with an apostrophe (OWASP)."""
    return f"'{value}" if isinstance(value, str) and value.startswith(_FORMULA) else value


def file_name(name: str) -> str:
    """The name for a file in a directory: never another place, whatever a statistic or a label is called."""
    return re.sub(r"[^\w.,+-]|^\.", "_", name)
