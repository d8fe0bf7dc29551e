"""How many tokens back a head looks: `ta.plotting.offset_profile`.

The dotted line is how often two tokens at that distance are in a dependency relation. All axes are logarithmic.
"""

import tl_attnstats as ta

stats = ta.load("out/demo/stats.nc")
figure, _ = ta.plotting.offset_profile(stats, ["L16H0", "L5H6"])
ta.plotting.save(figure, "docs/gallery/offset_profile.png", dpi=100)
