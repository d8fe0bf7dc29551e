"""Checkpoints: a run that was stopped anywhere goes on to the same result, and one of another run is refused."""

from __future__ import annotations

import os
import signal
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

import tl_attnstats as ta
from tests import tiny
from tests.asserting import assert_resumed
from tl_attnstats import run
from tl_attnstats.collectors import BUILT_IN
from tl_attnstats.corpus.batches import Batch
from tl_attnstats.errors import AttnStatsError, CheckpointWarning, StatsError
from tl_attnstats.results.checkpoint import Checkpoint, seconds

METRICS = ["exemplars", "bootstrap", "pos_to"]
SETTINGS: dict[str, Any] = {"batch_tokens": 128, "progress": False, "metrics": METRICS}
EACH_BATCH = 1e-9  # seconds
N_BATCHES = 8


class Cut(Exception):  # noqa: N818
    """What stops a run in these tests."""


@pytest.fixture(scope="module")
def corpus() -> ta.Corpus:
    return ta.Corpus(tiny.sentences(40, seed=3))


@pytest.fixture(scope="module")
def undisturbed(tiny_decoder: Any, corpus: ta.Corpus) -> ta.AttentionStats:
    return ta.collect(tiny_decoder, corpus, **SETTINGS)


@pytest.fixture
def path(tmp_path: Path) -> Path:
    return tmp_path / "checkpoint.nc"


Before = Callable[[int, Callable[[], None]], Any]


@pytest.fixture
def ran(monkeypatch: pytest.MonkeyPatch) -> list[Batch]:
    """The batches that the model was run on, as they come."""
    seen: list[Batch] = []
    original = run.Collectors.run

    def note(self: run.Collectors, batch: Batch) -> None:
        original(self, batch)
        seen.append(batch)

    monkeypatch.setattr(run.Collectors, "run", note)
    return seen


@pytest.fixture
def before(monkeypatch: pytest.MonkeyPatch) -> Before:
    """`before(n, do)` is active in a with block, and calls `do` before the batch number n of a run (from 0)."""

    class Patched:
        def __init__(self, n: int, do: Callable[[], None]):
            original, seen = run.Collectors.run, []

            def called(self: run.Collectors, batch: Batch) -> None:
                if len(seen) == n:
                    do()
                seen.append(batch)
                original(self, batch)

            self.patch = pytest.MonkeyPatch()
            self.patch.setattr(run.Collectors, "run", called)

        def __enter__(self) -> None:
            pass

        def __exit__(self, *exception: object) -> None:
            self.patch.undo()

    return Patched


def cut() -> None:
    raise Cut


def send(number: signal.Signals) -> Callable[[], None]:
    return lambda: os.kill(os.getpid(), number)


def cut_run(before: Before, model: Any, corpus: ta.Corpus, path: Path, n: int = 4, **settings: Any) -> None:
    """A run that stops after n batches and leaves its checkpoint."""
    with before(n, cut), pytest.raises(Cut):
        ta.collect(model, corpus, checkpoint=path, **{**SETTINGS, **settings})


@pytest.mark.parametrize("n", [1, 4, 7])
def test_a_run_that_was_cut_goes_on_to_the_same_result(
    tiny_decoder: Any,
    corpus: ta.Corpus,
    undisturbed: ta.AttentionStats,
    path: Path,
    before: Before,
    ran: list[Batch],
    n: int,
) -> None:
    batches = list(run.Collectors(tiny_decoder).batches(corpus, batch_tokens=128))
    assert len(batches) == N_BATCHES
    cut_run(before, tiny_decoder, corpus, path, n)
    assert [file.name for file in path.parent.iterdir()] == ["checkpoint.nc"]
    ran.clear()
    assert_resumed(ta.collect(tiny_decoder, corpus, checkpoint=path, **SETTINGS), undisturbed)
    assert [b.items for b in ran] == [b.items for b in batches[n:]]  # the model runs on no other batch
    assert list(path.parent.iterdir()) == []


def test_a_run_that_was_cut_again_and_again(tiny_encoder: Any, corpus: ta.Corpus, path: Path, before: Before) -> None:
    for _ in range(3):
        cut_run(before, tiny_encoder, corpus, path, 1)
    assert_resumed(
        ta.collect(tiny_encoder, corpus, checkpoint=path, **SETTINGS),
        ta.collect(tiny_encoder, corpus, **SETTINGS),
    )


def test_statistics_of_norms_and_every_other_name_are_resumed(
    tiny_decoder: Any, corpus: ta.Corpus, path: Path, before: Before
) -> None:
    metrics = sorted(BUILT_IN)
    cut_run(before, tiny_decoder, corpus, path, 3, metrics=metrics)
    found = ta.collect(tiny_decoder, corpus, checkpoint=path, **{**SETTINGS, "metrics": metrics})
    assert_resumed(found, ta.collect(tiny_decoder, corpus, **{**SETTINGS, "metrics": metrics}))


def test_documents_in_overlapping_windows_are_resumed(tiny_decoder: Any, nlp: Any, path: Path, before: Before) -> None:
    texts = [" ".join(f"The cat number {n + m} sat on the mat of Zürich." for n in range(12)) for m in range(3)]
    documents = ta.Corpus.from_texts(texts, nlp, sequence_kind="document")
    cut_run(before, tiny_decoder, documents, path, 3, stride=32)
    found = ta.collect(tiny_decoder, documents, checkpoint=path, stride=32, **SETTINGS)
    assert_resumed(found, ta.collect(tiny_decoder, documents, stride=32, **SETTINGS))


def test_a_checkpoint_is_written_when_it_is_due(
    tiny_decoder: Any, corpus: ta.Corpus, path: Path, before: Before
) -> None:
    found: list[int] = []

    def look() -> None:
        found.append(ta.load(path).provenance["sequences"])

    batches = [len(batch) for batch in run.Collectors(tiny_decoder).batches(corpus, batch_tokens=128)]
    with before(5, look):
        ta.collect(tiny_decoder, corpus, checkpoint=path, every=EACH_BATCH, **SETTINGS)
    assert found == [sum(batches[:5])]
    with before(5, lambda: found.append(-path.exists())):
        ta.collect(tiny_decoder, corpus, checkpoint=path, every="1h", **SETTINGS)
    assert found[1:] == [0]


def test_a_run_without_a_first_batch_leaves_no_checkpoint(
    tiny_decoder: Any, corpus: ta.Corpus, path: Path, before: Before
) -> None:
    cut_run(before, tiny_decoder, corpus, path, 0)
    assert list(path.parent.iterdir()) == []


@pytest.mark.parametrize("number", [signal.SIGINT, signal.SIGTERM])
def test_a_signal_waits_for_the_end_of_the_batch(
    tiny_decoder: Any,
    corpus: ta.Corpus,
    undisturbed: ta.AttentionStats,
    path: Path,
    before: Before,
    ran: list[Batch],
    number: signal.Signals,
) -> None:
    handlers = [signal.getsignal(each) for each in (signal.SIGINT, signal.SIGTERM)]
    with before(3, send(number)), pytest.raises(ta.Interrupted, match=r"interrupted after \d+ of 40 sentences") as stop:
        ta.collect(tiny_decoder, corpus, checkpoint=path, **SETTINGS)
    assert len(ran) == 4
    assert stop.value.signal == number
    assert stop.value.stats is not None
    assert stop.value.stats.provenance["sequences"] == sum(map(len, ran))
    assert [signal.getsignal(each) for each in (signal.SIGINT, signal.SIGTERM)] == handlers
    assert_resumed(ta.collect(tiny_decoder, corpus, checkpoint=path, **SETTINGS), undisturbed)
    assert len(ran) == N_BATCHES


def test_a_second_signal_leaves_at_once(
    tiny_decoder: Any, corpus: ta.Corpus, path: Path, before: Before, ran: list[Batch]
) -> None:
    def twice() -> None:
        send(signal.SIGINT)()
        send(signal.SIGINT)()

    with before(3, twice), pytest.raises(ta.Interrupted):
        ta.collect(tiny_decoder, corpus, checkpoint=path, **SETTINGS)
    assert len(ran) == 3
    assert list(path.parent.iterdir()) == []


@pytest.mark.parametrize(
    ("settings", "what"),
    [
        ({"batch_tokens": 32}, "different batch tokens: 128 there, 32 here"),
        ({"source": "hooks"}, "different source: 'auto' there, 'hooks' here"),
        ({"metrics": ["distance"]}, "got statistics .*, expected distance"),
        ({"layers": [0]}, r"of layers \[0, 1, 2\] and 4 heads, expected \[0\] and 4"),
        (
            {"metrics": [ta.Exemplars(k=3), "bootstrap", "pos_to"]},
            r"""different settings: '\{"exemplars": \{"k": 3, .*\}\}' here, '\{"exemplars": \{"k": 10, .*\}\}' there""",
        ),
        ({"null": "none"}, "different null: 'none' here, 'first' there"),
        ({"truncate": True}, "different truncate: 'yes' here, none there"),
        ({"prepend_bos": False}, "different special tokens"),
    ],
)
def test_a_checkpoint_of_other_options_is_refused(
    tiny_decoder: Any, corpus: ta.Corpus, path: Path, before: Before, settings: dict[str, Any], what: str
) -> None:
    cut_run(before, tiny_decoder, corpus, path)
    kept = path.read_bytes()
    with pytest.raises(StatsError, match=rf"checkpoint\.nc is of another run \(.*{what}.*delete it to start anew"):
        ta.collect(tiny_decoder, corpus, checkpoint=path, **{**SETTINGS, **settings})
    assert path.read_bytes() == kept


def test_a_checkpoint_of_another_model_or_corpus_is_refused(
    tiny_decoder: Any, smollm2_tokenizer: Any, corpus: ta.Corpus, path: Path, before: Before
) -> None:
    cut_run(before, tiny_decoder, corpus, path)
    with pytest.raises(StatsError, match=r"another run .*different model fingerprint"):
        ta.collect(tiny.decoder(smollm2_tokenizer, seed=1), corpus, checkpoint=path, **SETTINGS)
    other = ta.Corpus(tiny.sentences(40, seed=4), origin="other")
    with pytest.raises(StatsError, match=r"another run .*comes from sentences given in Python, expected other"):
        ta.collect(tiny_decoder, other, checkpoint=path, **SETTINGS)
    with pytest.raises(StatsError, match=r"another run .*different sentences: 40 there, 39 here"):
        ta.collect(tiny_decoder, corpus[:39], checkpoint=path, **SETTINGS)
    path.unlink()
    cut_run(before, tiny_decoder, corpus[:20], path, 2)
    with pytest.raises(StatsError, match=r"another run .*the first 2 batches hold other tokens here"):
        ta.collect(tiny_decoder, corpus[20:], checkpoint=path, **SETTINGS)


def test_a_checkpoint_of_another_version_is_refused(
    tiny_decoder: Any, corpus: ta.Corpus, path: Path, before: Before, monkeypatch: pytest.MonkeyPatch
) -> None:
    with monkeypatch.context() as patch:
        patch.setattr("tl_attnstats.results.checkpoint._version", lambda: "0.0.1")
        cut_run(before, tiny_decoder, corpus, path)
    with pytest.raises(StatsError, match=r"different version: '0\.0\.1' there"):
        ta.collect(tiny_decoder, corpus, checkpoint=path, **SETTINGS)
    with monkeypatch.context() as patch:
        patch.setattr("tl_attnstats.results.file.FORMAT", "tl_attnstats 1")
        path.unlink()
        cut_run(before, tiny_decoder, corpus, path)
    with pytest.raises(StatsError, match=r"format 'tl_attnstats 1', expected .* delete it to start anew"):
        ta.collect(tiny_decoder, corpus, checkpoint=path, **SETTINGS)


def cut_with_two(before: Before, model: Any, corpus: ta.Corpus, path: Path) -> None:
    """Leave a checkpoint of 5 batches, and the previous one of 4."""
    with before(5, cut), pytest.raises(Cut):
        ta.collect(model, corpus, checkpoint=path, every=EACH_BATCH, **SETTINGS)


@pytest.mark.parametrize("damaged", ["cut off", "empty", "byte"])
def test_a_damaged_checkpoint_gives_way_to_the_previous_one(
    tiny_decoder: Any,
    corpus: ta.Corpus,
    undisturbed: ta.AttentionStats,
    path: Path,
    before: Before,
    ran: list[Batch],
    damaged: str,
) -> None:
    cut_with_two(before, tiny_decoder, corpus, path)
    assert sorted(file.name for file in path.parent.iterdir()) == ["checkpoint.nc", "checkpoint.previous.nc"]
    whole = path.read_bytes()
    middle = len(whole) // 2
    flipped = whole[:middle] + bytes([whole[middle] ^ 1]) + whole[middle + 1 :]
    path.write_bytes({"cut off": whole[:-100], "empty": b"", "byte": flipped}[damaged])
    ran.clear()
    with pytest.warns(CheckpointWarning, match=r"checkpoint\.nc: .*; going on from .*checkpoint\.previous\.nc"):
        found = ta.collect(tiny_decoder, corpus, checkpoint=path, **SETTINGS)
    assert_resumed(found, undisturbed)
    assert len(ran) == N_BATCHES - 4
    assert list(path.parent.iterdir()) == []


def test_two_damaged_checkpoints_are_refused(tiny_decoder: Any, corpus: ta.Corpus, path: Path, before: Before) -> None:
    cut_with_two(before, tiny_decoder, corpus, path)
    for file in path.parent.iterdir():
        file.write_bytes(file.read_bytes()[:-100])
    with pytest.raises(StatsError, match=r"checkpoint: .*checkpoint\.nc: .*; delete it to start anew"):
        ta.collect(tiny_decoder, corpus, checkpoint=path, **SETTINGS)
    assert len(list(path.parent.iterdir())) == 2


@pytest.mark.parametrize("step", range(4))
def test_a_write_that_is_cut_at_any_step_leaves_a_checkpoint(
    tiny_decoder: Any,
    corpus: ta.Corpus,
    undisturbed: ta.AttentionStats,
    path: Path,
    before: Before,
    monkeypatch: pytest.MonkeyPatch,
    step: int,
) -> None:
    """The steps are calls that change what a directory holds: of write_whole one, of the checkpoint itself two."""

    class Killed(BaseException):
        pass

    calls: list[Path] = []
    original = Path.replace

    def replace(self: Path, target: Path) -> Path:
        if len(calls) == step:
            monkeypatch.setattr(Path, "unlink", lambda *a, **k: None)  # a process that is killed cleans nothing up
            raise Killed
        calls.append(self)
        return original(self, target)

    def from_now_on() -> None:
        monkeypatch.setattr(Path, "replace", replace)

    with before(5, from_now_on), pytest.raises(Killed) if step < 3 else pytest.raises(Cut), before(6, cut):
        ta.collect(tiny_decoder, corpus, checkpoint=path, every=EACH_BATCH, **SETTINGS)
    monkeypatch.undo()
    assert_resumed(ta.collect(tiny_decoder, corpus, checkpoint=path, **SETTINGS), undisturbed)
    assert list(path.parent.iterdir()) == []


def test_what_cannot_be_written_is_said_and_the_run_goes_on(
    tiny_decoder: Any, corpus: ta.Corpus, undisturbed: ta.AttentionStats, tmp_path: Path
) -> None:
    (tmp_path / "file").touch()
    with pytest.warns(CheckpointWarning, match=r"checkpoint: .*cannot be written .*; there is none so far"):
        found = ta.collect(
            tiny_decoder, corpus, checkpoint=tmp_path / "file" / "checkpoint.nc", every=EACH_BATCH, **SETTINGS
        )
    assert_resumed(found, undisturbed)


def test_a_batch_that_was_added_in_part_is_not_kept(
    tiny_decoder: Any,
    corpus: ta.Corpus,
    undisturbed: ta.AttentionStats,
    path: Path,
    before: Before,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    """Sums of which some have a batch more than others are in no checkpoint, and in no result."""

    def fail(self: Any, whole: Any) -> None:
        raise MemoryError

    collectors = run.Collectors(tiny_decoder)
    first, second, *_ = collectors.batches(corpus, batch_tokens=128)
    collectors.run(first)
    with monkeypatch.context() as patch:
        patch.setattr(ta.Exemplars, "end_batch", fail)
        with pytest.raises(MemoryError):
            collectors.run(second)
        with pytest.raises(AttnStatsError, match="added to some of the sums only"):
            collectors.stats()
    with before(4, lambda: monkeypatch.setattr(ta.Exemplars, "end_batch", fail)), pytest.raises(MemoryError):
        ta.collect(tiny_decoder, corpus, checkpoint=path, every=EACH_BATCH, **SETTINGS)
    monkeypatch.undo()
    assert_resumed(ta.collect(tiny_decoder, corpus, checkpoint=path, **SETTINGS), undisturbed)


def test_the_source_that_a_run_fell_back_to_is_kept(
    tiny_decoder: Any, corpus: ta.Corpus, path: Path, before: Before, monkeypatch: pytest.MonkeyPatch
) -> None:
    from tl_attnstats.attention.sources import choose

    def refuse(*_: Any) -> None:
        raise ta.errors.ModelError("not today")

    with monkeypatch.context() as patch:
        patch.setattr(choose, "StreamedSource", refuse)
        patch.setattr(choose.Choice, "_recall", lambda self: None)
        cut_run(before, tiny_decoder, corpus, path)
    found = ta.collect(tiny_decoder, corpus, checkpoint=path, **SETTINGS)
    assert found.provenance["source"] == "hooks"
    assert_resumed(found, ta.collect(tiny_decoder, corpus, source="hooks", **SETTINGS))


@pytest.mark.parametrize(
    ("every", "expected"), [("30s", 30), ("5min", 300), ("1h", 3600), ("1h 30min", 5400), (90, 90), (0.5, 0.5)]
)
def test_durations(every: str | float, expected: float) -> None:
    assert seconds(every) == expected


@pytest.mark.parametrize("every", ["5", "1.5", "soon", "", "-5min", "0s", 0, -1, True, None, float("inf"), "NaT"])
def test_what_is_no_duration_is_refused(every: Any, path: Path) -> None:
    with pytest.raises(StatsError, match=r'every=.*: expected a duration such as "30s"'):
        Checkpoint(path, every)


def test_a_directory_is_no_checkpoint(tmp_path: Path) -> None:
    with pytest.raises(StatsError, match="is a directory, expected a file name"):
        Checkpoint(tmp_path)
