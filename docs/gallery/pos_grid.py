"""Which parts of speech heads look at: `ta.plotting.pos_grid`, after fig. 6.

Every panel's scale ends at its largest value, or at 0.01 if that is larger; `share_scale=True` gives all one scale.
"""

import tl_attnstats as ta

stats = ta.load("out/demo/stats.nc")
figure, _ = ta.plotting.pos_grid(stats, "pos_to", tags=["ADP", "DET", "NOUN", "PROPN", "PUNCT", "VERB"])
ta.plotting.save(figure, "docs/gallery/pos_grid.png", dpi=100)
