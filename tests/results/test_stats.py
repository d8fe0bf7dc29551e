"""The result: selecting, ranking and tabulating, its file, merging, and users' own statistics."""

from __future__ import annotations

import pickle
from collections.abc import Iterable, Iterator
from dataclasses import replace
from pathlib import Path
from typing import Any

import h5py
import numpy as np
import pytest
import scipy.stats
import torch
import xarray as xr

import tl_attnstats as ta
from tests import tiny
from tests.reference_worth import bounds
from tl_attnstats.collectors.base import REGISTRY
from tl_attnstats.errors import MetricError, StatsError

N_LAYERS, N_HEADS = 3, 4
NAMES = [f"L{layer}H{head}" for layer in range(N_LAYERS) for head in range(N_HEADS)]
Data = list[tuple[np.ndarray, ta.Sentence]]


class Capitalised(ta.RatioCollector):
    """A user's statistic: the share of content attention on keys whose word is capitalised."""

    name = "capitalised"
    long_name = "attention to capitalised words"
    formula = "Σ w[i,j]·1[word(j) capitalised] / Σ w[i,j]"

    def terms(self, block: ta.Reductions) -> tuple[torch.Tensor, torch.Tensor]:
        capital = torch.zeros(len(block.batch.items), 1, block.column_mass.shape[-1], dtype=torch.float64)
        for row, item in enumerate(block.batch.items):
            for token, word in enumerate(item.word_of_token):
                text = item.sentence.text[item.sentence.words[word].start :]
                capital[row, 0, token] = word >= 0 and text[0].isupper()
        return (block.column_mass * capital).sum(-1), block.content_mass


def word_patterns(n: int, seed: int = 1, n_layers: int = N_LAYERS, n_heads: int = N_HEADS) -> Data:
    """Random causal patterns over the words of random sentences."""
    sentences = tiny.sentences(n, seed)
    return [(tiny.patterns(n_layers, n_heads, len(s.words), True, seed + s.number), s) for s in sentences]


def with_a_null_head(data: Data) -> Data:
    """The same patterns, but L1H2 attends only to the first token."""
    changed = [(pattern.copy(), sentence) for pattern, sentence in data]
    for pattern, _ in changed:
        pattern[1, 2] = 0
        pattern[1, 2, :, 0] = 1
    return changed


def hand_made(text: str, weight: float) -> tuple[np.ndarray, ta.Sentence]:
    """A sentence of three words, and a head whose largest weight on content, from word 2 to word 1, is `weight`."""
    words, end = [], 0
    for form in text.split():
        start = text.index(form, end)
        end = start + len(form)
        words.append(ta.Word(start, end, "X", None, "root"))
    pattern = np.array([[1, 0, 0], [1, 0, 0], [1 - weight, weight, 0]])
    return pattern[None, None], ta.Sentence(text, tuple(words), text)


def content(pattern: np.ndarray) -> np.ndarray:
    """The weights on all keys but the first."""
    return pattern[..., 1:]


def raw_ratio(above: list[np.ndarray], below: list[Any]) -> tuple[np.ndarray, np.ndarray]:
    """Σ A_x / Σ B_x and its standard error, from the definitions."""
    a, b, n = np.stack(above), np.stack(below), len(above)
    value = a.sum(0) / b.sum(0)
    return value, np.sqrt(n / (n - 1) * ((a - value * b) ** 2).sum(0)) / b.sum(0)


def raw_distance(data: Data) -> tuple[np.ndarray, np.ndarray]:
    above, below = [], []
    for pattern, sentence in data:
        position = np.arange(len(sentence.words))
        away = np.abs(position[:, None] - position)
        above.append((content(pattern) * content(away)).sum((2, 3)))
        below.append(content(pattern).sum((2, 3)))
    return raw_ratio(above, below)


def raw_null_share(data: Data) -> np.ndarray:
    rows = [np.full((N_LAYERS, N_HEADS), len(s.words) - 1) for _, s in data]
    return raw_ratio([pattern[:, :, 1:, 0].sum(-1) for pattern, _ in data], rows)[0]


def raw_on_keys(data: Data, wanted: Any) -> tuple[np.ndarray, np.ndarray]:
    """Share of content attention on keys whose word `wanted` accepts."""
    above = [(content(p) * [wanted(s, word) for word in s.words[1:]]).sum((2, 3)) for p, s in data]
    return raw_ratio(above, [content(p).sum((2, 3)) for p, _ in data])


def is_noun(sentence: ta.Sentence, word: ta.Word) -> bool:
    return word.upos == "NOUN"


def is_capitalised(sentence: ta.Sentence, word: ta.Word) -> bool:
    return sentence.text[word.start].isupper()


def assert_same_values(a: ta.AttentionStats, b: ta.AttentionStats, tolerance: float = 1e-12) -> None:
    """The same statistics with the same labels; exemplars are exactly equal."""
    assert set(a.dataset.variables) == set(b.dataset.variables)
    for name, value in a.dataset.variables.items():
        other = b.dataset.variables[name]
        assert value.dims == other.dims, name
        if value.dtype.kind == "f" and not str(name).startswith("exemplar_"):
            # Compare squares of errors: a square root turns a rounding error of 1e-16 at 0 into 1e-8.
            power = 2 if str(name).endswith("_se") else 1
            np.testing.assert_allclose(
                value.values**power, other.values**power, rtol=0, atol=tolerance, err_msg=str(name)
            )
        else:
            np.testing.assert_array_equal(value.values, other.values, err_msg=str(name))


def round_trip(stats: ta.AttentionStats, path: Path) -> ta.AttentionStats:
    stats.save(path)
    return ta.load(path)


@pytest.fixture(scope="module")
def data() -> Data:
    return word_patterns(14)


@pytest.fixture(scope="module")
def stats(data: Data) -> ta.AttentionStats:
    return ta.collect_patterns(data)


@pytest.fixture(scope="module")
def holed(data: Data) -> ta.AttentionStats:
    """Statistics in which L1H2 is undetermined."""
    return ta.collect_patterns(with_a_null_head(data))


@pytest.fixture
def registry() -> Iterator[None]:
    """Forget collectors that the test defines."""
    before = dict(REGISTRY)
    yield
    REGISTRY.clear()
    REGISTRY.update(before)


# Selecting


def test_getitem_gives_the_statistic(stats: ta.AttentionStats, data: Data) -> None:
    assert stats["distance"].dims == ("layer", "head")
    value, error = raw_distance(data)
    np.testing.assert_allclose(stats["distance"], value, rtol=1e-6)
    np.testing.assert_allclose(stats["distance_se"], error, rtol=1e-6)


def test_getitem_of_an_unknown_name_lists_the_known(stats: ta.AttentionStats) -> None:
    with pytest.raises(MetricError, match=r"no statistic 'distnace' here; there are: .*distance, .*distance_se, .*pos"):
        stats["distnace"]


def test_statistics_leaves_out_errors_and_exemplars() -> None:
    stats = ta.collect_patterns(word_patterns(4), ["pos_to", "distance", "variability", "exemplars"])
    assert stats.statistics == ["pos_to", "distance", "variability", "mean_pattern"]
    assert stats.head_statistics == ["distance", "variability"]


def test_head_values_selects_the_label(stats: ta.AttentionStats, data: Data) -> None:
    values = stats.head_values("pos_to", tag="NOUN")
    assert values.dims == ("layer", "head")
    np.testing.assert_allclose(values, raw_on_keys(data, is_noun)[0], rtol=1e-6)


def test_head_values_takes_offsets_as_numbers(stats: ta.AttentionStats, data: Data) -> None:
    previous = sum(np.diagonal(p, -1, 2, 3)[..., 1:].sum(-1) for p, _ in data)
    share = previous / sum(content(p).sum((2, 3)) for p, _ in data)
    np.testing.assert_allclose(stats.head_values("offset_profile", offset=1), share, rtol=1e-5)


def test_head_values_without_its_label(stats: ta.AttentionStats) -> None:
    with pytest.raises(MetricError, match="pos_to has a value for each tag: pass tag=…, one of ADJ, NOUN, PUNCT, VERB"):
        stats.head_values("pos_to")


def test_head_values_with_a_superfluous_label(stats: ta.AttentionStats) -> None:
    with pytest.raises(MetricError, match="distance has no tag; it takes no labels"):
        stats.head_values("distance", tag="NOUN")
    with pytest.raises(MetricError, match="pos_to has no direction; it takes tag"):
        stats.head_values("pos_to", tag="NOUN", direction="either")


def test_head_values_with_an_unknown_label(stats: ta.AttentionStats) -> None:
    with pytest.raises(MetricError, match="tag='NUON': expected one of ADJ, NOUN, PUNCT, VERB, X"):
        stats.head_values("pos_to", tag="NUON")
    with pytest.raises(MetricError, match="offset=99: expected one of 0, 1,"):
        stats.head_values("offset_profile", offset=99)


def test_head_values_of_a_baseline(stats: ta.AttentionStats) -> None:
    with pytest.raises(MetricError, match=r"pos_frequency has no value for each head; those that have: .*distance"):
        stats.head_values("pos_frequency", tag="NOUN")


# Ranking


def test_top_heads_are_the_largest_in_order(stats: ta.AttentionStats, data: Data) -> None:
    value, error = (array.flatten() for array in raw_distance(data))
    order = np.argsort(-value)[:5]
    top = stats.top_heads("distance", n=5)
    assert list(top.columns) == ["head", "layer", "distance", "se", "low", "high", "null_share"]
    assert list(top["head"]) == [NAMES[place] for place in order]
    assert list(top["layer"]) == [place // N_HEADS for place in order]
    assert list(top.index) == [0, 1, 2, 3, 4]
    np.testing.assert_allclose(top["distance"], value[order], rtol=1e-6)
    np.testing.assert_allclose(top["se"], error[order], rtol=1e-6)
    np.testing.assert_allclose(top["null_share"], raw_null_share(data).flatten()[order], rtol=1e-6)


def test_top_heads_ascending_are_the_smallest(stats: ta.AttentionStats, data: Data) -> None:
    order = np.argsort(raw_distance(data)[0].flatten())
    top = stats.top_heads("distance", n=3, ascending=True)
    assert list(top["head"]) == [NAMES[place] for place in order[:3]]


@pytest.mark.parametrize(("n", "rows"), [(0, 0), (1, 1), (12, 12), (100, 12)])
def test_top_heads_gives_n_rows_or_as_many_as_there_are(stats: ta.AttentionStats, n: int, rows: int) -> None:
    assert len(stats.top_heads("entropy", n=n)) == rows


def test_top_heads_gives_ten_by_default(stats: ta.AttentionStats) -> None:
    assert len(stats.top_heads("entropy")) == 10


def test_top_heads_with_a_label(stats: ta.AttentionStats, data: Data) -> None:
    value, error = (array.flatten() for array in raw_on_keys(data, is_noun))
    order = np.argsort(-value)
    top = stats.top_heads("pos_to", n=100, tag="NOUN")
    assert list(top.columns) == ["head", "layer", "pos_to", "se", "low", "high", "null_share"]
    assert list(top["head"]) == [NAMES[place] for place in order]
    np.testing.assert_allclose(top["se"], error[order], rtol=1e-5)


def test_top_heads_of_variability_give_the_bound_of_its_error(stats: ta.AttentionStats) -> None:
    top = stats.top_heads("variability", n=1)
    assert list(top.columns) == ["head", "layer", "variability", "error_bound", "null_share"]
    place = int(stats["variability"].values.argmax())
    assert top["head"][0] == NAMES[place]
    assert top["error_bound"][0] == stats["variability_error"].values.flatten()[place]


def test_top_heads_of_the_null_share_name_it_once(stats: ta.AttentionStats) -> None:
    assert list(stats.top_heads("null_share").columns) == ["head", "layer", "null_share", "se", "low", "high"]


def test_top_heads_without_null_share() -> None:
    stats = ta.collect_patterns(word_patterns(4), ["distance"])
    assert list(stats.top_heads("distance").columns) == ["head", "layer", "distance", "se", "low", "high"]


@pytest.mark.parametrize("ascending", [True, False])
def test_top_heads_leaves_undetermined_heads_out(holed: ta.AttentionStats, ascending: bool) -> None:
    assert np.isnan(holed["distance"].sel(layer=1, head=2))
    top = holed.top_heads("distance", n=100, ascending=ascending)
    assert sorted(top["head"]) == sorted(set(NAMES) - {"L1H2"})


def test_top_heads_names_the_model_s_layers(tiny_encoder: Any) -> None:
    stats = ta.collect(tiny_encoder, ta.Corpus(tiny.sentences(4)), ["distance"], layers=[2], progress=False)
    top = stats.top_heads("distance")
    assert sorted(top["head"]) == ["L2H0", "L2H1", "L2H2", "L2H3"]
    assert set(top["layer"]) == {2}


def with_values(null_share: Any, distance: Any = 5, error: Any = 0.1) -> ta.AttentionStats:
    stats = ta.collect_patterns(word_patterns(4), ["null_share", "distance", "variability", "pos_to"])
    for name, value in (("null_share", null_share), ("distance", distance), ("distance_se", error)):
        stats.dataset[name].values[:] = value
    return stats


def test_top_heads_below_a_null_share() -> None:
    null_share = np.linspace(0, 1, 12).reshape(3, 4)  # 10/11 = 0.909
    stats = with_values(null_share, distance=1 + null_share)
    assert stats.top_heads("distance")["head"][0] == "L2H3"  # all heads by default
    assert stats.top_heads("distance", max_null=0.9, n=2)["head"].tolist() == ["L2H1", "L2H0"]
    assert stats.top_heads("distance", max_null=float(null_share[2, 2]), n=1)["head"].tolist() == ["L2H2"]
    assert len(stats.top_heads("pos_to", max_null=0.5, n=99, tag="NOUN")) <= 6
    assert stats.top_heads("null_share", max_null=0.5)["head"][0] == "L2H3"  # the null share is over all attention


def test_top_heads_refuses_a_null_share_that_is_none() -> None:
    with pytest.raises(MetricError, match=r"max_null=1\.5: expected a share from 0 to 1, or None for all heads"):
        with_values(0.5).top_heads("distance", max_null=1.5)
    stats = ta.collect_patterns(word_patterns(4), ["distance"])
    with pytest.raises(MetricError, match=r"max_null=0\.9: no null_share here; collect with metrics that include it"):
        stats.top_heads("distance", max_null=0.9)


def test_doubtful_are_null_heads_and_large_errors() -> None:
    null_share, error = np.full((3, 4), 0.9), np.full((3, 4), 2.5)
    null_share[0, 1] = 0.91
    error[2, 3] = 2.51
    stats = with_values(null_share, distance=-5, error=error)  # a value may be negative
    expected = np.zeros((3, 4), dtype=bool)
    expected[0, 1] = expected[2, 3] = True
    doubtful = stats.doubtful("distance")
    assert doubtful.dims == ("layer", "head")
    np.testing.assert_array_equal(doubtful, expected)
    assert stats.doubtful("distance", max_error=0.4).all()
    assert not stats.doubtful("null_share", max_error=np.inf).any()


def test_doubtful_by_label_and_where_there_is_no_value(stats: ta.AttentionStats, holed: ta.AttentionStats) -> None:
    everything = stats.doubtful("pos_to")
    assert everything.dims == stats["pos_to"].dims
    expected = stats["pos_to_se"].sel(tag="NOUN") > 0.5 * stats["pos_to"].sel(tag="NOUN")
    for found in (everything.sel(tag="NOUN"), stats.doubtful("pos_to", tag="NOUN")):
        np.testing.assert_array_equal(found, expected | (stats["null_share"] > 0.9))
    assert not holed.doubtful("distance").sel(layer=1, head=2)
    with pytest.raises(MetricError, match="tag='NUON': expected one of ADJ"):
        stats.doubtful("pos_to", tag="NUON")


class RowMaximum(ta.RatioCollector):
    """A user's statistic over all attention."""

    name = "row_maximum"
    attention = "all"

    def terms(self, block: ta.Reductions) -> tuple[torch.Tensor, torch.Tensor]:
        rows = block.rows[:, None].double()
        return (block.weights.amax(-1) * rows).sum(-1), rows.sum(-1).expand(len(block.batch), block.weights.shape[1])


def test_statistics_of_all_attention_are_not_doubtful_by_null_share(data: Data, tmp_path: Path) -> None:
    stats = ta.collect_patterns(with_a_null_head(data), ["null_share", "row_maximum", "entropy"])
    for of in (stats, round_trip(stats, tmp_path / "stats.nc")):
        assert float(of["null_share"].sel(layer=1, head=2)) == 1
        assert not of.doubtful("row_maximum").any()


def test_notebooks_show_model_corpus_and_heads(stats: ta.AttentionStats) -> None:
    shown = tiny.renamed(stats, model="<b>gpt2</b>")._repr_html_()
    assert "AttentionStats of &lt;b&gt;gpt2&lt;/b&gt;: 3 layers × 4 heads, 14 sentences, " in shown
    assert "corpus: batches given in Python" in shown
    assert "xarray.Dataset" in shown


# Exemplars


def test_exemplars_are_the_strongest_sentences(stats: ta.AttentionStats, data: Data) -> None:
    found = stats.exemplars("L2H1")
    assert list(found.columns) == [
        "weight",
        "sentence",
        "query",
        "key",
        "query_text",
        "key_text",
        "text",
        "query_start",
        "query_end",
        "key_start",
        "key_end",
    ]
    strongest = [content(p)[2, 1].max() if len(s.words) > 1 else 0 for p, s in data]
    order = sorted(range(len(data)), key=lambda n: (-round(strongest[n], 5), n))[:10]
    assert list(found["sentence"]) == order
    np.testing.assert_allclose(found["weight"], [strongest[n] for n in order], atol=1e-6)


def test_exemplars_texts_are_those_of_their_words(stats: ta.AttentionStats, data: Data) -> None:
    for _, row in stats.exemplars("L0H3").iterrows():
        pattern, sentence = data[row["sentence"]]
        assert row["text"] == sentence.text
        assert row["weight"] == pytest.approx(pattern[0, 3, row["query"], row["key"]], abs=1e-6)
        for token in ("query", "key"):
            word = sentence.words[row[token]]
            assert row[f"{token}_text"] == sentence.text[word.start : word.end]
            assert (row[f"{token}_start"], row[f"{token}_end"]) == (word.start, word.end)


@pytest.mark.parametrize("head", ["foo", "", "L99H0", "L0H4", "L-1H0", "l0h0", "L0H0 ", "0.0"])
def test_exemplars_of_an_unknown_head(stats: ta.AttentionStats, head: str) -> None:
    with pytest.raises(MetricError, match=f"head='{head}': expected a name from L0H0 to L2H3"):
        stats.exemplars(head)


def test_exemplars_without_any() -> None:
    stats = ta.collect_patterns(word_patterns(4), ["distance"])
    with pytest.raises(MetricError, match="no exemplars here; collect with metrics that include 'exemplars'"):
        stats.exemplars("L0H0")


def test_exemplars_of_sentences_without_numbers_keep_their_own_texts() -> None:
    weak, strong = hand_made("one two three", 0.25), hand_made("red green blue", 0.75)
    found = ta.collect_patterns([strong, weak], ["exemplars"]).exemplars("L0H0")
    assert list(found["weight"]) == [0.75, 0.25]
    assert list(found["text"]) == ["red green blue", "one two three"]
    assert list(found["query_text"]) == ["blue", "three"]
    assert list(found["key_text"]) == ["green", "two"]


# Tabulating


def test_by_layer_summarises_the_heads(stats: ta.AttentionStats, data: Data) -> None:
    value = raw_distance(data)[0]
    table = stats.by_layer("distance")
    assert list(table.columns) == ["mean", "std", "min", "max"]
    assert (table.index.name, list(table.index)) == ("layer", [0, 1, 2])
    np.testing.assert_allclose(table["mean"], value.mean(1), rtol=1e-6)
    np.testing.assert_allclose(table["std"], value.std(1, ddof=1), rtol=1e-5)
    np.testing.assert_allclose(table["min"], value.min(1), rtol=1e-6)
    np.testing.assert_allclose(table["max"], value.max(1), rtol=1e-6)


def test_by_layer_with_a_label(stats: ta.AttentionStats, data: Data) -> None:
    expected = raw_on_keys(data, is_noun)[0].mean(1)
    np.testing.assert_allclose(stats.by_layer("pos_to", tag="NOUN")["mean"], expected, rtol=1e-6)


def test_by_layer_leaves_undetermined_heads_out(holed: ta.AttentionStats, data: Data) -> None:
    expected = raw_distance(data)[0][1, [0, 1, 3]]
    table = holed.by_layer("distance")
    np.testing.assert_allclose(table.loc[1, ["mean", "max"]], [expected.mean(), expected.max()], rtol=1e-6)


def test_correlation_is_pearson_s(stats: ta.AttentionStats, data: Data) -> None:
    r, p, n = stats.correlation("distance", "null_share")
    expected = scipy.stats.linregress(raw_distance(data)[0].flatten(), raw_null_share(data).flatten())
    assert n == 12
    assert r == pytest.approx(expected.rvalue, rel=1e-5)
    assert p == pytest.approx(expected.pvalue, rel=1e-4)


@pytest.mark.parametrize("swap", [False, True])
def test_correlation_gives_the_label_to_the_one_that_has_it(stats: ta.AttentionStats, data: Data, swap: bool) -> None:
    def along(sentence: ta.Sentence, i: int, j: int) -> bool:
        return j > 0 and (sentence.words[i].head == j or sentence.words[j].head == i)

    related = [np.array([[along(s, i, j) for j in range(len(s.words))] for i in range(len(s.words))]) for _, s in data]
    above = [(p * relation).sum((2, 3)) for (p, _), relation in zip(data, related, strict=True)]
    alignment = raw_ratio(above, [content(p).sum((2, 3)) for p, _ in data])[0]
    expected = scipy.stats.pearsonr(raw_distance(data)[0].flatten(), alignment.flatten())
    x, y = ("dependency_alignment", "distance") if swap else ("distance", "dependency_alignment")
    assert stats.correlation(x, y, direction="either").r == pytest.approx(expected.statistic, rel=1e-5)


def test_correlation_gives_the_label_to_both_that_have_it(stats: ta.AttentionStats) -> None:
    x, y = (stats[name].sel(tag="VERB").values.flatten() for name in ("pos_to", "pos_from"))
    assert stats.correlation("pos_to", "pos_from", tag="VERB").r == pytest.approx(np.corrcoef(x, y)[0, 1])


@pytest.mark.parametrize("names", [("distance", "null_share"), ("null_share", "distance")])
def test_correlation_leaves_undetermined_heads_out(
    holed: ta.AttentionStats, data: Data, names: tuple[str, str]
) -> None:
    others = [place for place in range(12) if NAMES[place] != "L1H2"]
    x, y = (array.flatten()[others] for array in (raw_distance(data)[0], raw_null_share(data)))
    r, _, n = holed.correlation(*names)
    assert n == 11
    assert r == pytest.approx(np.corrcoef(x, y)[0, 1], rel=1e-5)


def test_correlation_of_too_few_heads() -> None:
    stats = ta.collect_patterns(word_patterns(4, n_layers=1, n_heads=2), ["distance", "entropy"])
    with pytest.raises(MetricError, match="2 heads have both distance and entropy, expected 3 or more"):
        stats.correlation("distance", "entropy")


def test_correlation_with_a_label_that_neither_has(stats: ta.AttentionStats) -> None:
    with pytest.raises(MetricError, match="neither distance nor entropy has direction"):
        stats.correlation("distance", "entropy", direction="either")


def test_correlation_without_a_label_that_is_needed(stats: ta.AttentionStats) -> None:
    with pytest.raises(MetricError, match="dependency_alignment has a value for each direction: pass direction="):
        stats.correlation("distance", "dependency_alignment")


def test_to_dataframe_has_a_row_a_head(stats: ta.AttentionStats, data: Data) -> None:
    frame = stats.to_dataframe()
    assert [f"L{layer}H{head}" for layer, head in zip(frame["layer"], frame["head"], strict=True)] == NAMES
    assert set(frame.columns) == {
        "layer",
        "head",
        "null_share",
        "null_share_se",
        "distance",
        "distance_se",
        "entropy",
        "entropy_se",
        "variability",
        "variability_error",
        "sink_share",
        "sink_share_se",
        "sink_rate",
        "sink_rate_se",
    }
    value, error = raw_distance(data)
    np.testing.assert_allclose(frame["distance"], value.flatten(), rtol=1e-6)
    np.testing.assert_allclose(frame["distance_se"], error.flatten(), rtol=1e-6)


def test_to_dataframe_of_one_statistic_has_a_row_a_value(stats: ta.AttentionStats, data: Data) -> None:
    frame = stats.to_dataframe("pos_to")
    assert list(frame.columns) == ["layer", "head", "tag", "pos_to", "pos_to_se"]
    assert len(frame) == N_LAYERS * N_HEADS * len(tiny.TAGS)
    value, error = raw_on_keys(data, is_noun)
    nouns = frame[frame["tag"] == "NOUN"]
    np.testing.assert_allclose(nouns["pos_to"], value.flatten(), rtol=1e-6)
    np.testing.assert_allclose(nouns["pos_to_se"], error.flatten(), rtol=1e-5)


def test_to_dataframe_of_variability_has_its_bound(stats: ta.AttentionStats) -> None:
    assert list(stats.to_dataframe("variability").columns) == ["layer", "head", "variability", "variability_error"]


def test_to_dataframe_without_head_statistics() -> None:
    frame = ta.collect_patterns(word_patterns(4), ["pos_to"]).to_dataframe()
    assert [f"L{layer}H{head}" for layer, head in zip(frame["layer"], frame["head"], strict=True)] == NAMES
    assert list(frame.columns) == ["layer", "head"]


def test_to_dataframe_of_an_unknown_statistic(stats: ta.AttentionStats) -> None:
    with pytest.raises(MetricError, match="no statistic 'foo' here"):
        stats.to_dataframe("foo")


def test_repr_names_model_and_size(stats: ta.AttentionStats, data: Data) -> None:
    n_tokens = sum(len(s.words) for _, s in data)
    assert f"patterns: 3 layers × 4 heads, 14 sentences, {n_tokens} tokens" in repr(stats)


def test_repr_of_baselines_alone(data: Data) -> None:
    assert "14 sentences" in repr(ta.collect_patterns(data, ["baselines"]))


# The file


def assert_identical(a: ta.AttentionStats, b: ta.AttentionStats) -> None:
    xr.testing.assert_identical(a.dataset, b.dataset)
    assert list(a.state) == list(b.state)
    for name in a.state:
        xr.testing.assert_identical(a.state[name], b.state[name])


def test_load_gives_back_what_was_saved(stats: ta.AttentionStats, tmp_path: Path) -> None:
    assert_identical(round_trip(stats, tmp_path / "stats.nc"), stats)


def test_load_gives_back_undetermined_heads(holed: ta.AttentionStats, tmp_path: Path) -> None:
    assert_identical(round_trip(holed, tmp_path / "stats.nc"), holed)


def test_load_gives_back_the_statistics_of_a_model(tiny_encoder: Any, tmp_path: Path) -> None:
    stats = ta.collect(tiny_encoder, ta.Corpus(tiny.sentences(6)), layers=[0, 2], progress=False)
    assert_identical(round_trip(stats, tmp_path / "stats.nc"), stats)


def test_load_gives_back_exemplars_where_there_are_none(tmp_path: Path) -> None:
    stats = ta.collect_patterns([hand_made("one two three", 0)])
    again = round_trip(stats, tmp_path / "stats.nc")
    assert len(again.exemplars("L0H0")) == 0
    assert_identical(again, stats)


def test_load_takes_a_string_and_save_too(stats: ta.AttentionStats, tmp_path: Path) -> None:
    stats.save(str(tmp_path / "stats.nc"))
    assert ta.load(str(tmp_path / "stats.nc")).provenance == stats.provenance


def test_save_writes_units_and_formulas(stats: ta.AttentionStats, tmp_path: Path) -> None:
    stats.save(tmp_path / "stats.nc")
    file = xr.load_dataset(tmp_path / "stats.nc")
    for name in (*stats.statistics, "exemplar_weight"):
        assert file[name].attrs["units"], name
        assert file[name].attrs["formula"], name
        assert file[name].attrs["long_name"], name
    assert file["distance"].attrs["units"] == file["distance_se"].attrs["units"] == "tokens"
    assert file["entropy"].attrs["units"] == "nats"
    assert file["pos_to"].attrs["units"] == "share"


def test_save_writes_the_provenance(stats: ta.AttentionStats, data: Data, tmp_path: Path) -> None:
    stats.save(tmp_path / "stats.nc")
    attrs = xr.load_dataset(tmp_path / "stats.nc").attrs
    assert attrs["model"] == "patterns"
    assert attrs["null"] == "first"
    assert attrs["attention"] == "causal"
    assert attrs["sequences"] == 14
    assert attrs["tokens"] == sum(len(s.words) for _, s in data)
    assert attrs["corpus_fingerprint"] == f"{sum(s.digest for _, s in data) % 2**63:016x}"
    assert {"settings", "versions", "corpus", "source"} <= set(attrs)


def test_save_leaves_no_other_file(stats: ta.AttentionStats, tmp_path: Path) -> None:
    stats.save(tmp_path / "stats.nc")
    stats.save(tmp_path / "stats.nc")
    assert [entry.name for entry in tmp_path.iterdir()] == ["stats.nc"]


def test_save_where_nothing_can_be_written(stats: ta.AttentionStats, tmp_path: Path) -> None:
    (tmp_path / "file").write_text("no folder", encoding="utf-8")
    with pytest.raises(StatsError, match=r"file/stats\.nc: cannot be written"):
        stats.save(tmp_path / "file" / "stats.nc")
    assert [entry.name for entry in tmp_path.iterdir()] == ["file"]


def test_save_onto_a_folder(stats: ta.AttentionStats, tmp_path: Path) -> None:
    (tmp_path / "out").mkdir()
    with pytest.raises(StatsError, match=r"out: cannot be written"):
        stats.save(tmp_path / "out")
    assert [entry.name for entry in tmp_path.iterdir()] == ["out"]


def test_file_holds_numbers_and_texts_only(
    stats: ta.AttentionStats, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def refuse(*args: Any, **kwargs: Any) -> None:
        raise AssertionError("pickle was used")

    for function in ("dump", "dumps", "load", "loads"):
        monkeypatch.setattr(pickle, function, refuse)
    round_trip(stats, tmp_path / "stats.nc")

    arrays: list[h5py.Dataset] = []
    with h5py.File(tmp_path / "stats.nc") as file:
        file.visititems(lambda _, item: arrays.append(item) if isinstance(item, h5py.Dataset) else None)
        assert len(arrays) > 50
        for array in arrays:
            assert array.dtype.kind in "if" or h5py.check_string_dtype(array.dtype), array.name


def test_load_of_a_missing_file(tmp_path: Path) -> None:
    with pytest.raises(StatsError, match=r"none\.nc: no such file; expected a file written by AttentionStats\.save"):
        ta.load(tmp_path / "none.nc")


def test_load_of_a_text(tmp_path: Path) -> None:
    (tmp_path / "notes.nc").write_text("no statistics at all", encoding="utf-8")
    with pytest.raises(StatsError, match=r"notes\.nc: not a readable file of tl_attnstats"):
        ta.load(tmp_path / "notes.nc")


def test_load_of_a_folder(tmp_path: Path) -> None:
    with pytest.raises(StatsError, match="not a readable file of tl_attnstats"):
        ta.load(tmp_path)


def test_load_of_another_netcdf_file(tmp_path: Path) -> None:
    xr.Dataset({"temperature": ("x", [1.0, 2.0])}).to_netcdf(tmp_path / "weather.nc", engine="h5netcdf")
    with pytest.raises(StatsError, match=r"weather\.nc: not a file of tl_attnstats \(format None, expected"):
        ta.load(tmp_path / "weather.nc")


def test_load_of_another_version_of_the_format(tmp_path: Path) -> None:
    xr.Dataset(attrs={"format": "tl_attnstats 99"}).to_netcdf(tmp_path / "new.nc", engine="h5netcdf")
    with pytest.raises(StatsError, match=r"format 'tl_attnstats 99' is of a newer version, expected"):
        ta.load(tmp_path / "new.nc")


def test_load_of_a_file_without_its_sums(stats: ta.AttentionStats, tmp_path: Path) -> None:
    stats.dataset.assign_attrs(format="tl_attnstats 2").to_netcdf(tmp_path / "part.nc", engine="h5netcdf")
    with pytest.raises(StatsError, match=r"part\.nc: not a readable file of tl_attnstats"):
        ta.load(tmp_path / "part.nc")


def test_load_of_a_file_cut_off(stats: ta.AttentionStats, tmp_path: Path) -> None:
    path = tmp_path / "stats.nc"
    stats.save(path)
    path.write_bytes(path.read_bytes()[:5000])
    with pytest.raises(StatsError, match=r"stats\.nc: not a readable file of tl_attnstats"):
        ta.load(path)


# Merging


@pytest.mark.parametrize("cut", [1, 7, 13])
def test_merge_of_two_parts_is_the_whole(stats: ta.AttentionStats, data: Data, cut: int) -> None:
    merged = ta.collect_patterns(data[:cut]).merge(ta.collect_patterns(data[cut:]))
    assert_same_values(merged, stats)
    for key in ("sequences", "tokens", "corpus_fingerprint"):
        assert merged.provenance[key] == stats.provenance[key], key


def test_merge_of_two_shards_of_a_corpus_is_the_whole(tiny_encoder: Any) -> None:
    corpus = ta.Corpus(tiny.sentences(12))
    # One sentence at a time, because batching changes the last digits of the model's attention.
    run = [
        ta.collect(tiny_encoder, part, batch_tokens=1, progress=False) for part in (corpus, corpus[::2], corpus[1::2])
    ]
    merged = run[1].merge(run[2])
    assert_same_values(merged, run[0])
    assert merged.provenance == run[0].provenance


def test_merge_of_baselines_alone(data: Data) -> None:
    whole, a, b = (ta.collect_patterns(part, ["baselines"]) for part in (data, data[:5], data[5:]))
    assert_same_values(a.merge(b), whole)


def test_merge_ignores_the_order_of_metrics(data: Data) -> None:
    metrics = ["distance", "entropy"]
    whole, a = ta.collect_patterns(data, metrics), ta.collect_patterns(data[:5], metrics)
    assert_same_values(a.merge(ta.collect_patterns(data[5:], metrics[::-1])), whole)


def test_merge_keeps_both_as_they_were(data: Data) -> None:
    a, b = ta.collect_patterns(data[:7]), ta.collect_patterns(data[7:])
    a.merge(b)
    assert_identical(a, ta.collect_patterns(data[:7]))
    assert_identical(b, ta.collect_patterns(data[7:]))


def test_merge_is_commutative(tiny_encoder: Any) -> None:
    corpus = ta.Corpus(tiny.sentences(12))
    a, b = (ta.collect(tiny_encoder, part, progress=False) for part in (corpus[:5], corpus[5:]))
    assert_same_values(a.merge(b), b.merge(a))


def test_merge_keeps_a_label_that_one_side_has() -> None:
    data = word_patterns(8)
    for number in (0, 2):
        pattern, sentence = data[number]
        data[number] = (pattern, replace(sentence, words=tuple(replace(w, upos="NUM") for w in sentence.words)))
    whole = ta.collect_patterns(data, ["pos_to", "pos_from"])
    a, b = ta.collect_patterns(data[:4], ["pos_to", "pos_from"]), ta.collect_patterns(data[4:], ["pos_to", "pos_from"])
    assert "NUM" in a["tag"].values
    assert "NUM" not in b["tag"].values
    on_num, _ = raw_on_keys(data, lambda sentence, word: word.upos == "NUM")
    assert (on_num > 0).all()
    for merged in (a.merge(b), b.merge(a)):
        assert_same_values(merged, whole)
        np.testing.assert_allclose(merged.head_values("pos_to", tag="NUM"), on_num, rtol=1e-6)


def test_merge_of_two_corpora_renumbers_the_second(tiny_encoder: Any) -> None:
    one, two = ta.Corpus(tiny.sentences(6, seed=1), "one"), ta.Corpus(tiny.sentences(5, seed=2), "two")
    a, b = (ta.collect(tiny_encoder, corpus, progress=False) for corpus in (one, two))
    merged = a.merge(b)
    assert merged.provenance["corpus"] == "one + two"
    assert merged.provenance["sequences"] == 11
    texts = [s.text for s in (*one, *two)]
    found = merged.exemplars("L1H2")
    assert set(found["sentence"]) & set(range(6))
    assert set(found["sentence"]) & set(range(6, 11))
    assert list(found["text"]) == [texts[number] for number in found["sentence"]]
    # The rows of both, ranked together.
    rows = [(r["weight"], r["sentence"], r["query"], r["key"]) for _, r in a.exemplars("L1H2").iterrows()]
    rows += [(r["weight"], 6 + r["sentence"], r["query"], r["key"]) for _, r in b.exemplars("L1H2").iterrows()]
    rows.sort(key=lambda row: (-round(row[0], 5), row[1]))
    assert list(found[["weight", "sentence", "query", "key"]].itertuples(index=False, name=None)) == rows[:10]


def test_merge_of_shards_of_two_corpora_keeps_their_numbers(tiny_encoder: Any) -> None:
    one, two = ta.Corpus(tiny.sentences(4, seed=1), "one"), ta.Corpus(tiny.sentences(4, seed=2), "two")
    first = [ta.collect(tiny_encoder, c[::2], progress=False) for c in (one, two)]
    second = [ta.collect(tiny_encoder, c[1::2], progress=False) for c in (one, two)]
    found = first[0].merge(first[1]).merge(second[0].merge(second[1])).exemplars("L0H0")
    texts = [s.text for s in (*one, *two)]
    assert list(found["text"]) == [texts[number] for number in found["sentence"]]
    assert len(set(found["sentence"])) == len(found)


def test_merge_of_patterns_keeps_both_texts() -> None:
    a = ta.collect_patterns([hand_made("one two three", 0.25)], ["exemplars"])
    b = ta.collect_patterns([hand_made("red green blue", 0.75)], ["exemplars"])
    found = a.merge(b).exemplars("L0H0")
    assert list(found["weight"]) == [0.75, 0.25]
    assert list(found["text"]) == ["red green blue", "one two three"]


def test_merge_with_exemplars_on_one_side_only() -> None:
    a = ta.collect_patterns([hand_made("one two three", 0)], ["exemplars"])
    b = ta.collect_patterns([hand_made("red green blue", 0.75)], ["exemplars"])
    for merged in (a.merge(b), b.merge(a)):
        assert list(merged.exemplars("L0H0")["text"]) == ["red green blue"]


def run_of(metrics: Iterable[Any] = ("distance",), n_layers: int = 3, n_heads: int = 4, **how: Any) -> Any:
    return ta.collect_patterns(word_patterns(3, n_layers=n_layers, n_heads=n_heads), metrics, **how)


@pytest.mark.parametrize(
    ("one", "other", "message"),
    [
        ({"model_name": "gpt2"}, {"model_name": "pythia"}, "different model: 'gpt2' here, 'pythia' there"),
        ({}, {"null": "none"}, "different null: 'first' here, 'none' there"),
        ({}, {"causal": False}, "different attention: 'causal' here, 'bidirectional' there"),
        ({}, {"metrics": ["entropy"]}, "different settings: .*distance.* here, .*entropy.* there"),
        (
            {"metrics": [ta.OffsetProfile(8)]},
            {"metrics": [ta.OffsetProfile(9)]},
            'different settings: .*"max_offset": 8.* here, .*"max_offset": 9.* there',
        ),
        ({}, {"n_layers": 2}, r"different layers: \[0, 1, 2\] here, \[0, 1\] there"),
        ({}, {"n_heads": 2}, "different .*heads"),
        ({"metrics": ["exemplars"]}, {"metrics": ["exemplars"], "n_heads": 2}, "different .*heads"),
    ],
)
def test_merge_refuses_what_does_not_add_up(one: dict[str, Any], other: dict[str, Any], message: str) -> None:
    a, b = run_of(**one), run_of(**other)
    with pytest.raises(StatsError, match=f"merge: {message}"):
        a.merge(b)


def test_merge_refuses_another_model_s_weights(tiny_encoder: Any, minilm_tokenizer: Any) -> None:
    corpus = ta.Corpus(tiny.sentences(2))
    other = tiny.encoder(minilm_tokenizer, seed=1)
    a, b = (ta.collect(model, corpus, ["distance"], progress=False) for model in (tiny_encoder, other))
    assert a.provenance["model"] == b.provenance["model"]
    with pytest.raises(StatsError, match="merge: different model fingerprint"):
        a.merge(b)


def test_merge_after_loading_is_merge_before(data: Data, tmp_path: Path) -> None:
    a, b = ta.collect_patterns(data[:5]), ta.collect_patterns(data[5:])
    later = round_trip(a, tmp_path / "a.nc").merge(round_trip(b, tmp_path / "b.nc"))
    assert_identical(later, a.merge(b))


@pytest.mark.parametrize("name", ta.DEFAULT_METRICS)
def test_state_does_not_grow_with_the_corpus(name: str) -> None:
    small, large = (ta.collect_patterns(word_patterns(n), [name]).state[name] for n in (5, 50))
    texts = [variable for variable in ("text", "sentence") if variable in small.variables]
    tokens = [dim for dim in small.dims if dim == "token"]  # the tokens that were sinks, at most the vocabulary
    small, large = (state.drop_vars(texts).drop_dims(tokens) for state in (small, large))
    assert dict(small.sizes) == dict(large.sizes)
    assert small.nbytes == large.nbytes


# Users' own statistics


@pytest.mark.parametrize("metric", ["capitalised", Capitalised, Capitalised()], ids=["name", "class", "instance"])
def test_own_collector_is_collected(data: Data, metric: Any) -> None:
    stats = ta.collect_patterns(data, ["distance", metric])
    value, error = raw_on_keys(data, is_capitalised)
    np.testing.assert_allclose(stats["capitalised"], value, rtol=1e-6)
    np.testing.assert_allclose(stats["capitalised_se"], error, rtol=1e-5)
    assert stats["capitalised"].attrs["long_name"] == "attention to capitalised words"
    assert stats.top_heads("capitalised")["head"][0] == NAMES[value.argmax()]


def test_own_collector_sees_padded_batches(tiny_encoder: Any) -> None:
    corpus = ta.Corpus(tiny.sentences(8))
    one_by_one, together = (
        ta.collect(tiny_encoder, corpus, [Capitalised], batch_tokens=n, progress=False) for n in (1, 1000)
    )
    np.testing.assert_allclose(one_by_one["capitalised"], together["capitalised"], atol=1e-5)


def test_own_collector_is_merged_and_saved(data: Data, tmp_path: Path) -> None:
    a, b = (ta.collect_patterns(part, [Capitalised]) for part in (data[:6], data[6:]))
    merged = round_trip(round_trip(a, tmp_path / "a.nc").merge(b), tmp_path / "merged.nc")
    value, error = raw_on_keys(data, is_capitalised)
    np.testing.assert_allclose(merged["capitalised"], value, rtol=1e-6)
    np.testing.assert_allclose(merged["capitalised_se"], error, rtol=1e-5)


@pytest.mark.usefixtures("registry")
def test_own_collector_is_needed_to_load_its_file(data: Data, tmp_path: Path) -> None:
    ta.collect_patterns(data, [Capitalised]).save(tmp_path / "stats.nc")
    del REGISTRY["capitalised"]
    with pytest.raises(MetricError, match="unknown statistic 'capitalised'"):
        ta.load(tmp_path / "stats.nc")


def test_instance_of_a_collector_can_be_used_again(data: Data) -> None:
    metric = Capitalised()
    first = ta.collect_patterns(data, [metric])
    assert_identical(ta.collect_patterns(data, [metric]), first)


@pytest.mark.usefixtures("registry")
def test_defining_two_collectors_of_one_name() -> None:
    with pytest.raises(MetricError, match=r"name='distance': tl_attnstats\.collectors\.distance\.Distance has this"):

        class Other(ta.RatioCollector):
            name = "distance"

    assert REGISTRY["distance"] is ta.Distance


@pytest.mark.usefixtures("registry")
def test_defining_a_collector_again_replaces_it() -> None:
    def cell() -> type[ta.Collector]:
        class Mine(ta.RatioCollector):
            name = "mine"

        return Mine

    cell()
    assert cell() is REGISTRY["mine"]


def test_metrics_of_an_unknown_name(data: Data) -> None:
    with pytest.raises(MetricError, match=r"unknown statistic 'distnace'; known: .*capitalised, .*distance, "):
        ta.collect_patterns(data, ["distance", "distnace"])


def test_metrics_empty(data: Data) -> None:
    with pytest.raises(MetricError, match="metrics: got none, expected at least one"):
        ta.collect_patterns(data, [])


def test_metrics_of_something_else(data: Data) -> None:
    with pytest.raises(
        MetricError, match="metrics: got 3, expected the name of a statistic, a Collector class or inst"
    ):
        ta.collect_patterns(data, [3])


def test_metrics_as_one_name(data: Data) -> None:
    assert ta.collect_patterns(data, "distance").statistics == ["distance"]


def test_head_table_has_every_value_of_a_head(holed: ta.AttentionStats) -> None:
    table = holed.head_table("L0H1")
    assert list(table) == ["statistic", "label", "value", "error", "error_kind", "doubtful", "rank", "mean"]
    for name in ("distance", "variability", "dependency_alignment", "pos_to", "offset_profile"):
        rows = table[table["statistic"] == name]
        values = holed[name].sel(layer=0, head=1)
        if values.ndim:
            assert rows["label"].tolist() == values[values.dims[0]].values.tolist()
        np.testing.assert_array_equal(rows["value"], np.atleast_1d(values))
        error = holed[f"{name}_error" if name == "variability" else f"{name}_se"].sel(layer=0, head=1)
        np.testing.assert_array_equal(rows["error"], np.atleast_1d(error))
        assert set(rows["error_kind"]) == {"bound" if name == "variability" else "standard error"}
        uncertain = np.atleast_1d(error) > 0.5 * np.atleast_1d(values)
        assert rows["doubtful"].tolist() == (uncertain | (float(holed["null_share"][0, 1]) > 0.9)).tolist()
    assert not set(table["statistic"]) & {"pos_frequency", "mean_pattern", "exemplar_weight"}


@pytest.mark.parametrize(("name", "labels"), [("distance", {}), ("pos_to", {"tag": "NOUN"})])
def test_head_table_ranks_as_top_heads_does(holed: ta.AttentionStats, name: str, labels: dict[str, Any]) -> None:
    top = holed.top_heads(name, n=99, **labels)
    assert len(top) == N_LAYERS * N_HEADS - 1
    for place, head in enumerate(top["head"]):
        table = holed.head_table(head)
        (row,) = table[(table["statistic"] == name) & (table["label"] == labels.get("tag", ""))].to_dict("records")
        assert row["rank"] == place + 1
        assert row["mean"] == pytest.approx(top[name].mean())


def test_head_table_of_an_undetermined_head_has_no_ranks(holed: ta.AttentionStats) -> None:
    table = holed.head_table("L1H2").set_index("statistic")
    assert np.isnan(table.loc["distance", ["value", "rank"]].astype(float)).all()
    assert table.loc["null_share", "rank"] == 1


def test_head_table_of_bare_exemplars_is_empty(data: Data) -> None:
    table = ta.collect_patterns(data, ["exemplars"]).head_table("L0H0")
    assert list(table) == ["statistic", "label", "value", "error", "error_kind", "doubtful", "rank", "mean"]
    assert table.empty


def test_top_heads_bounds_hold_for_all_heads_at_once(stats: ta.AttentionStats) -> None:
    value, error = stats["distance"].values, stats["distance_se"].values
    low, high = bounds(value, error)
    top = stats.top_heads("distance", n=value.size).set_index("head")
    for layer, head in np.ndindex(value.shape):
        row = top.loc[f"L{layer}H{head}"]
        np.testing.assert_allclose((row["low"], row["high"]), (low[layer, head], high[layer, head]), rtol=1e-12)
    assert not {"low", "high"} & set(stats.top_heads("variability").columns)  # which has no standard error
