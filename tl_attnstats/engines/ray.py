"""Ray: workers are actors, on this machine or on a cluster."""

from __future__ import annotations

import os
import time
import warnings
from collections.abc import Callable, Iterable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from tl_attnstats.engines import Worker
from tl_attnstats.errors import AttnStatsError, AttnStatsWarning, EngineError, MissingExtraError
from tl_attnstats.results.shard_files import Plan
from tl_attnstats.results.state import RunState

REPORT_SECONDS = 0.5
"""How often a worker reports, and the bar is drawn."""
SETTINGS = {
    "RAY_USAGE_STATS_ENABLED": "0",  # Ray sends statistics about its use otherwise
    "RAY_ACCEL_ENV_VAR_OVERRIDE_ON_ZERO": "0",  # the future default, about which Ray warns
}
"""Ray's environment variables, for a Ray that is started here, unless the user has set them."""


@dataclass(frozen=True, kw_only=True)
class RayEngine:
    """Runs shards on the workers of a Ray cluster.

    Each worker loads the model once, and gets one shard after the other. If a worker is lost, Ray starts it again,
    and it runs its shard anew.

    Args:
        address: of a running cluster, as in `ray.init`, or "auto" for the one of this machine. None is the cluster
            that the environment names (`RAY_ADDRESS`, which Ray sets for its jobs), or a Ray that is started on this
            machine and stopped at the end. If Ray is already initialized in this process, that is used.
        workers: how many; None is one per GPU, or one per machine if the cluster has no GPUs.
        cpus_per_worker: number of CPUs, and of threads; None is an equal part of all.
        gpus_per_worker: number of GPUs, which may be a fraction; None is one if the cluster has GPUs.
        retries: how often a shard is run again after losing its worker.
        shards: number of shards; None is four per worker.
        directory: for the files of shards, which stay there, so that the same run goes on from them; None is a
            temporary one.

    Raises:
        MissingExtraError: Ray is not installed.
        EngineError: the cluster cannot be reached or has too few CPUs or GPUs.
    """

    address: str | None = None
    workers: int | None = None
    cpus_per_worker: int | None = None
    gpus_per_worker: float | None = None
    retries: int = 3
    shards: int | None = None
    directory: str | Path | None = None

    def __post_init__(self) -> None:
        imported()
        for name, least in (("workers", 1), ("cpus_per_worker", 1), ("gpus_per_worker", 0), ("retries", 0)):
            number = getattr(self, name)
            if number is not None and not (isinstance(number, int | float) and number >= least):
                raise EngineError(f"{name}={number!r}: expected a number of at least {least}")

    @contextmanager
    def start(self, begin: Callable[[], Worker]) -> Iterator[RayPool]:
        """Start actors. They are stopped at the end, and so is Ray if it was started here."""
        ray = imported()
        began = not ray.is_initialized()
        if began:
            self._connect(ray)
        actors: list[Any] = []
        try:
            n_workers, cpus, gpus = self._shares(ray.nodes())
            # Lost actors are always replaced; what is limited is how often each shard is tried.
            replaced = {"max_restarts": -1, "max_task_retries": self.retries}
            make = ray.remote(num_cpus=cpus, num_gpus=gpus, **replaced)(Actor)
            board = ray.remote(num_cpus=0)(Board).remote()
            actors += [make.remote(cpus) for _ in range(n_workers)]
            yield RayPool(ray, actors, Shipped(ray.put(begin), board), self.retries)
        finally:
            if began:
                ray.shutdown()
            else:
                for actor in actors:
                    ray.kill(actor)

    def _connect(self, ray: Any) -> None:
        for name, value in SETTINGS.items():
            os.environ.setdefault(name, value)
        address = self.address or os.environ.get("RAY_ADDRESS") or "local"
        local = {"include_dashboard": False} if address == "local" else {}
        try:
            ray.init(address=address, log_to_driver=False, logging_level="error", configure_logging=True, **local)
        except (ConnectionError, ValueError, RuntimeError) as error:
            first_line = str(error).strip().partition("\n")[0]
            raise EngineError(f"address={address!r}: cannot connect to Ray ({first_line})") from None

    def _shares(self, nodes: list[dict[str, Any]]) -> tuple[int, int, float]:
        """Number of workers, and of CPUs and GPUs for each. Raises `EngineError` if the cluster has too few."""
        found = [node["Resources"] for node in nodes if node["Alive"]]
        total = {kind: sum(node.get(kind, 0) for node in found) for kind in ("CPU", "GPU")}
        gpus = self.gpus_per_worker
        if gpus is None:
            gpus = 1 if total["GPU"] else 0
        workers = self.workers or int(total["GPU"] // gpus if gpus else len(found))
        most = min((node["CPU"] for node in found if node.get("CPU")), default=1)
        cpus = self.cpus_per_worker or int(max(1, min(most, total["CPU"] // max(1, workers))))
        for kind, each in (("CPU", cpus), ("GPU", gpus)):
            if max(1, workers) * each > total[kind]:
                raise EngineError(
                    f"workers={workers}: {each:g} {kind}s for each of them, but Ray has {total[kind]:g}; "
                    f"expected fewer workers, or fewer {kind}s per worker"
                )
        return workers, cpus, gpus


@dataclass(frozen=True)
class Shipped:
    """What every task of an actor is given: references, of which Ray fetches nothing before it is asked for.

    Were it given to `Actor.__init__`, an actor could not be started again in all cases.
    """

    begin: Any
    """Of the function that begins the work."""
    board: Any


@dataclass(frozen=True)
class RayPool:
    """Actors that have been started."""

    ray: Any
    actors: list[Any]
    shipped: Shipped
    retries: int

    @property
    def n_workers(self) -> int:
        """Number of actors."""
        return len(self.actors)

    def plan(self, n_shards: int) -> Plan:
        """What the first actor plans, once it has loaded the model."""
        found: Plan = self._answer(lambda: self.ray.get(self.actors[0].plan.remote(self.shipped, n_shards)))
        return found

    def run(
        self, numbers: Iterable[int], n_shards: int, report: Callable[[int, int, int], None]
    ) -> Iterator[tuple[int, RunState]]:
        """The states of shards, as they come."""
        from ray.util import ActorPool

        pool: Any = ActorPool(self.actors)
        for number in numbers:
            pool.submit(lambda actor, number: actor.run.remote(self.shipped, number, n_shards), number)
        while pool.has_next():
            for number, read in self.ray.get(self.shipped.board.read.remote()).items():
                report(number, *read)
            try:
                done: tuple[int, RunState] = self._answer(lambda: pool.get_next_unordered(timeout=REPORT_SECONDS))
            except TimeoutError:
                continue
            yield done

    def _answer(self, ask: Callable[[], tuple[Any, list[AttnStatsWarning]]]) -> Any:
        """What an actor answers. Its errors and warnings are raised and shown here as if they were of this process."""
        try:
            answer, told = ask()
        except self.ray.exceptions.RayTaskError as error:
            if isinstance(error.cause, AttnStatsError):
                raise error.cause from None
            raise EngineError(f"a worker failed ({type(error.cause).__name__}: {error.cause})") from error
        except self.ray.exceptions.RayActorError as error:
            lines = str(error).strip().splitlines()
            if "creation task" in lines[0]:
                raise EngineError(f"a worker cannot be started ({lines[-1]})") from error
            raise EngineError(
                f"a worker was lost {self.retries + 1} times with the same shard ({lines[0]}); if it ran out of "
                f"memory, use fewer workers or smaller batches"
            ) from None
        for warning in told:
            warnings.warn(warning, stacklevel=2)
        return answer


class Actor:
    """A worker in a process of its own."""

    def __init__(self, n_threads: int):
        self._n_threads = n_threads
        self._worker: Worker | None = None

    def _begun(self, shipped: Shipped) -> Worker:
        """The worker. The first task makes it, because errors of `__init__` do not reach the driver as they are."""
        if self._worker is None:
            import torch

            torch.set_num_threads(self._n_threads)
            self._worker = imported().get(shipped.begin)()
        return self._worker

    def plan(self, shipped: Shipped, n_shards: int) -> tuple[Plan, list[AttnStatsWarning]]:
        """What the worker plans, and warnings."""
        return _with_warnings(lambda: self._begun(shipped).plan(n_shards))

    def run(self, shipped: Shipped, number: int, n_shards: int) -> tuple[tuple[int, RunState], list[AttnStatsWarning]]:
        """The number and state of a shard, and warnings."""
        reported = 0.0

        def report(sequences: int, tokens: int) -> None:
            nonlocal reported
            if time.monotonic() - reported > REPORT_SECONDS:
                shipped.board.write.remote(number, sequences, tokens)
                reported = time.monotonic()

        return _with_warnings(lambda: (number, self._begun(shipped).run(number, n_shards, report)))


def _with_warnings(work: Callable[[], Any]) -> tuple[Any, list[AttnStatsWarning]]:
    """A result, and the warnings of this package meanwhile, each once. Others would not be shown to anybody."""
    with warnings.catch_warnings(record=True) as caught:
        warnings.simplefilter("ignore")
        warnings.simplefilter("always", AttnStatsWarning)
        result = work()
    by_text = {str(one.message): one.message for one in caught if isinstance(one.message, AttnStatsWarning)}
    return result, list(by_text.values())


class Board:
    """Where workers write how much of their shards they have read."""

    def __init__(self) -> None:
        self._read: dict[int, tuple[int, int]] = {}

    def write(self, number: int, sequences: int, tokens: int) -> None:
        """Replace what was known of a shard."""
        self._read[number] = sequences, tokens

    def read(self) -> dict[int, tuple[int, int]]:
        """The number of sequences and of tokens, by shard."""
        return self._read


def imported() -> Any:
    """The package, or `MissingExtraError`."""
    try:
        import ray
    except ImportError:
        raise MissingExtraError(
            "engine='ray': needs the package ray, which is not installed; pip install 'tl-attnstats[ray]'"
        ) from None
    return ray
