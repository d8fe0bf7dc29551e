"""The statistics in plain loops, slow and obvious, written from the definitions. One unpadded sentence at a time.

Nothing here imports the code under test. A pattern is a float64 array `[layer, head, query, key]`. Arithmetic on
`pattern[:, :, i, j]` is over all heads at once; everything else is loops over sentences, queries and keys.
"""

from __future__ import annotations

import functools
from dataclasses import dataclass
from typing import Any

import numpy as np

Weights = np.ndarray  # [layer, head]


@dataclass
class Tokens:
    """A sentence as the model reads it, with the annotation of each token."""

    number: int
    special: list[bool]
    words: list[int | None]  # index of each token's word
    upos: list[str]  # of each word
    heads: list[int | None]
    deprel: list[str]
    n_context: int = 0  # the first n_context tokens were queries in the window before
    ids: list[int] | None = None  # the token at each position
    digest: int = 0  # of the sentence; its parity is the half in which relations are chosen or scored
    sentence_of_word: list[int] | None = None  # in documents; otherwise there is only one sentence

    def __len__(self) -> int:
        return len(self.words)

    def tag(self, token: int) -> str:
        word = self.words[token]
        return "none" if word is None else self.upos[word]

    def relation(self, token: int) -> str:
        word = self.words[token]
        return "none" if word is None else self.deprel[word].split(":")[0]

    def is_parent(self, token: int, other: int) -> bool:
        """Whether `token` belongs to the head of the word of `other`."""
        word, below = self.words[token], self.words[other]
        return word is not None and below is not None and self.heads[below] == word


def tokens_of(
    sentence: Any, offsets: list[tuple[int, int]], special: list[bool], ids: list[int] | None = None
) -> Tokens:
    """Align words to tokens: a token belongs to the word with most shared characters, the first of several."""
    owners: list[int | None] = []
    for start, end in offsets:
        best, owner = 0, None
        for index, word in enumerate(sentence.words):
            shared = len([c for c in range(start, end) if word.start <= c < word.end])
            if shared > best:
                best, owner = shared, index
        owners.append(owner)
    words = sentence.words
    return Tokens(
        sentence.number,
        special,
        owners,
        [w.upos for w in words],
        [w.head for w in words],
        [w.deprel for w in words],
        ids=ids,
        digest=sentence.digest,
    )


class Ratio:
    """Σ A_x / Σ B_x, and its standard error, from every sequence's A_x and B_x; NaN where Σ B_x is 0."""

    def __init__(self) -> None:
        self.a: list[Any] = []
        self.b: list[Any] = []

    def value(self) -> Any:
        with np.errstate(invalid="ignore"):
            return np.divide(sum(self.a), sum(self.b))

    def error(self) -> Any:
        n, ratio = len(self.a), self.value()
        squares = sum((a - ratio * b) ** 2 for a, b in zip(self.a, self.b, strict=True))
        spread = n / (n - 1) if n > 1 else np.nan  # undefined for one sequence
        with np.errstate(invalid="ignore"):
            return np.divide(np.sqrt(spread * squares), sum(self.b))


def null_set(tokens: Tokens, rule: str) -> set[int]:
    if rule == "first":
        return {0}
    return {t for t in range(len(tokens)) if tokens.special[t]} if rule == "special" else set()


def counted_rows(tokens: Tokens, rule: str) -> list[int]:
    return [i for i in range(tokens.n_context, len(tokens)) if not (rule == "special" and tokens.special[i])]


def reach(i: int, tokens: Tokens, causal: bool) -> list[int]:
    return [j for j in range(len(tokens)) if j <= i or not causal]


class Reference:
    """All statistics, from (pattern, tokens) pairs."""

    def __init__(self, data: list[tuple[np.ndarray, Tokens]], *, causal: bool, null: str):
        self.data, self.causal, self.null = data, causal, null
        self.zero = np.zeros(data[0][0].shape[:2])

    def content_pairs(self, tokens: Tokens) -> list[tuple[int, int]]:
        """All (i, j) where row i counts and key j is reachable and not null."""
        null = null_set(tokens, self.null)
        return [(i, j) for i in counted_rows(tokens, self.null) for j in reach(i, tokens, self.causal) if j not in null]

    def share(self, measure: Any, *, weighted: bool = True) -> Ratio:
        """Σ w[i,j]·measure(i, j) / Σ w[i,j], or with w = 1 for baselines."""
        ratio = Ratio()
        for pattern, tokens in self.data:
            above, below = self.zero * 0, self.zero * 0
            for i, j in self.content_pairs(tokens):
                w = pattern[:, :, i, j] if weighted else 1
                above = above + w * measure(tokens, i, j)
                below = below + w
            ratio.a.append(above)
            ratio.b.append(below)
        return ratio

    def shares(self, labels: Any, *, weighted: bool = True) -> dict[Any, Ratio]:
        """`share` for every label at once; `labels(tokens, i, j)` are the labels of a pair, which may have several."""
        found = []
        for pattern, tokens in self.data:
            above, below = {}, self.zero * 0
            for i, j in self.content_pairs(tokens):
                w = pattern[:, :, i, j] if weighted else 1
                for label in labels(tokens, i, j):
                    above[label] = above.get(label, self.zero) + w
                below = below + w
            found.append((above, below))
        ratios = {label: Ratio() for above, _ in found for label in above}
        for above, below in found:
            for label, ratio in ratios.items():
                ratio.a.append(above.get(label, self.zero * 0))
                ratio.b.append(below)
        return ratios

    def null_share(self) -> Ratio:
        ratio = Ratio()
        for pattern, tokens in self.data:
            null = null_set(tokens, self.null)
            total, rows = self.zero * 0, 0
            for i in counted_rows(tokens, self.null):
                if all(j in null for j in reach(i, tokens, self.causal)):
                    continue
                total = total + sum((pattern[:, :, i, j] for j in null), self.zero)
                rows += 1
            ratio.a.append(total)
            ratio.b.append(self.zero + rows)
        return ratio

    def entropy(self) -> Ratio:
        ratio = Ratio()
        for pattern, tokens in self.data:
            null = null_set(tokens, self.null)
            total, rows = self.zero * 0, self.zero * 0
            for i in counted_rows(tokens, self.null):
                content = [j for j in reach(i, tokens, self.causal) if j not in null]
                if not content:
                    continue
                on_null = sum((pattern[:, :, i, j] for j in null), self.zero)
                mass = sum(pattern[:, :, i, j] for j in content)
                entropy = self.zero * 0
                for j in content:
                    p = pattern[:, :, i, j] / np.where(mass > 0, mass, 1)
                    entropy = entropy - p * np.log(np.where(p > 0, p, 1))
                counts = (on_null <= 0.9 * (on_null + mass)) & (mass > 0)
                total = total + np.where(counts, entropy, 0)
                rows = rows + counts
            ratio.a.append(total)
            ratio.b.append(rows)
        return ratio

    def at_first_positions(self, n_positions: int) -> dict[tuple[int, int], list[Weights]]:
        at: dict[tuple[int, int], list[Weights]] = {}
        for pattern, tokens in self.data:
            for i, j in self.content_pairs(tokens):
                if i < n_positions and j < n_positions:
                    at.setdefault((i, j), []).append(pattern[:, :, i, j])
        return at

    def mean_pattern(self, n_positions: int = 10) -> Weights:
        mean = np.full((*self.zero.shape, n_positions, n_positions), np.nan)
        for (i, j), weights in self.at_first_positions(n_positions).items():
            mean[:, :, i, j] = sum(weights) / len(weights)
        return mean

    def variability(self, n_positions: int = 10) -> Weights:
        at = self.at_first_positions(n_positions)
        deviation, mass = self.zero * 0, self.zero * 0
        for weights in at.values():
            mean = sum(weights) / len(weights)
            deviation = deviation + sum(np.abs(w - mean) for w in weights)
            mass = mass + sum(weights)
        return deviation / (2 * mass)

    def exemplars(
        self, layer: int, head: int, k: int, *, exclude_self: bool = False
    ) -> list[tuple[float, int, int, int]]:
        """(weight, sentence, query, key) of the k strongest sentences; weights equal to five decimals are ties."""
        strongest = [
            (weight[layer, head], number, query[layer, head], key[layer, head])
            for number, weight, query, key in self.peaks(exclude_self)
            if weight[layer, head] > 0
        ]
        return sorted(strongest, key=lambda found: (-round(found[0], 5), found[1]))[:k]

    @functools.cache  # noqa: B019  (references live as long as the tests)
    def peaks(self, exclude_self: bool) -> list[tuple[int, Weights, Weights, Weights]]:
        """For each sentence: its number, and each head's largest weight with its query and key."""
        peaks = []
        for pattern, tokens in self.data:
            weight, query, key = self.zero, self.zero.astype(int), self.zero.astype(int)
            for i, j in self.content_pairs(tokens):
                w = pattern[:, :, i, j]
                better = (np.round(w, 5) > np.round(weight, 5)) & (not (exclude_self and i == j))
                weight, query, key = np.where(better, w, weight), np.where(better, i, query), np.where(better, j, key)
            peaks.append((tokens.number, weight, query, key))
        return peaks

    def dependency_by_distance(self, distance: int) -> Ratio:
        ratio = Ratio()
        for _, tokens in self.data:
            pairs = [(i, j) for i, j in self.content_pairs(tokens) if abs(i - j) == distance]
            ratio.a.append(sum(related(tokens, i, j, "either") for i, j in pairs))
            ratio.b.append(len(pairs))
        return ratio


DIRECTIONS = ("from_parent", "to_parent", "either")


def related(tokens: Tokens, i: int, j: int, direction: str) -> bool:
    from_parent, to_parent = tokens.is_parent(i, j), tokens.is_parent(j, i)
    return {"from_parent": from_parent, "to_parent": to_parent, "either": from_parent or to_parent}[direction]


@functools.cache
def expected(reference: Reference, max_offset: int = 64) -> dict[str, Any]:
    """Every statistic as `(value, standard error or None)`, under its name or `name[label]`."""

    def directions(tokens: Tokens, i: int, j: int) -> list[str]:
        return [direction for direction in DIRECTIONS if related(tokens, i, j, direction)]

    labelled = {
        "pos_to": reference.shares(lambda tokens, i, j: [tokens.tag(j)]),
        "pos_from": reference.shares(lambda tokens, i, j: [tokens.tag(i)]),
        "pos_frequency": reference.shares(lambda tokens, i, j: [tokens.tag(j)], weighted=False),
        "dep_to": reference.shares(lambda tokens, i, j: [tokens.relation(j)]),
        "dependency_alignment": reference.shares(directions),
        "dependency_baseline": reference.shares(directions, weighted=False),
        "offset_profile": reference.shares(lambda tokens, i, j: [max(-max_offset - 1, min(max_offset + 1, i - j))]),
    }
    ratios = {
        "null_share": reference.null_share(),
        "entropy": reference.entropy(),
        "distance": reference.share(lambda tokens, i, j: abs(i - j)),
    }
    ratios |= {f"{name}[{label}]": ratio for name, found in labelled.items() for label, ratio in found.items()}
    for distance in range(1, 6):
        ratios[f"dependency_by_distance[{distance}]"] = reference.dependency_by_distance(distance)
    return {name: (ratio.value(), ratio.error()) for name, ratio in ratios.items()} | {
        "variability": (reference.variability(), None)
    }
