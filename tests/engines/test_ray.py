"""Runs on Ray, on this machine: the same as a run in one process, whatever happens to workers."""

from __future__ import annotations

import os
import re
import signal
import sys
import threading
import time
from collections.abc import Callable, Iterator
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch

import tl_attnstats as ta
from tests import tiny
from tests.asserting import assert_close
from tests.engines.watching import Broken, Fatal, Odd, Watched
from tl_attnstats.errors import (
    AttnStatsWarning,
    CorpusError,
    EngineError,
    MissingExtraError,
    ModelError,
    StatsError,
)

ray = pytest.importorskip("ray")
METRICS = ["distance", "exemplars", "pos_to"]
Collect = Callable[..., ta.AttentionStats]


@pytest.fixture(scope="module", autouse=True)
def one_thread() -> Iterator[None]:
    """As many as the workers have: with another number, float32 is rounded differently."""
    before = torch.get_num_threads()
    torch.set_num_threads(1)
    yield
    torch.set_num_threads(before)


@pytest.fixture(scope="module")
def local_ray() -> Iterator[None]:
    """A Ray that several tests share, because starting one takes seconds."""
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("RAY_USAGE_STATS_ENABLED", "0")
        patch.setenv("RAY_ACCEL_ENV_VAR_OVERRIDE_ON_ZERO", "0")
        ray.init(address="local", num_cpus=2, include_dashboard=False, log_to_driver=False, logging_level="error")
        yield
        ray.shutdown()


@pytest.fixture
def load(smollm2_tokenizer: Any) -> Callable[[], Any]:
    return partial(tiny.decoder, smollm2_tokenizer)


@pytest.fixture
def collect(load: Callable[[], Any], local_ray: None) -> Collect:
    """`ta.collect`, by an engine or in this process."""

    def collect(corpus: ta.Corpus, engine: Any = None, **how: Any) -> ta.AttentionStats:
        how = {"metrics": METRICS, "batch_tokens": 64, "source": "hooks", "progress": False} | how
        return ta.collect(load if engine else load(), corpus, engine=engine, **how)

    return collect


def made(n: int = 60, seed: int = 1) -> ta.Corpus:
    return ta.Corpus(tiny.sentences(n, seed))


def assert_same_run(found: ta.AttentionStats, expected: ta.AttentionStats) -> None:
    """The same to 1e-12, exemplars and books exactly."""
    assert_close(found, expected, 1e-12)
    assert found.provenance == expected.provenance
    assert found.run.counted == expected.run.counted
    for name in map(str, expected.dataset):
        if name.startswith("exemplar_"):
            np.testing.assert_array_equal(found[name].values, expected[name].values, err_msg=name)


def test_a_run_on_ray_is_that_of_one_process(collect: Collect) -> None:
    corpus = made()
    found = collect(corpus, ta.RayEngine(workers=2), metrics=None, source="auto")
    assert_same_run(found, collect(corpus, metrics=None, source="auto"))
    assert ray.is_initialized()  # it was so before


@pytest.mark.slow
def test_the_name_of_the_engine_is_enough(collect: Collect, tmp_path: Path) -> None:
    made(20).to_file(tmp_path / "corpus.parquet")
    corpus = ta.Corpus.from_file(tmp_path / "corpus.parquet")[3:]
    assert_same_run(collect(corpus, "ray"), collect(corpus))


@pytest.mark.slow
def test_a_worker_killed_in_its_shard_changes_nothing(collect: Collect, tmp_path: Path) -> None:
    corpus = made()
    killed: list[int] = []

    def kill() -> None:
        """Kill the first worker that has read three batches."""
        while not killed:
            for file in tmp_path.iterdir():
                if len(file.read_text()) >= 3:
                    os.kill(int(file.name), signal.SIGKILL)
                    killed.append(int(file.name))
                    return
            time.sleep(0.02)

    killer = threading.Thread(target=kill, daemon=True)
    killer.start()
    metrics = [*METRICS, Watched(tmp_path, seconds=0.1)]
    found = collect(corpus, ta.RayEngine(workers=2, shards=3), metrics=metrics)
    killer.join()
    processes = {int(file.name): len(file.read_text()) for file in tmp_path.iterdir()}
    assert len(processes) == 3  # another one took its place
    expected = collect(corpus, metrics=[*METRICS, Watched(tmp_path)])
    n_batches = len((tmp_path / str(os.getpid())).read_text())
    assert sum(processes.values()) >= n_batches + 3  # some were read twice
    assert_same_run(found, expected)


@pytest.mark.slow
def test_a_run_goes_on_from_the_shards_that_are_there(collect: Collect, tmp_path: Path) -> None:
    corpus, shards, seen = made(), tmp_path / "shards", tmp_path / "seen"
    seen.mkdir()
    metrics = [*METRICS, Watched(seen)]
    engine = ta.RayEngine(workers=1, shards=4, directory=shards)
    expected = collect(corpus, engine, metrics=metrics)
    files = sorted(shards.iterdir())
    assert [file.name[:13] for file in files] == [f"shard-0{number}-of-4" for number in (1, 2, 3, 4)]
    batches = sum(len(file.read_text()) for file in seen.iterdir())
    for file in seen.iterdir():
        file.unlink()
    files[1].unlink()
    files[2].write_bytes(files[2].read_bytes()[:-500])
    assert_same_run(collect(corpus, engine, metrics=metrics), expected)
    again = sum(len(file.read_text()) for file in seen.iterdir())
    assert 0 < again < batches
    with pytest.raises(StatsError, match=r"shard-01-of-4-.*.nc: different null: 'first' here, 'none' there"):
        collect(corpus, engine, metrics=metrics, null="none")
    with pytest.raises(StatsError, match=r"different number of shards: 4 here, 5 in this run"):
        collect(corpus, ta.RayEngine(workers=1, shards=5, directory=shards), metrics=metrics)
    assert sorted(shards.iterdir()) == files


@pytest.mark.slow
def test_a_worker_that_is_always_lost_ends_the_run(collect: Collect, tmp_path: Path) -> None:
    engine = ta.RayEngine(workers=1, shards=2, retries=1, directory=tmp_path)
    with pytest.raises(
        EngineError, match=r"a worker was lost 2 times with the same shard \(.*\); if it ran out of mem"
    ):
        collect(made(), engine, metrics=[Fatal()])
    assert list(tmp_path.iterdir()) == []


@pytest.mark.slow
def test_errors_of_workers_are_those_of_one_process(collect: Collect, load: Callable[[], Any], tmp_path: Path) -> None:
    engine = ta.RayEngine(workers=1)
    with pytest.raises(ModelError, match=r"layers: got \[7\], expected some of 0 to 2"):
        collect(made(), engine, layers=[7])
    with pytest.raises(CorpusError, match=r"has .* tokens, but the model's context has room for 95"):
        collect(ta.Corpus(tiny.sentences(3, 1, most_words=300)), engine)
    with pytest.raises(ModelError, match=r"model: ./none: no such directory"):
        ta.collect("./none", made(), engine=engine, progress=False)
    with pytest.raises(EngineError, match=r"a worker failed \(TimeoutError: a mistake\)"):
        collect(made(), engine, metrics=[Broken()])


@pytest.mark.slow
def test_warnings_of_workers_are_shown_once_a_shard(collect: Collect) -> None:
    with pytest.warns(AttnStatsWarning, match="this model is odd") as caught:
        collect(made(), ta.RayEngine(workers=1, shards=2), metrics=[Odd()])
    assert len(caught) == 2


def test_a_loaded_model_is_not_shipped(load: Callable[[], Any]) -> None:
    with pytest.raises(
        ModelError, match="model: got TransformerBridge, expected its name, or a function that loads it"
    ):
        ta.collect(load(), made(), engine="ray")


def test_mistakes_are_found_before_workers_load_the_model(collect: Collect, monkeypatch: pytest.MonkeyPatch) -> None:
    with pytest.raises(EngineError, match="engine='dask': expected ray, or an Engine"):
        collect(made(), "dask")
    with pytest.raises(EngineError, match="workers=0: expected a number of at least 1"):
        ta.RayEngine(workers=0)
    with pytest.raises(EngineError, match="gpus_per_worker=-1: expected a number of at least 0"):
        ta.RayEngine(gpus_per_worker=-1)
    with pytest.raises(CorpusError, match="shards=61: expected 1 to 60, the number of sentences"):
        collect(made(), ta.RayEngine(shards=61))
    with pytest.raises(EngineError, match="workers=3: 1 CPUs for each of them, but Ray has 2; expected fewer workers"):
        collect(made(), ta.RayEngine(workers=3))
    with pytest.raises(EngineError, match="workers=1: 1 GPUs for each of them, but Ray has 0; expected fewer workers"):
        collect(made(), ta.RayEngine(workers=1, gpus_per_worker=1))
    monkeypatch.setitem(sys.modules, "ray", None)
    with pytest.raises(MissingExtraError, match=r"engine='ray': needs .*; pip install 'tl-attnstats\[ray\]'"):
        collect(made(), "ray")


@pytest.mark.slow
def test_the_python_of_the_page(
    load: Callable[[], Any], tmp_path: Path, local_ray: None, monkeypatch: pytest.MonkeyPatch
) -> None:
    page = (Path(__file__).parents[2] / "docs" / "clusters.md").read_text(encoding="utf-8")
    (code,) = re.findall(r"```python\n(.*?)```", page, re.DOTALL)
    for written, here in (('ta.load_model("gpt2", dtype="bfloat16")', "make()"), ("workers=4", "workers=2")):
        assert written in code
        code = code.replace(written, here)
    monkeypatch.chdir(tmp_path)
    names: dict[str, Any] = {"ta": ta, "make": load, "corpus": made(20)}
    exec(code, names)
    assert names["stats"].provenance["sequences"] == 20
    assert len(list((tmp_path / "out" / "shards").iterdir())) == 8
