"""One statistic against another, one point per head: `ta.plotting.scatter`.

Outlying heads are named, and doubtful ones crossed out.
"""

import tl_attnstats as ta

stats = ta.load("out/demo/stats.nc")
figure, _ = ta.plotting.scatter(stats, "distance", "dependency_alignment", direction="either")
ta.plotting.save(figure, "docs/gallery/scatter.png", dpi=100)
