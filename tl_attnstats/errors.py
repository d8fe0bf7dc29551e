"""The errors a user can meet. Each message names the argument, what came, what was expected and what to do."""

from collections.abc import Iterable
from typing import Any


class AttnStatsError(Exception):
    """Base of every error raised on purpose by tl_attnstats; the command line prints it as one line."""


class CorpusError(AttnStatsError, ValueError):
    """The text, the annotation or the file it came from cannot be used."""


class ModelError(AttnStatsError, ValueError):
    """The model or its tokenizer cannot be loaded or lacks something that is needed."""


class HookError(AttnStatsError, RuntimeError):
    """An attention hook did not fire, or what it delivered is not an attention pattern."""


class MetricError(AttnStatsError, ValueError):
    """A statistic, head or label was asked for that does not exist."""


class StatsError(AttnStatsError, ValueError):
    """A statistics file cannot be read or written, or two results cannot be merged."""


class FigureError(AttnStatsError, ValueError):
    """A figure cannot be drawn or written as asked."""


class MissingExtraError(AttnStatsError, ImportError):
    """An optional package is not installed."""


class AttnStatsWarning(UserWarning):
    """Base of every warning of tl_attnstats."""


class SourcesDisagree(AttnStatsWarning):
    """The streamed source and the model's pattern hooks give different attention. One of them is wrong."""


class BatchDependence(AttnStatsWarning):
    """The attention of a sequence depends on what else is in its batch, which it should not."""


def choices(names: Iterable[Any]) -> str:
    """The known names for the end of an error message, in alphabetical order."""
    return ", ".join(str(name) for name in sorted(names))
