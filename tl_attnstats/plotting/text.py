"""Make text of corpora and tokenizers drawable by matplotlib."""

from __future__ import annotations

import matplotlib.font_manager as fonts
from matplotlib.ft2font import FT2Font

VISIBLE = {"\n": "↵", "\r": "↵", "\t": "⇥", "\u00a0": " "}
MISSING = "□"
MAX_TOKEN_CHARS = 16


def plain(text: str) -> str:
    """Prepare text to be drawn literally on one line, without formulas and warnings.

    "$" is escaped, and line breaks and tabs get visible signs. A character without a glyph in any font of
    `rcParams["font.family"]` becomes "□"; add a font there to draw it: `["sans-serif", "Noto Sans CJK JP"]`.
    """
    available = _fonts()
    shown = (VISIBLE.get(character, character) for character in text)
    drawn = (c if any(font.get_char_index(ord(c)) for font in available) else MISSING for c in shown)
    return "".join(drawn).replace("$", r"\$")


def plain_token(token: str) -> str:
    """A `plain` token for a tick or a column: no leading space, other spaces as "␣", long tokens cut.

    Tokens of spaces only keep all of them; an empty token is an empty text.
    """
    shown = token[1:] if token.startswith(" ") and token.strip() else token
    shown = shown.replace(" ", "␣")
    return plain(shown if len(shown) <= MAX_TOKEN_CHARS else shown[: MAX_TOKEN_CHARS - 1] + "…")


def _fonts() -> list[FT2Font]:
    found = []
    for family in fonts.FontProperties().get_family():
        try:
            path = fonts.findfont(fonts.FontProperties(family=family), fallback_to_default=False)
        except ValueError:  # not installed; matplotlib also tries the next
            continue
        found.append(fonts.get_font(path))
    return found or [fonts.get_font(fonts.findfont("DejaVu Sans"))]  # comes with matplotlib
