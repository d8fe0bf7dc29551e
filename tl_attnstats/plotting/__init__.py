"""Figures of a saved `AttentionStats`, with matplotlib. Nothing here shows a figure or sets a global style."""

from tl_attnstats.plotting.heatmap import heatmap

__all__ = ["heatmap"]
