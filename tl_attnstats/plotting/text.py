"""Text of corpora and tokenizers, as matplotlib can draw it."""

from __future__ import annotations

import matplotlib.font_manager as fonts
from matplotlib.ft2font import FT2Font

VISIBLE = {"\n": "↵", "\r": "↵", "\t": "⇥", "\u00a0": " "}
MISSING = "□"
MAX_TOKEN_CHARS = 16


def plain(text: str) -> str:
    """The text so that it is drawn on one line as it stands, without formulas and without warnings.

    "$" is escaped, line breaks and tabs get visible signs. A character of which no font has a glyph (of those in
    `rcParams["font.family"]`, where another one may be added: `["sans-serif", "Noto Sans CJK JP"]`) becomes "□".
    """
    available = _fonts()
    shown = (VISIBLE.get(character, character) for character in text)
    drawn = (c if any(font.get_char_index(ord(c)) for font in available) else MISSING for c in shown)
    return "".join(drawn).replace("$", r"\$")


def plain_token(token: str) -> str:
    """A token for a tick or a column, `plain`: without the space it begins with, white space alone as "␣", cut if long.

    Several spaces are several signs; an empty token is an empty text.
    """
    shown = token[1:] if token.startswith(" ") and token.strip() else token
    shown = shown.replace(" ", "␣")
    return plain(shown if len(shown) <= MAX_TOKEN_CHARS else shown[: MAX_TOKEN_CHARS - 1] + "…")


def _fonts() -> list[FT2Font]:
    found = []
    for family in fonts.FontProperties().get_family():
        try:
            path = fonts.findfont(fonts.FontProperties(family=family), fallback_to_default=False)
        except ValueError:  # not installed; matplotlib goes on to the next as well
            continue
        found.append(fonts.get_font(path))
    return found or [fonts.get_font(fonts.findfont("DejaVu Sans"))]  # comes with matplotlib
