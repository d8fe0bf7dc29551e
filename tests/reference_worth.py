"""Behaviours, sinks, position alone and relations in plain loops, slow and obvious, in the style of `reference.py`.

Written from the section "Statistics that tell what a number is worth" of the definitions; norms are in
`reference_norms.py`. Nothing here imports the code under test. Comments say how an ambiguous formula is read.
"""

from __future__ import annotations

from statistics import NormalDist
from typing import Any

import numpy as np

from tests.reference import DIRECTIONS, Ratio, Reference, Tokens, Weights, counted_rows, null_set, reach, related

KINDS = ("previous", "duplicate", "induction")
SINK_SHARE, SINK_ROWS = 0.3, 8
MAX_OFFSET = 64  # in tokens, for position alone
OFFSETS = sorted(range(-10, 11), key=lambda d: (abs(d), d))  # in words, the nearest first, −d before d


def content_keys(tokens: Tokens, i: int, causal: bool, null: str) -> list[int]:
    nulls = null_set(tokens, null)
    return [j for j in reach(i, tokens, causal) if j not in nulls]


def keys_of(kind: str, tokens: Tokens, i: int) -> list[int]:
    """K_kind(i), null keys included. For induction, j − 1 may be a null key."""
    x = tokens.ids
    if kind == "previous":
        return [i - 1]
    if kind == "duplicate":
        return [j for j in range(i) if x[j] == x[i]]
    return [j for j in range(1, i + 1) if x[j - 1] == x[i]]


def bounds(value: Weights, error: Weights) -> tuple[Weights, Weights]:
    """`low` and `high` of each head: with a probability of 95 %, all heads are within them at once (Šidák)."""
    alone = 1 - (1 - 0.05) ** (1 / value.size)
    z = NormalDist().inv_cdf(1 - alone / 2)
    return value - z * error, value + z * error


class Worth:
    """The statistics that need no value vectors, over the data of a reference. For sequence s, `w[s][:, :, i, j]` is 0
    if row i does not count, or if key j is null or out of reach.
    """

    def __init__(self, reference: Reference):
        self.data, self.causal, self.null, self.zero = reference.data, reference.causal, reference.null, reference.zero
        self.tokens = [tokens for _, tokens in self.data]
        self.pairs = [reference.content_pairs(tokens) for tokens in self.tokens]
        self.w = []
        for (pattern, _), pairs in zip(self.data, self.pairs, strict=True):
            w = np.zeros(pattern.shape)
            for i, j in pairs:
                w[:, :, i, j] = pattern[:, :, i, j]
            self.w.append(w)
        self.sinks = [self.sinks_of(s) for s in range(len(self.data))]

    def expected(self) -> dict[str, tuple[Any, Any]]:
        """Every statistic as `(value, standard error or None)`, under its name or `name[label]`."""
        labelled: dict[str, dict[Any, Ratio]] = {
            "behaviour": {kind: self.behaviour(kind) for kind in KINDS},
            "behaviour_baseline": {kind: self.behaviour_baseline(kind) for kind in KINDS},
            "sink_tokens": self.sink_tokens(),
            "pos_to_without_sinks": self.without_sinks(lambda tokens, j: tokens.tag(j)),
            "dep_to_without_sinks": self.without_sinks(lambda tokens, j: tokens.relation(j)),
            "relation_accuracy": Relations(self).accuracy(),
        }
        ratios = {"sink_share": self.sink_share(), "sink_rate": self.sink_rate()}
        ratios |= {f"{name}[{label}]": ratio for name, found in labelled.items() for label, ratio in found.items()}
        exact = {f"behaviour_rows[{kind}]": self.behaviour_rows(kind) for kind in KINDS} | self.position_alone()
        return {name: (r.value(), r.error()) for name, r in ratios.items()} | {k: (v, None) for k, v in exact.items()}

    # Behaviours

    def behaviour_keys(self, kind: str, tokens: Tokens) -> dict[int, list[int]]:
        """For each counted row i, the reachable content keys of K_kind(i). Rows without such a key are left out."""
        found = {}
        for i in counted_rows(tokens, self.null):
            content = content_keys(tokens, i, self.causal, self.null)
            keys = [j for j in keys_of(kind, tokens, i) if j in content]
            if keys:
                found[i] = keys
        return found

    def behaviour(self, kind: str) -> Ratio:
        ratio = Ratio()
        for w, tokens in zip(self.w, self.tokens, strict=True):
            above, below = self.zero * 0, self.zero * 0
            for i, keys in self.behaviour_keys(kind, tokens).items():
                above = above + sum(w[:, :, i, j] for j in keys)
                below = below + sum(w[:, :, i, j] for j in range(len(tokens)))
            ratio.a.append(above)
            ratio.b.append(below)
        return ratio

    def behaviour_baseline(self, kind: str) -> Ratio:
        ratio = Ratio()
        for tokens in self.tokens:
            rows = self.behaviour_keys(kind, tokens)
            ratio.a.append(sum(len(keys) for keys in rows.values()))
            ratio.b.append(sum(len(content_keys(tokens, i, self.causal, self.null)) for i in rows))
        return ratio

    def behaviour_rows(self, kind: str) -> int:
        return sum(len(self.behaviour_keys(kind, tokens)) for tokens in self.tokens)

    # Sinks

    def sinks_of(self, s: int) -> np.ndarray:
        """Whether a key of sequence s is a sink, for each head: `[layer, head, key]`."""
        w, tokens = self.w[s], self.tokens[s]
        is_sink = np.zeros((*self.zero.shape, len(tokens)), dtype=bool)
        of_row = [sum((w[:, :, i, j] for j in range(len(tokens))), self.zero) for i in range(len(tokens))]
        for k in range(len(tokens)):
            if k in null_set(tokens, self.null):
                continue
            rows = [i for i in counted_rows(tokens, self.null) if (i > k if self.causal else i != k)]
            taken = sum((w[:, :, i, k] for i in rows), self.zero)
            passed = sum((of_row[i] for i in rows), self.zero)
            share = np.where(passed > 0, taken / np.where(passed > 0, passed, 1), 0)
            is_sink[:, :, k] = (share > SINK_SHARE) & (len(rows) >= SINK_ROWS)
        return is_sink

    def content_mass(self, s: int) -> Weights:
        return sum((self.w[s][:, :, i, j] for i, j in self.pairs[s]), self.zero)

    def mass_as_sink(self, s: int, k: int) -> Weights:
        """Weight on key k of sequence s from all counted rows, its own included, if k is a sink of the head; else 0."""
        taken = sum((self.w[s][:, :, i, k] for i in range(len(self.tokens[s]))), self.zero)
        return np.where(self.sinks[s][:, :, k], taken, 0)

    def sink_share(self) -> Ratio:
        ratio = Ratio()
        for s, tokens in enumerate(self.tokens):
            ratio.a.append(sum((self.mass_as_sink(s, k) for k in range(len(tokens))), self.zero))
            ratio.b.append(self.content_mass(s))
        return ratio

    def sink_rate(self) -> Ratio:
        ratio = Ratio()
        for is_sink in self.sinks:
            ratio.a.append(is_sink.sum(-1))
            ratio.b.append(1)
        return ratio

    def sink_tokens(self, n_kept: int = 64) -> dict[int | str, Ratio]:
        """The share of M on each token id as a sink: the ids with the largest sums over heads, and `other`.

        A head without content attention (M = 0) adds nothing to that sum. Tokens that were never sinks have no entry.
        """
        masses: list[dict[int, Weights]] = []
        for s, tokens in enumerate(self.tokens):
            mass: dict[int, Weights] = {}
            for k, token in enumerate(tokens.ids):
                if self.sinks[s][:, :, k].any():
                    mass[token] = mass.get(token, self.zero) + self.mass_as_sink(s, k)
            masses.append(mass)
        found: dict[int | str, Ratio] = {token: Ratio() for token in sorted({t for mass in masses for t in mass})}
        for s, mass in enumerate(masses):
            for token, ratio in found.items():
                ratio.a.append(mass.get(token, self.zero))
                ratio.b.append(self.content_mass(s))
        ranked = sorted(found, key=lambda token: (-np.nansum(found[token].value()), token))
        other = Ratio()
        for s in range(len(self.data)):
            other.a.append(sum((found[token].a[s] for token in ranked[n_kept:]), self.zero))
            other.b.append(self.content_mass(s))
        return {token: found[token] for token in ranked[:n_kept]} | {"other": other}

    def without_sinks(self, label_of: Any) -> dict[str, Ratio]:
        """Like `pos_to` or `dep_to`, over the pairs whose key is not a sink of the head in that sequence."""
        labels = sorted({label_of(tokens, j) for s, tokens in enumerate(self.tokens) for _, j in self.pairs[s]})
        found = {label: Ratio() for label in labels}
        for s, tokens in enumerate(self.tokens):
            above, below = dict.fromkeys(labels, self.zero), self.zero
            for i, j in self.pairs[s]:
                w = np.where(self.sinks[s][:, :, j], 0, self.w[s][:, :, i, j])
                above[label_of(tokens, j)] = above[label_of(tokens, j)] + w
                below = below + w
            for label, ratio in found.items():
                ratio.a.append(above[label])
                ratio.b.append(below)
        return found

    # Position alone

    def position_alone(self, times: list[int] | None = None) -> dict[str, Weights]:
        """`alignment_by_position` and `alignment_excess` by direction; sequence s counts `times[s]` times.

        With Poisson counts this is one bootstrap replicate, in which head and baseline are drawn together.
        """
        mass: dict[int, Weights] = {}
        n_pairs: dict[int, float] = {}
        n_related: dict[tuple[str, int], float] = {}
        aligned, total = dict.fromkeys(DIRECTIONS, self.zero), self.zero
        for s, tokens in enumerate(self.tokens):
            n = 1 if times is None else times[s]
            for i, j in self.pairs[s]:
                w = n * self.w[s][:, :, i, j]
                offset = max(-MAX_OFFSET - 1, min(MAX_OFFSET + 1, i - j))
                mass[offset] = mass.get(offset, self.zero) + w
                n_pairs[offset] = n_pairs.get(offset, 0) + n
                total = total + w
                for direction in DIRECTIONS:
                    if related(tokens, i, j, direction):
                        aligned[direction] = aligned[direction] + w
                        n_related[direction, offset] = n_related.get((direction, offset), 0) + n
        found = {}
        for direction in DIRECTIONS:
            by_position = self.zero
            for offset, weight in mass.items():
                if n_pairs[offset]:
                    by_position = by_position + weight * n_related.get((direction, offset), 0) / n_pairs[offset]
            with np.errstate(invalid="ignore"):
                found[f"alignment_by_position[{direction}]"] = by_position / total
                found[f"alignment_excess[{direction}]"] = aligned[direction] / total - by_position / total
        return found


class Relations:
    """Relation accuracy: `hits[relation, direction]`, `pairs[…]` and `offset_hits[…]`, each a list over sequences."""

    def __init__(self, worth: Worth):
        self.worth, self.zero = worth, worth.zero
        self.halves = [tokens.digest % 2 for tokens in worth.tokens]
        self.pieces: list[list[list[int]]] = []  # tokens of each word of each sequence that are not null
        self.rows: list[list[list[int]]] = []  # tokens of each word that are counted rows
        for tokens in worth.tokens:
            null, rows = null_set(tokens, worth.null), counted_rows(tokens, worth.null)
            of_word = [[t for t in range(len(tokens)) if tokens.words[t] == word] for word in range(len(tokens.heads))]
            self.pieces.append([[t for t in all_pieces if t not in null] for all_pieces in of_word])
            self.rows.append([[t for t in all_pieces if t in rows] for all_pieces in of_word])
        n = len(worth.data)
        self.hits: dict[tuple[str, str], list[Weights]] = {}
        self.pairs: dict[tuple[str, str], list[int]] = {}
        self.offset_hits: dict[tuple[str, str], list[np.ndarray]] = {}  # hits of each of OFFSETS
        for s in range(n):
            with_content = [word for word, pieces in enumerate(self.pieces[s]) if pieces]
            for relation, direction, source, target in self.tried(s):
                key = (relation, direction)
                if key not in self.hits:
                    self.hits[key] = [self.zero * 0 for _ in range(n)]
                    self.pairs[key] = [0] * n
                    self.offset_hits[key] = [np.zeros(len(OFFSETS)) for _ in range(n)]
                self.hits[key][s] += self.predicted(s, source) == target
                self.pairs[key][s] += 1
                # Offsets skip words without content pieces, because no attention can go to them.
                offset = with_content.index(target) - with_content.index(source)
                if offset in OFFSETS:
                    self.offset_hits[key][s][OFFSETS.index(offset)] += 1

    def candidates(self, s: int, source: int) -> list[int]:
        """The words that `source` may point to; in a document, only those of its sentence."""
        n_words = len(self.pieces[s])
        sentence = self.worth.tokens[s].sentence_of_word or [0] * n_words
        return [
            word
            for word in range(n_words)
            if self.pieces[s][word]
            and (word < source if self.worth.causal else word != source)
            and sentence[word] == sentence[source]
        ]

    def tried(self, s: int) -> list[tuple[str, str, int, int]]:
        """Each (relation, direction, source, target). A source without counted rows is left out: in the context of a
        window, it was tried in the window before.
        """
        found, tokens = [], self.worth.tokens[s]
        for dependent, head in enumerate(tokens.heads):
            if head is None or not self.pieces[s][dependent] or not self.pieces[s][head]:
                continue
            relation = tokens.deprel[dependent].split(":")[0]
            for direction, source, target in (("to_parent", dependent, head), ("from_parent", head, dependent)):
                if self.rows[s][source] and target in self.candidates(s, source):
                    found.append((relation, direction, source, target))
        return found

    def word_attention(self, s: int, source: int, word: int) -> Weights:
        """a(source→word): sum over the word's content pieces, mean over the source's counted rows."""
        w, rows = self.worth.w[s], self.rows[s][source]
        return sum(w[:, :, i, j] for i in rows for j in self.pieces[s][word]) / len(rows)

    def predicted(self, s: int, source: int) -> np.ndarray:
        """For each head, the word that gets most of the source's attention; the earliest of several."""
        best, word_of = np.full(self.zero.shape, -1.0), np.full(self.zero.shape, -1)
        for word in self.candidates(s, source):
            attention = self.word_attention(s, source, word)
            better = attention > best
            best, word_of = np.where(better, attention, best), np.where(better, word, word_of)
        return word_of

    def half(self, hits: list[Any], pairs: list[int], half: int | None) -> Ratio:
        """Hits over pairs in one half, or in both. n counts all sequences: those of the other half have 0 of 0."""
        ratio = Ratio()
        for s, (a, b) in enumerate(zip(hits, pairs, strict=True)):
            of_it = half is None or self.halves[s] == half
            ratio.a.append(a * of_it)
            ratio.b.append(b * of_it)
        return ratio

    def relation_hits(self, half: int) -> dict[tuple[str, str], Weights]:
        return {key: sum(self.half(self.hits[key], self.pairs[key], half).a) for key in self.hits}

    def relation_pairs(self, half: int) -> dict[tuple[str, str], int]:
        return {key: sum(self.half(self.hits[key], self.pairs[key], half).b) for key in self.hits}

    def accuracy(self) -> dict[str, Ratio]:
        return {f"{key[0]}, {key[1]}": self.half(self.hits[key], self.pairs[key], None) for key in self.hits}

    def held_out(self, hits: list[Any], pairs: list[int]) -> tuple[float, float, list[int]]:
        """Accuracy, error, and the choices on half 0 and on half 1, as indices into the flattened hits."""
        halves = [self.half(hits, pairs, half) for half in (0, 1)]
        chosen = [int(np.argmax(sum(ratio.a))) for ratio in halves]  # argmax takes the first of several
        if min(sum(ratio.b) for ratio in halves) < 20:
            return np.nan, np.nan, chosen
        (first, first_error), (second, second_error) = (
            (other.value().flat[best], other.error().flat[best])
            for best, other in zip(chosen, reversed(halves), strict=True)
        )
        return (first + second) / 2, np.sqrt(first_error**2 + second_error**2) / 2, chosen

    def best_relation_heads(self) -> dict[tuple[str, str], dict[str, Any]]:
        """A row for each relation and direction. `heads` and `offsets` give both choices, that on half 0 and that on
        half 1, where the definition speaks of one head.
        """
        table = {}
        for key, hits in self.hits.items():
            accuracy, error, heads = self.held_out(hits, self.pairs[key])
            offset_accuracy, offset_error, offsets = self.held_out(self.offset_hits[key], self.pairs[key])
            table[key] = {
                "heads": [divmod(head, self.zero.shape[1]) for head in heads],
                "accuracy": accuracy,
                "error": error,
                "offsets": [OFFSETS[place] for place in offsets],
                "offset_accuracy": offset_accuracy,
                "offset_error": offset_error,
                "pairs": sum(self.pairs[key]),
            }
        return table
