"""Do heads follow syntax? `ta.plotting.alignment_by_layer`, after fig. 8.

The dashed line is what attention spread evenly over all pairs would give.
"""

import tl_attnstats as ta

stats = ta.load("out/demo/stats.nc")
figure, _ = ta.plotting.alignment_by_layer(stats)
ta.plotting.save(figure, "docs/gallery/alignment_by_layer.png", dpi=100)
