"""The reference's relation accuracy, on cases whose answers follow from the definitions."""

from __future__ import annotations

import math
import random

import numpy as np
import pytest

from tests import tiny
from tests.by_hand import Weight, pattern, pieces, words, worth
from tests.reference import Tokens
from tests.reference_worth import Relations


def trees(causal: bool, n: int = 12) -> list[Tokens]:
    rng = random.Random(3)
    return [pieces(tiny.heads(rng.randint(4, 14), rng), causal, digest=s) for s in range(n)]


def of_words(tokens: Tokens, weight: Weight) -> Weight:
    """The weight between the words of two tokens, divided evenly among the pieces of the key's word."""

    def of_tokens(i: int, j: int) -> float:
        u, v = tokens.words[i], tokens.words[j]
        return 0 if u is None or v is None else weight(u, v) / tokens.words.count(v)

    return of_tokens


@pytest.mark.parametrize("causal", [True, False])
def test_gold_parses_given_as_attention_have_accuracy_1(causal: bool) -> None:
    """A dependent has one parent. A parent has several dependents, of which its attention can hit only one."""
    data = []
    for tokens in trees(causal):
        heads = tokens.heads
        to_parent = of_words(tokens, lambda u, v, heads=heads: heads[u] == v)
        # Weights rise from dependent to dependent, so the parent attends most to the last one within reach.
        from_parent = of_words(tokens, lambda u, v, heads=heads: (heads[v] == u) * (1 + v))
        data.append((pattern(tokens, to_parent, from_parent, causal=causal), tokens))
    relations = Relations(worth(*data, causal=causal))
    missed = 0.0
    n_last = 0
    for tokens in trees(causal):
        for word in range(len(tokens.heads)):
            below = [v for v, head in enumerate(tokens.heads) if head == word and (v < word or not causal)]
            n_last += bool(below)
    hits = 0.0
    for key, ratio in ((tuple(name.split(", ")), r) for name, r in relations.accuracy().items()):
        if key[1] == "to_parent":
            assert (ratio.value()[0, 0], ratio.error()[0, 0]) == (1, 0)
            missed += 1 - ratio.value()[0, 1]
        else:
            hits += sum(relations.relation_hits(half)[key][0, 1] for half in (0, 1))
    assert hits == n_last
    assert missed > 1  # the other head misses parents
    assert {key[0] for key in relations.hits} == {"nsubj", "obj", "nmod"}


@pytest.mark.parametrize(("causal", "offset"), [(True, -1), (True, -3), (False, -1), (False, 2)])
def test_a_head_that_attends_to_one_offset_has_its_accuracy(causal: bool, offset: int) -> None:
    """If the offset leads out of the sentence, all weights are 0: a tie, which goes to the earliest word."""
    data = [(pattern(t, of_words(t, lambda u, v: v - u == offset), causal=causal), t) for t in trees(causal)]
    relations = Relations(worth(*data, causal=causal))
    for (relation, direction), hits in relations.hits.items():
        at_offset = else_first = 0
        for tokens in trees(causal):
            n = len(tokens.heads)
            for dependent, head in enumerate(tokens.heads):
                source, target = (dependent, head) if direction == "to_parent" else (head, dependent)
                if head is None or tokens.deprel[dependent].split(":")[0] != relation or (causal and target > source):
                    continue
                if 0 <= source + offset < n:
                    at_offset += target - source == offset
                else:
                    else_first += target == (0 if source else 1)
        assert sum(hits)[0, 0] == at_offset + else_first


def test_pieces_are_summed_over_keys_and_averaged_over_queries_and_ties_go_to_the_earliest_word() -> None:
    """Words a, bb, c, dd. The rows of dd give a 0.5 and 0 (mean 0.25), and each piece of bb 0.2 (sum 0.4)."""
    tokens = pieces([None, 0, 0, 1], True)  # tokens: null, a, b, b, c, d, d
    weights = {(5, 1): 0.5, (5, 2): 0.2, (5, 3): 0.2, (6, 2): 0.2, (6, 3): 0.2}
    found = Relations(worth((pattern(tokens, lambda i, j: weights.get((i, j), 0), lambda i, j: 0), tokens)))
    assert found.word_attention(0, 3, 0)[0, 0] == pytest.approx(0.25)
    assert found.word_attention(0, 3, 1)[0, 0] == pytest.approx(0.4)
    assert found.predicted(0, 3)[0].tolist() == [1, 0]


def test_in_a_document_targets_are_in_the_sources_sentence() -> None:
    heads: list[int | None] = [None, 0, None, 2]
    one = words([9] * 5, heads=[None, *[h if h is None else h + 1 for h in heads]])
    two = words([9] * 5, heads=one.heads, sentence_of_word=[0, 0, 0, 1, 1])
    results = []
    for tokens in (one, two):
        found = Relations(worth((pattern(tokens, lambda i, j: j == 1), tokens)))
        results.append((sum(found.hits["obj", "to_parent"])[0, 0], sum(found.pairs["obj", "to_parent"])))
    assert results == [(1, 2), (2, 2)]  # the last word's only candidate in its own sentence is its head


def test_a_source_without_a_counted_row_is_not_tried_and_a_null_word_is_no_target() -> None:
    tokens = words([9] * 4, heads=[None, 0, 1, 1], n_context=3)
    found = Relations(worth((pattern(tokens, lambda i, j: 1), tokens)))
    assert found.tried(0) == [("obj", "to_parent", 3, 1)]


def one_relation(hits: dict[int, list[tuple[int, int]]], n_pairs: int) -> Relations:
    """A sentence for each digest, with `n_pairs` pairs of a word and its parent, the word before it; and heads that hit
    pairs first + 1 to last of each sentence.
    """
    data = []
    for digest, of_heads in hits.items():
        tokens = words([9] * (n_pairs + 2), heads=[None, None, *range(1, n_pairs + 1)], digest=digest)
        heads = [lambda i, j, first=a, last=b: (j == i - 1) == (first < i - 1 <= last) for a, b in of_heads]
        data.append((pattern(tokens, *heads), tokens))
    return Relations(worth(*data))


def test_the_best_head_is_chosen_on_one_half_and_scored_on_the_other() -> None:
    """Every head hits pair 1, because the parent is the only candidate."""
    found = one_relation({0: [(1, 13), (1, 9), (1, 13)], 1: [(1, 5), (1, 9), (1, 3)]}, 20)
    row = found.best_relation_heads()["obj", "to_parent"]
    assert found.relation_hits(0)["obj", "to_parent"].tolist() == [[13, 9, 13]]
    assert found.relation_hits(1)["obj", "to_parent"].tolist() == [[5, 9, 3]]
    assert row["heads"] == [(0, 0), (0, 1)]  # on half 0 the first of two with 13 hits, on half 1 that with 9
    assert row["accuracy"] == pytest.approx((5 / 20 + 9 / 20) / 2)
    assert row["error"] == pytest.approx(0)  # one sentence per half equals its mean
    assert (row["offsets"], row["offset_accuracy"], row["pairs"]) == ([-1, -1], 1, 40)


def test_the_error_is_over_sentences() -> None:
    """Two sentences per half: 13 and 7 hits of 20 on half 0, 5 and 5 on half 1."""
    found = one_relation({0: [(1, 13)], 2: [(1, 7)], 1: [(1, 5)], 3: [(1, 5)]}, 20)
    row = found.best_relation_heads()["obj", "to_parent"]
    of_half_0 = math.sqrt(4 / 3 * (3**2 + 3**2)) / 40  # each differs by 3 from the expected 10; n counts all four
    assert row["accuracy"] == pytest.approx((20 / 40 + 10 / 40) / 2)
    assert row["error"] == pytest.approx(of_half_0 / 2)


@pytest.mark.parametrize(("n_pairs", "known"), [(19, False), (20, True)])
def test_fewer_than_twenty_pairs_in_a_half_give_no_accuracy(n_pairs: int, known: bool) -> None:
    row = one_relation({0: [(1, 5)], 1: [(1, 5)]}, n_pairs).best_relation_heads()["obj", "to_parent"]
    assert [bool(np.isfinite(row[name])) for name in ("accuracy", "error", "offset_accuracy")] == [known] * 3


def test_offsets_count_words_with_pieces_and_are_at_most_ten() -> None:
    """Word 2 of 14 has no token. The last word's parent is 12 words before it, or 11 words with tokens."""
    heads: list[int | None] = [None] * 14
    heads[3], heads[13] = 1, 1
    owners = [word for word in range(14) if word != 2]
    tokens = Tokens(0, [False] * 13, owners, ["X"] * 14, heads, ["obj"] * 14, ids=[9] * 13)  # type: ignore[arg-type]
    found = Relations(worth((pattern(tokens, lambda i, j: 1), tokens)))
    counts = sum(found.offset_hits["obj", "to_parent"])
    assert sum(found.pairs["obj", "to_parent"]) == 2
    assert counts.sum() == 1
    assert found.held_out(found.offset_hits["obj", "to_parent"], found.pairs["obj", "to_parent"])[2][0] == 1
    assert np.flatnonzero(counts).tolist() == [1]  # 0, −1, 1, …: the nearest offset first
