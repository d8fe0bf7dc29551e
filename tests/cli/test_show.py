"""`attnstats show`."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import tl_attnstats as ta
from tl_attnstats.cli import main


def test_show_prints_tables_and_marked_exemplars(model_dir: Path, text: Path, tmp_path: Path, capsys: Any) -> None:
    out = tmp_path / "out"
    main(["run", str(model_dir), "--text", str(text), "--out", str(out)])
    stats = ta.load(out / "stats.nc")
    capsys.readouterr()
    assert main(["show", str(out)]) == 0
    shown = capsys.readouterr().out
    assert f"{stats['null_share'].mean():.3f}" in shown
    assert "r(distance, entropy)" in shown
    assert main(["show", str(out / "stats.nc"), "--head", "L1H0"]) == 0
    shown = capsys.readouterr().out
    assert f"{stats['distance'].sel(layer=1, head=0).item():.4f}" in shown
    best = stats.exemplars("L1H0").iloc[0]
    assert f"[{best['query_text'].strip()}" in shown or f"[{{{best['query_text'].strip()}" in shown
    assert main(["show", str(out), "--top", "pos_to", "--label", "NOUN", "-n", "2"]) == 0
    top = stats.top_heads("pos_to", tag="NOUN", n=2)
    shown = capsys.readouterr().out
    assert all(head in shown for head in top["head"])
