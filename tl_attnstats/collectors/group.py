"""All collectors of a run together: one update for each block, one state, one merge."""

from __future__ import annotations

import copy
from collections.abc import Callable, Iterable, Mapping

import torch
import xarray as xr
from torch import Tensor

from tl_attnstats.attention.kernels.projections import Consumer
from tl_attnstats.attention.pairs import MakePairs
from tl_attnstats.attention.reductions import ALWAYS, NORMS, WEIGHTS, Joined, Reductions
from tl_attnstats.attention.scope import Scope
from tl_attnstats.collectors import DEFAULT_METRICS
from tl_attnstats.collectors.base import Collector, Shape, known
from tl_attnstats.corpus.tally import Tally
from tl_attnstats.errors import HookError, MetricError, choices

Metric = str | type[Collector] | Collector
OnNorms = Callable[[int, Tensor], Tensor]
"""The norms of what the heads of a layer write for values `[batch, key_head, token, d]`: `[batch, head, token]`."""


def reads_norms(metrics: Iterable[Metric] | None) -> bool:
    """Whether any of these statistics reads the norms of what heads write."""
    collectors = (known(metric) if isinstance(metric, str) else metric for metric in metrics or ())
    return any(set(getattr(collector, "reads", ())) & set(NORMS) for collector in collectors)


def make(metrics: Iterable[Metric] | None, shape: Shape) -> dict[str, Collector]:
    """Make collectors from names, classes or configured instances; None stands for all built-in ones.

    None leaves out what is not defined for the shape, or takes too long; what is not defined is refused by name.
    """
    if metrics is None:
        left_out = {name for names in _left_out(shape).values() for name in names}
        metrics = [name for name in DEFAULT_METRICS if name not in left_out]
    if isinstance(metrics, str):
        metrics = [metrics]
    made = []
    for metric in metrics:
        if isinstance(metric, str):
            made.append(known(metric)())
        elif isinstance(metric, type) and issubclass(metric, Collector):
            made.append(metric())
        elif isinstance(metric, Collector):
            made.append(copy.deepcopy(metric))
        else:
            raise MetricError(
                f"metrics: got {metric!r}, expected the name of a statistic, a Collector class or instance"
            )
    if not made:
        raise MetricError("metrics: got none, expected at least one")
    names = [collector.name for collector in made]
    if "" in names or len(set(names)) < len(names):
        raise MetricError(f"metrics: got {names}, expected collectors with a name each, and each of them once")
    within = [collector.name for collector in made if collector.within_sequence]
    if shape.crosses and within:
        raise MetricError(
            f"metrics: got {choices(within)}, undefined for cross-attention as set, where query and key are in "
            f"different sequences; leave it out"
        )
    of_norms = [collector.name for collector in made if set(collector.reads) & set(NORMS)]
    if of_norms and shape.no_norms:
        raise MetricError(f"metrics: got {choices(of_norms)}, which cannot be computed: {shape.no_norms}; leave it out")
    of_words = [collector.name for collector in made if collector.needs_words]
    if of_words and shape.sequence_kind == "tokens":
        raise MetricError(
            f"metrics: got {choices(of_words)}, which needs words, and token ids have none; leave it out, or give texts"
        )
    return dict(zip(names, made, strict=True))


def _pair_sets(collectors: Iterable[Collector]) -> dict[str, MakePairs]:
    """All named sets of pairs. Raises `MetricError` if two collectors use one name for different sets."""
    sets: dict[str, MakePairs] = {}
    for collector in collectors:
        for name, make in collector.pairs.items():
            if sets.setdefault(name, make) is not make:
                raise MetricError(
                    f"pairs: {collector.name} and another statistic have different sets called {name!r}; rename one"
                )
    return sets


def _left_out(shape: Shape) -> dict[str, list[str]]:
    """The built-in statistics that are left out by default, by reason."""
    found: dict[str, list[str]] = {}
    for name in DEFAULT_METRICS:
        collector = known(name)
        if shape.crosses and collector.within_sequence:
            found.setdefault("not defined between tokens of two sequences", []).append(name)
        elif shape.sequence_kind == "tokens" and collector.needs_words:
            found.setdefault("token ids have no words", []).append(name)
        elif shape.sequence_kind == "document" and collector.sentences_only:
            found.setdefault("takes long in documents", []).append(name)
    return found


class CollectorGroup:
    """Hands blocks to collectors, counts batches, and keeps track of the layers seen in a batch."""

    def __init__(self, metrics: Iterable[Metric] | None, shape: Shape, norms: OnNorms | None = None):
        self.shape, self._norms = shape, norms
        self.collectors = make(metrics, shape)
        left_out = _left_out(shape) if metrics is None else {}
        # Which default statistics are left out, and why.
        self.left_out = "; ".join(f"{', '.join(names)}: {reason}" for reason, names in left_out.items())
        for collector in self.collectors.values():
            collector.begin(shape)
        self.tally = Tally()
        self.whole = True
        """Whether every batch was added to all sums. Not so after an error, or Ctrl-C, while one was being added."""
        reads = (name for collector in self.collectors.values() for name in collector.reads)
        # Reductions that a source has to hand out.
        wanted = dict.fromkeys([*ALWAYS, *reads])
        self.wanted = [name for name in wanted if name not in (WEIGHTS, *NORMS)]
        self.reads_values = any(name in NORMS for name in wanted)
        self._of_weights = [c for c in self.collectors.values() if WEIGHTS in c.reads]
        self._of_reductions = [c for c in self.collectors.values() if WEIGHTS not in c.reads]
        self.pair_sets = _pair_sets(self.collectors.values())
        self._whole: Joined | None = None  # of the current batch
        self._seen: set[int] = set()  # its layers so far

    @property
    def consumer(self) -> Consumer:
        """Receives attention from a source. Blocks of a layer come in row order."""
        return Consumer(
            self.wanted,
            self._take_reductions,
            self._take_weights if self._of_weights else None,
            self._take_values if self.reads_values else None,
        )

    def _joined(self, scope: Scope) -> Joined:
        """What all layers of the current batch are collected in."""
        if self._whole is None:
            self._whole = Joined(scope, len(self.shape.layers), self.wanted)
        return self._whole

    def _take_reductions(self, block: Reductions) -> None:
        block = block.at_home()
        self._joined(block.scope).add(self.shape.layers.index(block.layer), block)
        self._seen.add(block.layer)
        for collector in self._of_reductions:
            collector.update(block.announced(collector.reads))

    def _take_values(self, scope: Scope, layer: int, value: Tensor, mixed: Tensor) -> None:
        assert self._norms is not None
        scope = scope.home
        key_norm, output_norm = (self._norms(layer, x).to(scope.rows.device) for x in (value, mixed))
        self._joined(scope).add_norms(
            self.shape.layers.index(layer),
            key_norm=torch.where(scope.real_keys[:, None], key_norm, 0),
            output_norm=torch.where(scope.rows[:, None], output_norm, 0),
        )

    def _take_weights(self, block: Reductions) -> None:
        block = block.at_home()
        for collector in self._of_weights:
            collector.update(block)

    def end_batch(self, scope: Scope) -> None:
        """Add the batch to the sums if every layer was seen and all weights are finite."""
        missing = [layer for layer in self.shape.layers if layer not in self._seen]
        if missing or self._whole is None:
            self.discard_batch()
            raise HookError(
                f"no attention pattern came from layer {', '.join(map(str, missing))}; the batch is not counted"
            )
        whole = self._whole.reductions()
        _check_finite(whole, self.shape)
        self.whole = False
        for collector in self.collectors.values():
            collector.end_batch(whole.announced([name for name in collector.reads if name != WEIGHTS]))
        self.tally.add(scope.batch)
        self.whole = True
        self._forget()

    def discard_batch(self) -> None:
        """Forget an unfinished batch."""
        self._forget()
        for collector in self.collectors.values():
            collector.discard_batch()

    def _forget(self) -> None:
        self._whole = None
        self._seen = set()

    @property
    def in_batch(self) -> bool:
        """Whether a batch is unfinished."""
        return self._whole is not None

    def state(self) -> dict[str, xr.Dataset]:
        """The state of each collector, by name."""
        return {name: collector.state_dict() for name, collector in self.collectors.items()}

    def check_state(self, state: Mapping[str, xr.Dataset]) -> None:
        """Raise `MetricError` unless a state has the same statistics, layers and heads."""
        if set(state) != set(self.collectors):
            raise MetricError(f"state: got statistics {choices(state)}, expected {choices(self.collectors)}")
        for name, part in state.items():
            layers, n_heads = tuple(part["layer"].values.tolist()), part.sizes["head"]
            if (layers, n_heads) != (self.shape.layers, self.shape.n_heads):
                raise MetricError(
                    f"state: {name} is of layers {list(layers)} and {n_heads} heads, "
                    f"expected {list(self.shape.layers)} and {self.shape.n_heads}"
                )

    def load_state(self, state: Mapping[str, xr.Dataset], tally: Tally) -> None:
        """Replace the state of the collectors and the tally."""
        for name, collector in self.collectors.items():
            collector.load_state_dict(state[name])
        self.tally = tally
        self.discard_batch()


def _check_finite(whole: Reductions, shape: Shape) -> None:
    """Check the sums of attention: NaN or infinity anywhere in a counted row shows in them."""
    bad = ~whole.attention.sum(-1).isfinite()  # [batch, layer * head]
    if bad.any():
        head, place = bad.T.nonzero()[0].tolist()
        sentence = whole.batch.items[place].sentence
        raise HookError(
            f"NaN or infinite attention in layer {shape.layers[head // shape.n_heads]}, sentence {sentence.number + 1} "
            f"({sentence.name}: {sentence.text[:40]!r}…); the batch is not counted. "
            f"Half-precision overflow is the usual cause: try float32"
        )


def merge_states(a: Mapping[str, xr.Dataset], b: Mapping[str, xr.Dataset]) -> dict[str, xr.Dataset]:
    """Add the states of two runs of the same collectors."""
    return {name: known(name).merge(a[name], b[name]) for name in a}
