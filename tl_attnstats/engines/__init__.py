"""Engines run the shards of a run on several workers, which may be on several machines.

An engine is one file. It knows only how to start workers, and to have a function called by each of them.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator
from contextlib import AbstractContextManager
from importlib import import_module
from pathlib import Path
from typing import TYPE_CHECKING, Any, Protocol

from tl_attnstats.errors import EngineError, choices

if TYPE_CHECKING:
    from tl_attnstats.results.shard_files import Plan
    from tl_attnstats.results.state import RunState

ENGINES = {"ray": "RayEngine"}
"""The class of each engine, in the module of its name."""

Report = Callable[[int, int], None]
"""Takes the number of sequences and of tokens that a worker has read of its shard."""


class Worker(Protocol):
    """What works on shards: it has loaded the model."""

    def plan(self, n_shards: int) -> Plan:
        """What all shards of the run have in common."""

    def run(self, number: int, n_shards: int, report: Report) -> RunState:
        """The state of a shard."""


class Pool(Protocol):
    """Workers that have been started."""

    n_workers: int

    def plan(self, n_shards: int) -> Plan:
        """`Worker.plan` of any worker."""

    def run(
        self, numbers: Iterable[int], n_shards: int, report: Callable[[int, int, int], None]
    ) -> Iterator[tuple[int, RunState]]:
        """`Worker.run` of each shard by the next worker that is free: number and state, in any order.

        A shard whose worker is lost is run again. `report` takes the number of a shard, and what its worker reports.

        Raises:
            EngineError: workers were lost too often.
        """


class Engine(Protocol):
    """Starts workers.

    Attributes:
        shards: number of shards; None is four per worker.
        directory: for the files of shards, which stay there, so that the same run goes on from them; None is a
            temporary one.
    """

    shards: int | None
    directory: str | Path | None

    def start(self, begin: Callable[[], Worker]) -> AbstractContextManager[Pool]:
        """Have each worker call `begin`, which can be pickled, once. Stops the workers at the end, or on an error."""


def engine_of(engine: str | Engine, **options: Any) -> Engine:
    """The engine of this name, with these options; or the given one. Raises `EngineError` if there is none."""
    if not isinstance(engine, str):
        return engine
    if engine not in ENGINES:
        raise EngineError(f"engine={engine!r}: expected {choices(ENGINES)}, or an Engine")
    made: Any = getattr(import_module(f"{__name__}.{engine}"), ENGINES[engine])
    found: Engine = made(**options)
    return found
