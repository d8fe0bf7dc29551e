"""Python code in the documentation runs, and does what the text says."""

from __future__ import annotations

import os
import re
import runpy
import shutil
import warnings
from pathlib import Path
from typing import Any

import matplotlib.pyplot as plt
import numpy as np
import pytest
import xarray as xr
from transformer_lens.model_bridge import TransformerBridge

import tl_attnstats as ta
from tests import tiny
from tests.plotting.made import collected
from tl_attnstats.collectors.base import REGISTRY

DOCS = Path(__file__).parents[1] / "docs"
README = DOCS.parent / "README.md"
PYTHON = re.compile(r"```python\n(.*?)```", re.DOTALL)


# Run by tests here, in test_docs_files, tests/engines and tests/views. The site's build runs tutorials and concepts.
RUN = {"architecture", "clusters", "comparison", "files", "findings", "page", "reliability"}


def test_python_is_only_on_pages_that_are_run() -> None:
    pages = {path.relative_to(DOCS).with_suffix("").as_posix(): path for path in DOCS.rglob("*.md")}
    written = {name for name, path in pages.items() if PYTHON.search(path.read_text(encoding="utf-8"))}
    assert {name for name in written if not name.startswith(("gallery/", "howto/", "reference/"))} == RUN


@pytest.mark.slow
def test_comparison_in_python(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    (code,) = PYTHON.findall((DOCS / "comparison.md").read_text(encoding="utf-8"))
    # An even number of layers, so that no layer is at half the depth.
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


TEXT = "The dog barked at the cat in Zürich because it was bored.\nShe saw the old house of Mary again, at last.\n"


def test_the_python_of_the_readme_runs(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, smollm2_tokenizer: Any) -> None:
    monkeypatch.chdir(tmp_path)
    model = tiny.decoder(smollm2_tokenizer, n_layers=12, n_heads=12)
    monkeypatch.setattr(TransformerBridge, "boot_transformers", lambda name: {"gpt2": model}[name])
    Path("sentences.txt").write_text(TEXT * 4, encoding="utf-8")
    (code,) = PYTHON.findall(README.read_text(encoding="utf-8"))
    names: dict[str, Any] = {}
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", ResourceWarning)  # `open` without `with` is easier to read
        exec(code, names)
    plt.close("all")
    assert names["stats"].provenance["sequences"] == 8
    assert "<!DOCTYPE html>" in Path("view.html").read_text(encoding="utf-8")
    xr.testing.assert_identical(ta.load("gpt2.nc").dataset, names["stats"].dataset)


def test_a_checkpoint_in_python(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, tiny_decoder: Any) -> None:
    monkeypatch.chdir(tmp_path)
    (code,) = PYTHON.findall((DOCS / "reliability.md").read_text(encoding="utf-8"))
    names: dict[str, Any] = {"ta": ta, "model": tiny_decoder, "corpus": ta.Corpus.from_texts(TEXT.splitlines())}
    exec(code, names)
    assert names["stats"].provenance["sequences"] == 2
    assert list(tmp_path.iterdir()) == []  # a finished run deletes its checkpoint


def test_your_own_statistic_of_the_architecture_page(tiny_decoder: Any) -> None:
    corpus = ta.Corpus.from_texts(TEXT.splitlines())
    (code,) = (b for b in PYTHON.findall((DOCS / "architecture.md").read_text(encoding="utf-8")) if "CapitalShare" in b)
    names: dict[str, Any] = {"model": tiny_decoder, "corpus": corpus}
    try:
        exec(code, names)
        share = names["stats"]["capital_share"]
        assert ((share > 0) & (share < 1)).all()  # "The" is null in one sentence, but "Zürich" and "Mary" are not
        assert "capital_share_se" in names["stats"].dataset
    finally:
        REGISTRY.pop("capital_share", None)


def test_the_statistic_of_the_findings_page(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, smollm2: Any, capsys: Any
) -> None:
    monkeypatch.chdir(tmp_path)
    Path("tl_attnstats/data").mkdir(parents=True)
    # All determiners are " the", and some of them are sinks.
    text = "Yesterday the dog barked at the cat that sat near the house of Mary, and the cat saw the dog there.\n"
    Path("tl_attnstats/data/sample.txt").write_text(text * 4, encoding="utf-8")
    monkeypatch.setattr(ta, "load_model", lambda name: {"demo": smollm2}[name])
    (code,) = PYTHON.findall((DOCS / "findings.md").read_text(encoding="utf-8"))
    names: dict[str, Any] = {}
    try:
        exec(code, names)
    finally:
        REGISTRY.pop("rest_on_the", None)
    share = names["stats"]["rest_on_the"]
    assert capsys.readouterr().out.endswith(f"{float(share.mean()):.3f}\n")
    expected = ta.collect(
        smollm2, names["corpus"], ["pos_to", "pos_to_without_sinks"], layers=range(3, 10), progress=False
    )
    np.testing.assert_allclose(share, expected["pos_to_without_sinks"].sel(tag="DET"), rtol=1e-6)
    assert not np.allclose(share, expected["pos_to"].sel(tag="DET"), rtol=1e-3)


@pytest.mark.slow
def test_every_script_of_the_gallery_draws_its_figure(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, smollm2: Any, sample_corpus: ta.Corpus
) -> None:
    monkeypatch.chdir(tmp_path)
    monkeypatch.setattr(ta, "load_model", lambda name: {"demo": smollm2}[name])
    stats = ta.collect(smollm2, sample_corpus[:30], progress=False)
    Path("out/demo").mkdir(parents=True)
    Path("docs/gallery").mkdir(parents=True)
    stats.save("out/demo/stats.nc")
    scripts = {path.stem: path for path in (DOCS / "gallery").glob("*.py") if path.stem != "build"}
    build = runpy.run_path(str(DOCS / "gallery" / "build.py"))
    assert set(build["ORDER"]) == set(scripts)
    if shutil.which("chromium") is None and os.environ.get("CI") != "true":
        scripts.pop("page")  # it starts the browser; make chromium
    for name, script in scripts.items():
        runpy.run_path(str(script))
        assert Path(f"docs/gallery/{name}.png").read_bytes().startswith(b"\x89PNG")
        plt.close("all")
    page = (DOCS / "gallery" / "README.md").read_text(encoding="utf-8")
    for name, script in scripts.items():
        code = script.read_text(encoding="utf-8").split('"""\n\n', 1)[1].strip()
        assert f"```python\n{code}\n```\n\n![{name}]({name}.png)" in page
