"""What a statistic is: sums over attention blocks that add up across batches, shards and machines."""

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
    """What a collector needs to know of model and corpus before the first batch."""

    layers: tuple[int, ...]
    n_heads: int
    causal: bool
    crosses: bool = False  # queries and keys are tokens of two sequences
    sequence_kind: SequenceKind = "sentence"  # what a sequence is


class Collector:
    """A statistic in the making. Subclass it, or more often `RatioCollector`, for one of your own.

    For every batch `update` is called with each block of each layer, rows in order, then `end_batch` once, with the
    block that joins the reductions of all layers. What has been collected is sums: float64 tensors of a size that
    does not depend on the corpus, in which any two runs add up. `compute` turns them into values and is a pure
    function of the labelled sums, so that a merged file needs no model.

    Subclasses are known by their `name` from the moment they are defined: `collect(model, corpus,
    metrics=["my_statistic"])`.
    """

    name: ClassVar[str] = ""
    settings: Mapping[str, Any] = {}
    reads: tuple[str, ...] = ("weights",)
    """The reductions that the collector needs, besides `row_mass` and `null_mass`, which it may always ask for.

    "weights" is one of them: `update` is then given blocks of rows with their weights, and may ask for any reduction.
    A collector that reads no weights costs less: `update` is given the reductions of a whole layer where possible, and
    may ask for `corner`, and for `peak` if `row_max` is among its reductions.
    """
    pairs: Mapping[str, MakePairs] = {}
    """The named sets of (query, key) pairs that the collector asks a block's `mass_on` for, and what makes each."""
    within_sequence: bool = False
    """Whether the statistic compares the places, or the words, of query and key, which have to be of one sequence for
    that. Of cross-attention it is left out."""
    needs_words: bool = False
    """Whether the statistic is of words: their tags or relations. Of token ids, which have none, it is left out."""

    def __init_subclass__(cls, **kwargs: Any) -> None:
        super().__init_subclass__(**kwargs)
        if not cls.name:
            return
        if cls.name in BUILT_IN and _full_name(cls) != f"{__package__}.{BUILT_IN[cls.name]}":
            known(cls.name)  # which imports it, so that the clash shows
        earlier = REGISTRY.get(cls.name)
        # Running a notebook cell again defines the same class anew, which is no clash.
        if earlier and _full_name(earlier) != _full_name(cls):
            raise MetricError(f"name={cls.name!r}: {_full_name(earlier)} has this name already")
        REGISTRY[cls.name] = cls

    def begin(self, shape: Shape) -> None:
        """Forget everything collected and get ready for a model of this shape."""
        self.shape = shape

    def update(self, block: Reductions) -> None:
        """Take in some rows of one layer."""

    def end_batch(self, whole: Reductions) -> None:
        """Fold a batch into the sums: what `update` saw of it, and the reductions of all layers."""
        raise NotImplementedError

    def discard_batch(self) -> None:
        """Forget what `update` saw of a batch that is not ended."""

    def state_dict(self) -> xr.Dataset:
        """Everything collected, labelled."""
        raise NotImplementedError

    def load_state_dict(self, state: xr.Dataset) -> None:
        """Replace what has been collected by what `state_dict` gave, here or on another machine."""
        raise NotImplementedError

    @classmethod
    def merge(cls, a: xr.Dataset, b: xr.Dataset) -> xr.Dataset:
        """The state of both runs together. Sums add; a label that one run never met counts zero there."""
        a, b = xr.align(a, b, join="outer", fill_value=0)
        return a + b

    @classmethod
    def compute(cls, state: xr.Dataset, n: int) -> xr.Dataset:
        """The values, from the state and the number of sequences."""
        raise NotImplementedError


REGISTRY: dict[str, type[Collector]] = {}
"""Collectors by name, as far as they are defined: built-in ones are imported by `known`."""


def _full_name(collector: type[Collector]) -> str:
    return f"{collector.__module__}.{collector.__qualname__}"


def known(name: str) -> type[Collector]:
    """The collector called `name`, or a `MetricError` that lists those there are."""
    if name in BUILT_IN:
        module, _, class_name = BUILT_IN[name].partition(".")
        found: type[Collector] = getattr(import_module(f"{__package__}.{module}"), class_name)
        return found
    if name not in REGISTRY:
        raise MetricError(f"metrics: unknown statistic {name!r}; known: {choices({*BUILT_IN, *REGISTRY})}")
    return REGISTRY[name]
