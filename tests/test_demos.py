"""The notebook for TransformerLens is what its source says, and its cells run, on the demo's model."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest

DEMOS = Path(__file__).parents[1] / "demos"
BOOT = 'TransformerBridge.boot_transformers("gpt2", device=device)'


@pytest.fixture
def source() -> Any:
    jupytext = pytest.importorskip("jupytext")
    return jupytext.read(DEMOS / "attention_statistics.md", fmt="md:myst")


@pytest.fixture
def written() -> Any:
    nbformat = pytest.importorskip("nbformat")
    return nbformat.read(DEMOS / "attention_statistics.ipynb", as_version=4)


def test_the_notebook_is_what_its_source_says(source: Any, written: Any) -> None:
    cells = [[(cell.cell_type, cell.source) for cell in notebook.cells] for notebook in (source, written)]
    assert cells[0] == cells[1], "run `make upstream`"
    assert all(not cell.get("outputs") for cell in written.cells)


def test_it_has_the_form_of_the_demos_there(written: Any) -> None:
    first, *rest = written.cells
    assert "colab-badge.svg" in first.source
    assert "demos/attention_statistics.ipynb" in first.source
    setup = next(cell.source for cell in rest if cell.cell_type == "code")
    assert "IN_COLAB" in setup
    assert "IN_GITHUB" in setup
    assert "%pip install transformer_lens tl-attnstats" in setup
    assert sum(BOOT in cell.source for cell in rest) == 1


@pytest.mark.slow
def test_its_cells_run(written: Any, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    nbclient = pytest.importorskip("nbclient")
    monkeypatch.delenv("GITHUB_ACTIONS", raising=False)  # there it would install itself
    for cell in written.cells:
        cell.source = cell.source.replace(BOOT, 'ta.load_model("demo")').replace("else 650", "else 30")
    client = nbclient.NotebookClient(
        written, timeout=300, kernel_name="python3", resources={"metadata": {"path": str(tmp_path)}}
    )
    client.execute()
    printed = "".join(
        output.text
        for cell in written.cells
        if cell.cell_type == "code"
        for output in cell.outputs
        if output.output_type == "stream"
    )
    assert "30 sentences" in printed
    assert "attention to the first token: 0." in printed
    assert "largest change in a later head's induction score: 0." in printed
