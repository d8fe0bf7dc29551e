"""How large the page of one text is, and when it shows something: all heads of the demo's model over 64 tokens.

    python -m tests.benchmarks.page

Prints the median over ten loads in Chromium, from the request to the first paint of contents, and to the page being
complete.
"""

from __future__ import annotations

import statistics
import tempfile
from pathlib import Path

import tl_attnstats as ta
from tests.browsing import chromium, opened

TEXT = "When Mary and John went to the store, John gave a drink to Mary because the unbelievable dog was asleep. "
PAINT = "performance.getEntriesByName('first-contentful-paint')[0].startTime"
READY = "document.documentElement.dataset.ready !== undefined"


def main() -> None:
    attention = ta.attention_of(
        ta.load_model("demo"),
        TEXT * 2 + "The store was closed, so they all went home again, and nobody drank it.",
        max_tokens=80,
    )
    n_layers, n_heads, n_tokens, _ = attention.pattern.shape
    paints, complete = [], []
    with tempfile.TemporaryDirectory() as directory, chromium() as browser:
        path = Path(directory) / "view.html"
        attention.write(path)
        for _ in range(10):
            with opened(browser, path) as page:
                page.wait_for_function(READY)
                complete.append(page.evaluate("performance.now()"))
                paints.append(page.evaluate(PAINT))
        size = path.stat().st_size / 1e6
    print(
        f"{n_layers} × {n_heads} heads, {n_tokens} tokens: {size:.2f} MB; first paint after "
        f"{statistics.median(paints):.0f} ms, complete after {statistics.median(complete):.0f} ms"
    )


if __name__ == "__main__":
    main()
