"""`attnstats report`."""

from __future__ import annotations

from pathlib import Path
from typing import Any

from tests.cli.failing import failure
from tl_attnstats.cli import main


def test_report_writes_the_page_that_run_writes(model_dir: Path, text: Path, tmp_path: Path, capsys: Any) -> None:
    """But for the whole patterns of exemplars, which take the model."""
    out = tmp_path / "out"
    main(["run", str(model_dir), "--text", str(text), "--out", str(out), "--no-patterns"])
    page = out / "report.html"
    written = page.read_bytes()
    for given in (out, out / "stats.nc"):
        page.unlink()
        capsys.readouterr()
        assert main(["report", str(given)]) == 0
        assert capsys.readouterr().out == f"{page}\n"
        assert page.read_bytes() == written
    assert "stats.nc: no such file" in failure(capsys, "report", tmp_path)


def test_a_page_that_cannot_be_written_is_found_before_the_statistics_are_read(tmp_path: Path, capsys: Any) -> None:
    (tmp_path / "stats.nc").write_bytes(b"")
    (tmp_path / "report.html").mkdir()
    assert f"DIR {tmp_path / 'report.html'}: a directory of this name already exists" in failure(
        capsys, "report", tmp_path
    )
