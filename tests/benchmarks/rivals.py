"""The rivals in the benchmark: ways through the same batches, from a bare forward pass to statistics by hand."""

from __future__ import annotations

from collections.abc import Callable, Collection, Iterable, Sequence
from dataclasses import dataclass
from typing import Any, Literal

import torch

import tl_attnstats as ta
from tl_attnstats.collectors import DEFAULT_METRICS, OF_NORMS
from tl_attnstats.collectors.base import known
from tl_attnstats.models import hooked
from tl_attnstats.models.describe import ModelInfo
from tl_attnstats.models.twin import twin

PAIR_BY_PAIR_SENTENCES = 8


@dataclass
class Regime:
    """An input, cut into batches in two ways."""

    name: str
    bucketed: Sequence[ta.Batch]
    in_order: Sequence[ta.Batch]  # in corpus order, 32 at a time, as in a notebook
    sequence_kind: Literal["sentence", "document"] = "sentence"

    @property
    def n_tokens(self) -> int:
        return sum(batch.n_tokens for batch in self.bucketed)


@dataclass
class Rival:
    """A way through a regime, and the number of tokens it reads."""

    name: str
    run: Callable[[Regime], None]
    longest: int = 10**9  # not run on sequences longer than this
    n_tokens: Callable[[Regime], int] = lambda regime: regime.n_tokens


def rivals(model: Any, info: ModelInfo) -> list[Rival]:
    """All rivals, ours first."""
    sdpa = twin(model, "sdpa").base_model
    names = list(info.hook_of_layer.values())

    def ours(source: Any, left_out: Collection[str] = (), more: Collection[str] = ()) -> Callable[[Regime], None]:
        def run(regime: Regime) -> None:
            metrics = [
                name
                for name in (*DEFAULT_METRICS, *more)
                if name not in left_out and not (regime.sequence_kind == "document" and known(name).sentences_only)
            ]
            collectors = ta.Collectors(model, metrics, source=source, sequence_kind=regime.sequence_kind)
            for batch in regime.bucketed:
                collectors.run(batch)
            collectors.stats()

        return run

    def floor(regime: Regime) -> None:
        with torch.no_grad():
            for batch in regime.bucketed:
                sdpa(input_ids=batch.input_ids, attention_mask=batch.attention_mask, use_cache=False)

    def early_stopped(regime: Regime) -> None:
        for batch in regime.bucketed:
            hooked.run(model, info, batch, lambda layer, pattern: None)

    def bridge(regime: Regime) -> None:
        with torch.no_grad():
            for batch in regime.bucketed:
                model(batch.input_ids, attention_mask=batch.attention_mask)

    def cached(regime: Regime) -> None:
        for batch in regime.in_order:
            cache_of(model, names, batch)

    return [
        Rival("**tl_attnstats, streamed**, all default statistics", ours("streamed")),
        Rival("**tl_attnstats, hooks**, all default statistics", ours("hooks"), longest=2048),
        Rival("streamed, all but `relation_accuracy`", ours("streamed", left_out=["relation_accuracy"]), longest=512),
        Rival("streamed, and all statistics of norms", ours("streamed", more=OF_NORMS), longest=4096),
        Rival("transformers, SDPA, no unembedding: nothing collected", floor),
        Rival("bridge as far as the last pattern: nothing collected", early_stopped, longest=2048),
        Rival("bridge forward: nothing collected", bridge, longest=4096),
        Rival("`run_with_cache` of patterns: nothing computed", cached, longest=2048),
        Rival(
            "`run_with_cache`, statistics in straightforward torch",
            lambda regime: straightforward(model, names, regime.in_order),
            longest=2048,
        ),
        Rival(
            f"`run_with_cache`, statistics pair by pair in Python (first {PAIR_BY_PAIR_SENTENCES} sentences)",
            lambda regime: pair_by_pair(model, names, few(regime)),
            longest=512,
            n_tokens=lambda regime: sum(batch.n_tokens for batch in few(regime)),
        ),
    ]


def few(regime: Regime) -> list[ta.Batch]:
    return [
        ta.Batch([item], device=regime.in_order[0].device) for item in regime.in_order[0].items[:PAIR_BY_PAIR_SENTENCES]
    ]


def cache_of(model: Any, names: Sequence[str], batch: ta.Batch) -> Any:
    with torch.no_grad():
        return model.run_with_cache(batch.input_ids, attention_mask=batch.attention_mask, names_filter=names)[1]


def straightforward(model: Any, names: Sequence[str], batches: Iterable[ta.Batch]) -> list[dict[str, Any]]:
    """As in a notebook: each statistic from the whole pattern of each layer."""
    found: list[dict[str, Any]] = []
    for batch in batches:
        cache = cache_of(model, names, batch)
        n_tokens = batch.input_ids.shape[1]
        real = batch.attention_mask.bool()
        content = real.clone()
        content[:, 0] = False
        mask = (real[:, :, None] & content[:, None, :]).tril()[:, None]
        place = torch.arange(n_tokens, device=real.device)
        distance = (place[:, None] - place).abs()
        related = torch.zeros(len(batch), 1, n_tokens, n_tokens, device=real.device)
        sentence, child, parent = batch.dependencies.unbind(1)
        related[sentence, 0, child, parent] = related[sentence, 0, parent, child] = 1
        tags, relations = (batch.one_hot(kind)[1].float()[:, None] for kind in ("upos", "relation"))
        for name in names:
            w = cache[name] * mask
            rows, columns = w.sum(-1), w.sum(-2)
            p = w / rows[..., None].clamp_min(1e-30)
            found.append(
                {
                    "mass": rows.sum((0, 2)),
                    "null_share": (cache[name][..., 0] * real[:, None]).sum((0, 2)),
                    "pos_to": (columns[:, :, None] @ tags).sum(0),
                    "pos_from": (rows[:, :, None] @ tags).sum(0),
                    "dep_to": (columns[:, :, None] @ relations).sum(0),
                    "dependency_alignment": (w * related).sum((0, 2, 3)),
                    "distance": (w * distance).sum((0, 2, 3)),
                    "entropy": -(p * p.clamp_min(1e-30).log()).sum((0, 2, 3)),
                    "offset_profile": [w.diagonal(-d, -2, -1).sum((0, 2)) for d in range(min(65, n_tokens))],
                    "corner": w[:, :, :10, :10].clone(),
                    "exemplars": w.flatten(2).max(-1),
                }
            )
    return found


def pair_by_pair(model: Any, names: Sequence[str], batches: Iterable[ta.Batch]) -> dict[tuple[int, int], list[float]]:
    """As in published analysis code: loops over layers, heads, queries and keys. Four statistics only."""
    sums: dict[tuple[int, int], list[float]] = {}
    for batch in batches:
        cache = cache_of(model, names, batch)
        tags = batch.items[0].labels("upos")
        pairs = set(batch.items[0].dependencies())
        for layer, name in enumerate(names):
            for head, pattern in enumerate(cache[name][0].tolist()):
                mass = distance = nouns = aligned = 0.0
                for i, row in enumerate(pattern):
                    for j in range(1, i + 1):
                        mass += row[j]
                        distance += row[j] * (i - j)
                        if tags[j] == "NOUN":
                            nouns += row[j]
                        if (i, j) in pairs or (j, i) in pairs:
                            aligned += row[j]
                sums.setdefault((layer, head), []).extend([mass, distance, nouns, aligned])
    return sums
