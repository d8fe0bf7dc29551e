"""From a model and a corpus to statistics: the loop, and its parts for use inside one's own loop."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator, Mapping
from typing import Any
from warnings import warn

import xarray as xr
from torch import Tensor

from tl_attnstats.attention.memory import MemoryShort, out_of_memory
from tl_attnstats.attention.reductions import AttentionBlock
from tl_attnstats.attention.scope import Scope, scope_of
from tl_attnstats.attention.sources.choose import Choice
from tl_attnstats.attention.sources.hooks import check_block, check_shape
from tl_attnstats.attention.sources.streamed import Consumer
from tl_attnstats.collectors.base import Shape
from tl_attnstats.collectors.group import CollectorGroup, Metric
from tl_attnstats.corpus.batches import Batch, batches
from tl_attnstats.corpus.corpus import Corpus
from tl_attnstats.corpus.kinds import SequenceKind, check_kind, counted
from tl_attnstats.corpus.progress import Bar
from tl_attnstats.errors import CorpusError, HookError, MetricError, ModelError, choices
from tl_attnstats.models.describe import check_hooked, describe
from tl_attnstats.models.hooked import has_hooks, run
from tl_attnstats.models.options import SOURCES, SourceName
from tl_attnstats.results.books import Books
from tl_attnstats.results.state import BOOKS, RunState
from tl_attnstats.results.stats import AttentionStats

# Around here the speed of a small model on a CPU levels off, and the patterns of a layer stay in cache.
BATCH_TOKENS = 1024


class Interrupted(KeyboardInterrupt):
    """Ctrl-C during `collect`. `stats` holds what was collected until then, the longest sentences first, or None."""

    def __init__(self, stats: AttentionStats | None, done: str):
        super().__init__(f"interrupted after {done}")
        self.stats = stats


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
        if source not in SOURCES:
            raise ModelError(f"source={source!r}: expected one of {', '.join(SOURCES)}")
        check_kind(sequence_kind)
        if source == "hooks":
            check_hooked(model)
        self.model, self.sequence_kind = model, sequence_kind
        info = describe(
            model,
            stream=stream,
            tokenizer=tokenizer,
            prepend_bos=prepend_bos,
            null=null,
            layers=None if layers is None else list(layers),
        )
        self.info = info = info.for_token_ids(model, bool(prepend_bos)) if sequence_kind == "tokens" else info
        shape = Shape(info.layers, info.n_heads, info.causal, info.stream == "cross", sequence_kind)
        self.group = CollectorGroup(metrics, shape)
        self._allow_unnormalised = allow_unnormalised
        self._proven = False
        self._choice = Choice(model, info, source)
        self._books = Books(model, info, sequence_kind)

    @property
    def hook_names(self) -> list[str]:
        """The pattern hooks that are needed, for `names_filter`."""
        check_hooked(self.model)
        return list(self.info.hook_of_layer.values())

    def batches(
        self,
        corpus: Corpus,
        *,
        batch_tokens: int = BATCH_TOKENS,
        truncate: bool = False,
        stride: int | None = None,
    ) -> Iterator[Batch]:
        """The corpus as this model's padded input."""
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
        made = batches(
            corpus,
            self.info.framing,
            max_tokens=batch_tokens,
            truncate=truncate,
            sequence_kind=corpus.sequence_kind,
            stride=stride,
            device=self.info.device,
        )
        yield from map(self.info.with_decoder, made)

    def arguments(self, batch: Batch) -> dict[str, Tensor]:
        """What the model's forward takes for this batch besides `batch.input_ids`."""
        return self.info.arguments(batch)

    def run(self, batch: Batch) -> None:
        """Run the model on a batch and collect, skipping what the model would do after its last pattern.

        Out of memory, it says so and goes on with blocks of half as many rows, then with half the batch at a time.
        """
        scope = None
        try:
            scope = self._forward(batch)
        except (RuntimeError, MemoryError) as error:
            if not out_of_memory(error):
                raise
        if scope is not None:
            self._end(scope)
            return
        # What the exception held is free again.
        self.group.discard_batch()
        for part in self._smaller(batch):
            self.run(part)

    def _forward(self, batch: Batch) -> Scope | None:
        """Run the model on a batch. None, and nothing done, where its sequences have to be run alone."""
        streamed = self._choice.source(batch)
        if self._choice.one_by_one and len(batch) > 1:
            return None
        scope = self._scope(batch)
        self._books.sources.add("hooks" if streamed is None else "streamed")
        if streamed is None:
            run(self.model, self.info, batch, lambda layer, pattern: self._take(layer, pattern, scope))
        else:
            rows = self.group.update_weights if self.group.weighs else None
            streamed.run(batch, scope, Consumer(self.group.reads, self.group.update_reduced, rows))
        return scope

    def _smaller(self, batch: Batch) -> list[Batch]:
        """What to run in the place of a batch that did not fit into memory, or whose sequences have to be run alone."""
        if self._choice.one_by_one and len(batch) > 1:
            return batch.split(len(batch))
        n_tokens = batch.input_ids.shape[1]
        n_rows = self._choice.halve_rows(n_tokens)
        if n_rows is not None:
            warn(f"out of memory: going on with blocks of {n_rows} rows", MemoryShort, stacklevel=3)
            return [batch]
        if len(batch) > 1:
            warn(f"out of memory: {len(batch)} sequences of {n_tokens} tokens in two parts", MemoryShort, stacklevel=3)
            return batch.split(2)
        instead = ", or use source='streamed' (--source streamed)" if self._choice.wanted == "hooks" else ""
        raise ModelError(f"out of memory on a single sequence of {n_tokens} tokens; give shorter ones{instead}")

    def update(self, cache: Mapping[str, Tensor], batch: Batch) -> None:
        """Collect from a cache that `run_with_cache` gave for this batch."""
        check_hooked(self.model)
        self._try_out(batch)
        scope = self._scope(batch)
        for layer, name in self.info.hook_of_layer.items():
            if name not in cache:
                raise HookError(f"cache: no {name} in it; call run_with_cache with names_filter=collectors.hook_names")
            self._take(layer, cache[name], scope)
        self._end(scope)

    def hooks(self, batch: Batch) -> list[tuple[str, Callable[..., None]]]:
        """`fwd_hooks` for one `run_with_hooks` over this batch; the last layer's completes it."""
        check_hooked(self.model)
        self._try_out(batch)
        scope = self._scope(batch)
        last = self.info.layers[-1]

        def listen(layer: int) -> Callable[..., None]:
            def hook(pattern: Tensor, hook: Any) -> None:
                self._take(layer, pattern, scope)
                if layer == last:
                    self._end(scope)

            return hook

        return [(name, listen(layer)) for layer, name in self.info.hook_of_layer.items()]

    def stats(self) -> AttentionStats:
        """The statistics of everything collected so far."""
        return AttentionStats(self.state())

    def state(self) -> RunState:
        """Everything collected so far, and what it is of: to merge, to save, and to go on from."""
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

    def _try_out(self, batch: Batch) -> None:
        if not has_hooks(self.model):
            self._choice.try_out(batch, own_loop=True)

    def _scope(self, batch: Batch) -> Scope:
        self.group.discard_batch()  # of a pass that failed half way
        self._books.begin_batch()
        return scope_of(self.info, batch, self.group.pair_sets)

    def _take(self, layer: int, pattern: Tensor, scope: Scope) -> None:
        check_shape(pattern, scope, self.info, layer)
        block = AttentionBlock(pattern, scope, layer)
        if not self._proven:
            check_block(block, pattern, self.info, allow_unnormalised=self._allow_unnormalised)
        self.group.update(block)

    def _end(self, scope: Scope) -> None:
        self.group.end_batch(scope)
        self._proven = True
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
    progress: bool = True,
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
        progress: show a bar, on a terminal.

    Returns:
        The statistics, one labelled data set.

    Raises:
        ModelError, CorpusError, MetricError, HookError: see there.
        Interrupted: on Ctrl-C; carries what was collected.
    """
    collectors = Collectors(
        model,
        metrics,
        layers=layers,
        null=null,
        prepend_bos=prepend_bos,
        source=source,
        stream=stream,
        tokenizer=tokenizer,
        sequence_kind=corpus.sequence_kind,
        allow_unnormalised=allow_unnormalised,
    )
    return collect_with(
        collectors, corpus, batch_tokens=batch_tokens, truncate=truncate, stride=stride, progress=progress
    )


def collect_with(
    collectors: Collectors,
    corpus: Corpus,
    *,
    batch_tokens: int = BATCH_TOKENS,
    truncate: bool = False,
    stride: int | None = None,
    progress: bool = True,
) -> AttentionStats:
    """Run a corpus through the model of these collectors: the second half of `collect`, see there."""
    bar = Bar(corpus, progress)
    try:
        with bar:
            for batch in collectors.batches(corpus, batch_tokens=batch_tokens, truncate=truncate, stride=stride):
                collectors.run(batch)
                bar.advance(batch)
    except KeyboardInterrupt:
        n_done = collectors.group.tally.sequences
        collectors.group.discard_batch()
        in_documents = corpus.sequence_kind == "document"  # of which it is not known how many windows they make
        done = (
            counted(n_done, "document") if in_documents else f"{n_done} of {counted(len(corpus), corpus.sequence_kind)}"
        )
        raise Interrupted(collectors.stats() if n_done else None, done) from None
    return collectors.stats()
