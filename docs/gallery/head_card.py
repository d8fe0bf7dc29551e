"""Everything about one head on a page: `ta.plotting.head_card`.

Its largest weights go to an earlier occurrence of the same token: among its exemplars the boxed token looks at the
underlined one. Most of its attention does something else: 0.39 of what is not on the first token goes to determiners
and 0.30 to white space ("none").
"""

import tl_attnstats as ta

stats = ta.load("out/demo/stats.nc")
figure, _ = ta.plotting.head_card(stats, "L5H6")
ta.plotting.save(figure, "docs/gallery/head_card.png", dpi=100)
