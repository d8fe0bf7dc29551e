"""Everything about one head, on a page: `ta.plotting.head_card`.

Its largest weights go to an earlier occurrence of the same token: in its exemplars, the boxed token attends to the
underlined one. Most of its attention does something else: of the attention off the first token, 0.39 goes to
determiners and 0.30 to whitespace ("none").
"""

import tl_attnstats as ta

stats = ta.load("out/demo/stats.nc")
figure, _ = ta.plotting.head_card(stats, "L5H6")
ta.plotting.save(figure, "docs/gallery/head_card.png", dpi=100)
