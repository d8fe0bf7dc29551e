"""Everything about one head on a page: `ta.plotting.head_card`.

This one finds the earlier occurrence of a word: among its exemplars the boxed token looks at the underlined one.
"""

import tl_attnstats as ta

stats = ta.load("out/demo/stats.nc")
figure, _ = ta.plotting.head_card(stats, "L5H6")
ta.plotting.save(figure, "docs/gallery/head_card.png", dpi=100)
