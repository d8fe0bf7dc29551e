"""Build the page of a comparison."""

from __future__ import annotations

import base64
from collections import Counter
from pathlib import Path
from typing import Any

from markupsafe import Markup

from tl_attnstats.corpus.untrusted import cell
from tl_attnstats.plotting.compare import comparison_figures, stems
from tl_attnstats.report.build import BASE, ELEMENTS, hash_of, joined, provenance_of, template, write_text
from tl_attnstats.report.components import components
from tl_attnstats.report.contents import colours, on_map, said_of
from tl_attnstats.results.claims import Verdict, layer_count
from tl_attnstats.results.compare import Comparison
from tl_attnstats.results.counterparts import TITLE
from tl_attnstats.results.numbers import with_error
from tl_attnstats.results.ranking import DOUBT

SCRIPTS = (ELEMENTS, "numbers.js", "page.js", "filter.js", "map.js", "compare.js")
STYLE_SHEETS = (BASE, "style.css", "map.css")
PAGE, TABLE = "comparison.html", "claims.csv"
MARKS: dict[Verdict, str] = {"holds": "✓", "does not hold": "✗", "undecided": "?", "error unknown": "", "no value": ""}
ATTENTION = {"causal": "back only", "bidirectional": "both ways"}
NULL = {"first": "first position", "special": "special tokens", "none": "none"}


def write_comparison(comparison: Comparison, directory: str | Path) -> list[Path]:
    """Write a comparison: the page comparison.html, its figures as PNG, and the table claims.csv.

    The page embeds its figures; a script draws the map of heads. The same comparison gives the same bytes.

    Args:
        comparison: the result of `ta.compare`.
        directory: the output directory; it is created if necessary.

    Returns:
        The files, the page first.

    Raises:
        StatsError, FigureError: a file cannot be written.
    """
    directory = Path(directory)
    table = comparison.claims_table().apply(lambda column: column.map(cell))
    write_text(table.to_csv(index=False, lineterminator="\n"), directory / TABLE)
    figures = comparison_figures(comparison, directory)
    write_text(render(comparison, figures), directory / PAGE)
    return [directory / PAGE, directory / TABLE, *figures.values()]


def render(comparison: Comparison, figures: dict[str, Path]) -> str:
    """The page as HTML, with its figures embedded."""
    script = joined(SCRIPTS)
    return template("compare.html.j2").render(
        title=" and ".join(filter(None, [", ".join(comparison.models[:-1]), comparison.models[-1]])),
        models=comparison.models,
        runs=_runs(comparison),
        notes=comparison.notes,
        summary=[_summary(comparison, model) for model in comparison.models],
        claims=list(zip(*comparison.claims.values(), strict=True)),
        counterparts=list(comparison.counterparts.values()),
        beyond=TITLE if any(comparison.counterparts.values()) else "",
        marks=MARKS,
        doubt=DOUBT,
        claims_figure=_embedded(figures["claims"]),
        sections=[_section(comparison, name, figures) for name in comparison.statistics],
        provenance={model: provenance_of(of) for model, of in comparison.stats.items()},
        style=Markup(joined(STYLE_SHEETS)),
        data=_on_map(comparison),
        script_hash=hash_of(script),
        script=Markup(script),
    )


def _on_map(comparison: Comparison) -> dict[str, Any]:
    """The heads of all models for the map; models are named as in the comparison."""
    found = components(list(comparison.stats.values()))
    scores: list[Any] = [None] * len(comparison.models) if found is None else found.scores
    places = zip(comparison.stats.items(), scores, strict=True)
    models = [on_map(of, place) | {"model": name} for (name, of), place in places]
    return {"models": models, "components": said_of(found), "colours": colours()}


def _runs(comparison: Comparison) -> dict[str, list[Any]]:
    """Properties of the models and their runs: one row per property, one value per model."""
    runs: dict[str, list[Any]] = {}
    for of in comparison.stats.values():
        p = of.provenance
        values = {
            "layers × heads": f"{layer_count(of)} × {of['head'].size}",
            "looks": ATTENTION.get(str(p.get("attention")), "unknown"),
            "null tokens": NULL.get(str(p.get("null")), str(p.get("null"))),
            "sequence": p.get("special_tokens", "…"),
            "sequences": f"{p['sequences']:,}",
            "tokens": f"{p['tokens']:,}",
        }
        for name, value in values.items():
            runs.setdefault(name, []).append(value)
    return runs


def _summary(comparison: Comparison, model: str) -> str:
    """Counts of the verdicts: "5 hold, 2 do not hold, 1 undecided"."""
    counts = Counter(claim.verdict for claim in comparison.claims[model])
    words = {
        "holds": "hold",
        "does not hold": "do not hold",
        "undecided": "undecided",
        "error unknown": "of unknown error",
    }
    return ", ".join(f"{counts[verdict]} {words.get(verdict, verdict)}" for verdict in MARKS if counts[verdict])


def _section(comparison: Comparison, name: str, figures: dict[str, Path]) -> dict[str, Any]:
    """The section of a statistic: its figures, and a table of means with one row per label."""
    attrs = comparison.stats[comparison.models[0]][name].attrs
    shown = [
        (f"{stem.replace('_', ' ')} {words}", figures[f"{stem}_{kind}"])
        for stem in stems(comparison, name).values()
        for kind, words in (("by_depth", "by relative depth"), ("heads", "of every head"))
    ] or [(f"{name}: mean and largest head of each label", figures[name])]
    means = comparison.means[comparison.means["statistic"] == name]
    rows = {
        label: [_mean(row) for row in means[means["label"] == label].itertuples()]
        for label in comparison.labels_of(name)
    }
    return {
        "title": attrs.get("long_name", name),
        "unit": attrs.get("units", ""),
        "formula": attrs.get("formula", ""),
        "figures": [(words, _embedded(path)) for words, path in shown],
        "rows": rows,
        "folded": name in figures,
    }


def _mean(row: Any) -> tuple[str, str]:
    """Mean over heads with its error, and the spread of the heads."""
    return with_error(row.mean, row.se), f"SD {row.std:.2g}, {row.min:.2g} to {row.max:.2g}"


def _embedded(path: Path) -> Markup:
    return Markup("data:image/png;base64,") + base64.b64encode(path.read_bytes()).decode()
