"""`attnstats run` reports every mistake in one line that names the option, before the slow steps."""

from __future__ import annotations

import argparse
from pathlib import Path
from typing import Any

import pytest
import torch

from tests.cli.failing import failure
from tl_attnstats import Corpus
from tl_attnstats.cli.common import in_flags

TOO_LATE = "too late"


@pytest.fixture
def before_loading(monkeypatch: pytest.MonkeyPatch) -> None:
    """Fail if a model or pipeline is loaded, or a corpus read."""

    def fail(*args: Any, **kwargs: Any) -> None:
        pytest.fail(TOO_LATE)

    for name in ("models.loading.load_model", "corpus.annotate.load_pipeline", "corpus.corpus.load_pipeline"):
        monkeypatch.setattr(f"tl_attnstats.{name}", fail)
    monkeypatch.setattr(Corpus, "__init__", fail)


@pytest.fixture
def before_annotation(monkeypatch: pytest.MonkeyPatch) -> None:
    """Fail if the text is annotated."""
    monkeypatch.setattr(Corpus, "from_texts", lambda *args, **kwargs: pytest.fail(TOO_LATE))


@pytest.fixture
def run(model_dir: Path, text: Path, tmp_path: Path) -> tuple[object, ...]:
    return "run", model_dir, "--text", text, "--out", tmp_path / "out"


POSITIVE = "expected a positive number"
NUMBERS = "expected numbers below 1000 and ranges, such as 0-3,7"
NAMES = "expected comma-separated names without duplicates"


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ("--metrics ''", f"--metrics '': {NAMES}"),
        ("--metrics distance,,entropy", f"--metrics distance,,entropy: {NAMES}"),
        ("--metrics distance,distance", f"--metrics distance,distance: {NAMES}"),
        (
            "--metrics distnace",
            "--metrics: unknown statistic 'distnace'; known: baselines, behaviour, bootstrap, dep_to,",
        ),
        ("--layers 5-2", "--layers 5-2: expected ranges from a smaller to a larger number, such as 2-5"),
        ("--layers ''", f"--layers '': {NUMBERS}"),
        ("--layers 0-", f"--layers 0-: {NUMBERS}"),
        ("--layers 0,,1", f"--layers 0,,1: {NUMBERS}"),
        ("--layers 0-99999999999", f"--layers 0-99999999999: {NUMBERS}"),
        ("--limit -1", f"--limit -1: {POSITIVE}"),
        ("--limit nan", f"--limit nan: {POSITIVE}"),
        ("--limit 1.5", f"--limit 1.5: {POSITIVE}"),
        ("--limit ''", f"--limit '': {POSITIVE}"),
        ("--batch-tokens -5", f"--batch-tokens -5: {POSITIVE}"),
        ("--sequence-kind document --stride 0", f"--stride 0: {POSITIVE}"),
        ("--stride 5", "--stride=5: only documents have windows (--sequence-kind document); this corpus has sentences"),
        ("--sequence-kind document --stride 5 --truncate", "--stride=5: has no effect with --truncate"),
        ("--sequence-kind page", "--sequence-kind page: expected one of sentence, document"),
        ("--dtype int3", "--dtype='int3': expected float32, float16, bfloat16 or float64"),
        ("--device toaster", "--device='toaster': expected auto, cpu, cuda, cuda:1 (the second GPU) or mps"),
        ("--device cuda:x", "--device='cuda:x': expected auto, cpu, cuda,"),
        ("--null last", "--null last: expected one of auto, first, special, none"),
        ("--source cache", "--source cache: expected one of auto, hooks, streamed"),
        ("--stream self", "--stream self: expected one of all, encoder, decoder, cross"),
        ("--exemplars 0", "--exemplars 0: expected a number from 1 to 10000"),
        ("--exemplars 1000000000", "--exemplars 1000000000: expected a number from 1 to 10000"),
        ("--max-offset 0", "--max-offset 0: expected a number from 1 to 100000"),
        ("--max-offset 9999999999", "--max-offset 9999999999: expected a number from 1 to 100000"),
        ("--octaves -1", "--octaves -1: expected a number from 0 to 30"),
        ("--octaves 64", "--octaves 64: expected a number from 0 to 30"),
        ("--metrics distance --exemplars 5", "--exemplars: applies to the statistic exemplars, which is not among"),
        ("--metrics distance --exclude-self", "--exclude-self: applies to the statistic exemplars,"),
        ("--metrics distance --max-offset 5", "--max-offset: applies to the statistic offset_profile,"),
        ("--metrics distance --octaves 0", "--octaves: applies to the statistic offset_profile,"),
        ("--metrics distance --subtypes", "--subtypes: applies to the statistic dep_to,"),
        ("--stream cross --octaves 2", "--octaves: does not apply to --stream cross"),
        ("--stream cross --exclude-self", "--exclude-self: does not apply to --stream cross"),
        ("--nlp ''", "--nlp '': expected a non-empty text"),
        ("--limit", "--limit: expected one argument"),
        ("--conllu FILE", "--conllu: not allowed with argument --text"),
        ("--nonsense", "unrecognized arguments: --nonsense"),
    ],
)
@pytest.mark.usefixtures("before_loading")
def test_options_are_checked_before_anything_is_loaded(run: Any, capsys: Any, options: str, message: str) -> None:
    line = failure(capsys, *run, *("" if word == "''" else word for word in options.split()))
    assert line.startswith(f"attnstats: {message}")


@pytest.mark.usefixtures("before_loading")
def test_files_are_checked_before_anything_is_loaded(
    model_dir: Path, run: Any, text: Path, tmp_path: Path, capsys: Any
) -> None:
    start = run[:2]
    out = ("--out", tmp_path / "out")
    (tmp_path / "folder").mkdir()
    for option in ("--text", "--conllu", "--corpus"):
        none = failure(capsys, *start, *out, option, tmp_path / "none")
        assert f"{option} {tmp_path / 'none'}: no such file" in none
        folder = failure(capsys, *start, *out, option, tmp_path / "folder")
        assert f"{option} {tmp_path / 'folder'}: is a directory, expected a file" in folder
    assert "--text '': expected a non-empty text" in failure(capsys, *start, *out, "--text", "")
    assert "--out '': expected a non-empty text" in failure(capsys, *start, "--text", text, "--out", "")
    long = "x" * 300
    assert "File name too long" in failure(capsys, *start, *out, "--text", tmp_path / long)
    assert "File name too long" in failure(capsys, "run", long, *out, "--text", text)
    folder = failure(capsys, *run, "--save-corpus", tmp_path / "folder")
    assert f"--save-corpus {tmp_path / 'folder'}: a directory of this name already exists" in folder
    assert "cannot write there (" in failure(capsys, *run, "--save-corpus", text / "corpus")
    assert f"--save-corpus {text}: would overwrite --text" in failure(capsys, *run, "--save-corpus", text)
    assert text.read_text(encoding="utf-8").startswith("The cat")
    (tmp_path / "out" / "stats.nc").mkdir(parents=True)
    assert f"--out {tmp_path / 'out' / 'stats.nc'}: a directory of this name already exists" in failure(capsys, *run)
    assert [path.name for path in (tmp_path / "out").iterdir()] == ["stats.nc"]


@pytest.mark.usefixtures("before_loading")
def test_options_of_texts_do_not_go_with_annotated_corpora(
    model_dir: Path, text: Path, tmp_path: Path, capsys: Any
) -> None:
    for option in ("--conllu", "--corpus"):
        start = ("run", model_dir, option, text, "--out", tmp_path / "out")
        assert "--nlp applies only to --text: a treebank or saved corpus is already annotated" in failure(
            capsys, *start, "--nlp", "en_core_web_sm"
        )
        assert "--sequence-kind applies only to --text" in failure(capsys, *start, "--sequence-kind", "sentence")
    treebank = failure(capsys, "run", model_dir, "--conllu", text, "--out", tmp_path / "out", "--stride", "5")
    assert "--stride=5: only documents have windows" in treebank


@pytest.mark.usefixtures("before_loading")
def test_models_that_are_not_there_are_not_looked_for_on_the_hub(text: Path, tmp_path: Path, capsys: Any) -> None:
    rest = ("--text", text, "--out", tmp_path / "out")
    expected = "expected a directory made by save_pretrained, a .gguf file, a hub name, or 'demo'"
    for name in ("./nonexistent", "../nonexistent", "/nonexistent", "~/nonexistent", "a/b/c", "models/", ".\\models"):
        assert failure(capsys, "run", name, *rest) == f"attnstats: model: {name}: no such directory; {expected}\n"
    assert "model: x.gguf: no such file" in failure(capsys, "run", "x.gguf", *rest)
    assert f"model: {tmp_path}: this directory has no config.json" in failure(capsys, "run", tmp_path, *rest)
    assert f"model: {text}: not a .gguf file" in failure(capsys, "run", text, *rest)
    assert "model '': expected a non-empty text" in failure(capsys, "run", "", *rest)
    empty = tmp_path / "folder.gguf"
    empty.mkdir()
    assert "folder.gguf: " in failure(capsys, "run", empty, *rest)


@pytest.mark.usefixtures("before_annotation")
def test_what_depends_on_the_model_is_checked_before_annotation(
    model_dir: Path, run: Any, tmp_path: Path, capsys: Any
) -> None:
    assert "--layers: got [1, 2], expected some of 0 to 1" in failure(capsys, *run, "--layers", "1-2")
    line = failure(capsys, *run, "--stream", "cross")
    assert f"--stream cross: {model_dir} is not an encoder–decoder; leave --stream out" in line
    line = failure(capsys, *run, "--sequence-kind", "document", "--stride", "64")
    assert "--stride=64: a window of model0 has 63 tokens; pass at most that" in line
    assert list((tmp_path / "out").iterdir()) == []


@pytest.mark.skipif(torch.cuda.is_available(), reason="here it can be used")
@pytest.mark.usefixtures("before_loading")
def test_a_device_that_is_not_there_is_found_before_anything_is_loaded(run: Any, capsys: Any) -> None:
    line = failure(capsys, *run, "--device", "cuda")
    assert "--device='cuda': cannot be used here (" in line
    assert line.endswith("; expected auto or cpu\n")


@pytest.mark.usefixtures("before_annotation")
def test_a_text_that_cannot_be_read_is_found_before_the_model_is_loaded(
    model_dir: Path, tmp_path: Path, capsys: Any, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("tl_attnstats.models.loading.load_model", lambda *a, **k: pytest.fail(TOO_LATE))
    for name, content, message in (
        ("latin.txt", "Zürich\n".encode("latin-1"), "latin.txt: not UTF-8 (byte 1: "),
        ("empty.txt", b"", "empty corpus: no sentence found in empty.txt"),
    ):
        (tmp_path / name).write_bytes(content)
        assert message in failure(capsys, "run", model_dir, "--text", tmp_path / name, "--out", tmp_path / "out")


def test_stride_of_a_saved_corpus_of_sentences(
    model_dir: Path, sample_corpus: Any, tmp_path: Path, capsys: Any
) -> None:
    sample_corpus[:2].to_file(tmp_path / "corpus")
    line = failure(
        capsys, "run", model_dir, "--corpus", tmp_path / "corpus", "--out", tmp_path / "out", "--stride", "5"
    )
    assert "--stride=5: only documents have windows" in line


def test_arguments_of_python_are_named_as_options() -> None:
    given = argparse.Namespace(bos=True, layers=[1], positional=("model",), model="x")
    assert (
        in_flags("prepend_bos=True: T5 reads …; leave prepend_bos out", given) == "--bos: T5 reads …; leave --bos out"
    )
    assert in_flags("prepend_bos=False: no", given) == "--no-bos: no"
    assert in_flags("layers: got [1]", given) == "--layers: got [1]"
    assert in_flags("model: x: no such file", given) == "model: x: no such file"
    assert in_flags("layer 3: not an option", given) == "layer 3: not an option"
