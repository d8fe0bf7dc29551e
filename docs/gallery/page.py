"""One text to explore: `attention.show()` in a notebook, `attention.write()` to a file.

The address names two heads and a token, and Chromium draws the page in that state.
"""

import subprocess
from pathlib import Path

import tl_attnstats as ta

model = ta.load_model("demo")
text = "When Mary and John went to the store, John gave a drink to Mary because the unbelievable dog was asleep."
attention = ta.attention_of(model, text, stats=ta.load("out/demo/stats.nc"))
attention.write("out/view.html")
address = Path("out/view.html").resolve().as_uri() + "#head=L10H1,L5H6&token=14"
options = ["--no-sandbox", "--hide-scrollbars", "--window-size=1400,1420", "--virtual-time-budget=5000"]
browser = ["chromium", "--headless", *options, "--screenshot=docs/gallery/page.png", address]
subprocess.run(browser, check=True, stderr=subprocess.DEVNULL)
