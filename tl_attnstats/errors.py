"""The errors a user can meet. Each message names the argument, what it got, what it expected, and what to do."""

from collections.abc import Iterable
from typing import Any


class AttnStatsError(Exception):
    """Base of all errors of tl_attnstats; the command line prints them as one line."""


class CorpusError(AttnStatsError, ValueError):
    """A text, its annotation or its file cannot be used."""


class ModelError(AttnStatsError, ValueError):
    """A model or its tokenizer cannot be loaded, or lacks something the run needs."""


class HookError(AttnStatsError, RuntimeError):
    """An attention hook did not fire, or did not give an attention pattern."""


class MetricError(AttnStatsError, ValueError):
    """A statistic, head or label does not exist."""


class StatsError(AttnStatsError, ValueError):
    """A statistics file cannot be read or written, or two results cannot be merged."""


class FigureError(AttnStatsError, ValueError):
    """A figure cannot be drawn or written."""


class EngineError(AttnStatsError, RuntimeError):
    """An engine does not exist or cannot be reached, or it lost a worker too often."""


class MissingExtraError(AttnStatsError, ImportError):
    """An optional package is not installed."""


class AttnStatsWarning(UserWarning):
    """Base of every warning of tl_attnstats."""


class SourcesDisagree(AttnStatsWarning):
    """The streamed source and the model's pattern hooks give different attention. One of them is wrong."""


class BatchDependence(AttnStatsWarning):
    """The attention of a sequence depends on the other sequences in its batch."""


class CheckpointWarning(AttnStatsWarning):
    """A checkpoint could not be written, or was damaged, so that the previous one was taken."""


class PlainAttention(AttnStatsWarning):
    """Attention on a GPU is computed in plain torch, which needs more time than the Triton kernel."""


class MemoryShort(AttnStatsWarning):
    """A batch did not fit into memory; smaller parts are tried, which is slower and gives the same result."""


def choices(names: Iterable[Any]) -> str:
    """The known names for the end of an error message, in alphabetical order."""
    return ", ".join(str(name) for name in sorted(names))
