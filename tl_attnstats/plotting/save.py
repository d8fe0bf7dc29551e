"""A figure into a file."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import matplotlib as mpl
from matplotlib.figure import Figure

from tl_attnstats.corpus.files import write_whole
from tl_attnstats.errors import FigureError, choices

# What keeps the date out of a file, so that the same figure gives the same bytes.
UNDATED: dict[str, dict[str, Any]] = {".svg": {"Date": None}, ".pdf": {"CreationDate": None}, ".png": {}}


def check_suffix(path: Path) -> None:
    """Raise `FigureError` unless the path ends in the name of a format that `save` writes."""
    if path.suffix.lower() not in UNDATED:
        raise FigureError(f"{path}: got the suffix {path.suffix!r}, expected one of {choices(UNDATED)}")


def save(figure: Figure, path: str | Path, dpi: int = 150) -> None:
    """Write a figure whole or not at all, in the format of the path's suffix: the same bytes for the same figure.

    Args:
        figure: the figure; it stays open.
        path: ends in .svg, .png or .pdf.
        dpi: pixels an inch, of .png and of what is drawn as pixels inside the others.

    Raises:
        FigureError: another suffix, or the file cannot be written.
    """
    path = Path(path)
    check_suffix(path)
    try:
        with write_whole(path) as temporary, mpl.rc_context({"svg.hashsalt": "tl_attnstats"}):
            figure.savefig(temporary, format=path.suffix[1:].lower(), dpi=dpi, metadata=UNDATED[path.suffix.lower()])
    except OSError as error:
        raise FigureError(f"{path}: cannot be written ({error.strerror or error})") from None
