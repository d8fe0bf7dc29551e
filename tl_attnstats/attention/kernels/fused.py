"""Reductions of a block of weights in one walk, compiled by torch; for GPUs that plain torch computes attention on."""

from __future__ import annotations

from collections.abc import Callable
from functools import cache
from typing import NamedTuple
from warnings import warn

import torch
from jaxtyping import Float
from torch import Tensor

from tl_attnstats.attention.memory import out_of_memory
from tl_attnstats.attention.reductions import TINY
from tl_attnstats.errors import PlainAttention

DEVICES = {"cuda"}  # where it is used; a CPU has blocks in its cache, and a kernel of its own


class Fused(NamedTuple):
    """Reductions under their names; see `Reductions` for what they are."""

    row_mass: Float[Tensor, "batch head row"]
    row_max: Float[Tensor, "batch head row"]
    row_max_others: Float[Tensor, "batch head row"]
    row_log_mass: Float[Tensor, "batch head row"]
    column_mass: Float[Tensor, "batch head key"]


def reduce(weights: Float[Tensor, "batch head row key"], own: int) -> Fused:
    """The reductions of content weights. Compiled, or step by step if that fails.

    Args:
        weights: content weights.
        own: how far right of the diagonal the weights of rows on themselves are.
    """
    function = _compiled()
    try:
        return Fused(*function(weights, own))
    except Exception as error:  # of any kind, from the compiler
        if function is _reduce or out_of_memory(error):
            raise
        _compiled.cache_clear()
        warn(
            f"attention on the GPU is computed in plain torch without its compiler, which is slower: "
            f"{type(error).__name__}: {str(error).partition(chr(10))[0]}",
            PlainAttention,
            stacklevel=2,
        )
        _failed.append(error)
        return Fused(*_reduce(weights, own))


_failed: list[Exception] = []
_Reduce = Callable[[Tensor, int], tuple[Tensor, ...]]


@cache
def _compiled() -> _Reduce:
    made: _Reduce = _reduce if _failed else torch.compile(_reduce, dynamic=True)
    return made


def _reduce(weights: Tensor, own: int) -> tuple[Tensor, ...]:
    row = torch.arange(weights.shape[2], device=weights.device)[:, None]
    key = torch.arange(weights.shape[3], device=weights.device)
    row_max = weights.amax(-1)
    logs = (weights / row_max.clamp_min(TINY)[..., None]).clamp_min(TINY).log()
    return (
        weights.sum(-1, dtype=torch.float64),
        row_max,
        torch.where(key == row + own, 0, weights).amax(-1),
        (logs * weights).sum(-1),
        weights.sum(-2),
    )
