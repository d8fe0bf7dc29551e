"""Write the page of one text to a file, or put it into a notebook."""

from __future__ import annotations

import base64
import hashlib
from collections.abc import Sequence
from dataclasses import dataclass
from html import escape
from pathlib import Path
from typing import TYPE_CHECKING

from jinja2 import Environment, FileSystemLoader, StrictUndefined
from markupsafe import Markup

from tl_attnstats.corpus.files import write_whole
from tl_attnstats.errors import FigureError
from tl_attnstats.views.page.contents import contents

if TYPE_CHECKING:
    from tl_attnstats.views.text_attention import TextAttention

HERE = Path(__file__).parent
STYLES = ("base.css", "page.css")
SCRIPTS = (
    "elements.js",
    "store.js",
    "state.js",
    "model_view.js",
    "head_view.js",
    "neuron_view.js",
    "export.js",
    "main.js",
)


@dataclass(frozen=True)
class Frame:
    """A page in an isolated frame. Notebooks show it where it is the last value of a cell."""

    page: str
    """The page as HTML."""
    height: int

    def _repr_html_(self) -> str:
        # Without `allow-same-origin` the page reaches neither the notebook nor the network's cookies.
        return (
            f'<iframe srcdoc="{escape(self.page)}" sandbox="allow-scripts allow-downloads" '
            f'title="Attention of one text" style="width: 100%; height: {self.height}px; border: 0"></iframe>'
        )


def write(
    attention: TextAttention,
    path: str | Path,
    *,
    layers: Sequence[int] | None = None,
    heads: Sequence[str] | None = None,
) -> None:
    """Write the page, whole or not at all. The same attention gives the same bytes.

    Args:
        attention: the attention of one text.
        path: the HTML file.
        layers: the layers to show; None for all.
        heads: the heads to show ("L8H6"); None for all.

    Raises:
        FigureError: the page would be too large, or cannot be written.
        MetricError: a head does not exist.
        ModelError: a layer is not here.
    """
    page = render(attention, layers=layers, heads=heads)
    try:
        with write_whole(path) as temporary:
            temporary.write_text(page, encoding="utf-8", newline="\n")
    except OSError as error:
        raise FigureError(f"{path}: cannot be written ({error.strerror or error})") from None


def render(attention: TextAttention, *, layers: Sequence[int] | None = None, heads: Sequence[str] | None = None) -> str:
    """The page as HTML. Arguments and errors are those of `write`."""
    environment = Environment(
        loader=FileSystemLoader(HERE), autoescape=True, undefined=StrictUndefined, trim_blocks=True, lstrip_blocks=True
    )
    # `tojson` escapes anything that could end the script element that holds the data.
    environment.policies["json.dumps_kwargs"] = {"ensure_ascii": False, "separators": (",", ":"), "allow_nan": False}
    style, script = (
        "\n".join((HERE / name).read_text(encoding="utf-8") for name in names) for names in (STYLES, SCRIPTS)
    )
    return environment.get_template("page.html.j2").render(
        data=contents(attention, layers, heads),
        style=Markup(style),
        script=Markup(script),
        # The page's policy allows only this script, so text from a corpus can never run.
        script_hash=base64.b64encode(hashlib.sha256(script.encode()).digest()).decode(),
    )
