"""What a statistic is: sums over blocks of attention that add up across batches, shards and machines."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from importlib import import_module
from typing import Any, ClassVar

import xarray as xr

from tl_attnstats.attention.pairs import MakePairs
from tl_attnstats.attention.reductions import Reductions
from tl_attnstats.collectors import BUILT_IN
from tl_attnstats.corpus.kinds import SequenceKind
from tl_attnstats.errors import MetricError, choices


@dataclass(frozen=True)
class Shape:
    """What a collector needs to know about model and corpus before the first batch."""

    layers: tuple[int, ...]
    n_heads: int
    causal: bool
    crosses: bool = False  # queries and keys are tokens of two sequences
    sequence_kind: SequenceKind = "sentence"  # what a sequence is
    no_norms: str = "patterns come without values"  # why the norms of what heads write are not known; "" if they are


class Collector:
    """Collects one statistic. To define your own, subclass it or, more often, `RatioCollector`.

    For every batch, `update` gets each block of each layer, rows in order; then `end_batch` gets the reductions of all
    layers as one block. The state is sums: float64 tensors whose size does not depend on the corpus, so that the states
    of any two runs can be added. `compute` turns them into values. It is a pure function of the labelled sums, so that
    a merged file needs no model.

    A subclass is known by its `name` once it is defined: `collect(model, corpus, metrics=["my_statistic"])`.
    """

    name: ClassVar[str] = ""
    settings: Mapping[str, Any] = {}
    reads: tuple[str, ...] = ("weights",)
    """The reductions that the collector needs besides `row_mass` and `null_mass`, which are always available.

    With "weights", `update` gets blocks of rows with their weights, and any reduction of them. Without, collecting
    costs less: `update` gets the reductions of a whole layer where possible, `corner`, and `peak` if `row_max` is
    among the reductions.
    """
    pairs: Mapping[str, MakePairs] = {}
    """The named sets of (query, key) pairs that the collector passes to `mass_on`, and the functions that make them."""
    within_sequence: bool = False
    """Whether the statistic compares positions or words of query and key, which then have to be in one sequence. Such
    statistics are left out of cross-attention."""
    needs_words: bool = False
    """Whether the statistic needs words, for their tags or relations. Such statistics are left out for token ids."""

    sentences_only: bool = False
    """Whether the statistic costs so much in documents that it is left out of them unless asked for by name."""

    def __init_subclass__(cls, **kwargs: Any) -> None:
        super().__init_subclass__(**kwargs)
        if not cls.name:
            return
        if cls.name in BUILT_IN and _full_name(cls) != f"{__package__}.{BUILT_IN[cls.name]}":
            known(cls.name)  # imports it, so that the clash shows
        earlier = REGISTRY.get(cls.name)
        # Running a notebook cell again redefines the same class: no clash.
        if earlier and _full_name(earlier) != _full_name(cls):
            raise MetricError(f"name={cls.name!r}: {_full_name(earlier)} has this name already")
        REGISTRY[cls.name] = cls

    def begin(self, shape: Shape) -> None:
        """Start from zero, for a model of this shape."""
        self.shape = shape

    def update(self, block: Reductions) -> None:
        """Collect from some rows of one layer."""

    def end_batch(self, whole: Reductions) -> None:
        """Add a batch to the sums, from what `update` saw and the reductions of all layers."""
        raise NotImplementedError

    def discard_batch(self) -> None:
        """Forget what `update` saw of an unfinished batch."""

    def state_dict(self) -> xr.Dataset:
        """The sums as labelled arrays."""
        raise NotImplementedError

    def load_state_dict(self, state: xr.Dataset) -> None:
        """Replace the sums by those of an earlier `state_dict`."""
        raise NotImplementedError

    @classmethod
    def merge(cls, a: xr.Dataset, b: xr.Dataset) -> xr.Dataset:
        """Add the states of two runs. A label that one run never met counts as zero there."""
        a, b = xr.align(a, b, join="outer", fill_value=0)
        return a + b

    @classmethod
    def compute(cls, state: xr.Dataset, n: int) -> xr.Dataset:
        """Compute the values from the state and the number of sequences."""
        raise NotImplementedError


REGISTRY: dict[str, type[Collector]] = {}
"""Collectors by name. Built-in ones appear once `known` imports them."""


def _full_name(collector: type[Collector]) -> str:
    return f"{collector.__module__}.{collector.__qualname__}"


def known(name: str) -> type[Collector]:
    """Return the collector called `name`. Raises `MetricError` if there is none."""
    if name in BUILT_IN:
        module, _, class_name = BUILT_IN[name].partition(".")
        found: type[Collector] = getattr(import_module(f"{__package__}.{module}"), class_name)
        return found
    if name not in REGISTRY:
        raise MetricError(f"metrics: unknown statistic {name!r}; known: {choices({*BUILT_IN, *REGISTRY})}")
    return REGISTRY[name]
