"""The command line on an encoder–decoder: a directory for each stream of attention."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest

import tl_attnstats as ta
from tests import tiny
from tests.cli.failing import failure
from tl_attnstats.cli import main


@pytest.fixture(scope="module")
def model(tmp_path_factory: Any, minilm_tokenizer: Any) -> Path:
    """A tiny encoder–decoder as `save_pretrained` writes it: three layers, two in the decoder."""
    directory = Path(tmp_path_factory.mktemp("models")) / "tiny-t5"
    tiny.encoder_decoder("T5ForConditionalGeneration", minilm_tokenizer).save_pretrained(directory)
    minilm_tokenizer.save_pretrained(directory)
    return directory


@pytest.fixture(scope="module")
def corpus(tmp_path_factory: Any) -> Path:
    path = Path(tmp_path_factory.mktemp("corpus")) / "corpus"
    ta.Corpus(tiny.sentences(6, seed=9)).to_file(path)
    return path


def test_run_writes_a_directory_for_each_stream(model: Path, corpus: Path, tmp_path: Path, capsys: Any) -> None:
    capsys.readouterr()
    run = ["run", str(model), "--corpus", str(corpus), "--out", str(tmp_path)]
    assert main([*run, "--metrics", "distance,null_share,exemplars", "--exclude-self"]) == 0
    captured = capsys.readouterr()
    assert captured.err == ""
    assert "cross: without distance (undefined between two sequences)" in captured.out
    found = {path.parent.name: ta.load(path) for path in tmp_path.glob("*/stats.nc")}
    assert {name: stats.provenance["stream"] for name, stats in found.items()} == {
        name: name for name in ("encoder", "decoder", "cross")
    }
    assert [found[name].statistics for name in ("decoder", "cross")] == [["distance", "null_share"], ["null_share"]]
    assert found["encoder"].dataset.sizes["layer"] == 3
    assert found["cross"].dataset.sizes["layer"] == 2
    assert main(["show", str(tmp_path / "cross"), "--head", "L1H0"]) == 0
    shown = capsys.readouterr().out
    assert "L1H0: layer 1, head 0 of tiny-t5 cross-attention" in shown
    assert "[attending token, the decoder's] {receiving token, the encoder's}" in shown
    page = (tmp_path / "cross" / "report.html").read_text()
    assert "attending token, the decoder" in page
    assert "tiny-t5 cross-attention" in page
    assert main(["report", str(tmp_path / "cross")]) == 0
    line = failure(capsys, "show", tmp_path)
    assert f"has a directory for each stream of attention; choose one: {tmp_path / 'encoder'}" in line


def test_run_of_one_stream(model: Path, corpus: Path, tmp_path: Path, capsys: Any) -> None:
    run = ["run", str(model), "--corpus", str(corpus), "--out", str(tmp_path), "--stream", "cross"]
    assert main([*run, "--metrics", "entropy", "--null", "none"]) == 0
    assert [path.name for path in tmp_path.iterdir()] == ["cross"]
    assert ta.load(tmp_path / "cross" / "stats.nc").provenance["null"] == "none"
    assert "metrics: got distance, undefined for cross-attention as set" in failure(
        capsys, *run, "--metrics", "distance"
    )


def test_a_layer_that_a_stream_lacks_is_answered_before_anything_runs(
    model: Path, corpus: Path, tmp_path: Path, capsys: Any
) -> None:
    line = failure(capsys, "run", model, "--corpus", corpus, "--out", tmp_path, "--layers", "2")
    assert "layers: got [2], expected some of 0 to 1" in line
    assert list(tmp_path.iterdir()) == []


def test_models_and_view_say_what_there_is(model: Path, tmp_path: Path, capsys: Any) -> None:
    capsys.readouterr()
    assert main(["models", str(model)]) == 0
    lines = [" ".join(line.split()) for line in capsys.readouterr().out.splitlines()]
    assert [line for line in lines if line.startswith("tiny-t5")] == [
        "tiny-t5, encoder",
        "tiny-t5, decoder",
        "tiny-t5, cross-attention",
    ]
    assert lines.count("layers with attention 0 to 1, of 2") == 2
    assert "reads [PAD] [CLS] …, and looks at [CLS] … [SEP]" in lines
    assert "hooks decoder_blocks.{layer}.cross_attn.hook_pattern" in lines
    line = failure(capsys, "view", "the cat", "--model", model, "--out", tmp_path / "view.svg")
    assert "figures draw one text, not cross-attention" in line
