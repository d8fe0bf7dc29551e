from __future__ import annotations

import re
from pathlib import Path
from typing import Any
from xml.etree import ElementTree

import matplotlib.pyplot as plt
import pytest

import tl_attnstats as ta
from tests.plotting.made import collected, null_heads
from tl_attnstats.errors import FigureError
from tl_attnstats.plotting import paper_figures

ALL = {
    "null_share", "distance", "entropy", "variability", "sink_share", "sink_rate",
    "dependency_alignment_from_parent", "dependency_alignment_to_parent", "dependency_alignment_either",
    "alignment_by_layer", "pos_to", "pos_from", "relations_by_layer",
    "distance_entropy", "distance_dependency_alignment", "entropy_variability", "offset_profile",
    "behaviours", "sinks", "alignment_excess",
}  # fmt: skip


def names(paths: list[Path]) -> set[str]:
    return {path.stem for path in paths if not path.stem.startswith("head_")}


def test_paper_figures_writes_the_whole_set(tmp_path: Path) -> None:
    paths = paper_figures(collected(n_sentences=12), tmp_path / "new" / "figures")
    assert sorted(paths) == sorted((tmp_path / "new" / "figures").iterdir())
    assert names(paths) == ALL
    assert len(paths) == 2 * (len(ALL) + 1)
    (card,) = {path.stem for path in paths if path.stem.startswith("head_")}
    assert re.fullmatch(r"head_L[0-2]H[0-3]", card)
    for path in paths:
        if path.suffix == ".png":
            assert path.read_bytes().startswith(b"\x89PNG")
        else:
            assert ElementTree.parse(path).getroot().tag.endswith("svg")
    assert not plt.get_fignums()


@pytest.mark.slow
def test_paper_figures_gives_the_same_bytes_for_the_same_statistics(tmp_path: Path) -> None:
    stats = collected()
    stats.save(tmp_path / "stats.nc")
    first = paper_figures(stats, tmp_path / "a")
    second = paper_figures(ta.load(tmp_path / "stats.nc"), tmp_path / "b")
    assert [path.name for path in first] == [path.name for path in second]
    for a, b in zip(first, second, strict=True):
        assert a.read_bytes() == b.read_bytes(), a.name
    svg = next(path for path in first if path.suffix == ".svg").read_text()
    assert "<dc:date>" not in svg


@pytest.mark.parametrize(
    ("metrics", "expected"),
    [
        (["distance"], {"distance"}),
        (["baselines"], set()),
        (["pos_from"], {"pos_from"}),
        (["exemplars"], set()),
        (["dep_to", "offset_profile"], {"relations_by_layer"}),
        (["behaviour"], {"behaviours"}),
        (["sinks"], {"sink_share", "sink_rate", "sinks"}),
        (["position"], set()),
        (["relation_accuracy"], set()),  # of six sentences there are too few pairs
        (["distance", "entropy"], {"distance", "entropy", "distance_entropy"}),
    ],
)
def test_paper_figures_draws_what_the_file_allows(tmp_path: Path, metrics: list[str], expected: set[str]) -> None:
    assert names(paper_figures(collected(metrics=metrics), tmp_path, formats="svg")) == expected


@pytest.mark.parametrize("n_heads", [2, 4])
def test_paper_figures_draws_models_with_few_or_no_values(tmp_path: Path, n_heads: int) -> None:
    drawn = names(paper_figures(null_heads(n_heads, metrics=None), tmp_path, formats=["png"]))
    assert {"distance", "pos_to", "alignment_by_layer", "relations_by_layer"} <= drawn
    assert "distance_entropy" not in drawn  # two heads or fewer have no correlation


def test_paper_figures_picks_no_doubtful_head_by_its_value(tmp_path: Path) -> None:
    stats = collected(metrics=["distance", "null_share"])
    stats.dataset["distance"].values[1, 1] = 99
    stats.dataset["null_share"].values[1, 1] = 0.95
    stats.dataset["distance"].values[2, 2] = 50
    stats.dataset["null_share"].values[2, 2] = 0.5
    paths = paper_figures(stats, tmp_path, formats="png")
    assert [path.name for path in paths if path.name.startswith("head_")] == ["head_L2H2.png"]


def test_paper_figures_refuses_unknown_formats_before_it_draws(tmp_path: Path) -> None:
    with pytest.raises(FigureError, match=r"got the suffix '\.jpeg', expected one of \.pdf, \.png, \.svg"):
        paper_figures(collected(metrics=["distance"]), tmp_path, formats=("png", "jpeg"))
    assert not list(tmp_path.iterdir())


def test_paper_figures_closes_its_figures_when_it_fails(tmp_path: Path) -> None:
    mine: Any = plt.figure()
    (tmp_path / "file").write_text("in the way")
    with pytest.raises(FigureError, match="cannot be written"):
        paper_figures(collected(metrics=["distance"]), tmp_path / "file")
    assert plt.get_fignums() == [mine.number]


def test_paper_figures_of_a_real_model(tmp_path: Path, tiny_encoder: Any, tiny_decoder: Any) -> None:
    from tests import tiny

    for model in (tiny_encoder, tiny_decoder):
        stats = ta.collect(model, ta.Corpus(tiny.sentences(8)), progress=False)
        assert names(paper_figures(stats, tmp_path, formats="svg")) == ALL
