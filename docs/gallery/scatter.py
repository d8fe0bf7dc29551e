"""One statistic against another, a point a head: `ta.plotting.scatter`.

Heads far from the others are named, doubtful ones are crossed.
"""

import tl_attnstats as ta

stats = ta.load("out/demo/stats.nc")
figure, _ = ta.plotting.scatter(stats, "distance", "dependency_alignment", direction="either")
ta.plotting.save(figure, "docs/gallery/scatter.png", dpi=100)
