"""Which parts of speech heads look at: `ta.plotting.pos_grid`, after fig. 6.

Every panel has its own scale, up to its largest value and to 0.01 at the least; `share_scale=True` gives them one.
"""

import tl_attnstats as ta

stats = ta.load("out/demo/stats.nc")
figure, _ = ta.plotting.pos_grid(stats, "pos_to", tags=["ADP", "DET", "NOUN", "PROPN", "PUNCT", "VERB"])
ta.plotting.save(figure, "docs/gallery/pos_grid.png", dpi=100)
