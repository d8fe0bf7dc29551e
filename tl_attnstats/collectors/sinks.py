"""Content keys that take so much of a head's attention that they say nothing about content."""

from __future__ import annotations

import numpy as np
import torch
import xarray as xr
from jaxtyping import Bool, Float
from torch import Tensor

from tl_attnstats.attention.reductions import Reductions
from tl_attnstats.collectors.base import Collector, Shape
from tl_attnstats.collectors.dependency import DepTo
from tl_attnstats.collectors.pos import PosTo
from tl_attnstats.collectors.ratio import RatioSums, ratio
from tl_attnstats.corpus.batches import Batch
from tl_attnstats.corpus.devices import to_device

SINK_SHARE, SINK_ROWS = 0.3, 8
"""A sink takes more than this share of the content attention of at least so many rows."""
REFERENCE = "after Gu et al. 2024"
MOST_TOKENS = 64
OTHER = "other"
READS = ("column_mass", "self_mass")


def sinks_of(block: Reductions) -> Bool[Tensor, "batch head key"]:
    """Which content keys are sinks of a head in a sequence.

    A key's share is of the attention of the rows after it; in bidirectional models of all rows but its own.
    """
    scope = block.scope
    mass, rows = (_of_others(x, scope.causal) for x in (block.row_mass, scope.rows.double()[:, None]))
    share = (block.column_mass - block.self_mass) / torch.where(mass > 0, mass, torch.inf)
    return (share > SINK_SHARE) & (rows >= SINK_ROWS) & scope.content[:, None]


def _of_others(x: Float[Tensor, "batch head query"], causal: bool) -> Float[Tensor, "batch head query"]:
    """For each position, the sum over later ones; in bidirectional models over all others."""
    return x.flip(-1).cumsum(-1).flip(-1) - x if causal else x.sum(-1, keepdim=True) - x


class PosToWithoutSinks(PosTo):
    """Share of content attention that tokens of each part of speech receive, sinks left out."""

    name = "pos_to_without_sinks"
    long_name = "attention to part of speech without sinks"
    formula = "pos_to over pairs whose key is not a sink of the head in the sequence"
    reference = REFERENCE
    reads = READS
    within_sequence = True

    def terms(self, block: Reductions) -> tuple[Float[Tensor, "batch head tag"], Float[Tensor, "batch head"]]:
        _, one_hot = block.keys.one_hot(self.labels)
        mass = torch.where(sinks_of(block), 0, block.column_mass)
        return mass @ one_hot, mass.sum(-1)


class DepToWithoutSinks(PosToWithoutSinks):
    """Share of content attention that goes to tokens in each dependency relation to their head, sinks left out."""

    name = "dep_to_without_sinks"
    long_name = "attention to dependency relation without sinks"
    formula = "dep_to over pairs whose key is not a sink of the head in the sequence"
    dim = DepTo.dim
    labels = "relation"


class Sinks(Collector):
    """How much content attention falls on sinks, how many a sequence has, and which tokens they are."""

    name = "sinks"
    reads = READS
    within_sequence = True

    def begin(self, shape: Shape) -> None:
        super().begin(shape)
        self._share, self._rate = RatioSums(), RatioSums()
        self._tokens: dict[int, Tensor] = {}  # of each token that was a sink: what it took then, [layer * head]
        self._texts: dict[int, str] = {}

    def end_batch(self, whole: Reductions) -> None:
        sinks = sinks_of(whole)
        taken = torch.where(sinks, whole.column_mass, 0)
        lead = (len(whole.batch), len(self.shape.layers), self.shape.n_heads)
        self._share.add(taken.sum(-1).view(lead), whole.column_mass.sum(-1).view(lead), None)
        self._rate.add(sinks.sum(-1).view(lead), torch.ones(lead, device=sinks.device), None)
        sequence, position = sinks.any(1).cpu().nonzero(as_tuple=True)  # the host waits here, and only here
        ids, places = torch.unique(whole.scope.host.batch.input_ids[sequence, position], return_inverse=True)
        at = [to_device(x, taken.device) for x in (sequence, position, places)]
        by_token = taken.new_zeros(len(ids), taken.shape[1]).index_add_(0, at[2], taken[at[0], :, at[1]])
        for id_, mass in zip(ids.tolist(), by_token, strict=True):
            self._tokens[id_] = to_device(self._tokens[id_], mass.device) + mass if id_ in self._tokens else mass
        for s, p in zip(sequence.tolist(), position.tolist(), strict=True):
            id_, text = int(whole.batch.items[s].ids[p]), _text(whole.batch, s, p)
            self._texts[id_] = min(text, self._texts.get(id_, text))

    def state_dict(self) -> xr.Dataset:
        heads = {"layer": list(self.shape.layers), "head": list(range(self.shape.n_heads))}
        parts = {"share": self._share, "rate": self._rate}
        state = xr.merge(
            _named(sums.state(("layer", "head"), None, heads), f"{name}_", "") for name, sums in parts.items()
        )
        ids = sorted(self._tokens)
        size = (len(ids), len(self.shape.layers), self.shape.n_heads)
        mass = torch.stack([self._tokens[id_].cpu() for id_ in ids]) if ids else torch.zeros(size)
        texts = np.array([self._texts[id_] for id_ in ids], dtype=object)
        return state.assign(
            token_mass=(("token", "layer", "head"), mass.numpy().reshape(size).astype(np.float64))
        ).assign_coords(token=np.array(ids, np.int64), token_text=("token", texts))

    def load_state_dict(self, state: xr.Dataset) -> None:
        self._share, self._rate = (RatioSums.load(_named(state, "", f"{x}_"), None) for x in ("share", "rate"))
        mass = torch.from_numpy(state["token_mass"].values.copy()).flatten(1)
        ids = state["token"].values.tolist()
        self._tokens = dict(zip(ids, mass, strict=True))
        self._texts = dict(zip(ids, map(str, state["token_text"].values), strict=True))

    @classmethod
    def merge(cls, a: xr.Dataset, b: xr.Dataset) -> xr.Dataset:
        texts: dict[int, str] = {}
        for state in (a, b):
            for id_, text in zip(state["token"].values.tolist(), map(str, state["token_text"].values), strict=True):
                texts[id_] = min(text, texts.get(id_, text))
        merged = super().merge(a.drop_vars("token_text"), b.drop_vars("token_text")).sortby("token")
        named = np.array([texts[id_] for id_ in merged["token"].values.tolist()], dtype=object)
        return merged.assign_coords(token_text=("token", named))

    @classmethod
    def compute(cls, state: xr.Dataset, n: int) -> xr.Dataset:
        share = ratio(
            _named(state, "", "share_"),
            n,
            "sink_share",
            {
                "long_name": "attention on sinks",
                "units": "share",
                "formula": "Σ_{k a sink} Σ_i w[i,k] / Σ w[i,j]; a sink takes more than 0.3 of the rows that pass it",
                "reference": REFERENCE,
            },
        )
        rate = ratio(
            _named(state, "", "rate_"),
            n,
            "sink_rate",
            {
                "long_name": "sinks a sequence",
                "units": "tokens",
                "formula": "mean number of sinks of a head in a sequence",
                "reference": REFERENCE,
            },
        )
        return xr.merge([share, rate, _tokens(state)])


def _tokens(state: xr.Dataset) -> xr.DataArray:
    """The share of content attention that each token took as a sink: the largest ones, and the others together."""
    total = state["share_b"].values
    shares = np.divide(state["token_mass"].values, total, out=np.zeros(state["token_mass"].shape), where=total > 0)
    ids = state["token"].values
    order = np.lexsort((ids, -shares.sum((1, 2))))
    first, rest = order[:MOST_TOKENS], order[MOST_TOKENS:]
    values = np.concatenate([shares[first], shares[rest].sum(0, keepdims=True)])
    values = np.where(total > 0, values, np.nan)
    texts = [str(text) for text in state["token_text"].values[first]]
    return xr.DataArray(
        values.transpose(1, 2, 0),
        dims=("layer", "head", "token"),
        coords={
            "layer": state["layer"],
            "head": state["head"],
            "token": [*map(str, ids[first].tolist()), OTHER],
            "token_text": ("token", [*texts, OTHER]),
        },
        name="sink_tokens",
        attrs={
            "long_name": "attention on sinks by token",
            "units": "share",
            "formula": "Σ_{k a sink, x_k = token} Σ_i w[i,k] / Σ w[i,j]; rows add up to sink_share",
            "reference": REFERENCE,
        },
    )


def _named(state: xr.Dataset, added: str, removed: str) -> xr.Dataset:
    """The sums whose names begin with `removed`, under names that begin with `added` instead."""
    names = [str(name) for name in state.data_vars if str(name).startswith(removed) and name != "token_mass"]
    kept = state[names].drop_vars(["token", "token_text"], errors="ignore")
    return kept.rename({name: added + name.removeprefix(removed) for name in names})


def _text(batch: Batch, sequence: int, position: int) -> str:
    """The characters of a token; its id where it has none."""
    item = batch.items[sequence]
    start, end = item.spans[position]
    return item.sentence.text[start:end].replace("\0", "\u2400") or f"<{item.ids[position]}>"
