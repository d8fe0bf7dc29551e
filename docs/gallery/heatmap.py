"""How far each head looks: `ta.plotting.heatmap`, after fig. 11 of Vig & Belinkov (2019).

Bars are layer means. Hatched heads have so little attention on content that their value says little.
"""

import tl_attnstats as ta

stats = ta.load("out/demo/stats.nc")
figure, _ = ta.plotting.heatmap(stats, "distance", side_bar=True)
ta.plotting.save(figure, "docs/gallery/heatmap.png", dpi=100)
