"""From a model and a corpus to statistics: the loop, and its parts for use inside one's own loop."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator, Mapping
from contextlib import nullcontext
from functools import partial
from pathlib import Path
from signal import Signals
from typing import Any

import xarray as xr
from torch import Tensor

from tl_attnstats.attention.scope import Scope, scope_of
from tl_attnstats.attention.sources import SourceName
from tl_attnstats.attention.sources.choose import Choice
from tl_attnstats.collectors.base import Shape
from tl_attnstats.collectors.group import CollectorGroup, Metric, reads_norms
from tl_attnstats.corpus.batches import Batch, batches
from tl_attnstats.corpus.corpus import Corpus
from tl_attnstats.corpus.kinds import SequenceKind, check_kind, counted
from tl_attnstats.corpus.on_error import OnError, check_on_error
from tl_attnstats.corpus.progress import Bar
from tl_attnstats.corpus.skipping import Skipping
from tl_attnstats.engines import Engine
from tl_attnstats.engines.sharded import Job, run_sharded
from tl_attnstats.errors import CorpusError, HookError, MetricError, ModelError, choices
from tl_attnstats.models.describe import check_hooked, describe
from tl_attnstats.models.hooked import has_hooks, value_hooks
from tl_attnstats.models.projection import norms_of
from tl_attnstats.results.books import Books
from tl_attnstats.results.checkpoint import EVERY, Checkpoint
from tl_attnstats.results.interrupted import Interrupted
from tl_attnstats.results.shards import Shards
from tl_attnstats.results.state import BOOKS, RunState
from tl_attnstats.results.stats import AttentionStats

# Around here the speed of a small model on a CPU levels off, and the patterns of a layer stay in cache.
BATCH_TOKENS = 1024


class Collectors:
    """The collectors of one run, attached to one model: for use inside one's own loop.

    ```python
    collectors = ta.Collectors(model, metrics=["distance"])
    for batch in collectors.batches(corpus):
        _, cache = model.run_with_cache(
            batch.input_ids, **collectors.arguments(batch), names_filter=collectors.hook_names
        )
        collectors.update(cache, batch)
    stats = collectors.stats()
    ```

    Args: as for `collect`; and `sequence_kind`, that of the corpus.
    """

    def __init__(
        self,
        model: Any,
        metrics: Iterable[Metric] | None = None,
        *,
        layers: Iterable[int] | None = None,
        null: str = "auto",
        prepend_bos: bool | None = None,
        source: SourceName = "auto",
        stream: str | None = None,
        tokenizer: Any = None,
        sequence_kind: SequenceKind = "sentence",
        allow_unnormalised: bool = False,
    ):
        check_kind(sequence_kind)
        if source == "hooks":
            check_hooked(model)
        self.model, self.sequence_kind, self._source = model, sequence_kind, source
        info = describe(
            model,
            stream=stream,
            tokenizer=tokenizer,
            prepend_bos=prepend_bos,
            null=null,
            layers=None if layers is None else list(layers),
        )
        self.info = info = info.for_token_ids(model, bool(prepend_bos)) if sequence_kind == "tokens" else info
        metrics = None if metrics is None else [metrics] if isinstance(metrics, str) else list(metrics)
        norms, no_norms = None, ""
        if reads_norms(metrics):
            try:
                norms = norms_of(model, info)
            except ModelError as error:
                no_norms = str(error)
        shape = Shape(info.layers, info.n_heads, info.causal, info.stream == "cross", sequence_kind, no_norms)
        self.group = CollectorGroup(metrics, shape, norms)
        self._choice = Choice(model, info, source, allow_unnormalised=allow_unnormalised)
        self._books = Books(model, info, sequence_kind)

    @property
    def hook_names(self) -> list[str]:
        """The hooks that are needed, for `names_filter`: patterns, and values where a statistic reads their norms."""
        check_hooked(self.model)
        names = list(self.info.hook_of_layer.values())
        if self.group.reads_values:
            names += [name for layer in self.info.layers for name in self.info.value_hooks(layer)]
        return names

    def batches(
        self,
        corpus: Corpus,
        *,
        batch_tokens: int = BATCH_TOKENS,
        truncate: bool = False,
        stride: int | None = None,
        on_error: OnError = "raise",
        shard: tuple[int, int] | None = None,
    ) -> Iterator[Batch]:
        """The corpus as this model's padded input; or a shard of its batches, such as (3, 16), the third of sixteen."""
        self.begin(corpus, batch_tokens=batch_tokens, truncate=truncate, stride=stride)
        check_on_error(on_error)
        if shard is not None:
            corpus.shard(*shard)  # or raises
        made = batches(
            corpus,
            self.info.framing if on_error == "raise" else Skipping(self.info.framing, self._books.skipped),
            max_tokens=batch_tokens,
            truncate=truncate,
            sequence_kind=corpus.sequence_kind,
            stride=stride,
            device=self.info.device,
            shard=shard or (1, 1),
        )
        yield from map(self.info.with_decoder, made)
        if shard is not None:
            self._books.end_shard(Shards.in_run(corpus, batch_tokens, shard[1], shard[:1]))

    def begin(self, corpus: Corpus, *, batch_tokens: int, truncate: bool, stride: int | None) -> None:
        """Check how a corpus is to be read, and record it, as `batches` does before the first batch."""
        if batch_tokens < 1:
            raise CorpusError(f"batch_tokens={batch_tokens}: expected a positive number of tokens")
        if stride is not None and corpus.sequence_kind != "document":
            raise CorpusError(
                f"stride={stride}: windows are of documents (sequence_kind='document'), this corpus is of sentences"
            )
        if (corpus.sequence_kind == "tokens") != (self.sequence_kind == "tokens"):
            raise CorpusError(
                f"corpus: its sequences are of kind {corpus.sequence_kind!r}, these collectors are for "
                f"{self.sequence_kind!r}; set sequence_kind="
            )
        self._books.begin(corpus, self.group.tally, truncate, stride)

    def arguments(self, batch: Batch) -> dict[str, Tensor]:
        """What the model's forward takes for this batch besides `batch.input_ids`."""
        return self.info.arguments(batch)

    def run(self, batch: Batch) -> None:
        """Run the model on a batch and collect, skipping what the model would do after its last pattern.

        Out of memory, it says so and goes on with blocks of half as many rows, then with half the batch at a time.
        """
        for source, _, scope in self._choice.read(batch, self._begin, self.group.consumer):
            self._books.sources.add(source.name)
            self._end(scope)

    def update(self, cache: Mapping[str, Tensor], batch: Batch) -> None:
        """Collect from a cache that `run_with_cache` gave for this batch."""
        check_hooked(self.model)
        self._try_out(batch)
        scope, consumer = self._begin(batch), self.group.consumer
        for layer, name in self.info.hook_of_layer.items():
            if name not in cache:
                raise HookError(f"cache: no {name} in it; call run_with_cache with names_filter=collectors.hook_names")
            self._choice.hooks.take(layer, cache[name], scope, consumer)
        for layer in self.info.layers if self.group.reads_values else ():
            names = self.info.value_hooks(layer)
            if any(name not in cache for name in names):
                raise HookError(
                    f"cache: no {' and '.join(names)} in it; call run_with_cache with "
                    f"names_filter=collectors.hook_names"
                )
            self._choice.hooks.take_values(layer, cache[names[0]], cache[names[1]], scope, consumer)
        self._end(scope)

    def hooks(self, batch: Batch) -> list[tuple[str, Callable[..., None]]]:
        """`fwd_hooks` for one `run_with_hooks` over this batch; the last one to fire completes it."""
        check_hooked(self.model)
        self._try_out(batch)
        scope, consumer, info = self._begin(batch), self.group.consumer, self.info
        n_parts = len(info.layers) * (2 if self.group.reads_values else 1)
        parts: list[int] = []  # the layer of each pattern, and of each pair of values, so far

        def complete(layer: int) -> None:
            parts.append(layer)
            if len(parts) == n_parts:
                parts.clear()
                self._end(scope)

        def listen(layer: int) -> Callable[..., None]:
            def hook(pattern: Tensor, hook: Any) -> None:
                self._choice.hooks.take(layer, pattern, scope, consumer)
                complete(layer)

            return hook

        def take_values(layer: int, value: Tensor, mixed: Tensor) -> None:
            self._choice.hooks.take_values(layer, value, mixed, scope, consumer)
            complete(layer)

        hooks = [(name, listen(layer)) for layer, name in info.hook_of_layer.items()]
        return hooks + value_hooks(info, take_values) if self.group.reads_values else hooks

    def stats(self) -> AttentionStats:
        """The statistics of everything collected so far."""
        return AttentionStats(self.state())

    def state(self) -> RunState:
        """Everything collected so far, and what it is of: to merge, to save, and to go on from."""
        if not self.group.whole:
            raise HookError("a batch was added to some of the sums only, because that was interrupted; collect again")
        if self.group.in_batch:
            seen = "run_with_hooks did not reach the last layer"
            raise HookError(
                f"a batch was begun and not completed ({seen}); collect it again before asking for statistics"
            )
        return self._books.state(self.group, self._choice.notes)

    def merge(self, other: Collectors) -> None:
        """Add what another run of the same collectors and model has collected, as `RunState.merge` does."""
        self._books.load(self.state().merge(other.state()), self.group)

    def state_dict(self) -> dict[str, xr.Dataset]:
        """`state` as labelled arrays: float64 sums by statistic, and the books under "run"."""
        return self.state().state_dict()

    def load_state_dict(self, state: Mapping[str, xr.Dataset]) -> None:
        """Go on from what `state_dict` gave, in the place of what has been collected.

        Raises:
            MetricError: where it is of other statistics, layers or heads.
            StatsError: where it is of another model, or another way of reading it.
        """
        if BOOKS not in state:
            raise MetricError(f"state: got {choices(state)}, expected what state_dict gave, with {BOOKS!r}")
        run = RunState.from_state_dict(state)
        self.group.check_state(run.sums)
        self._books.check_goes_on(run, self.state())
        self._books.load(run, self.group)

    def sources_state(self) -> dict[str, Any]:
        """What the trials of sources have found: with `state`, all that a run carries from batch to batch."""
        return {"source": self._source, **self._choice.state_dict()}

    def load_sources_state(self, state: Mapping[str, Any]) -> None:
        """Go on from what `sources_state` gave."""
        self._choice.load_state_dict(state)

    def discard_batch(self) -> None:
        """Forget an unfinished batch."""
        self.group.discard_batch()

    def _try_out(self, batch: Batch) -> None:
        if not has_hooks(self.model):
            self._choice.try_out(batch, own_loop=True)

    def _begin(self, batch: Batch) -> Scope:
        """What counts in a batch that is about to be read."""
        self.group.discard_batch()  # of a pass that failed half way
        self._books.begin_batch()
        return scope_of(self.info, batch, self.group.pair_sets)

    def _end(self, scope: Scope) -> None:
        self.group.end_batch(scope)
        self._books.end_batch()


def collect(
    model: Any,
    corpus: Corpus,
    metrics: Iterable[Metric] | None = None,
    *,
    layers: Iterable[int] | None = None,
    batch_tokens: int = BATCH_TOKENS,
    null: str = "auto",
    prepend_bos: bool | None = None,
    source: SourceName = "auto",
    truncate: bool = False,
    stride: int | None = None,
    stream: str | None = None,
    tokenizer: Any = None,
    allow_unnormalised: bool = False,
    on_error: OnError = "raise",
    engine: str | Engine | None = None,
    progress: bool = True,
    checkpoint: str | Path | None = None,
    every: str | float = EVERY,
) -> AttentionStats:
    """Run a corpus through a model and collect statistics of every attention head.

    Args:
        model: a TransformerLens model, or one of transformers with its `tokenizer`. It is left as it was.
        corpus: the sentences.
        metrics: names of statistics, `Collector` classes or instances; None for all that are built in.
        layers: the layers to look at; None for all.
        batch_tokens: most tokens a batch, padding included. The results do not depend on it.
        null: the null set: "first" position, "special" tokens, "none"; "auto" is "first" for causal models,
            "special" for encoders.
        prepend_bos: whether sequences start with the BOS token; None does what the model's `to_tokens` does, or the
            tokenizer of a transformers model. Token ids (`Corpus.from_token_ids`) get one only if it is True.
        source: how attention is read. "hooks" listens at the model's pattern hooks. "streamed" computes it in blocks of
            rows inside the transformers model that the bridge was made of, so that no pattern is ever whole: the
            same numbers but for rounding, and in long contexts quicker. "auto" takes the latter where it reproduces the
            hooks' patterns and the user has no hooks on the model; the provenance says which it was.
        truncate: cut sentences that exceed the model's context, instead of refusing them.
        stride: of a corpus of documents, tokens from the beginning of a window of the model's context to that of the
            next; None is a whole window. Tokens where windows overlap are looked at again, but look only once.
        stream: of an encoder–decoder, which attention: "encoder", "decoder" or "cross", that of the decoder's tokens to
            the encoder's. The decoder reads the sentence itself, as in training. Statistics that compare the places of
            query and key are left out of "cross".
        tokenizer: of a transformers model.
        allow_unnormalised: accept patterns whose rows do not sum to 1, such as those that a hook of yours has zeroed.
        on_error: what to do about a sentence that cannot be tokenized or exceeds the context: "raise", or "skip" it.
            The provenance then says how many were skipped, which, and why.
        engine: runs several workers, which may be on several machines: "ray", or `RayEngine(…)`. Each loads the model
            itself, so `model` is its name, or a function that loads it.
        progress: show a bar, on a terminal.
        checkpoint: a file in which to keep what was collected so far (a second one beside it has the state before
            that). If it is there already, the same call goes on from it. SIGINT and SIGTERM then wait for the end of a
            batch; a second one does not. It is deleted at the end.
        every: the time from one checkpoint to the next: "30s", "5min", "1h", or a number of seconds.

    Returns:
        The statistics, one labelled data set.

    Raises:
        ModelError, CorpusError, MetricError, HookError, EngineError: see there.
        StatsError: the checkpoint is of another run, or damaged as well as the one before it.
        Interrupted: on Ctrl-C; carries what was collected. With an engine, `KeyboardInterrupt`.
    """
    make = partial(
        Collectors,
        metrics=metrics,
        layers=layers,
        null=null,
        prepend_bos=prepend_bos,
        source=source,
        stream=stream,
        tokenizer=tokenizer,
        sequence_kind=corpus.sequence_kind,
        allow_unnormalised=allow_unnormalised,
    )
    reading: Any = {"batch_tokens": batch_tokens, "truncate": truncate, "stride": stride, "on_error": on_error}
    if engine is not None:
        return run_sharded(engine, Job.of(model, make, corpus, reading), progress=progress, checkpoint=checkpoint)
    kept = None if checkpoint is None else Checkpoint(checkpoint, every)
    stats = collect_with(make(model), corpus, **reading, progress=progress, checkpoint=kept)
    if kept is not None:
        kept.remove()
    return stats


def collect_with(
    collectors: Collectors,
    corpus: Corpus,
    *,
    batch_tokens: int = BATCH_TOKENS,
    truncate: bool = False,
    stride: int | None = None,
    on_error: OnError = "raise",
    progress: bool = True,
    checkpoint: Checkpoint | None = None,
) -> AttentionStats:
    """Run a corpus through the model of these collectors: the second half of `collect`, see there.

    The checkpoint is left to the caller to delete, once the result is saved.
    """
    bar = Bar(corpus, progress)
    reading: Any = {"batch_tokens": batch_tokens, "truncate": truncate, "stride": stride}
    given = collectors.batches(corpus, **reading, on_error=on_error)
    try:
        with bar, nullcontext() if checkpoint is None else checkpoint.over(collectors):
            if checkpoint is not None:
                collectors.begin(corpus, **reading)
                given = checkpoint.resume(given, batch_tokens=batch_tokens, sentences=len(corpus), on_error=on_error)
                if checkpoint.resumed:
                    bar.resume(checkpoint.path, checkpoint.sequences)
            for batch in given:
                collectors.run(batch)
                bar.advance(batch)
                if checkpoint is not None:
                    checkpoint.due(batch)
    except KeyboardInterrupt:
        received = checkpoint.signal if checkpoint is not None else None
        n_done = collectors.group.tally.sequences
        collectors.group.discard_batch()
        in_documents = corpus.sequence_kind == "document"  # of which it is not known how many windows they make
        done = (
            counted(n_done, "document") if in_documents else f"{n_done} of {counted(len(corpus), corpus.sequence_kind)}"
        )
        stats = collectors.stats() if n_done and collectors.group.whole else None
        raise Interrupted(stats, done, received or Signals.SIGINT) from None
    return collectors.stats()
