"""Run every script of the gallery, and write its page: `make gallery`, after `make demo`."""

import ast
import runpy
from pathlib import Path

HERE = Path(__file__).parent
ORDER = [
    "heatmap",
    "pos_grid",
    "alignment_by_layer",
    "alignment_excess",
    "relations_by_layer",
    "relations",
    "behaviours",
    "sinks",
    "norms",
    "scatter",
    "offset_profile",
    "head_card",
    "head_view",
    "model_view",
    "neuron_view",
    "page",
]


def main() -> None:
    """Run them all and write the page."""
    page = [
        "# Gallery",
        "",
        "Figures of SmolLM2-135M on the bundled sample: `make demo gallery` makes them all, this page included.",
    ]
    for name in ORDER:
        script = HERE / f"{name}.py"
        print(script.name)
        runpy.run_path(str(script))
        module = ast.parse(script.read_text(encoding="utf-8"))
        title, _, more = (ast.get_docstring(module) or "").partition("\n\n")
        code = script.read_text(encoding="utf-8").split('"""\n\n', 1)[1].strip()
        page += [
            "",
            f"## {title}",
            "",
            *([more, ""] if more else []),
            "```python",
            code,
            "```",
            "",
            f"![{name}]({name}.png)",
        ]
    (HERE / "README.md").write_text("\n".join(page) + "\n", encoding="utf-8")


if __name__ == "__main__":
    main()
