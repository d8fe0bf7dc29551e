"""Does a head look at the previous token, at a repeated one, or at what followed it?"""

from __future__ import annotations

import torch
import xarray as xr

from tl_attnstats.attention.pairs import BEHAVIOURS
from tl_attnstats.attention.reductions import Reductions
from tl_attnstats.collectors.base import Collector, Shape
from tl_attnstats.collectors.ratio import RatioSums, ratio
from tl_attnstats.corpus.devices import to_device

KINDS = tuple(BEHAVIOURS)


class Behaviour(Collector):
    """Share of a row's content attention on the previous token, on duplicates of the query, and on induction keys.

    Each kind counts the rows that have such a key. The baseline is the share of such keys among the content keys that
    the row reaches: attention that is spread evenly has about that.
    """

    name = "behaviour"
    reads = ("pair_mass",)
    pairs = BEHAVIOURS
    within_sequence = True

    def begin(self, shape: Shape) -> None:
        super().begin(shape)
        self._attention, self._baseline = RatioSums(), RatioSums()
        self._rows = torch.zeros(len(KINDS), dtype=torch.float64)

    def end_batch(self, whole: Reductions) -> None:
        scope = whole.scope
        n_keys = torch.stack([scope.pairs(kind).end - scope.pairs(kind).start for kind in KINDS], -1)
        counts = (n_keys > 0).double()  # [batch, query, kind]
        lead = (len(whole.batch), len(self.shape.layers), self.shape.n_heads)
        on_kind = torch.stack([whole.mass_on(kind).sum(-1) for kind in KINDS], -1)
        mass = torch.einsum("bhq,bqk->bhk", whole.row_mass, counts)
        self._attention.add(on_kind.view(*lead, -1), mass.view(*lead, -1), None)
        reached = scope.content.cumsum(1) if scope.causal else scope.content.sum(1, keepdim=True)
        below = (reached[..., None] * counts).sum(1)
        self._baseline.add(n_keys.sum(1), below, None)
        self._rows = to_device(self._rows, counts.device) + counts.sum((0, 1))

    def state_dict(self) -> xr.Dataset:
        heads = {"layer": list(self.shape.layers), "head": list(range(self.shape.n_heads))}
        attention = self._attention.state(("layer", "head", "kind"), None, {**heads, "kind": list(KINDS)})
        baseline = self._baseline.state(("kind",), None, {"kind": list(KINDS)})
        baseline = baseline.rename({name: f"baseline_{name}" for name in baseline.data_vars})
        return attention.merge(baseline).assign(rows=("kind", self._rows.cpu().numpy()))

    def load_state_dict(self, state: xr.Dataset) -> None:
        attention, baseline = _parts(state)
        self._attention, self._baseline = RatioSums.load(attention, None), RatioSums.load(baseline, None)
        self._rows = torch.from_numpy(state["rows"].values.copy())

    @classmethod
    def compute(cls, state: xr.Dataset, n: int) -> xr.Dataset:
        attention, baseline = _parts(state)
        reference = {"units": "share", "reference": "Olsson et al. 2022"}
        value = ratio(
            attention,
            n,
            "behaviour",
            {
                "long_name": "attention on previous, duplicate and induction tokens",
                "formula": "Σ_i Σ_{j∈K(i)} w[i,j] / Σ_i Σ_j w[i,j], over rows i with K(i) not empty",
                **reference,
            },
        )
        even = ratio(
            baseline,
            n,
            "behaviour_baseline",
            {
                "long_name": "share of previous, duplicate and induction tokens among reachable keys",
                "formula": "Σ_i |K(i)| / Σ_i (content keys that row i reaches), over rows i with K(i) not empty",
                **reference,
            },
        )
        rows = xr.DataArray(
            state["rows"].values,
            dims="kind",
            attrs={"long_name": "rows that have such a key", "units": "rows", "formula": "Σ_i 1[K(i) not empty]"},
        )
        return value.merge(even).assign(behaviour_rows=rows)


def _parts(state: xr.Dataset) -> tuple[xr.Dataset, xr.Dataset]:
    """The sums of attention, and those of the baseline."""
    names = [str(name) for name in state.data_vars if str(name) != "rows"]
    baseline = [name for name in names if name.startswith("baseline_")]
    renamed = state[baseline].rename({name: name.removeprefix("baseline_") for name in baseline})
    return state[[name for name in names if name not in baseline]], renamed.drop_vars(
        ["layer", "head"], errors="ignore"
    )
