"""Where one weight comes from: `ta.views.neuron_view`, after fig. 3.

It shows query and key vectors, their products, the sums of the products, and their softmax: the head's attention.
"""

import tl_attnstats as ta

model = ta.load_model("demo")
attention = ta.attention_of(model, "The lazy dog slept because the dog", neurons=True)
figure, _ = ta.views.neuron_view(attention, "L5H6", query=7)
ta.plotting.save(figure, "docs/gallery/neuron_view.png", dpi=100)
