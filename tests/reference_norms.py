"""Weights times the norms of what they carry, in plain loops from the definitions, in the style of `reference.py`."""

from __future__ import annotations

from typing import Any

import numpy as np

from tests.reference import DIRECTIONS, Ratio, Reference, Tokens, counted_rows, null_set, reach, related
from tests.reference_worth import content_keys


class Norms:
    """Weights times the norms of what they carry. `values`: v of each sequence, with its bias, `[layer, head, key,
    d_head]`, repeated for grouped heads. `output`: W_O `[layer, head, d_head, d_model]`.
    """

    def __init__(self, reference: Reference, values: list[np.ndarray], output: np.ndarray):
        self.causal, self.null, self.zero, self.data = reference.causal, reference.null, reference.zero, reference.data
        self.carried = [np.einsum("lhkd,lhdm->lhkm", v, output) for v in values]  # v_j W_O
        self.g = [np.sqrt((carried**2).sum(-1)) for carried in self.carried]
        # u[i,j] = w[i,j]·g_j: the formulas of `Reference`, over patterns whose columns are multiplied by g.
        weighted = [(pattern * g[:, :, None, :], t) for (pattern, t), g in zip(self.data, self.g, strict=True)]
        self.twin = Reference(weighted, causal=self.causal, null=self.null)

    def expected(self) -> dict[str, tuple[Any, Any]]:
        def directions(tokens: Tokens, i: int, j: int) -> list[str]:
            return [direction for direction in DIRECTIONS if related(tokens, i, j, direction)]

        labelled = {
            "pos_to_norm": self.twin.shares(lambda tokens, i, j: [tokens.tag(j)]),
            "dep_to_norm": self.twin.shares(lambda tokens, i, j: [tokens.relation(j)]),
            "dependency_alignment_norm": self.twin.shares(directions),
        }
        ratios = {
            "distance_norm": self.twin.share(lambda tokens, i, j: abs(i - j)),
            "null_share_norm": self.null_share_norm(),
            "output_norm": self.output_norm(),
            "output_norm_relative": self.output_norm_relative(),
        }
        ratios |= {f"{name}[{label}]": ratio for name, found in labelled.items() for label, ratio in found.items()}
        return {name: (ratio.value(), ratio.error()) for name, ratio in ratios.items()}

    def null_share_norm(self) -> Ratio:
        """Over the rows of `null_share`. With rows that reach only null keys, constant norms would change the share."""
        ratio = Ratio()
        for (pattern, tokens), g in zip(self.data, self.g, strict=True):
            null = null_set(tokens, self.null)
            above, below = self.zero, self.zero
            for i in counted_rows(tokens, self.null):
                if not content_keys(tokens, i, self.causal, self.null):
                    continue
                for j in reach(i, tokens, self.causal):
                    u = pattern[:, :, i, j] * g[:, :, j]
                    above, below = above + u * (j in null), below + u
            ratio.a.append(above)
            ratio.b.append(below)
        return ratio

    def output_norm(self) -> Ratio:
        """Over the rows of `null_share`: row 0 of a causal model, which reaches null keys only, does not count."""
        ratio = Ratio()
        for (pattern, tokens), carried in zip(self.data, self.carried, strict=True):
            total, rows = self.zero, 0
            for i in counted_rows(tokens, self.null):
                if not content_keys(tokens, i, self.causal, self.null):
                    continue
                output = sum(pattern[:, :, i, j, None] * carried[:, :, j, :] for j in reach(i, tokens, self.causal))
                total, rows = total + np.sqrt((output**2).sum(-1)), rows + 1
            ratio.a.append(total)
            ratio.b.append(rows)
        return ratio

    def output_norm_relative(self) -> Ratio:
        """The head's sum over the mean sum of the heads of its layer; the number of rows cancels. This is a ratio of
        sums, too, with the same formula for its error.
        """
        ratio = Ratio()
        for total in self.output_norm().a:
            ratio.a.append(total)
            ratio.b.append(self.zero + total.mean(1, keepdims=True))
        return ratio
