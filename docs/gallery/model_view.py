"""One sentence, every head: `ta.views.model_view`, after fig. 2."""

import tl_attnstats as ta

model = ta.load_model("demo")
attention = ta.attention_of(model, "The quick brown fox jumps over the lazy dog, because the dog was asleep.")
figure, _ = ta.views.model_view(attention)
ta.plotting.save(figure, "docs/gallery/model_view.png", dpi=80)
