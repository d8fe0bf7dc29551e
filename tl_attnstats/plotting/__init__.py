"""Figures of saved statistics. They never call `plt.show` or change global styles."""

from tl_attnstats.plotting.behaviours import behaviours
from tl_attnstats.plotting.compare import by_depth, claims, comparison_figures, head_strips, label_means
from tl_attnstats.plotting.head_card import head_card
from tl_attnstats.plotting.heatmap import heatmap
from tl_attnstats.plotting.layers import alignment_by_layer, alignment_excess, relations_by_layer
from tl_attnstats.plotting.norms import norms
from tl_attnstats.plotting.offsets import offset_profile
from tl_attnstats.plotting.paper import paper_figures
from tl_attnstats.plotting.pos import pos_grid
from tl_attnstats.plotting.relations import relations
from tl_attnstats.plotting.save import save
from tl_attnstats.plotting.scatter import scatter
from tl_attnstats.plotting.sinks import sinks

__all__ = [
    "alignment_by_layer",
    "alignment_excess",
    "behaviours",
    "by_depth",
    "claims",
    "comparison_figures",
    "head_card",
    "head_strips",
    "heatmap",
    "label_means",
    "norms",
    "offset_profile",
    "paper_figures",
    "pos_grid",
    "relations",
    "relations_by_layer",
    "save",
    "scatter",
    "sinks",
]
