"""Shards of a run: their files, and their merge into exactly the whole."""

from __future__ import annotations

import json
import shutil
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from hypothesis import Phase, given, settings
from hypothesis import strategies as st

import tl_attnstats as ta
from tests import tiny
from tests.asserting import assert_close
from tl_attnstats.errors import CorpusError, StatsError
from tl_attnstats.report.build import provenance_of, render
from tl_attnstats.results.shard_files import Plan
from tl_attnstats.results.shards import Shards

METRICS = ["distance", "exemplars", "pos_to"]
Run = Callable[..., Path]


def made(n: int, seed: int = 1, **how: Any) -> ta.Corpus:
    return ta.Corpus(tiny.sentences(n, seed), **how)


def run_shard(
    model: Any,
    corpus: ta.Corpus,
    shard: tuple[int, int],
    directory: Path,
    *,
    batch_tokens: int = 64,
    truncate: bool = False,
    stride: int | None = None,
    **how: Any,
) -> Path:
    """Run a shard as `attnstats run --shard` does."""
    collectors = ta.Collectors(
        model, **{"metrics": METRICS, "source": "hooks", "sequence_kind": corpus.sequence_kind} | how
    )
    collectors.begin(corpus, batch_tokens=batch_tokens, truncate=truncate, stride=stride)
    plan = Plan(collectors.state(), Shards.in_run(corpus, batch_tokens, shard[1]))
    for batch in collectors.batches(corpus, batch_tokens=batch_tokens, truncate=truncate, stride=stride, shard=shard):
        collectors.run(batch)
    return plan.save(collectors.state(), shard[0], directory)


@pytest.fixture
def run(tiny_decoder: Any, tmp_path: Path) -> Run:
    def run(corpus: ta.Corpus, number: int, of: int, to: str = "shards", **how: Any) -> Path:
        return run_shard(tiny_decoder, corpus, (number, of), tmp_path / to, **how)

    return run


def whole(model: Any, corpus: ta.Corpus, **how: Any) -> ta.AttentionStats:
    return ta.collect(
        model, corpus, **{"metrics": METRICS, "source": "hooks", "batch_tokens": 64, "progress": False} | how
    )


def assert_whole(merged: ta.AttentionStats, expected: ta.AttentionStats) -> None:
    """The same to 1e-12, exemplars and books exactly."""
    assert_close(merged, expected, 1e-12)
    assert merged.provenance == expected.provenance
    assert merged.run.counted == expected.run.counted
    for name in expected.dataset:
        if str(name).startswith("exemplar_"):
            np.testing.assert_array_equal(merged[str(name)].values, expected[str(name)].values, err_msg=str(name))


# Shards add up


@settings(max_examples=12, deadline=None, phases=[Phase.generate])  # shrinking would take minutes
@given(n=st.integers(1, 12), size=st.integers(12, 40), at_once=st.sampled_from([7, 16, 2048]), data=st.data())
def test_shards_merge_to_the_whole(
    tiny_decoder: Any,
    tmp_path_factory: pytest.TempPathFactory,
    n: int,
    size: int,
    at_once: int,
    data: st.DataObject,
) -> None:
    directory = tmp_path_factory.mktemp("shards")
    corpus = made(size, seed=size)
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr("tl_attnstats.corpus.batches.SORTED_AT_ONCE", at_once)
        expected = whole(tiny_decoder, corpus)
        for number in data.draw(st.permutations(range(1, n + 1))):
            run_shard(tiny_decoder, corpus, (number, n), directory)
    assert_whole(ta.merge_shards(directory), expected)


@pytest.mark.slow
@pytest.mark.parametrize("n", [2, 5])
def test_shards_of_a_real_model_merge_to_the_whole(
    smollm2: Any, gold_corpus: ta.Corpus, tmp_path: Path, n: int
) -> None:
    corpus = gold_corpus[:40]
    for number in range(1, n + 1):
        run_shard(smollm2, corpus, (number, n), tmp_path, metrics=None, source="auto", batch_tokens=256)
    expected = whole(smollm2, corpus, metrics=None, source="auto", batch_tokens=256)
    assert_whole(ta.merge_shards(tmp_path), expected)


@pytest.mark.parametrize("how", [{}, {"stride": 50}, {"truncate": True}])
def test_windows_of_one_document_may_be_in_several_shards(tiny_decoder: Any, run: Run, how: dict[str, Any]) -> None:
    documents = ta.Corpus(tiny.sentences(6, seed=12, most_words=160), sequence_kind="document")
    how = {"metrics": ["distance", "bootstrap", "exemplars"], **how}
    files = [run(documents, number, 4, **how) for number in (1, 2, 3, 4)]
    counted = [len(ta.load(file).run.counted[0].numbers) for file in files]
    assert (sum(counted) > 6) == ("truncate" not in how)
    assert_whole(ta.merge_shards(files), whole(tiny_decoder, documents, **how))


def test_shards_of_a_part_of_a_corpus(tiny_decoder: Any, run: Run) -> None:
    corpus = made(30)
    part = corpus.filter(lambda sentence: len(sentence.words) > 4)
    files = [run(part, number, 3) for number in (3, 1, 2)]
    assert_whole(ta.merge_shards(files), whole(tiny_decoder, part))
    with pytest.raises(StatsError, match=r"different sentences of the corpus: '.{16}' here, '.{16}' in "):
        ta.merge_shards([*files[:2], run(corpus, 2, 3)])


def test_shards_without_a_batch(tiny_decoder: Any, run: Run) -> None:
    corpus = made(8)
    files = [run(corpus, number, 8, batch_tokens=10_000) for number in range(1, 9)]  # a single batch
    empty = [file for file in files if not ta.RunState.load(file).sequences]
    assert len(empty) == 7
    assert_whole(ta.merge_shards(files), whole(tiny_decoder, corpus, batch_tokens=10_000))
    with pytest.raises(StatsError, match="nothing has been collected yet: no batch was completed"):
        ta.merge_shards(empty, partial=True)


def test_shards_without_sentences_are_refused(run: Run) -> None:
    with pytest.raises(CorpusError, match="n_shards=4: expected 1 to 3, the number of sentences here"):
        run(made(3), 1, 4)
    with pytest.raises(CorpusError, match="shard 5 of 3: expected a number from 1 to 3"):
        run(made(3), 5, 3)


def test_a_shard_that_was_not_run_to_its_end_is_not_one(tiny_decoder: Any) -> None:
    collectors = ta.Collectors(tiny_decoder, METRICS, source="hooks")
    batches = collectors.batches(made(12), batch_tokens=32, shard=(1, 2))
    collectors.run(next(batches))
    assert collectors.state().shards == ()
    for batch in batches:
        collectors.run(batch)
    assert [part.numbers for part in collectors.state().shards] == [(1,)]
    again = ta.Collectors(tiny_decoder, METRICS, source="hooks")
    again.load_state_dict(collectors.state_dict())
    for batch in again.batches(made(12), batch_tokens=32, shard=(2, 2)):
        again.run(batch)
    assert again.stats().provenance == whole(tiny_decoder, made(12), batch_tokens=32).provenance


# Files


def test_the_name_of_a_file_says_the_shard_and_what_was_run(run: Run) -> None:
    corpus = made(120)
    names = [run(corpus, number, of).name for number, of in ((1, 2), (2, 2), (2, 16), (3, 100), (100, 100))]
    parts = [name.removesuffix(".nc").split("-") for name in names]
    assert [part[:4] for part in parts] == [
        ["shard", "01", "of", "2"],
        ["shard", "02", "of", "2"],
        ["shard", "02", "of", "16"],
        ["shard", "003", "of", "100"],
        ["shard", "100", "of", "100"],
    ]
    fingerprints = [part[4] for part in parts]
    assert fingerprints[0] == fingerprints[1]
    assert fingerprints[3] == fingerprints[4]
    others: list[dict[str, Any]] = [
        {"metrics": ["distance"]},
        {"batch_tokens": 65},
        {"truncate": True},
        {"layers": [0, 1]},
        {"null": "none"},
        {"prepend_bos": False},
    ]
    fingerprints += [run(corpus, 1, 2, **how).name[-15:-3] for how in others]
    fingerprints += [run(other, 1, 2).name[-15:-3] for other in (made(120, seed=2), corpus[:119])]
    assert len(set(fingerprints)) == len(fingerprints) - 2


def test_a_shard_says_that_it_is_one(run: Run, tiny_decoder: Any) -> None:
    stats = ta.load(run(made(12), 3, 4, batch_tokens=32))
    assert stats.provenance["partial"] == "only shard 3 of 4"
    assert stats.extent.endswith(" tokens, only shard 3 of 4")
    assert "partial" not in whole(tiny_decoder, made(12)).provenance


def test_a_merged_file_keeps_texts_that_are_longer_than_those_of_its_parts(tiny_decoder: Any, tmp_path: Path) -> None:
    short, long = tiny.sentences(2, seed=3, most_words=2)[:1], tiny.sentences(3, seed=3, most_words=90)[2:]
    corpus = ta.Corpus([*short, *long])
    assert len(corpus[1].text) > len(corpus[0].text)
    files = [run_shard(tiny_decoder, corpus, (number, 2), tmp_path, batch_tokens=1) for number in (1, 2)]
    ta.merge_shards(files).save(tmp_path / "stats.nc")
    found = ta.load(tmp_path / "stats.nc")["exemplar_text"]
    assert sorted(found.values, key=len) == sorted((sentence.text for sentence in corpus), key=len)


# Shards that do not add up


def test_missing_shards_are_named_and_a_partial_result_says_so_for_ever(
    tiny_decoder: Any, run: Run, tmp_path: Path
) -> None:
    corpus = made(30)
    files = {number: run(corpus, number, 5) for number in (1, 2, 3, 4, 5)}
    files.pop(2).rename(tmp_path / "away.nc")
    files.pop(4).unlink()
    with pytest.raises(StatsError, match=r"shards: shards 2, 4 of 5 not found; run what is missing, or pass partial="):
        ta.merge_shards(tmp_path / "shards")
    partial = ta.merge_shards(tmp_path / "shards", partial=True)
    partial.save(tmp_path / "stats.nc")
    assert ta.load(tmp_path / "stats.nc").provenance["partial"] == "without shards 2, 4 of 5"
    assert ta.load(tmp_path / "stats.nc").extent.endswith(" tokens, without shards 2, 4 of 5")
    assert provenance_of(partial)["partial"] == "without shards 2, 4 of 5"
    assert "shards" not in provenance_of(partial)
    assert "tokens, without shards 2, 4 of 5. Corpus: " in render(partial)
    other = whole(tiny_decoder, made(9, seed=5, origin="other"))
    for merged in (partial.merge(other), other.merge(partial)):
        assert merged.provenance["partial"] == "without shards 2, 4 of 5"
    # What is missing can still be added, to the partial result too.
    more = ta.merge_shards([tmp_path / "away.nc", tmp_path / "stats.nc"], partial=True)
    assert more.provenance["partial"] == "without shard 4 of 5"
    files[4] = run(corpus, 4, 5)
    more.save(tmp_path / "more.nc")
    assert_whole(ta.merge_shards([files[4], tmp_path / "more.nc"]), whole(tiny_decoder, corpus))


def test_a_shard_does_not_count_twice(run: Run, tmp_path: Path) -> None:
    corpus = made(12)
    files = [run(corpus, number, 2) for number in (1, 2)]
    copy = tmp_path / "copy.nc"
    shutil.copy(files[1], copy)
    with pytest.raises(StatsError, match=r"copy.nc: has shard 2 of 2, and so has .*; expected each shard once"):
        ta.merge_shards([files[0], files[1], copy])
    merged = ta.merge_shards([*files, files[1]])  # the same file, named twice
    assert merged.provenance["sequences"] == 12
    with pytest.raises(StatsError, match="merge: both runs have shard 2 of 2, which would count twice"):
        ta.load(files[1]).merge(ta.load(copy))
    with pytest.raises(StatsError, match=r"merge: both runs counted sentences \d.*, which would count twice"):
        merged.merge(ta.load(files[0]))
    with pytest.raises(StatsError, match=r"merge: both runs counted sentences .* of sentences given in Python"):
        ta.load(files[0]).merge(ta.load(run(corpus, 1, 3)))


@pytest.mark.parametrize(
    ("how", "difference"),
    [
        ({"batch_tokens": 65}, "different batch tokens: 65 here, 64 in "),
        ({"null": "none"}, "different null: 'none' here, 'first' there"),
        ({"metrics": ["distance"]}, "different settings: "),
        ({"layers": [0]}, "different layers: [0] here, [0, 1, 2] there"),
        ({"of": 3}, "different number of shards: 3 here, 2 in "),
        ({"seed": 2}, "different corpus: '"),
    ],
)
def test_shards_of_other_runs_are_refused_with_the_difference(
    run: Run, tmp_path: Path, how: dict[str, Any], difference: str
) -> None:
    files = [run(made(12), 1, 2), run(made(12, how.pop("seed", 1)), 2, how.pop("of", 2), **how)]
    with pytest.raises(StatsError) as caught:
        ta.merge_shards(files)
    assert str(caught.value).startswith(f"{files[1]}: {difference}")


def test_shards_of_another_model_are_refused(run: Run, smollm2_tokenizer: Any, tmp_path: Path) -> None:
    run(made(12), 1, 2)
    other = run_shard(tiny.decoder(smollm2_tokenizer, seed=1), made(12), (2, 2), tmp_path / "shards")
    with pytest.raises(StatsError, match=r"different model fingerprint: '.{16}' here, '.{16}' there") as caught:
        ta.merge_shards(tmp_path / "shards")
    assert str(caught.value).startswith(f"{other}: ")


def test_files_that_are_no_shards(run: Run, tiny_decoder: Any, tmp_path: Path) -> None:
    corpus = made(12)
    (tmp_path / "empty").mkdir()
    with pytest.raises(StatsError, match=r"empty: no files of shards in it; expected shard-\*-of-\*.nc"):
        ta.merge_shards(tmp_path / "empty")
    with pytest.raises(StatsError, match="paths: got none, expected files of shards"):
        ta.merge_shards([])
    with pytest.raises(StatsError, match=r"none.nc: no such file"):
        ta.merge_shards(tmp_path / "none.nc")
    (tmp_path / "text.nc").write_text("no file of ours")
    with pytest.raises(StatsError, match=r"text.nc: not a readable file"):
        ta.merge_shards(tmp_path / "text.nc")
    whole(tiny_decoder, corpus).save(tmp_path / "stats.nc")
    with pytest.raises(StatsError, match=r"stats.nc: has no shards, unlike .*shard-01-of-2-"):
        ta.merge_shards([run(corpus, 1, 2), tmp_path / "stats.nc"])


def test_whole_runs_on_different_sentences_are_merged_too(tiny_decoder: Any, tmp_path: Path) -> None:
    corpus = made(12)
    files = [tmp_path / "b.nc", tmp_path / "a.nc"]
    for file, part in zip(files, (corpus[:5], corpus[5:]), strict=True):
        whole(tiny_decoder, part, batch_tokens=1).save(file)
    assert_close(ta.merge_shards(files), whole(tiny_decoder, corpus, batch_tokens=1), 1e-12)
    whole(tiny_decoder, corpus[4:6]).save(tmp_path / "c.nc")
    with pytest.raises(StatsError, match=r"c.nc: both runs counted sentences 4 to 5 \(from 0\)"):
        ta.merge_shards([*files, tmp_path / "c.nc"])


# Going on


def test_finished_shards_are_found_and_damaged_ones_run_again(run: Run, tiny_decoder: Any, tmp_path: Path) -> None:
    corpus, directory = made(12), tmp_path / "shards"
    collectors = ta.Collectors(tiny_decoder, METRICS, source="hooks")
    collectors.begin(corpus, batch_tokens=64, truncate=False, stride=None)
    plan = Plan(collectors.state(), Shards.in_run(corpus, 64, 3))
    assert plan.finished(directory) == {}
    files = {number: run(corpus, number, 3) for number in (1, 3)}
    assert [plan.file(directory, number) for number in (1, 3)] == [*files.values()]
    found = plan.finished(directory)
    assert {number: state.sequences for number, state in found.items()} == {
        number: ta.load(file).provenance["sequences"] for number, file in files.items()
    }
    files[3].write_bytes(files[3].read_bytes()[:-1000])
    assert list(plan.finished(directory)) == [1]
    other = replace(plan, shards=replace(plan.shards, of=4))
    with pytest.raises(StatsError, match=r"shard-01-of-3-.*: different number of shards: 3 here, 4 in this run"):
        other.finished(directory)
    files[3].unlink()
    run(corpus, 3, 3, null="none")
    with pytest.raises(StatsError, match=r"shard-03-of-3-.*: different null: 'none' here, 'first' there"):
        plan.finished(directory)


def test_shards_are_told_in_json(run: Run) -> None:
    stats = ta.load(run(made(12), 2, 3))
    corpus = made(12)
    assert json.loads(stats.provenance["shards"]) == [
        {"corpus": corpus.identity, "sentences": corpus.view, "batch_tokens": 64, "of": 3, "numbers": [2]}
    ]
