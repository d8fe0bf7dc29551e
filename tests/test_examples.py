"""The scripts in examples/ run, and print the right values."""

from __future__ import annotations

import runpy
from pathlib import Path
from typing import Any

import matplotlib.pyplot as plt
import numpy as np
import pytest
import torch

import tl_attnstats as ta
from tests import tiny
from tests.running import run_alone
from tl_attnstats.collectors.base import REGISTRY
from tl_attnstats.results.claims import replicates_of

EXAMPLES = Path(__file__).parents[1] / "examples"
FINDINGS = EXAMPLES.parent / "docs" / "findings.md"
TEXT = (
    "The cat sat on the mat near Zürich. Dogs bark at 7 cats.\nIt was late, and she saw the old house of NATO again.\n"
)


@pytest.mark.parametrize("kind", ["decoder", "encoder"])
def test_reproduce_vig_belinkov(
    kind: str, tiny_decoder: Any, tiny_encoder: Any, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: Any
) -> None:
    model = {"decoder": tiny_decoder, "encoder": tiny_encoder}[kind]
    (tmp_path / "text.txt").write_text(TEXT, encoding="utf-8")
    monkeypatch.setattr(ta, "load_model", lambda name: {"a-model": model}[name])
    script = runpy.run_path(str(EXAMPLES / "reproduce_vig_belinkov.py"))
    script["main"](["a-model", "--text", str(tmp_path / "text.txt")])
    printed = capsys.readouterr().out
    rows = [[cell.strip() for cell in line.strip("|").split("|")] for line in printed.splitlines() if "|" in line]
    corpus = ta.Corpus.from_text_file(tmp_path / "text.txt")
    stats = ta.collect(model, corpus, prepend_bos=False, progress=False)
    here = {row[0]: row[2] for row in rows}
    assert here["sentences"] == "3"
    null_share = float(here["null share, mean over heads"].split()[0])
    assert null_share == pytest.approx(float(stats["null_share"].mean()), abs=0.005)
    best = stats.top_heads("dependency_alignment", direction="either").iloc[0]
    expected = f"{best['dependency_alignment']:.3f} ± {best['se']:.3f} ({best['head']})"
    assert here["largest dependency alignment"] == expected
    layer = int(stats.by_layer("distance")["mean"].idxmax())
    assert here["layer that looks furthest"] == f"{layer} (of 0 to 2)"
    lengths = [abs(span) for span, n in dependencies(stats).items() for _ in range(n)]
    assert here["mean length of a dependency, in tokens"] == f"{sum(lengths) / len(lengths):.2f}"
    verdicts = [row[3] for row in rows if len(row) == 4][2:]
    assert verdicts == [claim.verdict for claim in ta.claims_of(stats)]


Table = list[list[str]]


def tables(printed: str) -> list[Table]:
    """The cells of each table in Markdown, without the line under the titles."""
    blocks = [block.splitlines() for block in printed.split("\n\n")]
    found = [[line for line in block if line.startswith("|")] for block in blocks]
    return [[[c.strip() for c in line.strip("|").split("|")] for line in (t[0], *t[2:])] for t in found if t]


def test_findings(tiny_decoder: Any, gold_corpus: ta.Corpus, tmp_path: Path, capsys: Any) -> None:
    stats = ta.collect(tiny_decoder, gold_corpus[:40], progress=False)
    stats.save(tmp_path / "stats.nc")
    script = runpy.run_path(str(EXAMPLES / "findings.py"))
    script["main"]([str(tmp_path), "--layers", "1", "2"])
    sinks, tokens, alignment, heads, claims = tables(capsys.readouterr().out)
    page = FINDINGS.read_text(encoding="utf-8")
    for titles in (sinks[0], alignment[0], heads[0], claims[0]):
        assert f"| {' | '.join(titles)} |" in page

    det = {"tag": "DET"}
    here = [float(stats.by_layer(name, **det)["mean"][2]) for name in ("pos_to", "pos_to_without_sinks")]
    assert sinks[2][0] == "2"
    assert [float(cell) for cell in sinks[2][3:]] == pytest.approx(here, abs=6e-4)
    both = stats["sink_share"].sel(layer=[1, 2])
    assert float(sinks[3][1]) == pytest.approx(float(both.mean()), abs=6e-4)
    assert float(sinks[4][1]) == pytest.approx(float(stats["sink_share"].sel(layer=0).mean()), abs=6e-4)
    assert float(tokens[-1][1]) == pytest.approx(float(both.mean()), abs=6e-4)
    assert sum(float(row[1]) for row in tokens[1:-1]) == pytest.approx(float(tokens[-1][1]), abs=4e-3)

    for row, layer in zip(alignment[1:4], (0, 1, 2), strict=True):
        whole, by_position, excess = (float(cell.split()[0].replace("−", "-")) for cell in row[1:])
        means = stats.by_layer("alignment_excess", direction="either")["mean"]
        assert excess == pytest.approx(means[layer], abs=6e-5)
        assert whole - by_position == pytest.approx(excess, abs=2e-4)
    # The error of each head, from the same replicates, is that of the statistics.
    spread = replicates_of(stats, "alignment_excess").std(0, ddof=1)
    np.testing.assert_allclose(spread, stats["alignment_excess_se"].sel(direction="either"), rtol=1e-9)
    for place, kind, name in ((1, "alignment", "dependency_alignment"), (4, "excess", "alignment_excess")):
        top = stats.top_heads(name, n=12, max_null=0.9, direction="either")
        assert [row[1] for row in heads[place : place + 3]] == [*top["head"][:3]]
        overlapping = sum(high >= top["low"][0] for high in top["high"][1:])
        assert heads[place][0] == f"{kind}: {overlapping} more may be first"

    named = {claim.statement: claim for claim in ta.claims_of(stats)}
    assert len(claims) == 4
    for statement, shown, verdict, after, _ in claims[1:]:
        assert (shown, verdict) == (named[statement].shown, named[statement].verdict)
        if statement == "Heads that look further follow dependencies less":
            r = stats.correlation("distance", "alignment_excess", direction="either").r
            number = after.split()[0].replace("−", "-")
            half_a_unit = 0.5 * 10.0 ** -len(number.partition(".")[2])  # of its last digit, which its error chooses
            assert float(number) == pytest.approx(r, abs=1.001 * half_a_unit)


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (["--layers", "1", "9"], "--layers 1 9: expected two layers of the run"),
        (["--layers", "2", "1"], "--layers 2 1: expected two layers of the run"),
    ],
)
def test_findings_refuses(
    arguments: list[str], message: str, tiny_decoder: Any, gold_corpus: ta.Corpus, tmp_path: Path, capsys: Any
) -> None:
    main = runpy.run_path(str(EXAMPLES / "findings.py"))["main"]
    ta.collect(tiny_decoder, gold_corpus[:3], progress=False).save(tmp_path / "stats.nc")
    with pytest.raises(SystemExit):
        main([str(tmp_path), *arguments])
    assert message in capsys.readouterr().err
    ta.collect(tiny_decoder, gold_corpus[:3], ["distance"], progress=False).save(tmp_path / "stats.nc")
    with pytest.raises(SystemExit):
        main([str(tmp_path)])
    assert "has no sinks, pos_to" in capsys.readouterr().err


ABLATE = EXAMPLES / "ablate_induction_heads.py"


def test_ablate_induction_heads(tiny_decoder: Any, monkeypatch: pytest.MonkeyPatch, capsys: Any) -> None:
    monkeypatch.setattr(ta, "load_model", lambda name: {"a-model": tiny_decoder}[name])
    script = runpy.run_path(str(ABLATE))
    script["main"](["a-model", "--sequences", "4", "--length", "12", "--heads", "2", "--draws", "3"])
    named, losses = tables(capsys.readouterr().out)
    page = FINDINGS.read_text(encoding="utf-8")
    for titles in (named[0], losses[0]):
        assert f"| {' | '.join(titles)} |" in page
    corpus = ta.Corpus.repeated_tokens(tiny_decoder, 4, 12, seed=0)
    stats = ta.collect(tiny_decoder, corpus, ["behaviour", "null_share"], progress=False)
    assert [row[0] for row in named[1:]] == [*stats.top_heads("behaviour", n=7, kind="induction")["head"]]
    strongest = ", ".join(stats.top_heads("behaviour", n=2, max_null=0.9, kind="induction")["head"])
    kinds = [row[0].split(":")[0] for row in losses[1:]]
    assert kinds == ["none", "strongest", "alone", "alone", "random", "random", "random"]
    assert losses[2][0] == f"strongest: {strongest}"
    clean, ablated, rise = (float(x.split()[0].replace("−", "-")) for x in (losses[1][3], losses[2][3], losses[2][5]))
    assert ablated - clean == pytest.approx(rise, abs=0.02)


def test_random_heads_are_others_of_the_same_layers(tiny_decoder: Any) -> None:
    corpus = ta.Corpus.repeated_tokens(tiny_decoder, 2, 8)
    stats = ta.collect(tiny_decoder, corpus, ["behaviour"], progress=False)  # 4 heads a layer
    controls = runpy.run_path(str(ABLATE))["controls"]
    heads = [(1, 2), (0, 3), (1, 0)]
    drawn = list(controls(stats, heads, 30, 5))
    assert drawn == list(controls(stats, heads, 30, 5)) != list(controls(stats, heads, 30, 6))
    assert {head for draw in drawn for head in draw} == {(0, 0), (0, 1), (0, 2), (1, 1), (1, 3)}
    assert {tuple(layer for layer, _ in draw) for draw in drawn} == {(0, 1, 1)}
    assert all(len(set(draw)) == 3 for draw in drawn)
    with pytest.raises(SystemExit, match="layer 1 has too few other heads"):
        list(controls(stats, [(1, 0), (1, 1), (1, 2)], 1, 0))


def test_a_zeroed_head_writes_nothing(smollm2_tokenizer: Any) -> None:
    """Its loss is that of a model in whose output projection the head's columns are 0."""
    model = tiny.decoder(smollm2_tokenizer, seed=3)
    ids = torch.tensor([s.ids for s in ta.Corpus.repeated_tokens(model, 10, 6)])
    loss = runpy.run_path(str(ABLATE))["loss"]
    clean, zeroed = loss(model, ids, []), loss(model, ids, [(0, 1), (2, 0), (2, 3)])
    with torch.no_grad():
        for layer, head in ((0, 1), (2, 0), (2, 3)):
            model.blocks[layer].attn.o.weight[:, 8 * head : 8 * head + 8] = 0
        by_token = -model(ids)[:, :-1].double().log_softmax(-1).gather(-1, ids[:, 1:, None])[..., 0]
    # Tokens 1 to 6, of which the last is the first repeated one, then 7 to 11.
    expected = np.stack([by_token[:, :6].mean(1), by_token[:, 6:].mean(1)])
    np.testing.assert_allclose(zeroed, expected, rtol=1e-5)
    assert np.abs(zeroed - clean).min() > 1e-3


@pytest.mark.slow
def test_smollm2_needs_its_induction_heads_to_repeat(smollm2: Any) -> None:
    script = runpy.run_path(str(ABLATE))
    length = 40
    corpus = ta.Corpus.repeated_tokens(smollm2, 8, length, seed=0)
    stats = ta.collect(smollm2, corpus, ["behaviour", "null_share"], progress=False)
    strongest = script["induction_heads"](stats, 3)
    others = list(script["controls"](stats, strongest, 5, 0))
    ids = torch.tensor([s.ids for s in ta.Corpus.repeated_tokens(smollm2, 8, length, seed=1)])
    clean, (ablated, *random) = script["measure"](smollm2, ids, [strongest, *others])
    # Nothing predicts random tokens better than a guess among all that are drawn; those seen before can be.
    guess = np.log(len(smollm2.tokenizer) - len(smollm2.tokenizer.added_tokens_decoder))
    assert clean[0].mean() > guess > clean[1].mean() + 1
    # In every sequence, zeroing the three costs more of what was known than zeroing any other three of their layers.
    assert all((ablated.more[1] > other.more[1]).all() for other in random)
    # It takes half of what repetition taught, and what no repetition announced costs the same to a tenth of that.
    learnt = clean[0].mean() - clean[1].mean()
    assert ablated.more[1].mean() > learnt / 2
    assert abs(ablated.more[0].mean()) < ablated.more[1].mean() / 10


def dependencies(stats: ta.AttentionStats) -> dict[int, int]:
    """Number of dependencies of each length: the share of pairs times the number of pairs."""
    state = stats.state["baselines"]
    shares = stats["dependency_by_distance"].values
    pairs = state["dependency_by_distance_b"].values
    return {span: round(share * n) for span, (share, n) in enumerate(zip(shares, pairs, strict=True)) if n}


def test_minimal(tiny_decoder: Any, monkeypatch: pytest.MonkeyPatch, capsys: Any) -> None:
    monkeypatch.setattr(ta, "load_model", lambda name: {"demo": tiny_decoder}[name])
    names = runpy.run_path(str(EXAMPLES / "minimal.py"))
    assert capsys.readouterr().out == f"{names['stats'].top_heads('distance', n=5, max_null=0.9)}\n"
    assert names["stats"].provenance["sequences"] == 2


def test_own_statistic(tiny_decoder: Any, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: Any) -> None:
    monkeypatch.setattr(ta, "load_model", lambda name: {"demo": tiny_decoder}[name])
    (tmp_path / "text.txt").write_text("The cat saw the dog and the dog saw the cat.\n", encoding="utf-8")
    script = runpy.run_path(str(EXAMPLES / "own_statistic.py"))
    try:
        script["main"]([str(tmp_path / "text.txt")])
    finally:
        REGISTRY.pop("mentioned", None)
    first = capsys.readouterr().out.splitlines()[1].split()
    corpus = ta.Corpus.from_text_file(tmp_path / "text.txt")
    pattern, tokens = run_alone(tiny_decoder, corpus[0])
    # Words 3, 6, 7, 8, 9, 10 of 12 repeat an earlier one; rows and columns of BOS do not count.
    again = np.array([word in (3, 6, 7, 8, 9, 10) for word in tokens.words])
    content = pattern[:, :, 1:, 1:]
    share = content[..., again[1:]].sum((-1, -2)) / content.sum((-1, -2))
    layer, head = (int(number) for number in first[1][1:].split("H"))
    assert float(first[3]) == pytest.approx(share[layer, head], abs=1e-5)
    null = pattern[:, :, 1:, 0].mean(-1)
    assert share[layer, head] == pytest.approx(share[null <= 0.9].max(), abs=1e-5)


def test_compare(
    tiny_decoder: Any, tiny_encoder: Any, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: Any
) -> None:
    models = {"one": tiny_decoder, "two": tiny_encoder}
    monkeypatch.setattr(ta, "load_model", lambda name: models[name])
    (tmp_path / "text.txt").write_text(TEXT, encoding="utf-8")
    script = runpy.run_path(str(EXAMPLES / "compare.py"))
    script["main"](["one", "two", "--text", str(tmp_path / "text.txt"), "--out", str(tmp_path / "out")])
    plt.close("all")
    printed = capsys.readouterr().out
    assert (tmp_path / "out" / "comparison.html").is_file()
    corpus = ta.Corpus.from_text_file(tmp_path / "text.txt")
    for name, model in models.items():
        for claim in ta.claims_of(ta.collect(model, corpus, progress=False)):
            (row,) = (line for line in printed.splitlines() if line.startswith(claim.statement))
            assert claim.verdict in row, (name, row)
