"""How far each head looks: `ta.plotting.heatmap`, after fig. 11 of Vig & Belinkov (2019).

Bars are layer means. Struck-out heads are doubtful: their null share is above 0.9, or their error above half of the
value.
"""

import tl_attnstats as ta

stats = ta.load("out/demo/stats.nc")
figure, _ = ta.plotting.heatmap(stats, "distance", side_bar=True)
ta.plotting.save(figure, "docs/gallery/heatmap.png", dpi=100)
