"""Build the report page from statistics."""

from __future__ import annotations

import base64
import hashlib
import json
from collections.abc import Iterable
from pathlib import Path
from typing import Any

from jinja2 import Environment, FileSystemLoader, StrictUndefined, Template
from markupsafe import Markup

from tl_attnstats.corpus.files import write_whole
from tl_attnstats.errors import StatsError
from tl_attnstats.report.contents import contents
from tl_attnstats.results.findings import findings
from tl_attnstats.results.marking import STYLES
from tl_attnstats.results.stats import AttentionStats
from tl_attnstats.results.whole import WholePatterns

HERE = Path(__file__).parent
SHARED = HERE.parent / "views" / "page"
BASE = str(SHARED / "base.css")  # colours and type, as on the page of one text
ELEMENTS = str(SHARED / "elements.js")
SCRIPTS = (ELEMENTS, "numbers.js", "page.js", "filter.js", "map.js", "overview.js", "exemplars.js", "card.js")
STYLE_SHEETS = (BASE, "style.css", "report.css", "map.css")
SHOWN_FIRST = ("model", "corpus", "sequences", "tokens", "partial", "attention", "null", "special_tokens")
# Needed for merging only.
NOT_SHOWN = ("numbering", "shards")


def write(stats: AttentionStats, path: str | Path, *, patterns: WholePatterns | None = None) -> None:
    """Write the report: findings, a heatmap and a table of every statistic, and a card for each head.

    The same statistics give the same bytes. Statistics that were not collected are left out.

    Args:
        stats: the statistics.
        path: the HTML file.
        patterns: the whole patterns of the exemplars, from `ta.exemplar_patterns`; None leaves them out.

    Raises:
        StatsError: the file cannot be written.
    """
    write_text(render(stats, patterns), Path(path))


def write_text(text: str, path: Path) -> None:
    """Write a file, whole or not at all. Raises `StatsError` if it cannot be written."""
    try:
        with write_whole(path) as temporary:
            temporary.write_text(text, encoding="utf-8", newline="\n")
    except OSError as error:
        raise StatsError(f"{path}: cannot be written ({error.strerror or error})") from None


def template(name: str) -> Template:
    """Load a template from this directory, with autoescaping."""
    environment = Environment(
        loader=FileSystemLoader(HERE), autoescape=True, undefined=StrictUndefined, trim_blocks=True, lstrip_blocks=True
    )
    # `tojson` escapes anything that could end the script element that holds the data.
    environment.policies["json.dumps_kwargs"] = {"ensure_ascii": False, "separators": (",", ":"), "allow_nan": False}
    return environment.get_template(name)


def joined(names: Iterable[str]) -> str:
    """Files one after the other: of this directory, or given by their whole path."""
    return "\n".join((HERE / name).read_text(encoding="utf-8") for name in names)


def hash_of(script: str) -> str:
    """What a page's policy names the only script by that it allows."""
    return base64.b64encode(hashlib.sha256(script.encode()).digest()).decode()


def render(stats: AttentionStats, patterns: WholePatterns | None = None) -> str:
    """The report as HTML."""
    script = joined(SCRIPTS)
    data = contents(stats, patterns)
    return template("report.html.j2").render(
        data=data,
        without_error=[statistic["title"] for statistic in data["statistics"] if statistic["errors"] is None],
        findings=findings(stats),
        extent=stats.extent,
        provenance=provenance_of(stats),
        # The page's policy allows only this script, so text from a corpus can never run.
        script_hash=hash_of(script),
        script=Markup(script),
        style=Markup(joined(STYLE_SHEETS)),
        marks={token: Markup(css) for token, css in STYLES.items()},
    )


def provenance_of(stats: AttentionStats) -> dict[str, Any]:
    """The provenance with readable names, most important entries first."""
    given = stats.provenance
    names = [*SHOWN_FIRST, *(name for name in sorted(given) if name not in (*SHOWN_FIRST, *NOT_SHOWN))]
    shown = {name.replace("_", " "): given[name] for name in names if given.get(name, "") != ""}
    for name in ("settings", "versions"):
        if name in shown:
            shown[name] = _phrase(json.loads(shown[name]))
    return shown


def _phrase(entries: dict[str, Any]) -> str:
    """`{"a": {"x": 1}, "b": {}, "c": "2"}` as "a (x 1), b, c 2"."""
    phrases = []
    for name, value in entries.items():
        if isinstance(value, dict):
            phrases.append(f"{name} ({_phrase(value)})" if value else name)
        else:
            phrases.append(f"{name} {json.dumps(value) if isinstance(value, bool) else value}")
    return ", ".join(phrases)
