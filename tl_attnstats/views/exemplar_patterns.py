"""Run a model once more over the sentences of its exemplars, and keep the patterns of their heads."""

from __future__ import annotations

from collections import defaultdict
from typing import Any

import numpy as np
import torch
from jaxtyping import Float

from tl_attnstats.attention.scope import Scope
from tl_attnstats.corpus.batches import Batch, TokenizedSentence, batches
from tl_attnstats.corpus.corpus import Corpus
from tl_attnstats.corpus.sentence import Sentence
from tl_attnstats.errors import MetricError, ModelError
from tl_attnstats.models.describe import ModelInfo, check_hooked, describe
from tl_attnstats.models.hooked import run
from tl_attnstats.results.stats import AttentionStats, head_name
from tl_attnstats.results.whole import WholePatterns, in_8_bits

MAX_TOKENS = 64
"""Longer sentences are left out: their patterns would make up most of the page."""
SAME = 0.01
"""How far the weight of an exemplar may differ in another run of the same model, in half precision too."""

Wanted = dict[int, dict[str, list[tuple[int, int, float]]]]  # by sentence and head: query, key, weight


def exemplar_patterns(
    model: Any,
    stats: AttentionStats,
    *,
    prepend_bos: bool | None = None,
    null: str = "auto",
    batch_tokens: int = 1024,
    max_tokens: int = MAX_TOKENS,
) -> WholePatterns:
    """The whole patterns of the exemplars of every head, for `ta.report.write(stats, path, patterns=…)`.

    This runs the model over each exemplar's sentence once, which costs about as much as collecting from these
    sentences did.

    Args:
        model: the model that the statistics are of, a `TransformerBridge` or `HookedTransformer`.
        stats: statistics of sentences, with exemplars.
        prepend_bos: as in `collect`.
        null: as in `collect`.
        batch_tokens: as in `collect`.
        max_tokens: sentences with more tokens are left out. Special tokens count.

    Raises:
        MetricError: the statistics have no exemplars, or are of documents, token ids or an encoder–decoder.
        ModelError: the model has no hooks, or its attention is not that of the statistics.
    """
    check_hooked(model)
    wanted = _wanted(stats)
    layers = stats["layer"].values.tolist()
    info = describe(model, prepend_bos=prepend_bos, null=null, layers=layers)
    texts = _texts(stats)
    numbers = sorted(wanted)
    corpus = Corpus([Sentence(texts[number], (), "exemplar") for number in numbers])
    tokens: dict[int, list[str]] = {}
    nulls: dict[int, list[int]] = {}
    patterns: dict[str, dict[int, Any]] = defaultdict(dict)
    n_other = n_long = 0
    for batch in batches(corpus, info.framing, max_tokens=batch_tokens, truncate=True, device=info.device):
        read = _read(model, info, batch)
        scope = Scope(batch, info.causal, info.null)
        for place, item in enumerate(batch.items):
            number, n = numbers[item.sentence.number], len(item)
            if n > max_tokens:
                n_long += 1
                continue
            for head, found in wanted[number].items():
                layer, at = stats.find_head(head)
                pattern = read[layer][place, at, :n, :n]
                if all(query < n and key < n and abs(pattern[query, key] - w) <= SAME for query, key, w in found):
                    patterns[head][number] = in_8_bits(pattern)
                else:
                    n_other += 1
            if any(number in patterns[head] for head in wanted[number]):
                tokens[number] = _tokens(info, item)
                nulls[number] = scope.null[place, :n].nonzero()[:, 0].tolist()
    if n_other > sum(map(len, patterns.values())):
        raise ModelError(
            f"model: {n_other} of its patterns do not have the weights of the exemplars; pass the model that the "
            f"statistics are of ({stats.provenance['model']}), with the same prepend_bos"
        )
    said = f"{n_long} sentences with more than {max_tokens} tokens have none." if n_long else ""
    return WholePatterns(info.causal, tokens, nulls, dict(patterns), said)


def _wanted(stats: AttentionStats) -> Wanted:
    """The exemplars by sentence and head."""
    kind, stream = (
        stats.provenance.get(key, usual) for key, usual in (("sequence_kind", "sentence"), ("stream", "self"))
    )
    if kind != "sentence" or stream != "self":
        raise MetricError(
            f"stats: of sequence_kind={kind!r} and stream={stream!r}; whole patterns are of exemplars among sentences, "
            f"in models with one stream"
        )
    tables = [
        of
        for name, of in (("exemplar", stats.exemplars), ("typical", stats.typical_exemplars))
        if f"{name}_weight" in stats.dataset
    ]
    if not tables:
        raise MetricError("stats: have no exemplars; collect with metrics that include 'exemplars'")
    wanted: Wanted = defaultdict(lambda: defaultdict(list))
    for layer in stats["layer"].values.tolist():
        for number in stats["head"].values.tolist():
            head = head_name(layer, number)
            for of in tables:
                for row in of(head).to_dict("records"):
                    wanted[int(row["sentence"])][head].append((int(row["query"]), int(row["key"]), row["weight"]))
    return wanted


def _texts(stats: AttentionStats) -> dict[int, str]:
    texts: dict[int, str] = {}
    for name, dim in (("exemplar_text", "sentence"), ("typical_text", "typical_sentence")):
        if name in stats.dataset:
            texts |= dict(zip(stats[dim].values.tolist(), map(str, stats[name].values), strict=True))
    return texts


def _read(model: Any, info: ModelInfo, batch: Batch) -> dict[int, Float[np.ndarray, "batch head query key"]]:
    read: dict[int, np.ndarray] = {}

    def keep(layer: int, pattern: torch.Tensor) -> None:
        read[layer] = pattern.detach().float().cpu().numpy()

    run(model, info, batch, keep)
    return read


def _tokens(info: ModelInfo, item: TokenizedSentence) -> list[str]:
    names = info.framing.tokenizer.convert_ids_to_tokens(list(item.ids))
    text = item.sentence.text
    return [text[start:end] if start < end else name for (start, end), name in zip(item.spans, names, strict=True)]
