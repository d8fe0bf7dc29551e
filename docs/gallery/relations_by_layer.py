"""Attention to dependency relations, layer by layer: `ta.plotting.relations_by_layer`, after fig. 9.

Each column is scaled by its largest value, which is written above it.
"""

import tl_attnstats as ta

stats = ta.load("out/demo/stats.nc")
figure, _ = ta.plotting.relations_by_layer(stats)
ta.plotting.save(figure, "docs/gallery/relations_by_layer.png", dpi=100)
