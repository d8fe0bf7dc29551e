"""Attention statistics of TransformerLens models: what every head looks at, over a whole corpus."""

from __future__ import annotations

from importlib import import_module
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from tl_attnstats import errors, plotting, report
    from tl_attnstats.attention.block import AttentionBlock, Scope
    from tl_attnstats.attention.loading import load_model
    from tl_attnstats.attention.models import describe, streams
    from tl_attnstats.attention.single import TextAttention, attention_from_cache, attention_of
    from tl_attnstats.claims import Claim, claims_of
    from tl_attnstats.collectors import DEFAULT_METRICS
    from tl_attnstats.collectors.base import Collector, RatioCollector
    from tl_attnstats.collectors.baselines import Baselines
    from tl_attnstats.collectors.bootstrap import Bootstrap
    from tl_attnstats.collectors.dependency import DependencyAlignment, DepTo
    from tl_attnstats.collectors.distance import Distance
    from tl_attnstats.collectors.entropy import Entropy
    from tl_attnstats.collectors.exemplars import Exemplars
    from tl_attnstats.collectors.null import NullShare
    from tl_attnstats.collectors.offsets import OffsetProfile
    from tl_attnstats.collectors.pos import PosFrom, PosTo
    from tl_attnstats.collectors.variability import Variability
    from tl_attnstats.comparison import Comparison, compare
    from tl_attnstats.corpus.batches import Batch, Framing, TokenizedSentence
    from tl_attnstats.corpus.corpus import Corpus
    from tl_attnstats.corpus.sentence import Sentence, Word
    from tl_attnstats.patterns import collect_patterns
    from tl_attnstats.results.difference import difference
    from tl_attnstats.results.state import RunState
    from tl_attnstats.run import Collectors, Interrupted, collect
    from tl_attnstats.stats import AttentionStats, load

# Where each name comes from, as above. It is imported when it is first used: torch, spaCy and the others take seconds.
_MODULES = {
    "": ("errors", "plotting", "report"),
    "attention.block": ("AttentionBlock", "Scope"),
    "attention.loading": ("load_model",),
    "attention.models": ("describe", "streams"),
    "attention.single": ("TextAttention", "attention_from_cache", "attention_of"),
    "claims": ("Claim", "claims_of"),
    "collectors": ("DEFAULT_METRICS",),
    "collectors.base": ("Collector", "RatioCollector"),
    "collectors.baselines": ("Baselines",),
    "collectors.bootstrap": ("Bootstrap",),
    "collectors.dependency": ("DepTo", "DependencyAlignment"),
    "collectors.distance": ("Distance",),
    "collectors.entropy": ("Entropy",),
    "collectors.exemplars": ("Exemplars",),
    "collectors.null": ("NullShare",),
    "collectors.offsets": ("OffsetProfile",),
    "collectors.pos": ("PosFrom", "PosTo"),
    "collectors.variability": ("Variability",),
    "comparison": ("Comparison", "compare"),
    "corpus.batches": ("Batch", "Framing", "TokenizedSentence"),
    "corpus.corpus": ("Corpus",),
    "corpus.sentence": ("Sentence", "Word"),
    "patterns": ("collect_patterns",),
    "results.difference": ("difference",),
    "results.state": ("RunState",),
    "run": ("Collectors", "Interrupted", "collect"),
    "stats": ("AttentionStats", "load"),
}
_MODULE_OF = {name: module for module, names in _MODULES.items() for name in names}

__all__ = [
    "DEFAULT_METRICS",
    "AttentionBlock",
    "AttentionStats",
    "Baselines",
    "Batch",
    "Bootstrap",
    "Claim",
    "Collector",
    "Collectors",
    "Comparison",
    "Corpus",
    "DepTo",
    "DependencyAlignment",
    "Distance",
    "Entropy",
    "Exemplars",
    "Framing",
    "Interrupted",
    "NullShare",
    "OffsetProfile",
    "PosFrom",
    "PosTo",
    "RatioCollector",
    "RunState",
    "Scope",
    "Sentence",
    "TextAttention",
    "TokenizedSentence",
    "Variability",
    "Word",
    "attention_from_cache",
    "attention_of",
    "claims_of",
    "collect",
    "collect_patterns",
    "compare",
    "describe",
    "difference",
    "errors",
    "load",
    "load_model",
    "plotting",
    "report",
    "streams",
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
