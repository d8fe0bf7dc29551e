"""Attention statistics of TransformerLens models: what every head looks at, over a whole corpus."""

from __future__ import annotations

from importlib import import_module
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from tl_attnstats import errors, plotting, report, views
    from tl_attnstats.attention.kernels.torch_blocks import reductions_of
    from tl_attnstats.attention.reductions import Reductions
    from tl_attnstats.attention.scope import Scope
    from tl_attnstats.collectors import DEFAULT_METRICS
    from tl_attnstats.collectors.base import Collector
    from tl_attnstats.collectors.baselines import Baselines
    from tl_attnstats.collectors.behaviour import Behaviour
    from tl_attnstats.collectors.bootstrap import Bootstrap
    from tl_attnstats.collectors.dependency import DependencyAlignment, DepTo
    from tl_attnstats.collectors.distance import Distance
    from tl_attnstats.collectors.entropy import Entropy
    from tl_attnstats.collectors.exemplars import Exemplars
    from tl_attnstats.collectors.norms import (
        DependencyAlignmentNorm,
        DepToNorm,
        DistanceNorm,
        NullShareNorm,
        OutputNorm,
        OutputNormRelative,
        PosToNorm,
    )
    from tl_attnstats.collectors.null import NullShare
    from tl_attnstats.collectors.offsets import OffsetProfile
    from tl_attnstats.collectors.pos import PosFrom, PosTo
    from tl_attnstats.collectors.position import Position
    from tl_attnstats.collectors.ratio import RatioCollector
    from tl_attnstats.collectors.relations import RelationAccuracy
    from tl_attnstats.collectors.sinks import DepToWithoutSinks, PosToWithoutSinks, Sinks
    from tl_attnstats.collectors.typical import TypicalExemplars
    from tl_attnstats.collectors.variability import Variability
    from tl_attnstats.corpus.batches import Batch, Framing, TokenizedSentence
    from tl_attnstats.corpus.corpus import Corpus
    from tl_attnstats.corpus.sentence import Sentence, Word
    from tl_attnstats.engines.ray import RayEngine
    from tl_attnstats.models.describe import describe, streams
    from tl_attnstats.models.loading import load_model
    from tl_attnstats.results.claims import Claim, claims_of
    from tl_attnstats.results.compare import Comparison, compare
    from tl_attnstats.results.counterparts import counterparts_of
    from tl_attnstats.results.difference import difference
    from tl_attnstats.results.interrupted import Interrupted
    from tl_attnstats.results.patterns import collect_patterns
    from tl_attnstats.results.shard_files import merge_shards
    from tl_attnstats.results.state import RunState
    from tl_attnstats.results.stats import AttentionStats, load
    from tl_attnstats.run import Collectors, collect
    from tl_attnstats.views.exemplar_patterns import exemplar_patterns
    from tl_attnstats.views.text_attention import TextAttention, attention_from_cache, attention_of

# Where each name comes from, as above. It is imported when it is first used: torch, spaCy and the others take seconds.
_MODULES = {
    "": (
        "errors",
        "plotting",
        "report",
        "views",
    ),
    "attention.kernels.torch_blocks": ("reductions_of",),
    "attention.reductions": ("Reductions",),
    "attention.scope": ("Scope",),
    "collectors": ("DEFAULT_METRICS",),
    "collectors.base": ("Collector",),
    "collectors.baselines": ("Baselines",),
    "collectors.behaviour": ("Behaviour",),
    "collectors.sinks": ("DepToWithoutSinks", "PosToWithoutSinks", "Sinks"),
    "collectors.bootstrap": ("Bootstrap",),
    "collectors.dependency": (
        "DependencyAlignment",
        "DepTo",
    ),
    "collectors.distance": ("Distance",),
    "collectors.entropy": ("Entropy",),
    "collectors.exemplars": ("Exemplars",),
    "collectors.norms": (
        "DependencyAlignmentNorm",
        "DepToNorm",
        "DistanceNorm",
        "NullShareNorm",
        "OutputNorm",
        "OutputNormRelative",
        "PosToNorm",
    ),
    "collectors.null": ("NullShare",),
    "collectors.offsets": ("OffsetProfile",),
    "collectors.pos": (
        "PosFrom",
        "PosTo",
    ),
    "collectors.position": ("Position",),
    "collectors.relations": ("RelationAccuracy",),
    "collectors.ratio": ("RatioCollector",),
    "collectors.typical": ("TypicalExemplars",),
    "collectors.variability": ("Variability",),
    "corpus.batches": (
        "Batch",
        "Framing",
        "TokenizedSentence",
    ),
    "corpus.corpus": ("Corpus",),
    "corpus.sentence": (
        "Sentence",
        "Word",
    ),
    "engines.ray": ("RayEngine",),
    "models.describe": (
        "describe",
        "streams",
    ),
    "models.loading": ("load_model",),
    "results.claims": (
        "Claim",
        "claims_of",
    ),
    "results.compare": (
        "Comparison",
        "compare",
    ),
    "results.counterparts": ("counterparts_of",),
    "results.difference": ("difference",),
    "results.interrupted": ("Interrupted",),
    "results.patterns": ("collect_patterns",),
    "results.shard_files": ("merge_shards",),
    "results.state": ("RunState",),
    "results.stats": (
        "AttentionStats",
        "load",
    ),
    "run": ("Collectors", "collect"),
    "views.exemplar_patterns": ("exemplar_patterns",),
    "views.text_attention": (
        "TextAttention",
        "attention_from_cache",
        "attention_of",
    ),
}
_MODULE_OF = {name: module for module, names in _MODULES.items() for name in names}

__all__ = [
    "DEFAULT_METRICS",
    "AttentionStats",
    "Baselines",
    "Batch",
    "Behaviour",
    "Bootstrap",
    "Claim",
    "Collector",
    "Collectors",
    "Comparison",
    "Corpus",
    "DepTo",
    "DepToNorm",
    "DepToWithoutSinks",
    "DependencyAlignment",
    "DependencyAlignmentNorm",
    "Distance",
    "DistanceNorm",
    "Entropy",
    "Exemplars",
    "Framing",
    "Interrupted",
    "NullShare",
    "NullShareNorm",
    "OffsetProfile",
    "OutputNorm",
    "OutputNormRelative",
    "PosFrom",
    "PosTo",
    "PosToNorm",
    "PosToWithoutSinks",
    "Position",
    "RatioCollector",
    "RayEngine",
    "Reductions",
    "RelationAccuracy",
    "RunState",
    "Scope",
    "Sentence",
    "Sinks",
    "TextAttention",
    "TokenizedSentence",
    "TypicalExemplars",
    "Variability",
    "Word",
    "attention_from_cache",
    "attention_of",
    "claims_of",
    "collect",
    "collect_patterns",
    "compare",
    "counterparts_of",
    "describe",
    "difference",
    "errors",
    "exemplar_patterns",
    "load",
    "load_model",
    "merge_shards",
    "plotting",
    "reductions_of",
    "report",
    "streams",
    "views",
]

if not TYPE_CHECKING:  # a type checker that saw this would take any name for one of ours

    def __getattr__(name):
        if name not in _MODULE_OF:
            raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
        module = _MODULE_OF[name]
        found = getattr(import_module(f"{__name__}.{module}"), name) if module else import_module(f"{__name__}.{name}")
        globals()[name] = found
        return found


def __dir__() -> list[str]:
    return sorted({*globals(), *__all__})
