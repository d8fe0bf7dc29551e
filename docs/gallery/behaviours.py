"""Which heads look at the previous token, at a repeated one, or at what followed it? `ta.plotting.behaviours`.

Above each map is its baseline: what evenly spread attention would give. L16H0 gives 0.88 of its content attention to
the previous token. L17H5 gives 0.73 to the token after an earlier copy (induction).
"""

import tl_attnstats as ta

stats = ta.load("out/demo/stats.nc")
figure, _ = ta.plotting.behaviours(stats)
ta.plotting.save(figure, "docs/gallery/behaviours.png", dpi=100)
