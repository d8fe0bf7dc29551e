"""Save a figure to a file."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import matplotlib as mpl
from matplotlib.figure import Figure

from tl_attnstats.corpus.files import write_whole
from tl_attnstats.errors import FigureError, choices

# Keep the date out of files, so that the same figure gives the same bytes.
UNDATED: dict[str, dict[str, Any]] = {".svg": {"Date": None}, ".pdf": {"CreationDate": None}, ".png": {}}


def check_suffix(path: Path) -> None:
    """Raise `FigureError` unless `save` can write the format of the path's suffix."""
    if path.suffix.lower() not in UNDATED:
        raise FigureError(f"{path}: got the suffix {path.suffix!r}, expected one of {choices(UNDATED)}")


def save(figure: Figure, path: str | Path, dpi: int = 150) -> None:
    """Write a figure, whole or not at all, in the format of the path's suffix. The same figure gives the same bytes.

    Args:
        figure: the figure; it stays open.
        path: a name that ends in .svg, .png or .pdf.
        dpi: pixels per inch in .png, and in rasterized parts of the other formats.

    Raises:
        FigureError: the suffix is unknown, or the file cannot be written.
    """
    path = Path(path)
    check_suffix(path)
    try:
        with write_whole(path) as temporary, mpl.rc_context({"svg.hashsalt": "tl_attnstats"}):
            figure.savefig(temporary, format=path.suffix[1:].lower(), dpi=dpi, metadata=UNDATED[path.suffix.lower()])
    except OSError as error:
        raise FigureError(f"{path}: cannot be written ({error.strerror or error})") from None
