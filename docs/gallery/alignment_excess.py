"""How much of the alignment with syntax is more than position? `ta.plotting.alignment_excess`.

The dashed line is the alignment of a head that has the same preference for offsets and knows nothing else. In either
direction, the excess is 0.013 of a mean alignment of 0.118. Values within the grey band count as 0.
"""

import tl_attnstats as ta

stats = ta.load("out/demo/stats.nc")
figure, _ = ta.plotting.alignment_excess(stats)
ta.plotting.save(figure, "docs/gallery/alignment_excess.png", dpi=100)
