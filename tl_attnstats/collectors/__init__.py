"""One file a statistic: sums over attention blocks. Knows the block, not where it came from.

The built-in statistics are listed here, and imported when they are first used.
"""

from __future__ import annotations

BUILT_IN = {
    "null_share": "null.NullShare",
    "pos_to": "pos.PosTo",
    "pos_from": "pos.PosFrom",
    "dep_to": "dependency.DepTo",
    "dependency_alignment": "dependency.DependencyAlignment",
    "distance": "distance.Distance",
    "entropy": "entropy.Entropy",
    "variability": "variability.Variability",
    "offset_profile": "offsets.OffsetProfile",
    "behaviour": "behaviour.Behaviour",
    "sinks": "sinks.Sinks",
    "pos_to_without_sinks": "sinks.PosToWithoutSinks",
    "dep_to_without_sinks": "sinks.DepToWithoutSinks",
    "position": "position.Position",
    "relation_accuracy": "relations.RelationAccuracy",
    "pos_to_norm": "norms.PosToNorm",
    "dep_to_norm": "norms.DepToNorm",
    "dependency_alignment_norm": "norms.DependencyAlignmentNorm",
    "distance_norm": "norms.DistanceNorm",
    "null_share_norm": "norms.NullShareNorm",
    "output_norm": "norms.OutputNorm",
    "output_norm_relative": "norms.OutputNormRelative",
    "exemplars": "exemplars.Exemplars",
    "typical_exemplars": "typical.TypicalExemplars",
    "baselines": "baselines.Baselines",
    "bootstrap": "bootstrap.Bootstrap",
}
"""Name of each built-in statistic, and its module and class in this package."""

OF_NORMS = (
    "pos_to_norm",
    "dep_to_norm",
    "dependency_alignment_norm",
    "distance_norm",
    "null_share_norm",
    "output_norm",
    "output_norm_relative",
)
"""Statistics of norms, which cost 4% to 9% of a run, and which not every model has."""

BY_NAME = (*OF_NORMS, "typical_exemplars")
"""Collected only if asked for by name. Typical rows cost 2% to 3% of a run, and a GPU's host waits for each layer."""

DEFAULT_METRICS = tuple(name for name in BUILT_IN if name not in BY_NAME)
