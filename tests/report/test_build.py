"""The report's file and its contents, without a browser."""

from __future__ import annotations

import copy
import html
import json
import re
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from markupsafe import Markup

import tl_attnstats as ta
from tests.plotting.made import collected, null_heads, worth
from tl_attnstats.errors import StatsError
from tl_attnstats.report.build import render
from tl_attnstats.report.contents import contents
from tl_attnstats.results.findings import findings
from tl_attnstats.results.numbers import to_error, with_bound, with_error
from tl_attnstats.results.ranking import CORRELATIONS

DATA = re.compile(r'<script type="application/json" id="data">(.*?)</script>', re.DOTALL)


@pytest.fixture(scope="module")
def stats() -> ta.AttentionStats:
    return collected()


def as_large_as(stats: ta.AttentionStats, n_layers: int, n_heads: int) -> ta.AttentionStats:
    """The same values, repeated for more heads, but with a sentence of its own for each exemplar."""
    dataset = stats.dataset
    sizes = dataset.sizes
    wide = dataset.isel(layer=np.arange(n_layers) % sizes["layer"], head=np.arange(n_heads) % sizes["head"])
    wide = wide.assign_coords(layer=range(n_layers), head=range(n_heads))
    texts = wide["exemplar_text"].sel(sentence=wide["exemplar_number"].values.flatten()).values
    wide = wide.drop_vars(["exemplar_text", "sentence"]).assign_coords(sentence=range(len(texts)))
    wide["exemplar_text"] = ("sentence", texts)
    numbers = np.arange(len(texts)).reshape(wide["exemplar_number"].shape)
    wide["exemplar_number"] = (wide["exemplar_number"].dims, numbers)
    position = stats.state["position"].isel(layer=np.arange(n_layers) % sizes["layer"])
    position = position.isel(head=np.arange(n_heads) % sizes["head"])
    position = position.assign_coords(layer=range(n_layers), head=range(n_heads))  # claims read its replicates
    large = copy.copy(stats)
    large.run = replace(stats.run, sums={**stats.state, "position": position})
    large.dataset = wide
    return large


def said(stats: ta.AttentionStats) -> list[Markup]:
    return [finding.said for finding in findings(stats)]


@pytest.mark.parametrize(
    ("n_layers", "n_heads", "megabytes"), [(30, 9, 3), pytest.param(32, 32, 10, marks=pytest.mark.slow)]
)
def test_report_is_small(real: ta.AttentionStats, tmp_path: Path, n_layers: int, n_heads: int, megabytes: int) -> None:
    large = as_large_as(real, n_layers, n_heads)
    assert np.unique(large["exemplar_number"]).size == n_layers * n_heads * 10
    ta.report.write(large, tmp_path / "report.html")
    assert n_layers * n_heads * 1000 < (tmp_path / "report.html").stat().st_size < megabytes * 1_000_000


def test_report_is_the_same_for_the_same_statistics(stats: ta.AttentionStats, tmp_path: Path) -> None:
    stats.save(tmp_path / "stats.nc")
    for name, of in (("a", stats), ("b", stats), ("c", ta.load(tmp_path / "stats.nc"))):
        ta.report.write(of, tmp_path / f"{name}.html")
    a, b, c = ((tmp_path / f"{name}.html").read_bytes() for name in "abc")
    assert a == b == c


def test_report_leaves_the_statistics_alone(stats: ta.AttentionStats) -> None:
    before = stats.dataset.copy(deep=True)
    render(stats)
    assert stats.dataset.identical(before)


def test_report_refers_to_no_other_address(stats: ta.AttentionStats) -> None:
    page = render(stats)
    assert set(re.findall(r"https?://[^\"'\s]*", page)) == {"http://www.w3.org/2000/svg"}  # a namespace
    assert not re.search(r"\bsrc=|@import|url\(", page)


def test_report_that_cannot_be_written_is_answered_with_the_path(stats: ta.AttentionStats, tmp_path: Path) -> None:
    (tmp_path / "file").write_text("in the way")
    with pytest.raises(StatsError, match=r"file/report\.html: cannot be written \("):
        ta.report.write(stats, tmp_path / "file" / "report.html")


def test_no_text_can_end_the_data_or_a_tag(hostile: ta.AttentionStats) -> None:
    page = render(hostile)
    (data,) = DATA.findall(page)
    assert "<" not in data
    texts = json.loads(data)["sentences"].values()
    assert set(texts) <= set(hostile["exemplar_text"].values.tolist())
    assert texts
    assert page.count("<script") == 2
    assert "<img" not in page
    assert html.escape(hostile.provenance["model"], quote=False) in page.replace("&#39;", "'")


@pytest.mark.parametrize("of", [collected, lambda: null_heads(2, None)])
def test_contents_rank_as_head_table_does(of: Any) -> None:
    stats = of()
    found = contents(stats)
    for index, head in enumerate(found["names"]):
        expected = {(row.statistic, row.label): row for row in stats.head_table(head).itertuples()}
        shown = {
            (statistic["name"], label): (statistic["values"][at][index], statistic["ranks"][at][index])
            for statistic in found["statistics"]
            for at, label in enumerate(statistic["labels"])
        }
        assert shown.keys() == expected.keys()
        for key, (value, rank) in shown.items():
            assert (value is None) == (rank is None) == np.isnan(expected[key].value)
            if rank is not None:
                error = expected[key].error
                assert rank == expected[key].rank
                assert to_error(value, error) == to_error(expected[key].value, error)


def test_contents_have_the_baseline_of_behaviours() -> None:
    (behaviour,) = [statistic for statistic in contents(worth())["statistics"] if statistic["name"] == "behaviour"]
    assert behaviour["labels"] == ["previous", "duplicate", "induction"]
    assert behaviour["baseline"] == [0.25, 0.125, 0.0625]


def test_findings_name_the_extremes_with_their_errors(real: ta.AttentionStats) -> None:
    texts = [sentence.striptags() for sentence in said(real)]
    null = real["null_share"].values > 0.9
    assert null.any()
    for name, smallest, words in (
        ("null_share", False, "the most in"),
        ("null_share", True, "the least in"),
        ("distance", False, "looks furthest"),
        ("variability", True, "depends on position most"),
    ):
        values = real[name].values
        error = real.dataset.get(f"{name}_se", real.dataset.get(f"{name}_error")).values
        doubtful = null if name != "null_share" else np.zeros_like(null)
        if not smallest:
            doubtful = doubtful | (error > 0.5 * values)
        values = np.where(doubtful, np.nan, values)
        layer, head = np.unravel_index((np.nanargmin if smallest else np.nanargmax)(values), values.shape)
        (text,) = [text for text in texts if words in text]
        assert f"L{layer}H{head}" in text
        if name == "variability":
            assert "±" not in text
            assert with_bound(values[layer, head], error[layer, head], "binning ≤") in text
        else:
            assert with_error(values[layer, head], error[layer, head]) in text
        assert (f"{doubtful.sum()} doubtful heads are left out" in text) == (doubtful.sum() > 0)
    assert "Doubtful means: null share above 0.9, or error above 50% of the value." in texts
    mean, replicates = real["null_share"].values.mean(), real["null_share_replicates"].values
    assert with_error(mean, float(np.std(replicates.mean((1, 2)), ddof=1))) in texts[0]


def test_findings_bound_the_error_of_a_mean_without_replicates() -> None:
    stats = collected(metrics=["null_share"])
    text = said(stats)[0]
    mean, bound = (float(stats[name].mean()) for name in ("null_share", "null_share_se"))
    assert f" take {with_bound(mean, bound, '± at most')} of attention on average" in text


def test_findings_say_how_many_heads_cannot_be_told_apart() -> None:
    stats = collected(metrics=["distance"])
    stats.dataset["distance"].values[:] = np.arange(20, 8, -1).reshape(3, 4)
    stats.dataset["distance_se"].values[:] = 0.4  # 2.86 of which reach from 20 to 18.86, and from 18 to 19.14
    (text,) = said(stats)
    assert text.striptags().startswith(
        "L0H0 looks furthest, 20.0 ± 0.4 tokens on average (2 more cannot be told apart). Layer 0"
    )
    stats.dataset["distance_se"].values[:] = 0.1
    assert "told apart" not in said(stats)[0]


def test_findings_name_no_head_if_all_are_doubtful() -> None:
    stats = collected()
    stats.dataset["null_share"].values[:] = 0.95
    texts = [sentence.striptags() for sentence in said(stats)]
    for name in ("distance", "dependency alignment", "variability"):
        assert sum(text.startswith(f"Every head's {name} is doubtful.") for text in texts) == 1
    assert sum("L" in re.sub("Layer|layer", "", text) for text in texts) == 1  # only the null share names heads


def test_findings_compare_alignment_with_the_baseline(real: ta.AttentionStats) -> None:
    (text,) = [sentence.striptags() for sentence in said(real) if "follows dependencies" in sentence]
    either = real["dependency_alignment"].sel(direction="either").values
    error = real["dependency_alignment_se"].sel(direction="either").values
    sure = np.where((real["null_share"].values > 0.9) | (error > 0.5 * either), -1, either)
    layer, head = np.unravel_index(sure.argmax(), either.shape)
    chance = float(real["dependency_baseline"].sel(direction="either"))
    assert text.startswith(f"L{layer}H{head} ")
    assert with_error(sure.max(), error[layer, head]) in text
    assert with_error(chance, float(real["dependency_baseline_se"].sel(direction="either"))) in text
    assert f"{(either > chance).sum()} of 270 heads" in text


def test_findings_correlate_statistics_over_heads(real: ta.AttentionStats) -> None:
    text = said(real)[-1].striptags()
    values = {name: real[name].values.flatten() for name in ("distance", "entropy", "variability")}
    values["dependency_alignment"] = real["dependency_alignment"].sel(direction="either").values.flatten()
    expected = [np.corrcoef(values[x], values[y])[0, 1] for x, y in CORRELATIONS]
    assert text.count("270 heads") == len(CORRELATIONS)
    replicates = {name: real[f"{name}_replicates"].values for name in (*CORRELATIONS[0], CORRELATIONS[1][1])}
    spreads = []
    for x, y in CORRELATIONS[:2]:  # variability has no replicates
        there = np.isfinite(replicates[x]) & np.isfinite(replicates[y])
        pairs = zip(replicates[x], replicates[y], there, strict=True)
        spreads.append(np.std([np.corrcoef(a[t], b[t])[0, 1] for a, b, t in pairs], ddof=1))
    for r, spread in zip(expected, [*spreads, np.nan], strict=True):
        assert f" = {'−' if r < 0 else '+'}{with_error(abs(r), spread)} (p = " in text


@pytest.mark.parametrize("n_heads", [2, 4])
def test_findings_about_heads_that_attend_only_to_null_tokens(n_heads: int) -> None:
    found = said(null_heads(n_heads, None))
    assert found[-1] == (
        f"{n_heads} heads have no attention off null tokens; their undetermined values are shown in grey."
    )
    assert not any("nan" in sentence.lower() for sentence in found)


@pytest.mark.parametrize(
    ("metrics", "n"), [(["distance"], 1), (["exemplars"], 0), (["baselines"], 0), (["dependency_alignment"], 1)]
)
def test_findings_are_of_what_was_collected(metrics: list[str], n: int) -> None:
    found = said(collected(metrics=metrics))
    assert len([sentence for sentence in found if not sentence.startswith("Doubtful means")]) == n
