"""Which queries and keys of a batch count."""

from __future__ import annotations

from collections.abc import Mapping
from functools import cached_property
from typing import Any

import torch
from jaxtyping import Bool, Float, Int
from torch import Tensor

from tl_attnstats.attention.pairs import DEPENDENCIES, MakePairs, Pairs
from tl_attnstats.corpus.batches import Batch
from tl_attnstats.corpus.devices import CPU, home_of, to_device
from tl_attnstats.errors import HookError, MetricError
from tl_attnstats.models.describe import ModelInfo
from tl_attnstats.models.options import NullRule

ALL = slice(None)


class Scope:
    """Which rows and keys of a batch count; made once per batch and shared by its blocks.

    Args:
        batch: the tokens.
        causal: whether a query reaches only keys at or before its own position.
        null: the rule for the null keys: `"first"` (the first position), `"special"`
            (all special tokens, whose rows are dropped too) or `"none"`.
        keys: the key tokens, if they are not the query tokens (cross-attention).
        pair_sets: the functions that make the named sets of pairs.
    """

    def __init__(
        self,
        batch: Batch,
        causal: bool,
        null: NullRule,
        keys: Batch | None = None,
        pair_sets: Mapping[str, MakePairs] = DEPENDENCIES,
    ):
        self.batch = batch
        self.pair_sets = pair_sets
        self._pairs: dict[str, Pairs] = {}
        self._bit_mask: tuple[tuple[Any, ...], Tensor] = (), batch.attention_mask
        self._by_device = {batch.device: self}
        self._home = home_of(batch.device)
        self.keys = batch if keys is None else keys
        self.causal = causal
        self.null_rule = null
        self.real: Bool[Tensor, "batch query"] = batch.attention_mask.bool()
        self.real_keys: Bool[Tensor, "batch key"] = self.keys.attention_mask.bool()
        counted = self.real
        if null == "special":
            self.null = self.real_keys & self.keys.special
            counted = counted & ~batch.special
        else:
            self.null = torch.zeros_like(self.real_keys)
            self.null[:, 0] = null == "first"
        self.content: Bool[Tensor, "batch key"] = self.real_keys & ~self.null
        # Leave out rows that reach no content key, such as row 0 of a causal model.
        reaches = self.content.cumsum(1) > 0 if causal else self.content.any(1, keepdim=True)
        self.rows: Bool[Tensor, "batch query"] = counted & reaches & ~batch.context

    def on(self, device: torch.device) -> Scope:
        """The same scope with its tensors on another device; made once."""
        if device not in self._by_device:
            batch = self.batch.on(device)
            keys = self.keys.on(device) if self.crosses else None
            moved = Scope(batch, self.causal, self.null_rule, keys, self.pair_sets)
            moved._by_device, moved._home = self._by_device, self._home
            self._by_device[device] = moved
        return self._by_device[device]

    @property
    def home(self) -> Scope:
        """The scope on the device where the batch is added up: that of the batch, or the CPU if it has no float64."""
        return self.on(self._home)

    @property
    def host(self) -> Scope:
        """The scope on the CPU, where the host can read it without waiting for a GPU."""
        return self.on(CPU)

    @property
    def crosses(self) -> bool:
        """Whether queries and keys are tokens of two sequences."""
        return self.keys is not self.batch

    def check_one_sequence(self) -> None:
        """Raise `MetricError` in cross-attention, where a query and a key have no offset."""
        if self.crosses:
            raise MetricError(
                "cross-attention: the statistic asked for offsets or pairs, but query and key are in different "
                "sequences; set `within_sequence = True` in its class"
            )

    def bit_mask(
        self, first_row: int, end_row: int, first_key: int = 0, end_key: int | None = None
    ) -> Int[Tensor, "batch query key"]:
        """All bits set at content pairs (a counted row and a content key within its reach), none elsewhere.

        Of some rows and keys: in a long text, not even a byte for each pair fits into memory.
        """
        where = (first_row, end_row, first_key, end_key)
        if where == self._bit_mask[0]:  # whole patterns have the same rows and keys in all layers
            return self._bit_mask[1]
        pairs = self.rows[:, first_row:end_row, None] & self.content[:, None, first_key:end_key]
        mask = -(pairs.tril(first_row - first_key) if self.causal else pairs).int()
        self._bit_mask = where, mask
        return mask

    @cached_property
    def pairs_of_key(self) -> Float[Tensor, "batch key"]:
        """The number of content pairs of each key."""
        rows = self.rows.double()
        reached = rows.flip(1).cumsum(1).flip(1) if self.causal else rows.sum(1, keepdim=True)
        return self.content * reached

    @cached_property
    def pairs_at_offset(self) -> Float[Tensor, "batch offset"]:
        """The number of content pairs at each offset i - j: 0 to n - 1, an empty one, then -(n - 1) to -1."""
        self.check_one_sequence()
        # A correlation, computed by FFT to avoid a query-by-key array. The counts are whole numbers: rounding is exact.
        n_tokens = self.rows.shape[1]
        rows, keys = (torch.fft.rfft(x.double(), 2 * n_tokens) for x in (self.rows, self.content))
        at_offset: Tensor = torch.fft.irfft(rows * keys.conj(), 2 * n_tokens).round()
        if self.causal:
            at_offset[:, n_tokens:] = 0
        return at_offset

    @cached_property
    def pairs_at_distance(self) -> Float[Tensor, "batch token"]:
        """The number of content pairs at each distance |i - j|."""
        n_tokens = self.rows.shape[1]
        at_offset = self.pairs_at_offset
        at_distance = at_offset[:, :n_tokens].clone()
        if not self.causal:  # offset -d is d places before the end
            at_distance[:, 1:] += at_offset[:, n_tokens + 1 :].flip(1)
        return at_distance

    def pairs(self, name: str) -> Pairs:
        """Return a named set of pairs. Raises `MetricError` if no statistic announced it."""
        if name not in self.pair_sets:
            raise MetricError(f"pairs: {name!r} was not announced; add it to `pairs` of the statistic's class")
        if name not in self._pairs:
            self.check_one_sequence()
            host = self.host
            if host is self:
                self._pairs[name] = self.pair_sets[name](self)
            else:
                self._pairs[name] = Pairs(*(to_device(x, self.batch.device) for x in host.pairs(name)))
        return self._pairs[name]

    def listed_pairs(
        self, name: str, rows: slice = ALL, keys: slice = ALL
    ) -> tuple[Int[Tensor, " pair"], Int[Tensor, " pair"], Int[Tensor, " pair"]]:
        """Sequence, query and key of each pair of a named set whose query is among `rows`, and its key among `keys`.

        How many they are is found on the CPU: on a GPU the host would have to wait for it.
        """
        pairs = torch.stack(self.host.pairs(name).expand(rows.start or 0, rows.stop))
        if keys != ALL:
            pairs = pairs[:, (pairs[2] >= keys.start) & (pairs[2] < keys.stop)]
        sequence, query, key = to_device(pairs, self.batch.device)
        return sequence, query, key

    @cached_property
    def all_pairs(self) -> Pairs:
        """All named sets in one list of keys, for kernels; starts and ends are `[set, batch, query]`."""
        sets = [self.pairs(name) for name in self.pair_sets]
        if not sets:
            return self.no_pairs
        keys, start, end = zip(*sets, strict=True)
        sizes = torch.tensor([0, *map(len, keys)], device=self.rows.device)
        shift = sizes.cumsum(0)[:-1, None, None]
        return Pairs(torch.cat(keys), torch.stack(start) + shift, torch.stack(end) + shift)

    @cached_property
    def no_pairs(self) -> Pairs:
        """`all_pairs` of no sets."""
        none = self.rows.new_zeros(0, *self.rows.shape, dtype=torch.int64)
        return Pairs(none.flatten(), none, none)

    def counts(
        self, sequence: Int[Tensor, " pair"], query: Int[Tensor, " pair"], key: Int[Tensor, " pair"]
    ) -> Bool[Tensor, " pair"]:
        """Which pairs are content pairs: a counted row and a content key within its reach."""
        counted = self.rows[sequence, query] & self.content[sequence, key]
        return counted & (key <= query) if self.causal else counted

    @cached_property
    def first_is_null(self) -> Bool[Tensor, "batch 1 query"]:
        """Counted rows of sequences whose first token is a null key."""
        return (self.rows & self.null[:, :1])[:, None]

    @cached_property
    def offsets(self) -> Int[Tensor, " offset"]:
        """The offset i - j of each entry of `Reductions.offset_mass`, in the order in which diagonals are summed."""
        self.check_one_sequence()
        n_tokens = self.rows.shape[1]
        if self.causal:  # 0, n, n - 1, …, 1; no pair has offset n, but this order is the fastest
            return torch.arange(n_tokens + 1, 0, -1, device=self.rows.device) % (n_tokens + 1)
        return torch.arange(n_tokens - 1, -n_tokens, -1, device=self.rows.device)


def scope_of(info: ModelInfo, batch: Batch, pair_sets: Mapping[str, MakePairs] = DEPENDENCIES) -> Scope:
    """The scope of a batch for the stream of attention that `info` describes."""
    if info.stream in ("self", "encoder"):
        return Scope(batch, info.causal, info.null, pair_sets=pair_sets)
    if batch.decoder is None:
        raise HookError(
            f"batch has no decoder input, which stream={info.stream!r} needs; "
            f"take batches from collectors.batches(corpus)"
        )
    keys = batch if info.stream == "cross" else None
    return Scope(batch.decoder, info.causal, info.null, keys, pair_sets)
