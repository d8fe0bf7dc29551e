"""What the documentation shows in Python runs, and does what it says."""

from __future__ import annotations

import gzip
import json
import re
from pathlib import Path
from typing import Any

import matplotlib.pyplot as plt
import numpy as np
import pytest
import torch

import tl_attnstats as ta
from tests.plotting.made import collected

DOCS = Path(__file__).parents[1] / "docs"
README = DOCS.parent / "README.md"
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


def test_large_corpora_and_token_ids(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, tiny_decoder: Any) -> None:
    monkeypatch.chdir(tmp_path)
    texts = [f"The cat {n} sat on the mat and slept." if n % 8 else "Yes." for n in range(120)]
    lines = "".join(json.dumps({"text": text}) + "\n" for text in texts)
    Path("texts.jsonl.gz").write_bytes(gzip.compress(lines.encode()))
    section = README.read_text(encoding="utf-8").partition("## Large corpora, and token ids")[2]
    names: dict[str, Any] = {"ta": ta, "torch": torch, "model": tiny_decoder}
    exec(PYTHON.findall(section)[0], names)
    assert len(names["corpus"]) == 120
    assert sum(part.provenance["sequences"] for part in names["parts"]) == 120
    assert len(names["some"]) == 100
    assert {number % 8 == 0 for number in (s.number for s in names["some"])} == {False}
    assert len(names["repeated"]) == 50
