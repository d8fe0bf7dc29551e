from __future__ import annotations

from pathlib import Path

import matplotlib as mpl
import pytest
from matplotlib.figure import Figure

from tests.views.inputs import attention
from tl_attnstats.errors import FigureError
from tl_attnstats.plotting.save import save
from tl_attnstats.views import head_view, model_view

MAGIC = {".svg": b"<?xml", ".png": b"\x89PNG", ".pdf": b"%PDF"}


@pytest.mark.parametrize("suffix", [*MAGIC, ".SVG"])
def test_save_writes_the_format_of_the_suffix_and_the_same_bytes_again(suffix: str, tmp_path: Path) -> None:
    style = dict(mpl.rcParams)
    written = []
    for name in ("first", "second"):
        path = tmp_path / "new" / f"{name}{suffix}"
        save(model_view(attention())[0], path)
        save(head_view(attention(), "L0H0")[0], path.with_stem(f"{name}-head"))
        written.append(path.read_bytes() + path.with_stem(f"{name}-head").read_bytes())
    assert written[0].startswith(MAGIC[suffix.lower()])
    assert written[0] == written[1]
    assert b"<dc:date>" not in written[0]
    assert dict(mpl.rcParams) == style


def test_save_takes_the_resolution(tmp_path: Path) -> None:
    figure = Figure(figsize=(2, 1))
    sizes = []
    for dpi in (50, 100):
        save(figure, tmp_path / "figure.png", dpi)
        sizes.append(mpl.image.imread(tmp_path / "figure.png").shape[:2])
    assert sizes == [(50, 100), (100, 200)]


@pytest.mark.parametrize("name", ["figure.jpg", "figure", "figure.svgz", "figure."])
def test_save_refuses_other_suffixes(name: str, tmp_path: Path) -> None:
    with pytest.raises(FigureError, match=r"got the suffix '.*', expected one of \.pdf, \.png, \.svg"):
        save(Figure(), tmp_path / name)
    assert not list(tmp_path.iterdir())


def test_save_leaves_the_old_file_when_drawing_fails(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    path = tmp_path / "figure.svg"
    path.write_text("old")
    figure = Figure()

    def fail(file: Path, **kwargs: object) -> None:
        file.write_text("half")
        raise OSError(28, "No space left on device")

    monkeypatch.setattr(figure, "savefig", fail)
    with pytest.raises(FigureError, match=r"figure\.svg: cannot be written \(No space left on device\)"):
        save(figure, path)
    assert path.read_text() == "old"
    assert [file.name for file in tmp_path.iterdir()] == ["figure.svg"]
