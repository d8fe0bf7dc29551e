"""What the documentation shows in Python runs, and does what it says."""

from __future__ import annotations

import re
from pathlib import Path
from typing import Any

import matplotlib.pyplot as plt
import numpy as np
import pytest

import tl_attnstats as ta
from tests.plotting.made import collected

DOCS = Path(__file__).parents[1] / "docs"
PYTHON = re.compile(r"```python\n(.*?)```", re.DOTALL)


def test_comparison_in_python(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    (code,) = PYTHON.findall((DOCS / "comparison.md").read_text(encoding="utf-8"))
    # An even number of layers, so that no layer stands at half of the depth.
    names: dict[str, Any] = {"ta": ta, "a": collected(n_layers=4), "b": collected(n_layers=6)}
    last: Any = None
    for line in code.splitlines():
        if line.startswith("comparison.dataset"):
            last = eval(line, names)
        else:
            exec(line, names)
    plt.close("all")
    for model, stats in (("gpt2", names["a"]), ("pythia", names["b"])):
        middle = stats["layer"].size // 2
        layers = np.nanmean(stats["distance"].values, axis=1)[middle - 1 : middle + 1]
        assert float(last.sel(model=model)) == pytest.approx(layers.mean())
    assert (tmp_path / "out" / "comparison" / "comparison.html").is_file()
