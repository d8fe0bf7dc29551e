"""Several models side by side: layers at their depth, notes on differences, refusals."""

from __future__ import annotations

import math
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import pytest

import tl_attnstats as ta
from tests import tiny
from tests.plotting.made import by_layer, collected, planted
from tl_attnstats.cli import main
from tl_attnstats.errors import MetricError, StatsError

HEADS = ("layer", "head")


@pytest.fixture(scope="module")
def deep() -> ta.AttentionStats:
    return collected(n_layers=5, n_heads=3, n_sentences=25)


@pytest.fixture(scope="module")
def flat() -> ta.AttentionStats:
    return collected(n_layers=3, n_heads=4, n_sentences=25)


@pytest.fixture(scope="module")
def both(deep: ta.AttentionStats, flat: ta.AttentionStats) -> ta.Comparison:
    return ta.compare({"deep": deep, "flat": flat})


def test_layers_stand_at_their_relative_depth(both: ta.Comparison) -> None:
    assert both.dataset["depth"].values.tolist() == [0, 0.25, 0.5, 0.75, 1]
    assert both.dataset["measured"].sel(model="deep").values.all()
    assert both.dataset["measured"].sel(model="flat").values.tolist() == [True, False, True, False, True]


@pytest.mark.parametrize(("name", "labels"), [
    ("distance", {}), ("variability", {}), ("pos_to", {"tag": "NOUN"}), ("dep_to", {"relation": "nmod"}),
    ("dependency_alignment", {"direction": "to_parent"}),
])  # fmt: skip
def test_layer_means_are_kept_and_interpolated_between_layers(
    both: ta.Comparison, name: str, labels: dict[str, str]
) -> None:
    for model, step in (("deep", 1), ("flat", 2)):
        values = both.stats[model].head_values(name, **labels).values
        means = [sum(v for v in heads if not math.isnan(v)) / np.isfinite(heads).sum() for heads in values]
        line = both.dataset[name].sel(model=model, **labels).values
        np.testing.assert_allclose(line[::step], means)
    np.testing.assert_allclose(line[1], (means[0] + means[1]) / 2)
    np.testing.assert_allclose(line[3], (means[1] + means[2]) / 2)


def test_equal_depths_of_different_models_are_one_depth() -> None:
    comparison = ta.compare({"a": planted(4), "b": planted(7), "c": planted(10)})
    assert comparison.dataset.sizes["depth"] == 4 + 3 + 6
    assert comparison.dataset["measured"].sel(depth=1 / 3, method="nearest").all()


def test_layers_beyond_those_collected_are_not_extrapolated() -> None:
    part = planted(9, layers=[2, 4, 6], distance=by_layer(1, 3, 7))
    comparison = ta.compare({"part": part, "whole": planted(9)})
    line = comparison.dataset["distance"].sel(model="part").values
    np.testing.assert_allclose(line, [math.nan, math.nan, 1, 2, 3, 5, 7, math.nan, math.nan])
    assert any("part: the file has 3 of 9 layers" in note for note in comparison.notes)
    assert comparison.heads[comparison.heads["model"] == "part"]["depth"].unique().tolist() == [0.25, 0.5, 0.75]


def test_a_layer_without_a_value_stays_without() -> None:
    distance = by_layer(1, 2, 3, 4, 5)
    distance[2] = math.nan
    comparison = ta.compare({"a": planted(5, distance=distance), "b": planted(9)})
    line = comparison.dataset["distance"].sel(model="a").values
    np.testing.assert_allclose(line, [1, 1.5, 2, 2.5, math.nan, 3.5, 4, 4.5, 5])


def test_the_model_says_how_many_layers_it_has(tiny_decoder: Any) -> None:
    corpus = ta.Corpus(tiny.sentences(3))
    part = ta.collect(tiny_decoder, corpus, ["distance"], layers=[1], progress=False)
    whole = ta.collect(tiny_decoder, corpus, ["distance"], progress=False)
    comparison = ta.compare({"part": part, "whole": whole})
    line = comparison.dataset["distance"].sel(model="part").values
    np.testing.assert_allclose(line, [math.nan, float(whole["distance"].sel(layer=1).mean()), math.nan], rtol=1e-6)


def test_errors_of_layer_means_are_their_spread_over_replicates(both: ta.Comparison) -> None:
    for name, labels in (("distance", {}), ("dependency_alignment", {"direction": "either"})):
        replicates = both.stats["flat"][f"{name}_replicates"].values
        means = [[np.mean(heads[np.isfinite(heads)]) for heads in layers] for layers in replicates]
        found = both.dataset[f"{name}_se"].sel(model="flat", **labels).values
        np.testing.assert_allclose(found[::2], np.std(means, axis=0, ddof=1))
        between = [(first + second) / 2 for first, second, _ in means]
        np.testing.assert_allclose(found[1], np.std(between, ddof=1))
    assert both.dataset["dependency_alignment_se"].sel(direction="to_parent").isnull().all()
    assert "pos_to_se" not in both.dataset
    assert "variability_se" not in both.dataset


def test_means_over_all_heads_with_their_errors(both: ta.Comparison) -> None:
    rows = both.means.set_index(["statistic", "label", "model"])
    row = rows.loc[("entropy", "", "deep")]
    values = both.stats["deep"]["entropy"].values
    assert row["mean"] == pytest.approx(np.nanmean(values))
    assert row["std"] == pytest.approx(np.nanstd(values, ddof=1))
    replicates = both.stats["deep"]["entropy_replicates"].values
    assert row["se"] == pytest.approx(np.std([np.nanmean(values) for values in replicates], ddof=1))
    assert math.isnan(rows.loc[("pos_to", "NOUN", "deep")]["se"])


def test_heads_are_those_of_the_statistics(both: ta.Comparison) -> None:
    heads = both.heads.set_index(["model", "statistic", "label", *HEADS])
    for place, value in (
        (("deep", "distance", "", 4, 2), both.stats["deep"]["distance"].sel(layer=4, head=2)),
        (("flat", "pos_from", "VERB", 1, 3), both.stats["flat"]["pos_from"].sel(layer=1, head=3, tag="VERB")),
    ):
        row = heads.loc[place]
        assert row["value"] == pytest.approx(float(value))
        assert row["depth"] == place[3] / (4 if place[0] == "deep" else 2)
    error = both.stats["deep"]["distance_se"].sel(layer=4, head=2)
    assert heads.loc[("deep", "distance", "", 4, 2)]["error"] == pytest.approx(float(error))
    for model, name, layer, head in (("deep", "distance", 4, 2), ("flat", "entropy", 1, 3)):
        doubtful = heads.loc[(model, name, "", layer, head)]["doubtful"]
        assert doubtful == bool(both.stats[model].doubtful(name).sel(layer=layer, head=head))
    n_labels = sum(len(both.labels_of(name)) for name in both.statistics)
    assert len(both.heads) == n_labels * (5 * 3 + 3 * 4)


def test_comparable_statistics_are_those_with_a_value_for_each_head(both: ta.Comparison) -> None:
    expected = {
        "null_share",
        "pos_to",
        "pos_from",
        "dep_to",
        "dependency_alignment",
        "distance",
        "entropy",
        "variability",
        "behaviour",
        "sink_share",
        "sink_rate",
        "pos_to_without_sinks",
        "dep_to_without_sinks",
        "alignment_by_position",
        "alignment_excess",
    }
    assert set(both.statistics) == expected
    assert not any(" left out" in note for note in both.notes)
    assert repr(both) == f"Comparison of deep, flat\n{', '.join(both.statistics)}"


def test_claims_are_those_of_each_model(both: ta.Comparison) -> None:
    table = both.claims_table()
    assert len(table) == 2 * 8
    for model, stats in both.stats.items():
        own = table[table["model"] == model].set_index("claim")
        for claim in ta.claims_of(stats):
            np.testing.assert_equal(own.loc[claim.name, "value"], claim.value)
            assert own.loc[claim.name, "verdict"] == claim.verdict
        assert set(own.index[own["beyond_verdict"].notna()]) == set(ta.counterparts_of(stats))
        for name, claim in ta.counterparts_of(stats).items():
            np.testing.assert_equal(own.loc[name, "beyond_value"], claim.value)
            assert own.loc[name, "beyond_quantity"] == claim.quantity


def test_statistics_that_one_model_lacks_are_left_out_with_a_note(deep: ta.AttentionStats) -> None:
    few = collected(n_layers=2, metrics=["distance", "dep_to"], n_sentences=25)
    comparison = ta.compare({"deep": deep, "few": few})
    assert set(comparison.statistics) == {"distance", "dep_to"}
    assert "entropy is left out: few has none." in comparison.notes
    assert "few: no bootstrap replicates, so the errors of means and claims are unknown." in comparison.notes
    assert comparison.dataset["distance_se"].sel(model="few").isnull().all()
    assert comparison.dataset["distance_se"].sel(model="deep").notnull().any()


def test_statistics_with_different_settings_are_left_out_with_a_note(deep: ta.AttentionStats) -> None:
    fine = collected(n_layers=2, metrics=["distance", ta.DepTo(subtypes=True)], n_sentences=25)
    comparison = ta.compare({"deep": deep, "fine": fine})
    assert comparison.statistics == ["distance"]
    said = 'dep_to is left out: collected with different settings (deep {"subtypes": false}; fine {"subtypes": true}).'
    assert said in comparison.notes


def test_nothing_in_common_is_refused() -> None:
    with pytest.raises(
        StatsError, match=r"no statistic in common; distance is left out: b has none\. entropy is left out"
    ):
        ta.compare({"a": collected(metrics=["distance"]), "b": collected(metrics=["entropy"])})


def test_natural_differences_give_notes_and_are_not_refused(deep: ta.AttentionStats) -> None:
    encoder = tiny.renamed(
        collected(causal=False, n_sentences=25),
        null="special",
        special_tokens="[CLS] … [SEP]",
        tokens=99,
        dtype="bfloat16",
    )
    notes = ta.compare({"d": tiny.renamed(deep, special_tokens="…", dtype="float32"), "e": encoder}).notes
    assert any(note.startswith("Direction differs: d looks back only, e looks both ways.") for note in notes)
    null = "Null tokens differ: d the first position (…), e special tokens ([CLS] … [SEP])."
    assert any(note.startswith(null) for note in notes)
    assert "Not all sequences begin with a special token: d does not, e does." in notes
    assert any(note.endswith(f"distances are in tokens: d {deep.provenance['tokens']}, e 99 tokens.") for note in notes)
    assert "Precision differs: d float32, e bfloat16." in notes


def test_equal_runs_give_no_notes(tiny_decoder: Any) -> None:
    stats = ta.collect(tiny_decoder, ta.Corpus(tiny.sentences(4)), progress=False)
    assert ta.compare({"a": stats, "b": stats}).notes == ()


def test_different_corpora_are_refused_unless_allowed(deep: ta.AttentionStats) -> None:
    other = collected(n_sentences=3)
    message = (
        r"compare: Different corpora or annotations: a saw 25 sequences of batches given in Python; b saw 3 sequences "
        r"of batches given in Python\. Collect on the same corpus .* allow_different=True \(--allow-different\)"
    )
    with pytest.raises(StatsError, match=message):
        ta.compare({"a": deep, "b": other})
    comparison = ta.compare({"a": deep, "b": other}, allow_different=True)
    assert comparison.notes[0].startswith("Different corpora or annotations: a saw 25 sequences")


def test_labels_that_one_model_lacks_are_left_out_with_a_note(deep: ta.AttentionStats) -> None:
    few = planted(3)
    few.dataset = few.dataset.assign(
        pos_to=(("layer", "head", "tag"), np.full((3, 4, 2), 0.1)),
        pos_to_se=(("layer", "head", "tag"), np.ones((3, 4, 2))),
    ).assign_coords(tag=["NOUN", "ZZZ"])
    few.dataset.attrs |= {
        "corpus_fingerprint": deep.provenance["corpus_fingerprint"],
        "settings": deep.provenance["settings"],
    }
    comparison = ta.compare({"deep": deep, "few": few})
    assert comparison.labels_of("pos_to") == ["NOUN"]
    assert "Left out because not all models have it: “ADJ”, “PUNCT”, “VERB”, “X”, “ZZZ” of pos_to." in comparison.notes


@pytest.mark.parametrize(("given", "message"), [
    (lambda s: {"a": s}, r"compare: got 1 model\(s\) \(a\), expected two or more"),
    (lambda s: [s, s], "compare: got list, expected statistics by name"),
    (lambda s: {"a": s, " ": s}, "compare: got the name ' ', expected a non-empty name"),
    (lambda s: {"a": s, "b": s.dataset}, "compare: b is of type Dataset, expected AttentionStats"),
])  # fmt: skip
def test_mistakes_are_answered(deep: ta.AttentionStats, given: Any, message: str) -> None:
    with pytest.raises(StatsError, match=message):
        ta.compare(given(deep))


def test_unknown_statistics_and_labels_are_answered(both: ta.Comparison) -> None:
    with pytest.raises(
        MetricError, match="no statistic 'length' in this comparison; there are: alignment_by_position, "
    ):
        both.labels_of("length")
    with pytest.raises(MetricError, match="label='NUN': pos_to takes one of ADJ, NOUN, "):
        both.check_label("pos_to", "NUN")
    with pytest.raises(MetricError, match="label='NOUN': distance takes no label"):
        both.check_label("distance", "NOUN")


@pytest.fixture(scope="module")
def runs(deep: ta.AttentionStats, flat: ta.AttentionStats, tmp_path_factory: Any) -> Path:
    directory: Path = tmp_path_factory.mktemp("runs")
    for name, stats in (("a", deep), ("b", flat), ("other", collected(n_sentences=3))):
        tiny.renamed(stats, model="one" if name == "b" else "two").save(directory / name / "stats.nc")
    return directory


def test_command_writes_page_table_and_figures(runs: Path, tmp_path: Path, capsys: Any) -> None:
    out = tmp_path / "out"
    assert main(["compare", str(runs / "a"), str(runs / "b" / "stats.nc"), "--out", str(out)]) == 0
    captured = capsys.readouterr()
    assert captured.err == ""
    assert f"comparison: {out / 'comparison.html'}" in captured.out
    assert "note: two: the file does not say how many layers the model has; 5 are assumed." in captured.out
    table = pd.read_csv(out / "claims.csv")
    assert table["model"].unique().tolist() == ["two", "one"]
    figures = captured.out.split("figures: ")[1].splitlines()[0].split(", ")
    assert {"claims.png", "distance_by_depth.png", "distance_heads.png", "pos_to.png"} < set(figures)
    assert {path.name for path in out.iterdir()} == {"comparison.html", "claims.csv", *figures}


@pytest.mark.parametrize(("given", "names"), [
    (["{}/a", "{}/other", "--allow-different"], ["a", "other"]),
    (["x={}/a", "{}/b"], ["x", "one"]), (["x={}/a", "y={}/other", "--allow-different"], ["x", "y"]),
])  # fmt: skip
def test_command_takes_names_from_the_user_the_model_or_the_directory(
    runs: Path, tmp_path: Path, given: list[str], names: list[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    compared = []
    monkeypatch.setattr(
        ta.report, "write_comparison", lambda comparison, out: compared.append(comparison) or [out, out]
    )
    assert main(["compare", *(text.format(runs) for text in given), "--out", str(tmp_path / "out")]) == 0
    assert compared[0].models == names


@pytest.mark.parametrize(("given", "message"), [
    (["{}/a"], "compare: got 1 model(s) (two), expected two or more"),
    (["{}/a", "{}/a"], "compare: got the names a, a, expected distinct names; pass NAME=DIR"),
    (["x={}/a", "x={}/b"], "compare: got the names x, x, expected distinct names"),
    (["{}/a", "{}/other"], "compare: Different corpora or annotations: a saw 25"),
    (["{}/a", "{}/none"], "none: no such file"),
])  # fmt: skip
def test_command_answers_mistakes_in_one_line(
    runs: Path, tmp_path: Path, capsys: Any, given: list[str], message: str
) -> None:
    assert main(["compare", *(text.format(runs) for text in given), "--out", str(tmp_path / "out")]) == 2
    captured = capsys.readouterr()
    assert captured.err.count("\n") == 1
    assert message in captured.err
    assert not list((tmp_path / "out").glob("*"))
