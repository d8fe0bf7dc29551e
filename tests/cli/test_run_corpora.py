"""`attnstats run` on corpora of any size, and of token ids."""

from __future__ import annotations

import gzip
import json
from pathlib import Path
from typing import Any

import pyarrow as pa
import pyarrow.parquet as pq
import pytest

import tl_attnstats as ta
from tests.cli.failing import failure
from tl_attnstats import Corpus
from tl_attnstats.cli import main

TEXTS = ["The cat sat on the mat. It was seen by NATO.", "Dogs bark loudly."]


def write(path: Path) -> Path:
    """The texts in the column "body"."""
    if path.suffix == ".parquet":
        pq.write_table(pa.table({"id": [1, 2], "body": TEXTS}), path)
    else:
        path.write_bytes(gzip.compress("".join(json.dumps({"body": text}) + "\n" for text in TEXTS).encode()))
    return path


def test_texts_are_annotated_into_the_saved_corpus_which_is_read_again(model_dir: Path, tmp_path: Path) -> None:
    saved = tmp_path / "corpus.parquet"
    texts = write(tmp_path / "texts.jsonl.gz")
    run = ["run", str(model_dir), "--metrics", "distance", "--out"]
    options = ["--text", str(texts), "--column", "body", "--n-process", "2", "--save-corpus", str(saved)]
    assert main([*run, str(tmp_path / "one"), *options]) == 0
    corpus = Corpus.from_file(saved)
    assert [s.text for s in corpus] == ["The cat sat on the mat.", "It was seen by NATO.", "Dogs bark loudly."]
    assert main([*run, str(tmp_path / "two"), "--corpus", str(saved), "--limit", "2"]) == 0
    one, two = (ta.load(tmp_path / name / "stats.nc").provenance for name in ("one", "two"))
    assert one["corpus"] == two["corpus"] == corpus.origin
    assert (one["sequences"], two["sequences"]) == (3, 2)
    assert one["numbering"] == two["numbering"] == corpus.identity


def test_an_interrupted_annotation_goes_on(
    model_dir: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: Any
) -> None:
    monkeypatch.setattr("tl_attnstats.corpus.annotate.TEXTS_AT_ONCE", 1)
    saved, texts = tmp_path / "corpus.parquet", write(tmp_path / "texts.parquet")
    options = ["--text", str(texts), "--column", "body", "--save-corpus", str(saved), "--metrics", "distance"]
    run = ["run", str(model_dir), "--out", str(tmp_path / "out"), *options]

    def interrupt(*args: Any) -> None:
        raise KeyboardInterrupt

    with monkeypatch.context() as patch:
        patch.setattr("tl_attnstats.corpus.resume.write_store", interrupt)
        assert main(run) == 130
    assert "interrupted while annotating; run the same command again to resume" in capsys.readouterr().err
    assert not saved.exists()
    assert len(list((tmp_path / "corpus.parquet.parts").iterdir())) == 2
    with monkeypatch.context() as patch:
        # All texts are annotated already: annotating one again would be interrupted.
        patch.setattr("tl_attnstats.corpus.annotate.Annotation._annotate", interrupt)
        assert main(run) == 0
    assert len(Corpus.from_file(saved)) == 3


@pytest.fixture
def before_loading(monkeypatch: pytest.MonkeyPatch) -> None:
    for name in ("models.loading.load_model", "corpus.annotate.load_pipeline", "corpus.corpus.load_pipeline"):
        monkeypatch.setattr(f"tl_attnstats.{name}", lambda *args, **more: pytest.fail("too late"))


@pytest.mark.usefixtures("before_loading")
def test_mistakes_are_answered_before_the_model_is_loaded(
    model_dir: Path, text: Path, tmp_path: Path, capsys: Any
) -> None:
    run = ("run", model_dir, "--out", tmp_path / "out")
    parquet = write(tmp_path / "texts.parquet")
    missing = failure(capsys, *run, "--text", parquet)
    assert "texts.parquet: no column 'text'; it has body, id; pass the one with the texts (--column)" in missing
    assert "column 'id' has type int64" in failure(capsys, *run, "--text", parquet, "--column", "id")
    plain = failure(capsys, *run, "--text", text, "--column", "body")
    assert "--column='body': text.txt is read as plain text, which has no columns" in plain
    assert "not a corpus file of tl_attnstats (format None" in failure(capsys, *run, "--corpus", parquet)
    for option in ("--conllu", "--corpus"):
        assert "--column applies only to --text" in failure(capsys, *run, option, text, "--column", "body")
        assert "--n-process applies only to --text" in failure(capsys, *run, option, text, "--n-process", "2")
    assert "--n-process 0: expected a positive number" in failure(capsys, *run, "--text", text, "--n-process", "0")
    cut = tmp_path / "cut.parquet"
    cut.write_bytes(parquet.read_bytes()[:-20])
    assert "cut.parquet: cannot be read, is it cut off or damaged?" in failure(capsys, *run, "--text", cut)
    assert "cut.parquet: cannot be read, is it cut off or damaged?" in failure(capsys, *run, "--corpus", cut)


def test_token_ids_leave_out_what_needs_words(model_dir: Path, tmp_path: Path, capsys: Any) -> None:
    saved = tmp_path / "ids.parquet"
    Corpus.from_token_ids([[5, 6, 7] * 2, [8, 9] * 3, [10, 11, 12, 13]]).to_file(saved)
    run = ["run", str(model_dir), "--corpus", str(saved), "--out", str(tmp_path / "out")]
    assert main(run) == 0
    out = capsys.readouterr().out
    assert "token ids: without pos_to, pos_from, dep_to, dependency_alignment, pos_to_without_sinks, " in out
    assert "3 sequences of token ids" in out
    stats = ta.load(tmp_path / "out" / "stats.nc")
    assert {"distance", "entropy"} < set(stats.statistics)
    assert "pos_to" not in stats.statistics
    assert "metrics: got pos_to, which needs words, and token ids have none" in failure(
        capsys, *run, "--metrics", "pos_to,distance"
    )
    assert "--subtypes: relations need words" in failure(capsys, *run, "--subtypes")
    Corpus.from_token_ids([[10**6]]).to_file(saved)
    assert "has the token id 1000000 at position 0, expected ids in the model's vocabulary, 0 to" in failure(
        capsys, *run
    )
