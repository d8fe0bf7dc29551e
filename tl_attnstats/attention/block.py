"""The unit that statistics are computed from: attention weights of one layer for some query rows of one batch."""

from __future__ import annotations

from collections.abc import Sequence
from functools import cached_property

import torch
from jaxtyping import Bool, Float, Int
from torch import Tensor

from tl_attnstats.attention.options import NULL_RULES, NullRule
from tl_attnstats.corpus.batches import Batch
from tl_attnstats.errors import AttnStatsError, MetricError


class Scope:
    """Which rows and which keys of a batch count. Made once a batch and shared by its blocks.

    Args:
        batch: the tokens.
        causal: whether a query reaches only keys at or before its own position.
        null: the rule for the null set, the keys that serve as a sink: `"first"` (the first position), `"special"`
            (all special tokens, whose rows are dropped too) or `"none"`.
        keys: the tokens that are looked at, where they are others than those that look (cross-attention).
    """

    def __init__(self, batch: Batch, causal: bool, null: NullRule, keys: Batch | None = None):
        self.batch = batch
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
        # A row without a content key (row 0 of a causal model) says nothing: it is left out everywhere.
        reaches = self.content.cumsum(1) > 0 if causal else self.content.any(1, keepdim=True)
        self.rows: Bool[Tensor, "batch query"] = counted & reaches & ~batch.context

    @property
    def crosses(self) -> bool:
        """Whether queries and keys are tokens of two sequences."""
        return self.keys is not self.batch

    def _check_one_sequence(self) -> None:
        if self.crosses:
            raise MetricError(
                "cross-attention: offsets and relations between query and key were asked for, which tokens of two "
                "sequences do not have; set `within_sequence = True` in the statistic's class"
            )

    @cached_property
    def bit_mask(self) -> Int[Tensor, "batch query key"]:
        """All bits set at content pairs (a counted row and a content key that it can reach), none elsewhere."""
        pairs = self.rows[:, :, None] & self.content[:, None, :]
        return -(pairs.tril() if self.causal else pairs).int()

    @cached_property
    def pairs_of_key(self) -> Float[Tensor, "batch key"]:
        """How many content pairs each key is in."""
        rows = self.rows.double()
        reached = rows.flip(1).cumsum(1).flip(1) if self.causal else rows.sum(1, keepdim=True)
        return self.content * reached

    @cached_property
    def pairs_at_distance(self) -> Float[Tensor, "batch token"]:
        """How many content pairs lie at each distance |i - j|."""
        self._check_one_sequence()
        # A correlation: by Fourier transforms it takes no memory for query by key. Whole numbers, exact after rounding.
        n_tokens = self.rows.shape[1]
        rows, keys = (torch.fft.rfft(x.double(), 2 * n_tokens) for x in (self.rows, self.content))
        at_offset: Tensor = torch.fft.irfft(rows * keys.conj(), 2 * n_tokens).round()
        at_distance = at_offset[:, :n_tokens]
        if not self.causal:  # offset -d stands d places before the end
            at_distance[:, 1:] += at_offset[:, n_tokens + 1 :].flip(1)
        return at_distance

    @cached_property
    def relations(self) -> tuple[Int[Tensor, "pair 3"], Int[Tensor, " pair"]]:
        """Content pairs in a dependency relation, (sentence, query, key), sorted by sentence and query.

        Besides the direction: 0: from_parent, 1: to_parent.
        """
        self._check_one_sequence()
        sentence, child, parent = self.batch.dependencies.unbind(1)
        from_parent = torch.stack([sentence, parent, child], 1)
        to_parent = torch.stack([sentence, child, parent], 1)
        both = torch.cat([from_parent, to_parent])
        direction = torch.arange(2, device=both.device).repeat_interleave(len(sentence))
        by_query = (both[:, 0] * self.rows.shape[1] + both[:, 1]).argsort(stable=True)
        both, direction = both[by_query], direction[by_query]
        sentence, query, key = both.unbind(1)
        counted = self.rows[sentence, query] & self.content[sentence, key]
        if self.causal:
            counted &= key <= query
        return both[counted], direction[counted]

    @cached_property
    def related(self) -> tuple[Int[Tensor, "batch place"], Int[Tensor, " pair"]]:
        """Where in `relations` those of each query begin, one place more than there are queries; and their keys."""
        n_batch, n_tokens = self.rows.shape
        sentence, query, key = self.relations[0].unbind(1)
        places = torch.arange(n_batch)[:, None] * n_tokens + torch.arange(n_tokens + 1)
        return torch.searchsorted(sentence * n_tokens + query, places.to(key)), key.contiguous()

    @cached_property
    def unrelated(self) -> tuple[Int[Tensor, "batch place"], Int[Tensor, " pair"]]:
        """As `related` would be without relations."""
        n_batch, n_tokens = self.rows.shape
        return torch.zeros(n_batch, n_tokens + 1, dtype=torch.int64), torch.zeros(0, dtype=torch.int64)

    @cached_property
    def first_is_null(self) -> Bool[Tensor, "batch 1 query"]:
        """Counted rows of sequences whose first token is a null key."""
        return (self.rows & self.null[:, :1])[:, None]

    @cached_property
    def offsets(self) -> Int[Tensor, " offset"]:
        """The offset i - j of each entry of `AttentionBlock.offset_mass`: in the order that diagonals come out in."""
        self._check_one_sequence()
        n_tokens = self.rows.shape[1]
        if self.causal:  # 0, n, n - 1, …, 1; there is no offset n, but this is what is quick
            return torch.arange(n_tokens + 1, 0, -1, device=self.rows.device) % (n_tokens + 1)
        return torch.arange(n_tokens - 1, -n_tokens, -1, device=self.rows.device)

    @cached_property
    def relation_rows(self) -> Int[Tensor, " pair"]:
        """For each of `relations` twice its sentence plus its direction, to sum by."""
        pairs, direction = self.relations
        return 2 * pairs[:, 0] + direction


class AttentionBlock:
    """Attention weights of one layer for `query` rows of a batch, from row `first_row` on, over all keys.

    `batch` are the tokens that look, `keys` those that are looked at: the same, but in cross-attention.

    A collector reads the reductions below, each computed once and shared. They are sums over content only: columns
    of null keys, rows that do not count and padding are zero, whatever the pattern held there.
    """

    def __init__(self, pattern: Float[Tensor, "batch head query key"], scope: Scope, layer: int, first_row: int = 0):
        self.pattern = pattern.detach()
        self._place(scope, layer, first_row, first_row + pattern.shape[2])

    def _place(self, scope: Scope, layer: int, first_row: int, end_row: int) -> None:
        self.scope, self.batch, self.keys = scope, scope.batch, scope.keys
        self.layer, self.first_row, self._rows = layer, first_row, slice(first_row, end_row)

    @property
    def rows(self) -> Bool[Tensor, "batch query"]:
        """Which rows of this block count."""
        return self.scope.rows[:, self._rows]

    @cached_property
    def weights(self) -> Float[Tensor, "batch head query key"]:
        """The w of the definitions: the pattern at content pairs, 0 elsewhere; never renormalised. Do not modify."""
        # A bitwise "and" with all or no bits: as fast as a product, and rid of NaN in rows that do not count.
        bits = self.pattern.float().view(torch.int32) & self.scope.bit_mask[:, None, self._rows]
        return bits.view(torch.float32)

    @cached_property
    def row_mass(self) -> Float[Tensor, "batch head query"]:
        """Attention of each row on content keys."""
        # Summed in float64: the entropy of a row that is nearly one-hot hangs on the digits that float32 drops.
        return self.weights.sum(-1, dtype=torch.float64)

    @cached_property
    def null_mass(self) -> Float[Tensor, "batch head query"]:
        """Attention of each counted row on null keys."""
        if self.scope.null_rule != "special":  # at most the first column: spare the walk over the others
            return torch.where(self.scope.first_is_null[..., self._rows], self.pattern[..., 0], 0)
        mask = self.rows[:, None, :, None] & self.scope.null[:, None, None, :]
        return torch.where(mask, self.pattern, 0).sum(-1, dtype=torch.float64)

    @cached_property
    def column_mass(self) -> Float[Tensor, "batch head key"]:
        """Attention that each key receives from the counted rows of this block."""
        return self.weights.sum(-2)

    @cached_property
    def row_max(self) -> Float[Tensor, "batch head query"]:
        """Largest content weight of each row."""
        return self.weights.amax(-1)

    @cached_property
    def row_max_others(self) -> Float[Tensor, "batch head query"]:
        """Largest content weight of each row on a key that is not the query itself."""
        others = self.weights.clone()
        others.diagonal(self.first_row, -2, -1).zero_()
        return others.amax(-1)

    @cached_property
    def row_log_mass(self) -> Float[Tensor, "batch head query"]:
        """Σ w ln(w / row_max) of each row, from which `row_entropy` follows."""
        # Ratios below 1e-30 add nothing; they are kept from the logarithm, which is several times slower on zeros.
        logs = (self.weights / self.row_max.clamp_min(TINY)[..., None]).clamp_min_(TINY).log_()
        return logs.mul_(self.weights).sum(-1)

    @cached_property
    def offset_mass(self) -> Float[Tensor, "batch head offset"]:
        """Attention by offset i - j, for each of `scope.offsets`: sums over the diagonals of the pattern."""
        *lead, n_rows, n_keys = self.weights.shape
        if self.scope.causal and n_rows == n_keys > 1:
            # Read as rows one element longer, a lower triangle has its diagonals in columns: offset 0 in the first,
            # and 1, 2, … from the last one back. The very last element, at offset 0, is left over.
            flat = self.weights.flatten(-2)
            columns = flat[..., :-1].view(*lead, n_rows - 1, n_keys + 1).sum(-2)
            columns[..., 0] += flat[..., -1]
            return columns
        # Written at the end of rows with room before them, and read back as rows one element longer.
        width = n_keys + n_rows
        skewed = self.weights.new_zeros(*lead, n_rows * (width + 1))
        skewed[..., : n_rows * width].view(*lead, n_rows, width)[..., n_rows:] = self.weights
        diagonals = skewed.view(*lead, n_rows, width + 1).sum(-2)[..., 1:width]
        largest = self.first_row + n_rows - 1
        offsets = torch.arange(largest, largest - (width - 1), -1, device=diagonals.device)
        place = -offsets.clamp_min(0) % (n_keys + 1) if self.scope.causal else n_keys - 1 - offsets
        return diagonals.new_zeros(*lead, len(self.scope.offsets)).index_add_(-1, place, diagonals)

    @cached_property
    def relation_weights(self) -> Float[Tensor, "pair head"]:
        """Weights at the `scope.relations`; 0 where the query is not in this block."""
        sentence, query, key = self.scope.relations[0].unbind(1)
        n_rows = self.weights.shape[2]
        if n_rows == self.scope.rows.shape[1]:
            return self.weights[sentence, :, query, key]
        row = query - self.first_row
        inside = (row >= 0) & (row < n_rows)
        return self.weights[sentence, :, row * inside, key] * inside[:, None]

    @cached_property
    def content_mass(self) -> Float[Tensor, "batch head"]:
        """M of the definitions, for the rows of this block: the denominator of most statistics."""
        return self.row_mass.sum(-1)

    @property
    def attention(self) -> Float[Tensor, "batch head query"]:
        """All attention of each counted row: 1 within rounding, less in models with attention sinks."""
        return self.row_mass + self.null_mass

    @cached_property
    def row_entropy(self) -> Float[Tensor, "batch head query"]:
        """Entropy in nats of each row renormalised over content keys; 0 where it has no attention on content."""
        # -Σ p ln p = ln(mass / top) - Σ w ln(w / top) / mass. Relative to the row's largest weight, whose own term is
        # exactly 0, the entropy of a row that is nearly one-hot keeps its digits.
        top, mass = self.row_max.clamp_min(TINY), self.row_mass.clamp_min(TINY)
        return (mass / top).log() - self.row_log_mass / mass

    def peak(
        self, exclude_self: bool = False
    ) -> tuple[Float[Tensor, "batch head"], Int[Tensor, "batch head"], Int[Tensor, "batch head"]]:
        """The largest content weight of each sequence, and the first (query, key) in row order that has it.

        Weights are compared as `comparable` makes them.
        """
        # Of equal ones, max() takes the first.
        row = comparable(self.row_max_others if exclude_self else self.row_max).max(-1, keepdim=True).indices
        strongest = self.row_weights(row)[:, :, 0]
        if exclude_self:
            strongest.scatter_(-1, row + self.first_row, 0)
        key = comparable(strongest).max(-1, keepdim=True).indices
        return strongest.gather(-1, key)[..., 0], row[..., 0] + self.first_row, key[..., 0]

    def row_weights(self, rows: Int[Tensor, "batch head row"]) -> Float[Tensor, "batch head row key"]:
        """Content weights of some rows, other ones for each head."""
        return self.weights.gather(2, rows[..., None].expand(*rows.shape, self.weights.shape[-1]))

    def corner(self, n: int) -> Float[Tensor, "batch head query key"]:
        """Weights among the first `n` positions, as far as their rows are in this block."""
        return self.weights[:, :, : max(0, n - self.first_row), :n]


class JoinedLayers(AttentionBlock):
    """Reductions of whole sequences, in float64; the head dimension runs over heads of several layers, one by one.

    No statistic mixes heads, and one operation for thirty layers takes hardly longer than for one. The place for all
    layers is taken at once: what is kept layer by layer would come to lie in the gaps that larger arrays leave in
    memory, and these would need new room each time.

    Args:
        scope: what counts.
        n_layers: how many layers.
        names: the reductions.
    """

    def __init__(self, scope: Scope, n_layers: int, names: Sequence[str]):
        self._place(scope, -1, 0, scope.rows.shape[1])
        self._n_layers, self._names = n_layers, names

    def add(self, place: int, block: AttentionBlock) -> None:
        """Add some rows of the layer that is to stand at `place`."""
        for name in self._names:
            new = getattr(block, name)
            if name not in self.__dict__:  # where a cached property looks first
                shape = [*new.shape]
                shape[1] *= self._n_layers
                if name in BY_ROW:
                    shape[2] = self.rows.shape[1]
                self.__dict__[name] = new.new_zeros(shape, dtype=torch.float64)
            n_heads = new.shape[1]
            whole = self.__dict__[name][:, place * n_heads : (place + 1) * n_heads]
            if name in BY_ROW:
                whole[:, :, block._rows] = new
            else:
                whole += new


BY_ROW = ("row_mass", "null_mass", "row_max", "row_max_others", "row_log_mass", "row_entropy", "attention")
"""Reductions with an entry for each row; the others are sums over rows."""

TINY = 1e-30


def comparable(weights: Tensor) -> Tensor:
    """Weights to five decimals, for ranking.

    Sentences that begin alike have equal weights there, but for rounding, which depends on the batch; left in, it
    would decide between them.
    """
    return (weights * 1e5).round_()


def check_null_rule(null: str) -> None:
    """Raise unless `null` names a rule."""
    if null not in ("auto", *NULL_RULES):
        raise AttnStatsError(f"null={null!r}: expected one of auto, {', '.join(NULL_RULES)}")
