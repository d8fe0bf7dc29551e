"""Attention statistics of TransformerLens models: what every head looks at, over a whole corpus."""

from tl_attnstats import errors, plotting, report
from tl_attnstats.attention.block import AttentionBlock, Scope
from tl_attnstats.attention.loading import load_model
from tl_attnstats.attention.models import describe, streams
from tl_attnstats.attention.single import TextAttention, attention_from_cache, attention_of
from tl_attnstats.claims import Claim, claims_of
from tl_attnstats.collectors.base import Collector, RatioCollector
from tl_attnstats.collectors.baselines import Baselines
from tl_attnstats.collectors.bootstrap import Bootstrap
from tl_attnstats.collectors.dependency import DependencyAlignment, DepTo
from tl_attnstats.collectors.distance import Distance
from tl_attnstats.collectors.entropy import Entropy
from tl_attnstats.collectors.exemplars import Exemplars
from tl_attnstats.collectors.group import DEFAULT_METRICS
from tl_attnstats.collectors.null import NullShare
from tl_attnstats.collectors.offsets import OffsetProfile
from tl_attnstats.collectors.pos import PosFrom, PosTo
from tl_attnstats.collectors.variability import Variability
from tl_attnstats.compare import Comparison, compare
from tl_attnstats.corpus.batches import Batch, Framing, TokenizedSentence
from tl_attnstats.corpus.corpus import Corpus
from tl_attnstats.corpus.sentence import Sentence, Word
from tl_attnstats.patterns import collect_patterns
from tl_attnstats.results.difference import difference
from tl_attnstats.results.state import RunState
from tl_attnstats.run import Collectors, Interrupted, collect
from tl_attnstats.stats import AttentionStats, load

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
