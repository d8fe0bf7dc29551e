"""The books of a run in progress: what it has counted, how it reads model and corpus, and the user's hooks."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import replace
from typing import TYPE_CHECKING, Any

from tl_attnstats.collectors.group import CollectorGroup
from tl_attnstats.corpus.corpus import Corpus
from tl_attnstats.corpus.kinds import SequenceKind
from tl_attnstats.corpus.on_error import said_of, skipped_of
from tl_attnstats.corpus.tally import Tally
from tl_attnstats.errors import CorpusError, StatsError
from tl_attnstats.models.describe import ATTENTION, ModelInfo
from tl_attnstats.models.fingerprint import fingerprint
from tl_attnstats.models.interventions import Placed, describe_hooks, user_hooks
from tl_attnstats.results.shards import Shards, joined, saying
from tl_attnstats.results.state import Counted, Reading, RunState

if TYPE_CHECKING:
    import torch

# Separators between the hooks of different batches, and between sources.
HOOKS_AND, SOURCES_AND = " | ", " and "


class Books:
    """What a run remembers besides sums. With its collectors' sums it makes a `RunState`.

    Args:
        model: the model.
        info: its description by `describe`.
        sequence_kind: what the model reads at once.
    """

    def __init__(self, model: Any, info: ModelInfo, sequence_kind: SequenceKind):
        self.model, self.info = model, info
        self.sources: set[str] = set()
        """The sources that have read batches."""
        self._counted = Counted.of(Tally(), None)  # identifies the corpus; its counts are in the tally
        self._others: tuple[Counted, ...] = ()  # counts of other corpora, from merged runs
        self._reading = Reading(
            model=info.name,
            stream=info.stream,
            attention=ATTENTION[info.causal],
            null=info.null,
            special_tokens=info.reading["special_tokens"],
            key_special_tokens=info.reading.get("key_special_tokens", ""),
            dtype=str(next(iter(model.parameters())).dtype).removeprefix("torch."),
            sequence_kind=sequence_kind,
        )
        self.skipped: list[str] = []
        """A line for each sentence that the tokenizer failed on, and that was left out."""
        self._shards: tuple[Shards, ...] = ()
        self._modules: list[tuple[str, torch.nn.Module]] = []
        self._hooks: list[Placed] | None = None  # the user's, at the last batch
        self._interventions: set[str] = set()

    def begin(self, corpus: Corpus, tally: Tally, truncate: bool, stride: int | None) -> None:
        """Record the corpus and how it is read. Raises `CorpusError` if another one has been counted already."""
        room = self.info.framing.room or 0
        windows = corpus.sequence_kind == "document" and not truncate
        reading = replace(
            self._reading,
            sequence_kind=corpus.sequence_kind,
            stride=min(stride or room, room) if windows else 0,
            truncate="yes" if truncate else "",
        )
        counted = Counted.of(Tally(), corpus)
        if tally.sequences and (counted.corpus, reading) != (self._counted.corpus, self._reading):
            raise CorpusError(
                f"corpus: got {corpus.origin}, but these collectors have already counted {self._counted.origin}, "
                f"or used other options; use new Collectors and merge their statistics"
            )
        self._counted, self._reading = counted, reading

    def begin_batch(self) -> None:
        """Record the model's weights before the first batch. Raises `StatsError` if nothing more can be counted."""
        if self._others and not self._counted.corpus:
            raise StatsError(
                "batch: comes after a merge, and its sentences have no numbers of their own, because "
                "batches(corpus) was not called; collect first, then merge"
            )
        if not self._reading.model_fingerprint:
            self._reading = replace(self._reading, model_fingerprint=fingerprint(self.model))

    def end_batch(self) -> None:
        """Record the user's hooks on the model."""
        self._modules = self._modules or list(self.model.named_modules())
        hooks = user_hooks(self.model, self._modules)
        if hooks != self._hooks:
            self._hooks = hooks
            self._interventions.add(describe_hooks(hooks) or "none")

    def end_shard(self, shard: Shards) -> None:
        """Record that all batches of a shard have been counted."""
        self._shards = joined(self._shards, [shard])

    def state(self, group: CollectorGroup, notes: Mapping[str, str]) -> RunState:
        """Combine the books with the sums of the collectors. `notes` go into the provenance."""
        said = {key: text for key, text in self.info.reading.items() if key in ("direction", "decoder_input", "sides")}
        if group.left_out:
            said["left_out"] = group.left_out
        said |= said_of(self.skipped)
        reading = replace(
            self._reading,
            model_fingerprint=self._reading.model_fingerprint or fingerprint(self.model),
            interventions=HOOKS_AND.join(sorted(self._interventions)) if self._interventions - {"none"} else "",
        )
        return RunState.of(
            group,
            reading,
            (self._counted.of_tally(group.tally), *self._others),
            model_layers=self.info.n_layers,
            source=SOURCES_AND.join(sorted(self.sources)) or "hooks",
            **said,
            **notes,
            **saying({}, self._shards),
        )

    def check_goes_on(self, run: RunState, here: RunState) -> None:
        """Raise `StatsError` if this run, whose own state is `here`, cannot continue from the state `run`."""
        begun = self._counted.corpus
        not_known = () if begun else ("sequence_kind", "stride", "truncate")
        here.check_same_reading(run, "state", but=("interventions", *not_known))
        if begun and begun != run.counted[0].corpus:
            raise StatsError(f"state: comes from {run.counted[0].origin}, expected {self._counted.origin}")

    def load(self, run: RunState, group: CollectorGroup) -> None:
        """Continue from a state, which replaces the contents of books and collectors."""
        own, *others = run.counted
        group.load_state(run.sums, Tally(own.sequences, own.tokens, own.digest, own.numbers))
        self._counted, self._others = own, tuple(others)
        self._reading = run.reading
        self._interventions = set((run.reading.interventions or "none").split(HOOKS_AND))
        self.sources = set(str(run.said["source"]).split(SOURCES_AND))
        self.skipped = skipped_of(run.said)
        self._shards = run.shards
