"""Attention on a GPU by kernels written in Triton (`triton_sweeps`), which keep neither scores nor weights in memory.

The first sweep gives the output, and the sums and maxima of rows. It leaves two numbers for each row, from which any
weight can be computed again: the row's largest score, and one over its sum of exponentials. Sums by key and by offset
are sweeps of their own, made when first asked for. Single weights, such as those of pairs, are computed in plain torch.
"""

from __future__ import annotations

from collections.abc import Iterator
from functools import cache, cached_property
from typing import Any, NamedTuple

import torch
from einops import rearrange
from jaxtyping import Bool, Float, Int
from torch import Tensor

from tl_attnstats.attention.kernels.projections import Job
from tl_attnstats.attention.kernels.torch_blocks import reductions_of, rows_at_once, weights_of
from tl_attnstats.attention.reductions import Reductions
from tl_attnstats.attention.scope import Scope

DEVICES = {"cuda"}  # the tests add the CPU, where Triton's interpreter runs
DTYPES = (torch.float32, torch.bfloat16, torch.float16)
MOST_D = 256
PRECISION = "ieee"  # of products of float32: exact, not rounded to tf32
PADDING, CONTENT, NULL = 0, 1, 2  # kinds of keys
PAIR_ELEMENTS = 2**24  # how many numbers of query vectors to gather at once


class Tiles(NamedTuple):
    """How a sweep is cut into tiles, and how Triton compiles it.

    Args:
        rows, keys: of a tile.
        num_warps, num_stages: Triton's options.
    """

    rows: int
    keys: int
    num_warps: int
    num_stages: int


def tiles(dtype: torch.dtype, d: int) -> Tiles:
    """The tiles for heads of `d` dimensions: as large as the registers of a multiprocessor allow."""
    if dtype == torch.float32:  # exact products do not run in tensor cores, and hold whole vectors in registers
        return Tiles(32, 32, 8, 1) if d <= 64 else Tiles(16, 16, 8, 1)
    return Tiles(64, 64, 8, 2) if d <= 128 else Tiles(32, 32, 4, 2)


@cache
def sweeps() -> Any:
    """The module of Triton kernels; None where Triton is not installed."""
    try:
        from tl_attnstats.attention.kernels import triton_sweeps
    except ImportError:
        return None
    return triton_sweeps


def why_not(job: Job) -> str | None:
    """Why this kernel cannot do a job; None if it can."""
    given = job.given
    device = given.query.device
    if device.type not in DEVICES:
        return f"the model is on {device}"
    if sweeps() is None:
        return "triton is not installed"
    dtypes = {x.dtype for x in (given.query, given.key, given.value)}
    if len(dtypes) > 1 or not dtypes <= {*DTYPES}:
        return f"queries, keys and values are {' and '.join(sorted(map(str, dtypes)))}"
    if max(given.query.shape[-1], given.value.shape[-1]) > MOST_D:
        return f"heads have more than {MOST_D} dimensions"
    reach = job.reach.stretches(*given.sizes, device)
    if reach is None:
        return "the keys that a query reaches are not one stretch, or differ between sequences"
    if job.scope is not None and job.scope.causal and reach.lowest < 0:
        return "queries reach keys after themselves in a causal model"
    return None


def covers(job: Job) -> bool:
    """Any attention on a GPU in which each query reaches one stretch of keys."""
    return why_not(job) is None


def attend(job: Job) -> Float[Tensor, "batch query head d_value"]:
    """The output of attention; its reductions go to the consumer as one block, its weights in blocks of rows."""
    swept = Swept(job)
    if job.scope is not None:
        if job.consumer.weights is not None:
            for first, pattern in swept.patterns(rows_at_once(job)):
                job.consumer.weights(reductions_of(pattern, job.scope, job.layer, first))
        job.consumer.reduced(Reductions(job.scope, job.layer, 0, job.given.sizes[1], swept))
    return rearrange(swept.output, "batch head query d -> batch query head d")


class Swept:
    """Makes the reductions of a layer, under their names; see `Reductions` for what they are."""

    pattern = None  # never whole

    def __init__(self, job: Job):
        given, self._scope = job.given, job.scope
        self._query, self._key, self._given = given.query.contiguous(), given.key.contiguous(), given
        self._kinds, self._counted = _kinds(job)
        reach = job.reach.stretches(*given.sizes, given.query.device)
        assert reach is not None
        self._reach = reach
        self._tiles = tiles(given.query.dtype, max(given.query.shape[-1], given.value.shape[-1]))
        self.output, self._rows = self._sweep_rows(given.value.contiguous())

    def reduce(self, name: str) -> Tensor:
        """A reduction by its name. Raises `KeyError` where there is none of that name."""
        match name:
            case "row_mass":
                # In float64, because the entropy of a row that is nearly one-hot depends on digits that float32 drops.
                return self._rows["ones"].double() * self._rows["row_max"] + self._rows["others"]
            case "row_log_mass" | "row_max" | "row_max_others" | "null_mass" | "self_mass":
                return self._rows[name]
            case "offset_mass":
                return self._sweep_offsets()
            case "pair_mass" | "pair_column_mass":
                return self._pair_mass(by_key=name == "pair_column_mass")
            case "column_distance":
                self._of.check_one_sequence()
        return self._columns[name]

    def row_weights(self, rows: Int[Tensor, "batch head row"], n_keys: int) -> Float[Tensor, "batch head row key"]:
        """Content weights of some rows, on the first `n_keys` keys."""
        counted = self._counted[:, None].expand(*rows.shape[:2], -1).gather(2, rows)[..., None] > 0
        content = counted & (self._kinds[:, None, None] == CONTENT) & self._reached(rows)
        return torch.where(content, self._pattern(rows), 0)[..., :n_keys]

    def patterns(self, at_once: int) -> Iterator[tuple[int, Float[Tensor, "batch head row key"]]]:
        """First row and pattern of block after block, of `at_once` rows."""
        n_batch, n_heads, n_queries, _ = self._query.shape
        for first in range(0, n_queries, at_once):
            rows = torch.arange(first, min(first + at_once, n_queries), device=self._query.device)
            yield first, self._pattern(rows.expand(n_batch, n_heads, -1))

    def _pattern(self, rows: Int[Tensor, "batch head row"]) -> Float[Tensor, "batch head row key"]:
        """Weights of some rows, computed again."""
        query = self._query.gather(2, rows[..., None].expand(*rows.shape, self._query.shape[-1]))
        bias = self._given.bias
        if bias is not None:
            bias = bias.expand(len(rows), -1, -1, -1).gather(2, rows[..., None].expand(*rows.shape, bias.shape[-1]))
        return weights_of(self._given, query, bias, self._reached(rows))

    def _reached(self, rows: Int[Tensor, "batch head row"]) -> Bool[Tensor, "batch head row key"]:
        """Which keys that are no padding some rows reach."""
        key = torch.arange(self._key.shape[2], device=rows.device)
        first, end = self._reach.first[rows][..., None], self._reach.end[rows][..., None]
        return (key >= first) & (key < end) & (self._kinds[:, None, None] != PADDING)

    def _pair_mass(self, by_key: bool) -> Float[Tensor, "batch head place set"]:
        n_batch, n_heads, n_queries, d_head = self._query.shape
        n_places = self._key.shape[2] if by_key else n_queries
        at_once = max(1, PAIR_ELEMENTS // (n_heads * d_head))
        sets = self._of.pair_sets
        mass = self._counted.new_zeros(len(sets), n_batch * n_places, n_heads, dtype=torch.float64)
        for of_set, name in zip(mass, sets, strict=True):
            every = torch.stack(self._of.listed_pairs(name))
            for first in range(0, every.shape[1], at_once):
                sequence, query, key = every[:, first : first + at_once]
                place = sequence * n_places + (key if by_key else query)
                # Unlike `index_add_`, it adds in the same order each time on a GPU.
                of_set.index_put_((place,), self._weights_of(sequence, query, key).double(), accumulate=True)
        return rearrange(mass, "set (batch place) head -> batch head place set", batch=n_batch)

    def _weights_of(
        self, sequence: Int[Tensor, " pair"], query: Int[Tensor, " pair"], key: Int[Tensor, " pair"]
    ) -> Float[Tensor, "pair head"]:
        """Content weights of single pairs."""
        queries, keys = self._query[sequence, :, query].float(), self._key[sequence, :, key].float()
        queries = rearrange(queries, "pair (key_head shared) d -> pair key_head shared d", key_head=keys.shape[1])
        products = torch.einsum("pksd,pkd->pks", queries, keys)
        scores = self._given.finish(rearrange(products, "pair key_head shared -> pair (key_head shared)"))
        if self._given.bias is not None:
            scores += self._given.bias.expand(len(self._query), -1, -1, -1)[sequence, :, query, key]
        content = (self._counted[sequence, query] > 0) & (self._kinds[sequence, key] == CONTENT)
        content &= (key >= self._reach.first[query]) & (key < self._reach.end[query])
        most, inverse = (self._rows[name][sequence, :, query] for name in ("most", "inverse"))
        return torch.where(content[:, None], scores.sub_(most).exp_().mul_(inverse), 0)

    @property
    def _of(self) -> Scope:
        assert self._scope is not None
        return self._scope

    def _sweep_rows(self, value: Tensor) -> tuple[Float[Tensor, "batch head query d"], dict[str, Tensor]]:
        """The output, and the results by row under their names."""
        n_batch, n_heads, n_queries, _ = self._query.shape
        names, sinks = sweeps().BY_ROW, self._given.sinks
        output = torch.empty(n_batch, n_heads, n_queries, value.shape[-1], device=value.device)
        found = torch.empty(len(names), n_batch, n_heads, n_queries, device=value.device)
        self._launch(
            sweeps().sweep_rows,
            n_blocks=-(-n_queries // self._tiles.rows),
            value=value,
            sinks=value if sinks is None else sinks,
            counted=self._counted,
            output=output,
            found=found,
            d_value=value.shape[-1],
            SINKING=sinks is not None,
            ROWS=self._tiles.rows,
            KEYS=self._tiles.keys,
            D_VALUE=_power_of_2(value.shape[-1]),
        )
        return output, dict(zip(names, found, strict=True))

    @cached_property
    def _columns(self) -> dict[str, Float[Tensor, "batch head key"]]:
        """The results by key under their names."""
        names, (n_batch, n_heads, _, _), n_keys = sweeps().BY_KEY, self._query.shape, self._key.shape[2]
        found = torch.empty(len(names), n_batch, n_heads, n_keys, dtype=torch.float64, device=self._key.device)
        self._launch(
            sweeps().sweep_columns,
            n_blocks=-(-n_keys // self._tiles.keys),
            first_query=self._reach.first_query,
            end_query=self._reach.end_query,
            most=self._rows["most"],
            inverse=self._rows["inverse"],
            found=found,
            ROWS=self._tiles.rows,
            KEYS=self._tiles.keys,
        )
        return dict(zip(names, found, strict=True))

    def _sweep_offsets(self) -> Float[Tensor, "batch head offset"]:
        n_batch, n_heads, _, _ = self._query.shape
        size = self._tiles.keys
        first_band, last_band = self._reach.lowest // size, self._reach.highest // size
        offsets = self._of.offsets
        found = torch.empty(n_batch, n_heads, (last_band - first_band + 1) * size, device=self._query.device)
        self._launch(
            sweeps().sweep_offsets,
            n_blocks=last_band - first_band + 1,
            most=self._rows["most"],
            inverse=self._rows["inverse"],
            found=found,
            first_band=first_band,
            SIZE=size,
        )
        place = offsets - first_band * size
        inside = (place >= 0) & (place < found.shape[-1])
        return torch.where(inside, found[..., place.clamp(0, found.shape[-1] - 1)], 0)

    def _launch(self, kernel: Any, n_blocks: int, **own: Any) -> None:
        """Run a sweep in each of some blocks for each head of each sequence."""
        given, (n_batch, n_heads, n_queries, d_head) = self._given, self._query.shape
        n_keys, interpreted = self._key.shape[2], self._query.device.type == "cpu"
        bias = None if given.bias is None else given.bias.contiguous()
        with torch.cuda.device(self._query.get_device()):  # it may not be the current one
            kernel[(n_batch * n_heads, n_blocks)](
                query=self._query,
                key=self._key,
                bias=self._query if bias is None else bias,
                kinds=self._kinds,
                first_key=self._reach.first,
                end_key=self._reach.end,
                n_heads=n_heads,
                n_shared=n_heads // self._key.shape[1],
                n_queries=n_queries,
                n_keys=n_keys,
                d_head=d_head,
                bias_of_sequence=0 if bias is None or len(bias) == 1 else n_heads * n_queries * n_keys,
                scale=float(given.scale),
                softcap=float(given.softcap or 1),
                CAPPED=given.softcap is not None,
                BIASED=bias is not None,
                D_HEAD=_power_of_2(d_head),
                PRECISION=PRECISION,
                AS_FLOAT=interpreted,  # the interpreter's product of bfloat16 is wrong
                num_warps=self._tiles.num_warps,
                num_stages=self._tiles.num_stages,
                **own,
            )


def _kinds(job: Job) -> tuple[Int[Tensor, "batch key"], Int[Tensor, "batch query"]]:
    """The kind of each key, and which rows count."""
    kinds = torch.where(job.real_keys, CONTENT, PADDING)
    counted = job.real_keys.new_zeros(len(kinds), job.given.sizes[1])
    if job.scope is not None:
        kinds = torch.where(job.real_keys & job.scope.null, NULL, kinds)
        counted = job.scope.rows
    return kinds.to(torch.int8), counted.to(torch.int8)


def _power_of_2(d: int) -> int:
    """The width of a tile for vectors of `d` dimensions. Tensor cores want 16 at least."""
    return max(16, 1 << (d - 1).bit_length())
