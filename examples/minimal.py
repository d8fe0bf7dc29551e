"""How far does each head look? The least code that answers it.

python examples/minimal.py
"""

import tl_attnstats as ta

model = ta.load_model("demo")  # or TransformerBridge.boot_transformers("gpt2")
corpus = ta.Corpus.from_texts(
    ["The dog that chased the cat barked.", "She read the letter because he had asked her to."]
)
stats = ta.collect(model, corpus)

print(stats.top_heads("distance", n=5, max_null=0.9))
