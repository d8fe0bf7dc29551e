"""Which source of attention a run takes, and the trials in which it proves itself on the run's own batches."""

from __future__ import annotations

import re
from collections.abc import Callable, Iterator, Mapping
from typing import Any, NamedTuple
from warnings import warn

import torch
from torch import Tensor

from tl_attnstats.attention.scope import scope_of
from tl_attnstats.attention.sources.streamed import Streamed
from tl_attnstats.corpus.batches import Batch
from tl_attnstats.errors import BatchDependence, HookError, ModelError, SourcesDisagree
from tl_attnstats.models import bare, hooked
from tl_attnstats.models.describe import ModelInfo, probe
from tl_attnstats.models.options import SourceName

# How far apart two computations of a weight may be. Half precision rounds scores and, at the hooks, weights: on SmolLM2
# the sources differ by up to 0.005 in float16 and 0.04 in bfloat16.
TOLERANCE = {torch.float16: 0.02, torch.bfloat16: 0.1}
TRIAL_TOKENS, PADDED_TOKENS = 10, 16  # of a trial, and of what it is padded to; few, for every run has one
TRIAL_ROWS = 64  # most rows of a pattern that a trial compares
BEYOND = 16  # how many tokens a trial goes past a window; it may then be longer than TRIAL_TOKENS
LONG = 1024  # a window longer than this is not tried where the model's own masks are read, which is exact anyway
# Numbers in a configuration at which attention changes: windows, chunks, sparse indexers, rotary frequencies.
SPAN = re.compile(r"window|chunk|local|block_size|radius|index_?top_?k|original_max_position")
NOT_SPAN = re.compile(r"expert|layer|pattern|feed_forward|vision|audio|image")

Read = Callable[[Batch, Callable[[int, Tensor, int], None]], None]
"""Reads the patterns of a batch: calls a function with layer, pattern and first row, for each block of rows."""
Sample = Mapping[int, Tensor]
"""Some rows of one sequence's pattern in each layer, `[head, row, key]`."""


class Difference(NamedTuple):
    """The first layer in which two computations of attention differ, and by how much."""

    layer: int
    by: float


class Choice:
    """The source of a run: chosen on its first batch, and tried again where a later batch brings something new.

    New is the first batch of several sequences, and a sequence that is the first to exceed one of the model's `spans`.

    Args:
        model: the user's model.
        info: what `describe` says of it.
        wanted: the source to take; "auto" is the streamed one if it gives what the model's hooks give.
    """

    def __init__(self, model: Any, info: ModelInfo, wanted: SourceName):
        self.model, self.info = model, info
        self.wanted: SourceName = wanted if info.hooked else "streamed"
        self.streamed: Streamed | None = None
        """The streamed source, once it has passed a trial."""
        self.one_by_one = False
        """Whether to run each sequence alone, because in a batch they change each other's attention."""
        self.notes: dict[str, str] = {}
        """What the trials found, for the provenance."""
        self.why_not = ""
        """Why "auto" did not take the streamed source."""
        self._candidate: Streamed | None = None  # from its first trial on
        self._spans = list(spans(model))
        self._tried = self._tried_in_batches = -1  # the largest span that was exceeded in a trial

    def source(self, batch: Batch) -> Streamed | None:
        """The source to read this batch with: the streamed one, or None for the model's hooks.

        Raises:
            ModelError: `wanted` is "streamed", and the model cannot be read that way.
            HookError: `wanted` is "streamed", and the model's hooks give something else.
        """
        if not hooked.has_hooks(self.model):
            self.try_out(batch)
            return self.streamed
        # The user's hooks are for the user's batches: no trial.
        if self.wanted == "streamed":
            instead = bare.INSTEAD if self.info.hooked else "take them off"
            raise ModelError(f"source='streamed': the model has hooks, which this source would pass by; {instead}")
        return None

    def try_out(self, batch: Batch, *, own_loop: bool = False) -> None:
        """Run the trials that this batch calls for, in the user's own loop of hooks alone."""
        several = len(batch) > 1 and not self.one_by_one
        longest = max(len(item) for item in batch.items)
        exceeded = [span for span in self._spans if span < longest]
        span = max(exceeded, default=0)
        if span <= self._tried and not (several and span > self._tried_in_batches):
            return
        whole = batch.take([max(range(len(batch)), key=lambda place: len(batch.items[place]))])
        # Shorter than what it stands beside, and on the other side of every span.
        beside = whole if exceeded else whole.beginning(PADDED_TOKENS)
        self._trial(beside, min([TRIAL_TOKENS, *exceeded]), several, own_loop)
        exact = self.streamed is not None and self.streamed.reads_masks
        if exceeded and not (exact and span > LONG):
            # A sequence that exceeds the span by a single token cannot stand beside a longer one.
            self._trial(whole, span + BEYOND, several and span + 1 < longest, own_loop)
        self._tried, self._tried_in_batches = span, span if several else self._tried_in_batches

    def halve_rows(self, n_tokens: int) -> int | None:
        """Read sequences of so many tokens in blocks of half as many rows. Returns how many; None where it cannot."""
        if self._candidate is None or not self._candidate.halve_rows(n_tokens):
            return None
        return self._candidate.most_rows

    def _trial(self, whole: Batch, n_tokens: int, several: bool, own_loop: bool) -> None:
        """Read the beginning of a sequence alone and, for batches of several, beside the whole of it, and compare."""
        several = several and not self.one_by_one
        if (own_loop or self.wanted == "hooks") and not several:
            return  # nothing to compare
        alone = whole.beginning(max(1, min(n_tokens, len(whole.items[0]) - several)))
        padded = whole.plus(alone) if several else alone
        expected = self._sample(self._read_model, alone)
        if not all(pattern.isfinite().all() for pattern in expected.values()):
            return  # the run reports it, and names the sentence
        if own_loop or self.wanted == "hooks" or not self._take_streamed(alone, padded, expected):
            off = self._difference(self._sample(self._read_model, padded), expected) if several else None
            if off is not None:
                self._run_one_by_one(off, own_loop)

    def _take_streamed(self, alone: Batch, padded: Batch, expected: Sample) -> bool:
        """Take the streamed source if it gives what is expected. If not, raise or, for "auto", leave it."""
        try:
            self._candidate = streamed = self._candidate or Streamed(self.model, self.info)
            off = self._difference(self._sample(streamed.patterns, padded), expected)
            if off is not None:
                found = self._sample(streamed.patterns, alone)
                off_alone = self._difference(found, expected)
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
        """Say that the streamed source contradicts the hooks, and with which of them transformers agrees.

        Raises:
            HookError: unless the streamed source was asked for and is the one that transformers agrees with.
        """
        eager = self._eager(alone)
        if eager is None:
            right, verdict = False, "could not be compared"
        else:
            right, hook_right = (self._difference(sample, eager) is None for sample in (found, expected))
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
        """Say that sequences of a batch change each other's attention, and run them alone from now on."""
        what = (
            f"layer {off.layer} of {self.info.name}: the attention of a sequence changes by {off.by:.2g} when a longer "
            f"one is in its batch"
        )
        self.notes["batch_dependence"] = what
        self.one_by_one = True
        instead = "give batches of one sequence (batch_tokens=1)" if own_loop else "going on one sequence at a time"
        warn(f"{what}; {instead}", BatchDependence, stacklevel=2)

    def _read_model(self, batch: Batch, on_rows: Callable[[int, Tensor, int], None]) -> None:
        """The patterns at the model's hooks; of a transformers model, those of its eager attention."""
        if self.info.hooked:
            hooked.run(self.model, self.info, batch, lambda layer, pattern: on_rows(layer, pattern, 0))
        else:
            for layer, pattern in bare.patterns(self.model, batch.input_ids, batch.attention_mask).items():
                on_rows(layer, pattern, 0)

    def _eager(self, alone: Batch) -> Sample | None:
        """What transformers' own eager attention gives, where it says which layer is which."""
        if self.info.stream != "self":
            return None
        try:
            found = bare.patterns(self.model, alone.input_ids, alone.attention_mask)
        except ModelError:
            return None
        if not set(self.info.layers) <= set(found):
            return None

        def read(_: Batch, on_rows: Callable[[int, Tensor, int], None]) -> None:
            for layer in self.info.layers:
                on_rows(layer, found[layer], 0)

        return self._sample(read, alone)

    def _sample(self, read: Read, batch: Batch) -> Sample:
        """Evenly spaced rows of the last sequence's patterns, of those that count."""
        scope = scope_of(self.info, batch)
        n_keys = len(scope.keys.items[-1])
        rows = scope.rows[-1].nonzero()[:, 0].cpu()
        if len(rows) > TRIAL_ROWS:
            rows = rows[torch.linspace(0, len(rows) - 1, TRIAL_ROWS).long()]
        kept: dict[int, list[Tensor]] = {}

        def keep(layer: int, pattern: Tensor, first_row: int) -> None:
            here = rows[(rows >= first_row) & (rows < first_row + pattern.shape[2])] - first_row
            kept.setdefault(layer, []).append(pattern[-1, :, here.to(pattern.device), :n_keys].detach().float())

        read(batch, keep)
        return {layer: torch.cat(parts, 1) for layer, parts in kept.items() if layer in self.info.layers}

    def _difference(self, found: Sample, expected: Sample) -> Difference | None:
        """Where two samples first differ by more than rounding explains."""
        tolerance = TOLERANCE.get(next(iter(self.model.parameters())).dtype, 1e-4)
        for layer, pattern in expected.items():
            off = (found[layer] - pattern).abs()
            if off.numel() and not off.max() <= tolerance:  # NaN is a difference too
                return Difference(layer, off.max().item())
        return None


def spans(model: Any) -> Iterator[int]:
    """Lengths at which a model's attention changes, as its configuration names them, within parts of it too."""
    config: Any = getattr(getattr(model, "original_model", model), "config", None)
    return _spans(config.to_dict()) if hasattr(config, "to_dict") else iter(())


def _spans(config: Mapping[Any, Any]) -> Iterator[int]:
    for name, value in config.items():
        if NOT_SPAN.search(str(name)):
            continue
        if isinstance(value, Mapping):
            yield from _spans(value)
        elif SPAN.search(str(name)):
            yield from (n for n in (value if isinstance(value, list | tuple) else [value]) if type(n) is int and n > 1)


def source_of(model: Any, info: ModelInfo) -> str:
    """Which source `source="auto"` takes, found by trying, and why if it is not the streamed one."""
    choice = Choice(model, info, "auto")
    if choice.source(probe(info)) is not None:
        return "streamed"
    reason = choice.why_not or "the model has hooks"
    return "hooks: " + reason.removeprefix("source='streamed': ").removesuffix(f"; {bare.instead(model)}")
