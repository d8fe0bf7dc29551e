"""Figures of saved statistics. They never call `plt.show` or change global styles."""

from tl_attnstats.plotting.compare import by_depth, claims, comparison_figures, head_strips, label_means
from tl_attnstats.plotting.head_card import head_card
from tl_attnstats.plotting.heatmap import heatmap
from tl_attnstats.plotting.layers import alignment_by_layer, relations_by_layer
from tl_attnstats.plotting.offsets import offset_profile
from tl_attnstats.plotting.paper import paper_figures
from tl_attnstats.plotting.pos import pos_grid
from tl_attnstats.plotting.save import save
from tl_attnstats.plotting.scatter import scatter

__all__ = [
    "alignment_by_layer",
    "by_depth",
    "claims",
    "comparison_figures",
    "head_card",
    "head_strips",
    "heatmap",
    "label_means",
    "offset_profile",
    "paper_figures",
    "pos_grid",
    "relations_by_layer",
    "save",
    "scatter",
]
