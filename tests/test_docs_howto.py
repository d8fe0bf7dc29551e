"""The Python of docs/howto runs, page by page, on a small model."""

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
from tests import tiny

PAGES = Path(__file__).parents[1] / "docs" / "howto"
PYTHON = re.compile(r"```python\n(.*?)```", re.DOTALL)
NOT_RUN = "Not run here"
TREEBANK = Path(__file__).parent / "data" / "sample.conllu"


def blocks(page: str) -> list[str]:
    """The Python of a page, without blocks whose paragraph says that they are not run."""
    text = (PAGES / f"{page}.md").read_text(encoding="utf-8")
    found = []
    for match in PYTHON.finditer(text):
        before = text[: match.start()].rstrip().rpartition("\n\n")[2]
        if not before.startswith(NOT_RUN):
            found.append(match[1])
    return found


@pytest.fixture
def run(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, tiny_decoder: Any, nlp: Any) -> Any:
    """Runs all blocks of a page, one after the other, and gives their names."""
    monkeypatch.chdir(tmp_path)
    corpus = ta.Corpus(tiny.sentences(20, seed=3))

    def go(page: str) -> dict[str, Any]:
        names: dict[str, Any] = {"model": tiny_decoder, "corpus": corpus}
        for block in blocks(page):
            exec(block, names)
            plt.close("all")
        return names

    return go


def saved(model: Any, corpus: ta.Corpus) -> ta.AttentionStats:
    stats = ta.collect(model, corpus, progress=False)
    Path("out/demo").mkdir(parents=True)
    stats.save("out/demo/stats.nc")
    return stats


def test_every_page_is_run_here() -> None:
    pages = {path.stem for path in PAGES.glob("*.md")} - {"index"}
    assert pages == {
        name.removeprefix("test_").replace("_", "-") for name in globals() if name[5:].replace("_", "-") in pages
    }
    index = (PAGES / "index.md").read_text(encoding="utf-8")
    assert pages <= set(index.splitlines())
    assert "Not run here" in (PAGES / "large-corpora.md").read_text(encoding="utf-8")


def test_large_corpora(run: Any) -> None:
    texts = [f"The cat {n} sat on the mat and slept." if n % 5 else "Yes." for n in range(100)]
    lines = "".join(json.dumps({"text": text}) + "\n" for text in texts)
    Path("texts.jsonl.gz").write_bytes(gzip.compress(lines.encode()))
    names = run("large-corpora")
    assert len(names["corpus"]) == 100
    assert {sentence.number % 5 == 0 for sentence in names["some"]} == {False}
    assert names["stats"].provenance["sequences"] == 50
    assert not Path("run.nc").exists()
    assert names["whole"].provenance["sequences"] == 100
    assert len(names["given"]) == len(names["repeated"]) == 50


def test_long_texts(run: Any) -> None:
    Path("novel.txt").write_text("The dog barked at the cat because it was bored. " * 30, encoding="utf-8")
    names = run("long-texts")
    assert names["stats"].provenance["sequence_kind"] == "document"
    assert names["stats"].provenance["stride"] == 95  # this model's context has no more than 96 tokens, one is BOS
    assert names["streamed"].provenance["source"] == "streamed"


def test_your_model(run: Any, capsys: Any) -> None:
    names = run("your-model")
    assert capsys.readouterr().out == f"(0, 1, 2) {names['info'].n_heads} True first\n"


def test_languages(run: Any) -> None:
    Path("treebank.conllu").write_bytes(TREEBANK.read_bytes())
    names = run("languages")
    assert any(":" in relation for relation in names["stats"]["relation"].values)
    assert len(names["corpus"]) == 1


def test_gpus(run: Any, monkeypatch: pytest.MonkeyPatch, capsys: Any, smollm2_tokenizer: Any) -> None:
    def load(name: str, device: str, dtype: str = "float32") -> Any:
        assert name == "demo"
        assert device in ("auto", "cpu")
        return tiny.decoder(smollm2_tokenizer).to(getattr(torch, dtype))

    monkeypatch.setattr(ta, "load_model", load)
    run("gpus")
    first, second = (line for line in capsys.readouterr().out.splitlines() if not line.startswith("Changing"))
    assert first == "bfloat16 streamed"
    mean, largest = map(float, re.findall(r"\d+\.\d+", second))
    assert 0 < mean < largest < 1


def test_null_rules(run: Any, capsys: Any) -> None:
    run("null-rules")
    rows = [line.split() for line in capsys.readouterr().out.splitlines()]
    shares = {name: float(share) for name, share, _ in rows}
    assert shares["first"] == pytest.approx(shares["special"])  # this model's only special token is its first, BOS
    assert shares["none"] == 0 < shares["first"]


def test_own_loop(run: Any) -> None:
    names = run("own-loop")
    expected = ta.collect(names["model"], names["corpus"], ["distance", "entropy"], progress=False)
    for stats in (names["stats"], names["again"], names["later"].stats()):
        np.testing.assert_allclose(stats["distance"], expected["distance"], rtol=1e-4)
    np.testing.assert_allclose(names["changed"].sel(layer=0), 0, atol=1e-6)  # a layer's patterns come before its output
    assert abs(names["changed"].sel(layer=1)).max() > 1e-4


def test_patterns(run: Any) -> None:
    names = run("patterns")
    # Rows 2, 3 and 4 reach 2, 3 and 4 content keys evenly with 1 of the first row: distances 1 + 2 + … by hand.
    distances = [sum(range(n)) / (n + 1) for n in range(1, 5)]
    masses = [n / (n + 1) for n in range(1, 5)]
    assert float(names["stats"]["distance"][0, 0]) == pytest.approx(sum(distances) / sum(masses))


def test_figures(run: Any, tiny_decoder: Any) -> None:
    saved(tiny_decoder, ta.Corpus(tiny.sentences(20, seed=3)))
    run("figures")
    for path in ("distance.pdf", "both.pdf", "figures/distance.pdf"):
        assert Path(path).read_bytes().startswith(b"%PDF")
    assert Path("furthest.csv").read_text(encoding="utf-8").startswith("head,distance,se\nL")


def test_stats_file(run: Any, tiny_decoder: Any) -> None:
    stats = saved(tiny_decoder, ta.Corpus(tiny.sentences(20, seed=3)))
    names = run("stats-file")
    np.testing.assert_array_equal(names["distance"], stats["distance"])
    np.testing.assert_allclose(names["se"], stats["distance_se"], rtol=1e-6)
    assert list(names["tags"]) == list(stats["tag"].values)
    names["values"].close()
    names["sums"].close()
