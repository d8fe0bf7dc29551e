"""The scripts in examples/ run, and print the right values."""

from __future__ import annotations

import runpy
from pathlib import Path
from typing import Any

import pytest

import tl_attnstats as ta

EXAMPLES = Path(__file__).parents[1] / "examples"
TEXT = (
    "The cat sat on the mat near Zürich. Dogs bark at 7 cats.\nIt was late, and she saw the old house of NATO again.\n"
)


@pytest.mark.parametrize("kind", ["decoder", "encoder"])
def test_reproduce_vig_belinkov(
    kind: str, tiny_decoder: Any, tiny_encoder: Any, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: Any
) -> None:
    model = {"decoder": tiny_decoder, "encoder": tiny_encoder}[kind]
    (tmp_path / "text.txt").write_text(TEXT, encoding="utf-8")
    monkeypatch.setattr(ta, "load_model", lambda name: {"a-model": model}[name])
    script = runpy.run_path(str(EXAMPLES / "reproduce_vig_belinkov.py"))
    script["main"](["a-model", "--text", str(tmp_path / "text.txt")])
    printed = capsys.readouterr().out
    rows = [[cell.strip() for cell in line.strip("|").split("|")] for line in printed.splitlines() if "|" in line]
    corpus = ta.Corpus.from_text_file(tmp_path / "text.txt")
    stats = ta.collect(model, corpus, prepend_bos=False, progress=False)
    here = {row[0]: row[2] for row in rows}
    assert here["sentences"] == "3"
    null_share = float(here["null share, mean over heads"].split()[0])
    assert null_share == pytest.approx(float(stats["null_share"].mean()), abs=0.005)
    best = stats.top_heads("dependency_alignment", direction="either").iloc[0]
    expected = f"{best['dependency_alignment']:.3f} ± {best['se']:.3f} ({best['head']})"
    assert here["largest dependency alignment"] == expected
    layer = int(stats.by_layer("distance")["mean"].idxmax())
    assert here["layer that looks furthest"] == f"{layer} (of 0 to 2)"
    lengths = [abs(span) for span, n in dependencies(stats).items() for _ in range(n)]
    assert here["mean length of a dependency, in tokens"] == f"{sum(lengths) / len(lengths):.2f}"
    verdicts = [row[3] for row in rows if len(row) == 4][2:]
    assert verdicts == [claim.verdict for claim in ta.claims_of(stats)]


def dependencies(stats: ta.AttentionStats) -> dict[int, int]:
    """Number of dependencies of each length: the share of pairs times the number of pairs."""
    state = stats.state["baselines"]
    shares = stats["dependency_by_distance"].values
    pairs = state["dependency_by_distance_b"].values
    return {span: round(share * n) for span, (share, n) in enumerate(zip(shares, pairs, strict=True)) if n}
