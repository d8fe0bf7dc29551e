"""Which source of attention a run takes: the streamed one where it proves itself on the run's own batches."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping
from threading import get_ident
from typing import Any, NamedTuple, Protocol
from warnings import warn
from weakref import WeakKeyDictionary

from transformers import PreTrainedModel

from tl_attnstats.attention.kernels.projections import MOST_ROWS, Consumer
from tl_attnstats.attention.memory import out_of_memory
from tl_attnstats.attention.scope import Scope
from tl_attnstats.attention.sources import SOURCES, SourceName
from tl_attnstats.attention.sources.hooks import HookSource
from tl_attnstats.attention.sources.streamed import StreamedSource
from tl_attnstats.attention.sources.trials import Difference, Sample, Trials, limits
from tl_attnstats.corpus.batches import Batch
from tl_attnstats.corpus.devices import exact_products
from tl_attnstats.errors import BatchDependence, HookError, MemoryShort, ModelError, SourcesDisagree
from tl_attnstats.models import bare, hooked
from tl_attnstats.models.describe import ModelInfo, probe
from tl_attnstats.models.twin import structure

TRIAL_TOKENS, PADDED_TOKENS = 10, 16  # of a trial, and of its padding; few, because every run pays for one
BEYOND = 16  # tokens of a trial beyond a limit, which may exceed TRIAL_TOKENS
LONG = 1024  # larger limits are not tried if the model's own masks are read, which is exact anyway


class Source(Protocol):
    """Where attention comes from."""

    name: str

    def read(self, batch: Batch, scope: Scope, consumer: Consumer) -> None:
        """Hand the attention of a batch to the consumer, layer by layer."""


class _Proof(NamedTuple):
    """A streamed source that passed its trials, and what the proof depends on."""

    thread: int  # a source reads one batch at a time
    info: ModelInfo
    structure: tuple[Any, ...]
    streamed: StreamedSource
    tried: tuple[int, int]


_PROOFS: WeakKeyDictionary[Any, _Proof] = WeakKeyDictionary()
"""The latest proof of each model, so that the next run on it need not repeat it."""


class Choice:
    """Chooses the source of a run on its first batch, and tries it again if a later batch brings something new.

    New means the first batch of several sequences, or the first sequence beyond one of the model's `limits`.

    Args:
        model: the user's model.
        info: what `describe` says of it.
        wanted: the source to take; "auto" is the streamed one if it gives what the model's hooks give.
        allow_unnormalised: accept patterns whose rows do not sum to 1.
    """

    def __init__(self, model: Any, info: ModelInfo, wanted: SourceName, *, allow_unnormalised: bool = False):
        if wanted not in SOURCES:
            raise ModelError(f"source={wanted!r}: expected one of {', '.join(SOURCES)}")
        self.model, self.info = model, info
        self.wanted: SourceName = wanted if info.hooked else "streamed"
        self.hooks = HookSource(model, info, allow_unnormalised=allow_unnormalised)
        self.streamed: StreamedSource | None = None
        """The streamed source, once it has passed a trial."""
        self.one_by_one = False
        """Whether to run each sequence alone, because sequences in a batch change each other's attention."""
        self.notes: dict[str, str] = {}
        """What the trials found, for the provenance."""
        self.why_not = ""
        """Why "auto" did not take the streamed source."""
        self._trials = Trials(model, info)
        self._candidate: StreamedSource | None = None  # from its first trial on
        self._limits = list(limits(model))
        self._tried = self._tried_in_batches = -1  # the largest limit that was exceeded in a trial
        self._structure: tuple[Any, ...] | None = None

    def state_dict(self) -> dict[str, Any]:
        """What the trials have found so far, for a run that is resumed: it must not find something else."""
        return {"wanted": self.wanted, "one_by_one": self.one_by_one, "notes": self.notes, "why_not": self.why_not}

    def load_state_dict(self, state: Mapping[str, Any]) -> None:
        """Go on from what `state_dict` gave. A streamed source is put to trial again, on the next batch."""
        self.wanted, self.one_by_one = state["wanted"], state["one_by_one"]
        self.notes, self.why_not = dict(state["notes"]), state["why_not"]

    def read(
        self, batch: Batch, begin: Callable[[Batch], Scope], consumer: Consumer
    ) -> Iterator[tuple[Source, Batch, Scope]]:
        """Hand the attention of a batch to the consumer, in parts if memory is short or sequences have to run alone.

        Args:
            batch: the tokens.
            begin: is called before each part, and says what counts in it.
            consumer: who receives the attention.

        Yields:
            For each part, once it is complete: the source, the tokens and what counted.
        """
        done = None
        try:
            source = self.source(batch)
            if not (self.one_by_one and len(batch) > 1):
                scope = begin(batch)
                source.read(batch, scope, consumer)
                done = source, batch, scope
        except (RuntimeError, MemoryError) as error:
            if not out_of_memory(error):
                raise
        if done is not None:
            yield done
            return
        # After the except clause, when memory held by the exception is free again.
        for part in self._smaller(batch):
            yield from self.read(part, begin, consumer)

    def _smaller(self, batch: Batch) -> list[Batch]:
        """Split a batch that did not fit into memory, or whose sequences have to run alone."""
        if self.one_by_one and len(batch) > 1:
            return batch.split(len(batch))
        n_tokens = batch.input_ids.shape[1]
        if self._candidate is not None and self._candidate.halve_rows(n_tokens):
            n_rows = self._candidate.most_rows
            warn(f"out of memory: going on with blocks of {n_rows} rows", MemoryShort, stacklevel=4)
            return [batch]
        if len(batch) > 1:
            warn(f"out of memory: {len(batch)} sequences of {n_tokens} tokens in two parts", MemoryShort, stacklevel=4)
            return batch.split(2)
        instead = ", or use source='streamed' (--source streamed)" if self.wanted == "hooks" else ""
        raise ModelError(f"out of memory on a single sequence of {n_tokens} tokens; give shorter ones{instead}")

    def source(self, batch: Batch) -> Source:
        """Return the source for this batch, after the trials that the batch calls for.

        Raises:
            ModelError: `wanted` is "streamed", and the model cannot be read that way.
            HookError: `wanted` is "streamed", and the model's hooks give something else.
        """
        if not hooked.has_hooks(self.model):
            if self.wanted != "hooks" and self._structure is None:
                self._recall()
            self.try_out(batch)
            return self.streamed or self.hooks
        # A trial would run the user's hooks on inputs they are not meant for.
        if self.wanted == "streamed":
            instead = bare.INSTEAD if self.info.hooked else "take them off"
            raise ModelError(f"source='streamed': the model has hooks, which this source would pass by; {instead}")
        return self.hooks

    def try_out(self, batch: Batch, *, own_loop: bool = False) -> None:
        """Run the trials that this batch calls for; in the user's own loop, only those of hooks."""
        several = len(batch) > 1 and not self.one_by_one
        longest = max(len(item) for item in batch.items)
        exceeded = [limit for limit in self._limits if limit < longest]
        limit = max(exceeded, default=0)
        if limit <= self._tried and not (several and limit > self._tried_in_batches):
            return
        whole = batch.take([max(range(len(batch)), key=lambda place: len(batch.items[place]))])
        # Shorter than the sequence beside it, and below every limit.
        beside = whole if exceeded else whole.beginning(PADDED_TOKENS)
        self._trial(beside, min([TRIAL_TOKENS, *exceeded]), several, own_loop)
        exact = self.streamed is not None and self.streamed.reads_masks
        if exceeded and not (exact and limit > LONG):
            # A sequence that exceeds the limit by one token has no longer one to stand beside.
            self._trial(whole, limit + BEYOND, several and limit + 1 < longest, own_loop)
        self._tried, self._tried_in_batches = limit, limit if several else self._tried_in_batches
        if self.streamed is not None and self._structure is not None and not self.notes:
            tried = self._tried, self._tried_in_batches
            _PROOFS[self.model] = _Proof(get_ident(), self.info, self._structure, self.streamed, tried)

    def _recall(self) -> None:
        """Reuse the proof of an earlier run on the same model, if it still holds."""
        original = getattr(self.model, "original_model", self.model)
        if not isinstance(original, PreTrainedModel):
            return
        self._structure = structure(self.model)
        proof = _PROOFS.get(self.model)
        if proof is None or proof[:3] != (get_ident(), self.info, self._structure):
            return
        self.streamed = self._candidate = proof.streamed
        self.streamed.most_rows = MOST_ROWS
        self._tried, self._tried_in_batches = proof.tried

    def _trial(self, whole: Batch, n_tokens: int, several: bool, own_loop: bool) -> None:
        """Read the beginning of a sequence alone and, for batches of several, beside the whole sequence; compare."""
        several = several and not self.one_by_one
        if (own_loop or self.wanted == "hooks") and not several:
            return  # nothing to compare
        alone = whole.beginning(max(1, min(n_tokens, len(whole.items[0]) - several)))
        with exact_products():
            self._compare(alone, whole.plus(alone) if several else alone, several, own_loop)

    def _compare(self, alone: Batch, padded: Batch, several: bool, own_loop: bool) -> None:
        expected = self._trials.of_model(alone)
        if not all(pattern.isfinite().all() for pattern in expected.values()):
            return  # the run itself reports this, with the sentence
        if own_loop or self.wanted == "hooks" or not self._take_streamed(alone, padded, expected):
            off = self._trials.difference(self._trials.of_model(padded), expected) if several else None
            if off is not None:
                self._run_one_by_one(off, own_loop)

    def _take_streamed(self, alone: Batch, padded: Batch, expected: Sample) -> bool:
        """Take the streamed source if it gives what is expected. If not, raise, or fall back for "auto"."""
        trials = self._trials
        try:
            self._candidate = streamed = self._candidate or StreamedSource(self.model, self.info)
            off = trials.difference(trials.sample(streamed.patterns, padded), expected)
            if off is not None:
                found = trials.sample(streamed.patterns, alone)
                off_alone = trials.difference(found, expected)
                if off_alone is None:
                    self._run_one_by_one(off, own_loop=False)
                else:
                    self._report(off_alone, found, expected, alone)
        except (ModelError, HookError) as error:
            if self.wanted == "streamed":
                raise
            self.wanted, self.why_not = "hooks", str(error)
            self.streamed = self._candidate = None
            return False
        self.streamed = streamed
        return True

    def _report(self, off: Difference, found: Sample, expected: Sample, alone: Batch) -> None:
        """Warn that the streamed source contradicts the hooks, and say which of them transformers agrees with.

        Raises:
            HookError: unless the user asked for the streamed source and transformers agrees with it.
        """
        eager = self._trials.of_eager(alone)
        if eager is None:
            right, verdict = False, "could not be compared"
        else:
            right, hook_right = (self._trials.difference(sample, eager) is None for sample in (found, expected))
            verdict = f"agrees with {'this source' if right else 'the hook' if hook_right else 'neither'}"
        what = (
            f"source='streamed': layer {off.layer} of {self.info.name} differs from its pattern hook by {off.by:.2g}; "
            f"transformers' own eager attention {verdict}"
        )
        if self.wanted == "streamed" and not right:
            raise HookError(f"{what}; {bare.instead(self.model)}")
        self.notes["sources_disagree"] = what
        warn(f"{what}; going on with source={'hooks' if self.wanted == 'auto' else 'streamed'!r}", SourcesDisagree, 2)
        if self.wanted == "auto":
            raise HookError(what)

    def _run_one_by_one(self, off: Difference, own_loop: bool) -> None:
        """Warn that sequences of a batch change each other's attention; from now on run them alone."""
        what = (
            f"layer {off.layer} of {self.info.name}: the attention of a sequence changes by {off.by:.2g} when a longer "
            f"one is in its batch"
        )
        self.notes["batch_dependence"] = what
        self.one_by_one = True
        instead = "give batches of one sequence (batch_tokens=1)" if own_loop else "going on one sequence at a time"
        warn(f"{what}; {instead}", BatchDependence, stacklevel=2)


def source_of(model: Any, info: ModelInfo) -> str:
    """Which source `source="auto"` takes, found by trying it; and why, if not the streamed one."""
    choice = Choice(model, info, "auto")
    if choice.source(probe(info)).name == "streamed":
        return "streamed"
    reason = choice.why_not or "the model has hooks"
    return "hooks: " + reason.removeprefix("source='streamed': ").removesuffix(f"; {bare.instead(model)}")
