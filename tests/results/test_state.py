"""Merging: the parts of a run give the whole, and runs that do not add up are refused with the difference."""

from __future__ import annotations

import itertools
import random
from collections.abc import Callable
from functools import partial
from pathlib import Path
from typing import Any

import pytest
import xarray as xr

import tl_attnstats as ta
from tests import tiny
from tests.asserting import assert_close
from tl_attnstats.errors import AttnStatsError, CorpusError, StatsError

METRICS = ["distance", "exemplars", "pos_to"]
Collect = Callable[..., ta.AttentionStats]


@pytest.fixture(scope="module")
def collect(tiny_decoder: Any) -> Collect:
    def collected(corpus: ta.Corpus, **how: Any) -> ta.AttentionStats:
        how = {"metrics": METRICS, "batch_tokens": 1, "source": "hooks", "progress": False} | how
        return ta.collect(tiny_decoder, corpus, **how)

    return collected


def made(n: int, seed: int = 1, **how: Any) -> ta.Corpus:
    return ta.Corpus(tiny.sentences(n, seed), **how)


def refused(a: ta.AttentionStats, b: ta.AttentionStats, message: str) -> None:
    for one, other in ((a, b), (b, a)):
        with pytest.raises(StatsError, match=message):
            one.merge(other)


# Runs that add up


@pytest.mark.parametrize("seed", range(4))
def test_any_shards_merge_in_any_order_to_the_whole(collect: Collect, seed: int) -> None:
    rng = random.Random(seed)
    corpus = made(12)
    collect = partial(collect, metrics=None)  # all built-in statistics
    whole = collect(corpus)
    n = rng.randint(2, 5)
    borders = [0, *sorted(rng.sample(range(1, 12), n - 1)), 12]
    slices = [slice(i, None, n) for i in range(n)] if seed % 2 else [slice(*b) for b in itertools.pairwise(borders)]
    parts = [collect(corpus[part]) for part in slices]
    while len(parts) > 1:
        rng.shuffle(parts)
        parts = [parts[0].merge(parts[1]), *parts[2:]]
    assert_close(parts[0], whole, 1e-12)
    assert parts[0].provenance == whole.provenance
    assert parts[0].run.counted[0].numbers.ranges.tolist() == [[0, 12]]
    for head in ("L0H0", "L2H3"):
        assert parts[0].exemplars(head).equals(whole.exemplars(head))


def test_shards_of_documents_merge_to_the_whole(collect: Collect) -> None:
    documents = ta.Corpus(tiny.sentences(6, seed=12, most_words=120), sequence_kind="document")
    how = {"metrics": ["distance", "bootstrap"], "stride": 50}
    whole, first, second = (collect(part, **how) for part in (documents, documents[:2], documents[2:]))
    assert whole.provenance["sequences"] > 6  # of windows
    assert whole.provenance["stride"] == 50
    merged = second.merge(first)
    assert_close(merged, whole, 1e-9)
    assert merged.provenance == whole.provenance


def test_an_interrupted_run_and_its_rest_merge_to_the_whole(
    tiny_decoder: Any, collect: Collect, monkeypatch: pytest.MonkeyPatch
) -> None:
    corpus, run, calls = made(12), ta.Collectors.run, []

    def interrupted(collectors: ta.Collectors, batch: ta.Batch) -> None:
        if len(calls) == 5:
            raise KeyboardInterrupt
        calls.append([item.sentence.number for item in batch.items])
        run(collectors, batch)

    monkeypatch.setattr(ta.Collectors, "run", interrupted)
    with pytest.raises(ta.Interrupted) as caught:
        collect(corpus)
    monkeypatch.setattr(ta.Collectors, "run", run)
    first = caught.value.stats
    assert first is not None
    done = {number for numbers in calls for number in numbers}
    assert len(first.run.counted[0].numbers.ranges) > 1  # the longest sentences come first, so numbers have gaps
    rest = ta.Collectors(tiny_decoder, METRICS, source="hooks")
    for batch in rest.batches(corpus, batch_tokens=1):
        if batch.items[0].sentence.number not in done:
            rest.run(batch)
    assert_close(rest.stats().merge(first), collect(corpus), 1e-9)
    refused(first, collect(corpus[:6]), r"both runs counted sentences \d.* of sentences given in Python, which would")


def test_two_corpora_keep_their_numbers_in_any_order(collect: Collect) -> None:
    one, two = made(6, seed=1, origin="one"), made(5, seed=2, origin="two")
    a, b = ([collect(corpus[:3]), collect(corpus[3:])] for corpus in (one, two))
    merged = a[0].merge(b[0]).merge(b[1].merge(a[1]))
    assert merged.provenance["corpus"] == "one + two"
    assert merged.provenance["sequences"] == 11
    texts = [s.text for s in (*one, *two)]
    found = merged.exemplars("L1H2")
    assert len(found) == 10
    assert list(found["text"]) == [texts[number] for number in found["sentence"]]
    assert_close(merged, collect(one).merge(collect(two)), 1e-9)
    refused(merged, a[0], "both runs counted sentences 0 to 2 .* of one, which would count twice")


def test_equal_sentences_of_one_corpus_count_twice(collect: Collect) -> None:
    (sentence,) = tiny.sentences(1)
    corpus = ta.Corpus([sentence, sentence])
    merged = collect(corpus[:1]).merge(collect(corpus[1:]))
    assert merged.provenance == collect(corpus).provenance


def test_sources_of_attention_are_both_named(collect: Collect) -> None:
    corpus = made(4)
    merged = collect(corpus[:2], source="hooks").merge(collect(corpus[2:], source="streamed"))
    assert merged.provenance["source"] == "hooks and streamed"


# Runs that do not add up


def test_a_run_does_not_merge_with_itself(collect: Collect, tmp_path: Path) -> None:
    stats = collect(made(4))
    stats.save(tmp_path / "stats.nc")
    refused(stats, ta.load(tmp_path / "stats.nc"), "both runs counted sentences 0 to 3 .* of sentences given in Python")
    patterns = [(tiny.patterns(1, 1, len(s.words), True, 0), s) for s in tiny.sentences(4)]
    a, b = ta.collect_patterns(patterns), ta.collect_patterns(patterns)
    refused(a, b, "merge: both runs counted the same 4 sequences, which would count twice")


def test_overlapping_shards_are_refused(collect: Collect) -> None:
    corpus = made(12)
    message = (
        r"merge: both runs counted sentences 4 to 5, 8 \(from 0\) of sentences given in Python, which would count "
        r"twice; expected disjoint shards, such as corpus\[:n\] and corpus\[n:\]"
    )
    refused(
        collect(corpus[:6]).merge(collect(corpus[8:10])), collect(corpus[4:9:2]).merge(collect(corpus[5:6])), message
    )


def test_a_corpus_that_was_made_again_is_recognised_if_all_of_it_was_counted(collect: Collect) -> None:
    corpus = made(8)
    refused(collect(corpus[:5]), collect(ta.Corpus(corpus[:5])), "merge: both runs counted the same 5 sequences")
    refused(collect(corpus), collect(ta.Corpus(list(corpus)[::-1])), "merge: both runs counted the same 8 sequences")
    more = collect(ta.Corpus(corpus[:5], origin="again")).merge(collect(made(3, seed=7)))
    refused(more, collect(corpus[:5]), "merge: the same 5 sequences were counted from .* and from .*, and would count")


def test_sentences_and_documents_are_not_mixed(collect: Collect) -> None:
    a, b = collect(made(4)), collect(made(5, seed=2, sequence_kind="document"))
    refused(a, b, "merge: different sequence kind: '(sentence|document)' here, '(sentence|document)' there")


def test_strides_are_not_mixed(collect: Collect) -> None:
    corpus = made(6, sequence_kind="document")
    runs = [collect(part, stride=stride) for part, stride in ((corpus[:3], 20), (corpus[3:], 30))]
    refused(*runs, "merge: different stride: [23]0 here, [23]0 there")
    windows = [collect(part, stride=stride) for part, stride in ((corpus[:3], None), (corpus[3:], 500))]
    assert windows[0].merge(windows[1]).provenance["stride"] == 95  # both are a whole window: 96 tokens with BOS


def test_truncated_and_whole_are_not_mixed(collect: Collect) -> None:
    corpus = made(6)
    a, b = collect(corpus[:3], truncate=True), collect(corpus[3:])
    refused(a, b, "merge: different truncate: ('yes' here, none there|none here, 'yes' there)")
    assert a.provenance["truncate"] == "yes"
    assert "truncate" not in b.provenance


def test_edited_and_clean_are_not_mixed(smollm2_tokenizer: Any) -> None:
    model, corpus = tiny.decoder(smollm2_tokenizer), made(6)
    clean = ta.collect(model, corpus[:3], METRICS, source="hooks", progress=False)
    model.original_model.model.layers[1].self_attn.o_proj.weight.data[:, 8:16] = 0  # one head
    edited = ta.collect(model, corpus[3:], METRICS, source="hooks", progress=False)
    refused(clean, edited, "merge: different model fingerprint: '.{16}' here, '.{16}' there")


# Files and states of collectors


def test_a_state_is_the_same_after_saving_and_loading(collect: Collect, tmp_path: Path) -> None:
    corpus = made(9)
    run = collect(corpus[::2]).merge(collect(made(4, seed=3, origin="two"))).run
    run.save(tmp_path / "run.nc")
    again = ta.RunState.load(tmp_path / "run.nc")
    assert (again.reading, again.counted, again.said) == (run.reading, run.counted, run.said)
    assert list(again.sums) == list(run.sums)
    for name, part in run.state_dict().items():
        xr.testing.assert_equal(part, again.state_dict()[name])
    assert_close(
        ta.AttentionStats(again.merge(collect(corpus[1::2]).run)),
        collect(corpus).merge(collect(made(4, seed=3, origin="two"))),
        1e-9,
    )


def test_collectors_go_on_with_the_same_corpus_only(tiny_decoder: Any) -> None:
    corpus, other = made(4), made(4, seed=2, origin="other")
    first = ta.Collectors(tiny_decoder, METRICS, source="hooks")
    for batch in first.batches(corpus[:2]):
        first.run(batch)
    message = (
        "corpus: got other, but these collectors have already counted sentences given in Python, or used other options"
    )
    with pytest.raises(CorpusError, match=message):
        next(first.batches(other))
    with pytest.raises(CorpusError, match="have already counted sentences given in Python, or used other options"):
        next(first.batches(corpus, truncate=True))
    state = first.state_dict()
    second = ta.Collectors(tiny_decoder, METRICS, source="hooks")
    next(second.batches(other))
    with pytest.raises(StatsError, match="state: comes from sentences given in Python, expected other"):
        second.load_state_dict(state)
    second = ta.Collectors(tiny_decoder, METRICS, source="hooks")
    second.load_state_dict(state)
    for batch in second.batches(corpus[2:]):
        second.run(batch)
    whole = ta.collect(tiny_decoder, corpus, METRICS, source="hooks", progress=False)
    assert_close(second.stats(), whole, 2e-6)
    assert second.stats().provenance == whole.provenance


def test_collectors_refuse_the_state_of_another_model(tiny_decoder: Any, smollm2_tokenizer: Any) -> None:
    state = ta.Collectors(tiny.decoder(smollm2_tokenizer, seed=1), METRICS).state_dict()
    with pytest.raises(StatsError, match="state: different model fingerprint"):
        ta.Collectors(tiny_decoder, METRICS, source="hooks").load_state_dict(state)
    del state["run"]
    with pytest.raises(AttnStatsError, match="state: got distance, exemplars, pos_to, expected what state_dict gave"):
        ta.Collectors(tiny_decoder, METRICS, source="hooks").load_state_dict(state)


def test_collectors_merge_as_results_do(tiny_decoder: Any, collect: Collect) -> None:
    corpus, two = made(6), made(5, seed=2, origin="two")
    runs = [ta.Collectors(tiny_decoder, METRICS, source="hooks") for _ in range(3)]
    for collectors, part in zip(runs, (corpus[:3], corpus[3:], two), strict=True):
        for batch in collectors.batches(part, batch_tokens=1):
            collectors.run(batch)
    with pytest.raises(StatsError, match="merge: both runs counted sentences 0 to 2"):
        runs[0].merge(runs[0])
    runs[0].merge(runs[2])
    runs[0].merge(runs[1])
    assert_close(runs[0].stats(), collect(corpus).merge(collect(two)), 1e-9)
    with pytest.raises(StatsError, match="merge: nothing has been collected yet in one of the runs"):
        runs[0].merge(ta.Collectors(tiny_decoder, METRICS, source="hooks"))


def test_batches_given_in_python_come_before_a_merge(tiny_decoder: Any) -> None:
    batches = list(ta.Collectors(tiny_decoder, source="hooks").batches(made(6), batch_tokens=1))
    a, b = (ta.Collectors(tiny_decoder, METRICS, source="hooks") for _ in range(2))
    for collectors, part in ((a, batches[:2]), (b, batches[2:4])):
        for batch in part:
            collectors.run(batch)
    a.merge(b)
    assert a.stats().provenance["sequences"] == 4
    with pytest.raises(StatsError, match="batch: comes after a merge"):
        a.run(batches[4])
