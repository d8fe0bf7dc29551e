"""Statistics of cross-attention in plain loops, as `reference.py` has those of self-attention."""

from __future__ import annotations

import numpy as np

from tests.reference import Ratio, Tokens


class CrossReference:
    """Statistics of attention from the tokens of one sequence to those of another, written from the definitions."""

    def __init__(self, data: list[tuple[np.ndarray, Tokens, Tokens]], null: str):
        self.data, self.null = data, null
        self.zero = np.zeros(data[0][0].shape[:2])

    def rows_and_keys(self, queries: Tokens, keys: Tokens) -> tuple[list[int], list[int], list[int]]:
        """The counted rows, content keys and null keys."""
        null = {"first": [0], "none": [], "special": [j for j in range(len(keys)) if keys.special[j]]}[self.null]
        rows = [i for i in range(len(queries)) if not (self.null == "special" and queries.special[i])]
        return rows, [j for j in range(len(keys)) if j not in null], null

    def labels(self) -> dict[str, list[str]]:
        """The labels of each statistic that have a content pair."""
        parts = [(q, k, *self.rows_and_keys(q, k)) for _, q, k in self.data]
        return {
            "null_share": [""],
            "entropy": [""],
            "pos_to": sorted({k.tag(j) for _, k, _, keys, _ in parts for j in keys}),
            "dep_to": sorted({k.relation(j) for _, k, _, keys, _ in parts for j in keys}),
            "pos_from": sorted({q.tag(i) for q, _, rows, keys, _ in parts for i in rows if keys}),
        }

    def ratio(self, name: str, label: str) -> Ratio:
        ratio = Ratio()
        for pattern, queries, keys in self.data:
            above, below = self.zero * 0, self.zero * 0
            rows, content, null = self.rows_and_keys(queries, keys)
            for i in rows if content else []:
                on_null = sum((pattern[:, :, i, j] for j in null), self.zero)
                mass = sum((pattern[:, :, i, j] for j in content), self.zero)
                if name == "null_share":
                    above, below = above + on_null, below + 1
                elif name == "entropy":
                    p = [pattern[:, :, i, j] / mass for j in content]
                    counts = on_null <= 0.9 * (on_null + mass)
                    above = above + counts * sum(-x * np.log(np.where(x > 0, x, 1)) for x in p)
                    below = below + counts
                else:
                    for j in content:
                        has = {"pos_to": keys.tag(j), "dep_to": keys.relation(j), "pos_from": queries.tag(i)}[name]
                        above, below = above + pattern[:, :, i, j] * (has == label), below + pattern[:, :, i, j]
            ratio.a.append(above)
            ratio.b.append(below)
        return ratio

    def exemplars(self, layer: int, head: int, k: int = 10) -> list[tuple[float, int, int, int]]:
        strongest = []
        for pattern, queries, keys in self.data:
            rows, content, _ = self.rows_and_keys(queries, keys)
            best = (0.0, 0, 0)
            for i in rows:
                for j in content:
                    if round(pattern[layer, head, i, j], 5) > round(best[0], 5):
                        best = (pattern[layer, head, i, j], i, j)
            if best[0] > 0:
                strongest.append((best[0], queries.number, best[1], best[2]))
        return sorted(strongest, key=lambda found: (-round(found[0], 5), found[1]))[:k]
