"""Pages of the site that follow from the code: the statistics with their formulas, and the API by room.

Sphinx loads this as an extension and calls `write` before it reads any page.
"""

from __future__ import annotations

import inspect
import re
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import tl_attnstats as ta
from tl_attnstats.collectors import BUILT_IN
from tl_attnstats.collectors.base import known

# What each part of the API page holds, by module. A public name in none of them fails the build.
ROOMS = {
    "Corpora": "corpus.",
    "Models": "models.",
    "Collecting": ("run", "engines.", "attention.", "results.patterns", "results.interrupted"),
    "Results": "results.",
    "One text": "views.",
    "Statistics": "collectors",
}
MODULES = {
    "errors": "Errors and warnings",
    "plotting": "Figures of statistics",
    "report": "Pages for the browser",
    "views": "Figures of one text",
}


def statistics() -> Iterator[str]:
    """The table of every value that a run gives, from the attributes that it carries."""
    yield "# Every number, with its formula\n"
    yield (
        "The build of this site makes this page from the classes. `w[i,j]` is the attention of query *i* on key *j*. "
        "Sums are over content tokens, unless a formula says otherwise: null tokens are no keys, and rows of null "
        "queries do not count. `collect(metrics=[…])` takes the name in the heading; "
        "`stats[…]` takes the names below it.\n"
    )
    values = _values()
    for name in BUILT_IN:
        collector = known(name)
        default = "" if name in ta.DEFAULT_METRICS else " It is collected only by name."
        yield f"\n## `{name}`\n\n{_docstring(collector)}{default}\n"
        yield f"Class {{py:class}}`tl_attnstats.{collector.__name__}`.\n"
        for value, attributes in values.get(name, {}).items():
            yield _entry(value, attributes)


def _docstring(thing: Any) -> str:
    """The docstring up to its arguments."""
    return (inspect.getdoc(thing) or "").partition("\nArgs:")[0].strip()


def _entry(value: str, attributes: dict[str, str]) -> str:
    lines = [f"\n`{value}`", f": {attributes.get('long_name', '')} ({attributes.get('units', 'no unit')})"]
    if formula := attributes.get("formula"):
        lines.append(f"\n  `{formula}`")
    if reference := attributes.get("reference"):
        lines.append(f"\n  {reference}")
    return "\n".join(lines) + "\n"


def _values() -> dict[str, dict[str, dict[str, str]]]:
    """The attributes of each value of each statistic, from a run over two sentences."""
    model = ta.load_model("demo")
    corpus = ta.Corpus.from_texts(["The dog chased the cat because it barked.", "The cat saw the dog again."])
    values = {}
    for name in BUILT_IN:
        dataset = ta.collect(model, corpus, [name], layers=[0], progress=False).dataset
        values[name] = {
            str(value): dict(array.attrs)
            for value, array in dataset.data_vars.items()
            if not str(value).endswith(("_se", "_replicates"))
        }
    return values


def api() -> Iterator[str]:
    """Every public name."""
    yield "# Python\n"
    yield "```python\nimport tl_attnstats as ta\n```\n"
    left = set(ta.__all__) - set(MODULES)
    for title, prefixes in ROOMS.items():
        found = sorted(n for n in left if _module(n).startswith(prefixes))
        left -= set(found)
        yield f"\n## {title}\n"
        yield from (_directive(name) for name in found)
    if left:
        raise ValueError(f"public names in no room of docs/generated.py: {', '.join(sorted(left))}")
    for name, title in MODULES.items():
        yield f"\n## {title}\n"
        yield f"```{{eval-rst}}\n.. automodule:: tl_attnstats.{name}\n   :members:\n   :imported-members:\n```\n"


def _module(name: str) -> str:
    found = getattr(ta, name)
    return str(getattr(found, "__module__", "tl_attnstats.collectors")).removeprefix("tl_attnstats.")


def _directive(name: str) -> str:
    kind = "autoclass" if inspect.isclass(getattr(ta, name)) else "autofunction"
    kind = kind if callable(getattr(ta, name)) else "autodata"
    members = "   :members:\n" if kind == "autoclass" else ""
    return f"```{{eval-rst}}\n.. {kind}:: tl_attnstats.{name}\n{members}```\n"


def docstring(app: Any, what: str, name: str, thing: Any, options: Any, lines: list[str]) -> None:
    """Turn the Markdown of docstrings, backticks and fences, into what Sphinx reads."""
    made, fenced = [], False
    for line in lines:
        if line.lstrip().startswith("```"):
            fenced = not fenced
            made += ["", line[: len(line) - len(line.lstrip())] + "::", ""] if fenced else [""]
        elif fenced:
            made.append(f"    {line}")
        else:
            made.append(re.sub(r"(?<!`)`([^`]+)`(?!`)", r"``\1``", line).replace("|", "\\|"))
    lines[:] = made


def write(app: Any) -> None:
    """Write the pages, where they differ from what is there."""
    folder = Path(app.srcdir) / "reference"
    for name, lines in (("statistics", statistics()), ("python", api())):
        text, path = "\n".join(lines), folder / f"{name}.md"
        if not path.exists() or path.read_text(encoding="utf-8") != text:
            path.write_text(text, encoding="utf-8")


def setup(app: Any) -> dict[str, bool]:
    """Tell Sphinx."""
    app.connect("builder-inited", write)
    app.connect("autodoc-process-docstring", docstring, priority=400)  # before napoleon finds arguments
    return {"parallel_read_safe": True}
