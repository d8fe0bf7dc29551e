"""What a kernel is given, and what it is."""

from __future__ import annotations

from collections.abc import Callable, Collection
from dataclasses import dataclass
from typing import NamedTuple, Protocol

import torch
from einops import rearrange
from jaxtyping import Bool, Float
from torch import Tensor

from tl_attnstats.attention.reach import Reach
from tl_attnstats.attention.reductions import Reductions
from tl_attnstats.attention.scope import Scope

# The scores of a block stay in cache while they are read a few times; and the most rows of a block.
BLOCK_ELEMENTS, MOST_ROWS = 900_000, 256

HALF = (torch.bfloat16, torch.float16)
OUT_DTYPE = "out_dtype" in (torch.bmm.__doc__ or "")  # torch 2.8 and later

OnBlock = Callable[[Reductions], None]
OnValues = Callable[[Scope, int, Tensor, Tensor], None]
"""Takes scope, layer, values `[batch, key_head, key, d]` and mixed values `[batch, head, query, d]`."""


class Consumer(NamedTuple):
    """Who takes in the attention of a layer."""

    wanted: Collection[str]
    """The reductions to hand out."""
    reduced: OnBlock
    """Is given these reductions, of a whole layer or in blocks of rows."""
    weights: OnBlock | None
    """Is given blocks of rows with their weights; None where nobody reads weights."""
    values: OnValues | None = None
    """Is given the values of a whole layer, and their sums weighted by attention; None where nobody reads them."""

    def take(self, block: Reductions) -> None:
        """Hand out a block that has both."""
        if self.weights is not None:
            self.weights(block)
        self.reduced(block)


NOBODY = Consumer((), lambda block: None, None)


@dataclass(frozen=True)
class Projections:
    """What attention is computed from, in one layer.

    The model's dtype may be half precision: scores, weights and outputs are float32 all the same.

    Args:
        query: `[batch, head, query, d]`.
        key, value: `[batch, key_head, key, d]`; query heads share key heads (grouped queries), which are not repeated.
        softcap: scores are squeezed into ± this value; None for no cap.
        sinks: a score for each head that takes part in the softmax and belongs to no token; None for no sinks.
        bias: is added to scores, whole as the model makes it; None for none.
        scale: the factor from products of queries and keys to scores.
    """

    query: Float[Tensor, "batch head query d"]
    key: Float[Tensor, "batch key_head key d"]
    value: Float[Tensor, "batch key_head key d_value"]
    softcap: float | None = None
    sinks: Float[Tensor, " head"] | None = None
    bias: Float[Tensor, "#batch head query key"] | None = None
    scale: float = 1

    @property
    def sizes(self) -> tuple[int, int, int]:
        """How many sequences, queries and keys."""
        return self.query.shape[0], self.query.shape[2], self.key.shape[2]

    def scores(
        self, query: Float[Tensor, "batch head row d"], first: int, end: int
    ) -> Float[Tensor, "batch head row key"]:
        """Scores of some query vectors on keys from `first` to `end`, without mask and bias."""
        key = rearrange(self.key[:, :, first:end], "batch key_head key d -> (batch key_head) d key")
        # The queries that share a key head are rows of one product.
        groups = {"batch": len(query), "key_head": self.key.shape[1], "row": query.shape[2]}
        grouped = rearrange(query, "batch (key_head shared) row d -> (batch key_head) (shared row) d", **groups)
        scores = rearrange(
            _product(grouped, key),
            "(batch key_head) (shared row) key -> batch (key_head shared) row key",
            **groups,
        )
        return self.finish(scores)

    def finish(self, products: Tensor) -> Tensor:
        """Scores from products of queries and keys, in place, without mask and bias."""
        if self.scale != 1:
            products *= self.scale
        return products if self.softcap is None else products.div_(self.softcap).tanh_().mul_(self.softcap)

    def mix(
        self, weights: Float[Tensor, "batch head row key"], first: int, end: int
    ) -> Float[Tensor, "batch head row d_value"]:
        """The values of keys from `first` to `end`, weighted."""
        value = rearrange(self.value[:, :, first:end], "batch key_head key d -> (batch key_head) key d")
        groups = {"batch": len(weights), "key_head": self.value.shape[1], "row": weights.shape[2]}
        grouped = rearrange(weights, "batch (key_head shared) row key -> (batch key_head) (shared row) key", **groups)
        return rearrange(
            torch.bmm(grouped, value.float()),
            "(batch key_head) (shared row) d -> batch (key_head shared) row d",
            **groups,
        )


def _product(a: Float[Tensor, "any row d"], b: Float[Tensor, "any d key"]) -> Float[Tensor, "any row key"]:
    """The product in float32. On Nvidia's GPUs half precision is multiplied as it is: as exact, and far quicker."""
    if a.is_cuda and a.dtype == b.dtype and a.dtype in HALF and OUT_DTYPE:
        return torch.bmm(a, b, out_dtype=torch.float32)
    return torch.bmm(a.float(), b.float())


class Job(NamedTuple):
    """The attention of one layer, to be computed and handed to a consumer.

    Args:
        given: queries, keys and values.
        reach: which keys each query reaches.
        real_keys: which keys are tokens and not padding.
        scope: what counts; None where nothing is handed out.
        layer: the layer's number.
        consumer: who takes in reductions and weights.
        block_elements: how many scores to hold at once.
        most_rows: the most rows of a block.
    """

    given: Projections
    reach: Reach
    real_keys: Bool[Tensor, "batch key"]
    scope: Scope | None = None
    layer: int = 0
    consumer: Consumer = NOBODY
    block_elements: int = BLOCK_ELEMENTS
    most_rows: int = MOST_ROWS


class Kernel(Protocol):
    """A way to compute attention with its reductions; a module is one."""

    def covers(self, job: Job) -> bool:
        """Whether this kernel can do the job."""

    def attend(self, job: Job) -> Float[Tensor, "batch query head d_value"]:
        """The output of attention; reductions and weights go to the consumer."""
