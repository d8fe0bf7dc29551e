"""Differences between two runs over the same sentences, and their paired errors."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest
import torch

import tl_attnstats as ta
from tests import tiny
from tl_attnstats.errors import StatsError

N_LAYERS, N_HEADS, N_REPLICATES = 2, 3, 40
METRICS = ["null_share", "distance", "pos_to", "variability", "dependency_alignment", ta.Bootstrap(N_REPLICATES)]
Data = list[tuple[np.ndarray, ta.Sentence]]


@pytest.fixture(scope="module")
def data() -> tuple[Data, Data]:
    """Similar patterns of two models over the same sentences."""
    before: Data = []
    after: Data = []
    for s in tiny.sentences(20, seed=3):
        pattern, other = (tiny.patterns(N_LAYERS, N_HEADS, len(s.words), True, seed + s.number) for seed in (0, 1000))
        before.append((pattern, s))
        after.append((0.9 * pattern + 0.1 * other, s))
    return before, after


@pytest.fixture(scope="module")
def runs(data: tuple[Data, Data]) -> tuple[ta.AttentionStats, ta.AttentionStats]:
    before, after = (ta.collect_patterns(patterns, METRICS) for patterns in data)
    return before, after


def distance(data: Data, times: list[int]) -> np.ndarray:
    """Mean distance of each head by plain loops; sentence s counts `times[s]` times."""
    value = np.zeros((N_LAYERS, N_HEADS))
    for layer, head in np.ndindex(N_LAYERS, N_HEADS):
        above = below = 0.0
        for (pattern, sentence), n in zip(data, times, strict=True):
            for i in range(len(sentence.words)):
                for j in range(1, i + 1):
                    above += n * pattern[layer, head, i, j] * (i - j)
                    below += n * pattern[layer, head, i, j]
        value[layer, head] = above / below
    return value


def test_paired_errors_equal_plain_loops_over_the_bootstrap(data: tuple[Data, Data], runs: Any) -> None:
    once = [1] * len(data[0])
    times = np.stack([np.random.default_rng(s.digest).poisson(1, N_REPLICATES) for _, s in data[0]], 1).tolist()
    old, new = ([distance(part, n) for n in (once, *times)] for part in data)
    differences = np.array(new) - np.array(old)
    changed = ta.difference(*runs)
    np.testing.assert_allclose(changed["distance"], differences[0], atol=1e-6)  # sums of float32 weights
    np.testing.assert_allclose(changed["distance_se"], differences[1:].std(0, ddof=1), atol=1e-6)
    unpaired = np.hypot(*(run["distance_se"].values for run in runs))
    assert (changed["distance_se"].values < 0.7 * unpaired).all()
    assert "distance_error" not in changed


def test_statistics_without_replicates_have_a_bound(data: tuple[Data, Data], runs: Any) -> None:
    changed = ta.difference(*runs)
    before, after = runs
    nouns = {"tag": "NOUN"}
    np.testing.assert_allclose(
        changed["pos_to"].sel(nouns), after.head_values("pos_to", **nouns) - before.head_values("pos_to", **nouns)
    )
    bound = changed["pos_to_error"].sel(nouns)
    np.testing.assert_allclose(
        bound, before.head_values("pos_to_se", **nouns) + after.head_values("pos_to_se", **nouns)
    )
    assert "pos_to_se" not in changed
    # The paired standard error of the difference, from each sentence's influence on both runs.
    influences = []
    for part, run in zip(data, runs, strict=True):
        a = np.array([(p[..., 1:] * [w.upos == "NOUN" for w in s.words[1:]]).sum((2, 3)) for p, s in part])
        b = np.array([p[..., 1:].sum((2, 3)) for p, _ in part])
        influences.append((a - run.head_values("pos_to", **nouns).values * b) / b.sum(0))
    n = len(data[0])
    paired = np.sqrt(n / (n - 1) * ((influences[1] - influences[0]) ** 2).sum(0))
    assert (paired <= bound.values).all()
    np.testing.assert_allclose(changed["variability_error"], before["variability_error"] + after["variability_error"])
    alignment = changed["dependency_alignment_se"]
    assert np.isfinite(alignment.sel(direction="either")).all()
    assert np.isnan(alignment.sel(direction="to_parent")).all()
    assert np.isfinite(changed["dependency_alignment_error"]).all()


def test_results_have_names_units_and_formulas(runs: Any) -> None:
    changed = ta.difference(*runs)
    assert changed["distance"].attrs == {
        "long_name": "change of " + runs[0]["distance"].attrs["long_name"],
        "formula": "distance after - distance before",
        "units": "tokens",
    }
    assert changed["distance_se"].attrs["units"] == "tokens"
    assert changed["distance_se"].attrs["long_name"].endswith("paired by sentence")
    assert changed["pos_to_error"].attrs["long_name"].startswith("bound on the error")
    assert changed.attrs["sequences"] == 20
    assert changed.attrs["interventions_before"] == changed.attrs["interventions_after"] == "none"
    frame = changed[["distance", "distance_se"]].to_dataframe().sort_values("distance", key=abs, ascending=False)
    assert frame.index[0] == np.unravel_index(np.abs(changed["distance"].values).argmax(), (N_LAYERS, N_HEADS))


def test_a_run_does_not_differ_from_itself(runs: Any) -> None:
    changed = ta.difference(runs[0], runs[0])
    for name in runs[0].head_statistics:
        assert (changed[name] == 0).all()
    assert (changed["distance_se"] == 0).all()


def test_a_label_that_one_run_lacks_counts_zero(data: tuple[Data, Data]) -> None:
    few = [(pattern.copy(), sentence) for pattern, sentence in data[0]]
    before = ta.collect_patterns(few, ["pos_to"])
    after = ta.collect_patterns(few, ["pos_to"])
    after.dataset = after.dataset.sel(tag=[tag for tag in after["tag"].values if tag != "NOUN"])
    changed = ta.difference(before, after)["pos_to"].sel(tag="NOUN")
    np.testing.assert_allclose(changed, -before["pos_to"].sel(tag="NOUN"))


def test_one_replicate_gives_no_error(data: tuple[Data, Data]) -> None:
    before, after = (ta.collect_patterns(part, ["distance", ta.Bootstrap(1)]) for part in data)
    assert np.isnan(ta.difference(before, after)["distance_se"]).all()


@pytest.mark.parametrize(
    ("how", "message"),
    [
        ({"model_name": "other"}, "difference: different model: 'patterns' here, 'other' there"),
        ({"null": "none"}, "difference: different null: 'first' here, 'none' there"),
        ({"metrics": ["distance"]}, "difference: different settings"),
    ],
)
def test_runs_with_other_settings_are_refused(
    data: tuple[Data, Data], runs: Any, how: dict[str, Any], message: str
) -> None:
    with pytest.raises(StatsError, match=message):
        ta.difference(runs[0], ta.collect_patterns(data[1], **({"metrics": METRICS} | how)))


def test_other_sentences_are_refused(data: tuple[Data, Data], runs: Any) -> None:
    fewer = ta.collect_patterns(data[1][:-1], METRICS)
    with pytest.raises(
        StatsError, match="difference: different sequences: 20 before, 19 after; expected two runs over"
    ):
        ta.difference(runs[0], fewer)
    again = [data[1][0], *data[1][:-1]]  # as many sentences, one of them twice
    again[1] = again[0]
    lengths = [len(s.words) for _, s in data[1]]
    message = "tokens" if 2 * lengths[0] + sum(lengths[1:-1]) != sum(lengths) else "corpus fingerprint"
    with pytest.raises(StatsError, match=f"difference: different {message}"):
        ta.difference(runs[0], ta.collect_patterns(again, METRICS))
    with pytest.raises(StatsError, match=r"after: got str, expected AttentionStats"):
        ta.difference(runs[0], "stats.nc")  # type: ignore[arg-type]


def test_ablating_a_head_of_smollm2_changes_later_layers_alone(smollm2: Any, sample_corpus: ta.Corpus) -> None:
    corpus = sample_corpus[:20]

    def zero(z: torch.Tensor, hook: Any) -> torch.Tensor:
        z[:, :, 4] = 0
        return z

    metrics = ["null_share", "distance", "entropy", "pos_to", "bootstrap"]
    how = {"source": "hooks", "layers": range(8), "progress": False}
    clean = ta.collect(smollm2, corpus, metrics, **how)
    with smollm2.hooks(fwd_hooks=[("blocks.3.attn.hook_z", zero)]):
        ablated = ta.collect(smollm2, corpus, metrics, **how)
    changed = ta.difference(clean, ablated)
    assert changed.attrs["interventions_before"] == "none"
    assert changed.attrs["interventions_after"].startswith("blocks.3.attn.hook_z: ")
    for name in ("null_share", "distance", "entropy", "pos_to"):
        assert float(np.abs(changed[name].sel(layer=slice(0, 3))).max()) < 1e-6, name
        assert float(np.abs(changed[name].sel(layer=slice(4, 7))).max()) > 1e-3, name
    later = {"layer": slice(4, 7)}
    paired = changed["distance_se"].sel(later)
    unpaired = np.hypot(clean["distance_se"].sel(later), ablated["distance_se"].sel(later))
    assert float((paired < 0.5 * unpaired).mean()) > 0.95
    # Editing the weights has the same effect, and changes the fingerprint.
    weight = smollm2.original_model.model.layers[3].self_attn.o_proj.weight.data
    columns = slice(4 * 64, 5 * 64)
    before = weight[:, columns].clone()
    weight[:, columns] = 0
    edited = ta.collect(smollm2, corpus, metrics, **how)
    weight[:, columns] = before
    assert edited.provenance["model_fingerprint"] != clean.provenance["model_fingerprint"]
    np.testing.assert_allclose(ta.difference(clean, edited)["distance"], changed["distance"], atol=1e-5)
