"""Everything about one head, on a page: `ta.plotting.head_card`.

The sentence at the top says what stands out against its baseline: of the content attention, sinks take 0.72, and 0.35
goes to earlier copies of the token, where there are any. The bars alone, 0.39 to determiners and 0.30 to whitespace
("none"), do not show this. In the exemplars, the boxed token attends to the underlined one.
"""

import tl_attnstats as ta

stats = ta.load("out/demo/stats.nc")
figure, _ = ta.plotting.head_card(stats, "L5H6")
ta.plotting.save(figure, "docs/gallery/head_card.png", dpi=100)
