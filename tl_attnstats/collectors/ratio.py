"""Statistics that are ratios of sums over sequences, with their standard errors."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any, ClassVar, Literal

import numpy as np
import torch
import xarray as xr
from einops import rearrange
from jaxtyping import Float
from torch import Tensor

from tl_attnstats.attention.reductions import Reductions
from tl_attnstats.attention.scope import Scope
from tl_attnstats.collectors.base import Collector, Shape
from tl_attnstats.corpus.batches import NO_LABEL
from tl_attnstats.corpus.devices import to_device


class RatioCollector(Collector):
    """A statistic Σ A_x / Σ B_x over sequences x, with its standard error. A subclass needs a name and `terms`.

    Besides Σ A and Σ B the sums hold Σ A², Σ AB and Σ B², from which the error follows (definitions, "Ratios, sums
    and errors").

    `terms` is given each block of each layer. A subclass whose `terms` uses reductions alone names them in `reads`
    (the masses need no naming), and is given all layers joined, once a batch: the same numbers in less time.
    """

    unit: ClassVar[str] = "share"
    formula: ClassVar[str] = ""
    long_name: ClassVar[str] = ""
    reference: ClassVar[str] = ""
    attention: ClassVar[Literal["content", "all"]] = "content"
    """What the value is of. "content" leaves null tokens out, so that a head with next to no attention elsewhere has a
    doubtful value; "all" does not."""
    dim: ClassVar[str | None] = None
    """Name of the dimension that the value has beyond layer and head, if any."""

    def terms(self, block: Reductions) -> tuple[Float[Tensor, "batch head *dim"], Float[Tensor, "batch head"]]:
        """Numerator and denominator of each sequence, for the rows of this block."""
        raise NotImplementedError

    def coordinate(self, scope: Scope) -> Sequence[Any]:
        """The labels along `dim` in the numerators of this batch."""
        raise NotImplementedError

    def begin(self, shape: Shape) -> None:
        super().begin(shape)
        self._sums = RatioSums()
        self.discard_batch()

    def discard_batch(self) -> None:
        self._batch: dict[int, tuple[Tensor, Tensor]] = {}

    def update(self, block: Reductions) -> None:
        if "weights" not in self.reads:
            return
        numerator, denominator = self.terms(block)
        if block.layer in self._batch:
            earlier_rows = self._batch[block.layer]
            numerator, denominator = earlier_rows[0] + numerator, earlier_rows[1] + denominator
        self._batch[block.layer] = numerator, denominator

    def end_batch(self, whole: Reductions) -> None:
        if "weights" in self.reads:
            numerators, denominators = zip(*(self._batch[layer] for layer in self.shape.layers), strict=True)
            numerator, denominator = torch.cat(numerators, 1), torch.cat(denominators, 1)
        else:
            numerator, denominator = self.terms(whole)
        by_layer, layers = "batch (layer head) ... -> batch layer head ...", len(self.shape.layers)
        labels = None if self.dim is None else self.coordinate(whole.scope)
        self._sums.add(
            rearrange(numerator, by_layer, layer=layers), rearrange(denominator, by_layer, layer=layers), labels
        )
        self.discard_batch()

    def state_dict(self) -> xr.Dataset:
        coords = {"layer": list(self.shape.layers), "head": list(range(self.shape.n_heads))}
        return self._sums.state(("layer", "head"), self.dim, coords)

    def load_state_dict(self, state: xr.Dataset) -> None:
        self._sums = RatioSums.load(state, self.dim)

    @classmethod
    def compute(cls, state: xr.Dataset, n: int) -> xr.Dataset:
        attrs = {
            "long_name": cls.long_name or cls.name.replace("_", " "),
            "units": cls.unit,
            "formula": cls.formula,
            "reference": cls.reference,
            "attention": cls.attention,
        }
        return ratio(state, n, cls.name, attrs)


SUMS = ("a", "b", "aa", "ab", "bb")


class RatioSums:
    """Σ A, Σ B, Σ A², Σ AB and Σ B² over sequences; new labels along the last dimension of A are added as they come."""

    def __init__(self) -> None:
        self.sums: dict[str, Tensor] = {}
        self.labels: list[Any] | None = None

    def add(self, a: Float[Tensor, "batch *any"], b: Float[Tensor, "batch *any"], labels: Sequence[Any] | None) -> None:
        """Add a batch of sequences. `a` has the dimensions of `b`, and one more where there are labels."""
        a, b = a.double(), b.double()
        wide_b = b[..., None] if a.ndim > b.ndim else b
        new = {"a": a.sum(0), "b": b.sum(0), "aa": (a * a).sum(0), "ab": (a * wide_b).sum(0), "bb": (b * b).sum(0)}
        self.sums = {key: to_device(value, a.device) for key, value in self.sums.items()}  # loaded ones are on the CPU
        if labels is not None and self.labels is None:
            self.labels = list(labels)
        elif labels is not None and self.labels != list(labels):
            new = self._relabel(new, list(labels), labelled=("a", "aa", "ab"))
        self.sums = {key: self.sums[key] + new[key] for key in SUMS} if self.sums else new

    def _relabel(self, new: dict[str, Tensor], labels: list[Any], labelled: tuple[str, ...]) -> dict[str, Tensor]:
        """Bring sums over other labels into the order of our own, to which the unknown ones are appended."""
        assert self.labels is not None
        added = [label for label in labels if label not in self.labels]
        self.labels += added
        places = to_device(torch.tensor([self.labels.index(label) for label in labels]), new["a"].device)
        for key in labelled:
            self.sums[key] = torch.nn.functional.pad(self.sums[key], (0, len(added)))
            wide = torch.zeros_like(self.sums[key])
            new[key] = wide.index_copy(-1, places, new[key])
        return new

    def state(self, dims: tuple[str, ...], dim: str | None, coords: Mapping[str, Any]) -> xr.Dataset:
        """The sums as labelled arrays, labels sorted, so that the order of batches leaves no trace.

        The label of tokens without a word is left out where only special tokens have it, which are no content.
        """
        arrays = {key: value.cpu().numpy() for key, value in self.sums.items()}
        if dim is None:
            return xr.Dataset({key: (dims, array) for key, array in arrays.items()}, coords=coords)
        # In numpy: xarray's selecting and sorting take longer here than the model does on a sentence.
        labels = self.labels or []
        order = sorted(range(len(labels)), key=labels.__getitem__)
        kept = [place for place in order if labels[place] != NO_LABEL or arrays["a"][..., place].any()]
        variables = {
            key: ((*dims, dim), array[..., kept]) if array.ndim > len(dims) else (dims, array)
            for key, array in arrays.items()
        }
        return xr.Dataset(variables, coords={**coords, dim: [labels[place] for place in kept]})

    @classmethod
    def load(cls, state: xr.Dataset, dim: str | None) -> RatioSums:
        """The inverse of `state`."""
        sums = cls()
        sums.sums = {str(key): torch.from_numpy(np.array(value.values)) for key, value in state.data_vars.items()}
        sums.labels = None if dim is None else state[dim].values.tolist()
        return sums


def ratio(state: xr.Dataset, n: int, name: str, attrs: Mapping[str, str]) -> xr.Dataset:
    """`name` = Σ A / Σ B and `name_se`, its standard error with the sequence as sampling unit, from `RatioSums`.

    se² = n/(n-1) · Σ (A_x - R·B_x)² / (Σ B_x)². NaN where nothing was counted, and the error of one sequence.
    """
    # In numpy: xarray's own arithmetic takes longer here than collecting a batch does.
    a, b, aa, ab, bb = (state[key].values for key in SUMS)
    if a.ndim > b.ndim:
        b, bb = b[..., None], bb[..., None]
    total = np.where(b > 0, b, np.nan)
    value = a / total
    residual = (aa - 2 * value * ab + value**2 * bb).clip(min=0)
    scale = n / (n - 1) if n > 1 else np.nan
    error = (scale * residual) ** 0.5 / total
    error_attrs = {"long_name": f"standard error of {name}", "units": attrs["units"]}
    dims = state["a"].dims
    return xr.Dataset({name: (dims, value, attrs), f"{name}_se": (dims, error, error_attrs)}, coords=state.coords)
