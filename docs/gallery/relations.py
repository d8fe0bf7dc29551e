"""Which head finds which relation? `ta.plotting.relations`, after Clark et al. (2019), held out.

Heads and fixed offsets between words are chosen on one half of the corpus and scored on the other. In the rows at the
bottom, heads find no more than an offset does.
"""

import tl_attnstats as ta

stats = ta.load("out/demo/stats.nc")
figure, _ = ta.plotting.relations(stats)
ta.plotting.save(figure, "docs/gallery/relations.png", dpi=100)
