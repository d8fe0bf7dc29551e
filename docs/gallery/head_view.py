"""One sentence, two heads: `ta.views.head_view`, after fig. 1."""

import tl_attnstats as ta

model = ta.load_model("demo")
attention = ta.attention_of(model, "The quick brown fox jumps over the lazy dog, because the dog was asleep.")
figure, _ = ta.views.head_view(attention, ["L5H6", "L16H0"])
ta.plotting.save(figure, "docs/gallery/head_view.png", dpi=100)
