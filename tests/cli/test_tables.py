"""Tables and marked exemplars in the terminal."""

from __future__ import annotations

from collections.abc import Callable
from io import StringIO
from typing import Any

import numpy as np
import pandas as pd
import pytest
import scipy.stats
from rich.console import Console

import tl_attnstats as ta
from tests import tiny
from tl_attnstats.cli import tables as show
from tl_attnstats.errors import MetricError
from tl_attnstats.results.numbers import to_error, with_bound, with_error
from tl_attnstats.results.ranking import mean_error


def printed(function: Callable[..., None], *args: Any, **kwargs: Any) -> str:
    """What a function of `show` prints. The console is its last argument."""
    console = Console(file=StringIO(), width=200)
    function(*args, console=console, **kwargs)
    return console.file.getvalue()  # type: ignore[attr-defined]


def row_of(output: str, start: str) -> list[str]:
    """The cells of the only line of a table that starts with this."""
    (line,) = [line.strip() for line in output.splitlines() if line.strip().startswith(start + " ")]
    return line.removeprefix(start).split()


def collected(metrics: Any = None, n_layers: int = 2, n_heads: int = 3, causal: bool = True) -> ta.AttentionStats:
    """Random patterns; L1H1 attends only to the first token."""
    data = []
    for sentence in tiny.sentences(12, seed=9):
        pattern = tiny.patterns(n_layers, n_heads, len(sentence.words), causal, 9 + sentence.number)
        if n_heads > 1:
            pattern[-1, 1] = 0
            pattern[-1, 1, :, 0] = 1
        data.append((pattern, sentence))
    return ta.collect_patterns(data, metrics, causal=causal)


@pytest.fixture(scope="module")
def stats() -> ta.AttentionStats:
    return collected()


def exemplar(text: str, query: tuple[int, int], key: tuple[int, int]) -> pd.Series:
    return pd.Series(
        {"text": text, "query_start": query[0], "query_end": query[1], "key_start": key[0], "key_end": key[1]}
    )


@pytest.mark.parametrize(
    ("text", "query", "key", "expected"),
    [
        ("the cat sat", (8, 11), (4, 7), "the {cat} [sat]"),
        ("the cat sat", (0, 3), (8, 11), "[the] cat {sat}"),
        ("the cat sat", (4, 7), (4, 7), "the [{cat}] sat"),
        ("the cat sat", (0, 11), (0, 11), "[{the cat sat}]"),
        # Tokens that include the space before them.
        ("the cat sat", (7, 11), (3, 7), "the {cat} [sat]"),
        ("the cat sat", (3, 7), (4, 7), "the [{cat}] sat"),
        ("the  cat ", (3, 9), (0, 3), "{the}  [cat] "),
        # Adjacent pieces of a word.
        ("unbelievable", (2, 9), (0, 2), "{un}[believa]ble"),
        ("unbelievable", (0, 2), (2, 9), "[un]{believa}ble"),
        # One token inside the other.
        ("unbelievable", (0, 12), (2, 7), "[un{belie}vable]"),
        ("unbelievable", (2, 7), (0, 12), "{un[belie]vable}"),
        ("unbelievable", (0, 12), (0, 2), "[{un}believable]"),
        ("unbelievable", (0, 12), (8, 12), "[unbeliev{able}]"),
        ("unbelievable", (0, 2), (0, 12), "{[un]believable}"),
        ("unbelievable", (8, 12), (0, 12), "{unbeliev[able]}"),
        # Special tokens and white space have no characters to mark.
        ("the cat", (0, 0), (4, 7), "the {cat}"),
        ("the cat", (4, 7), (0, 0), "the [cat]"),
        ("the cat", (0, 0), (0, 0), "the cat"),
        ("the  cat", (3, 5), (5, 8), "the  {cat}"),
        ("", (0, 0), (0, 0), ""),
        ("日本 😀", (3, 4), (0, 2), "{日本} [😀]"),
    ],
)
def test_marked_puts_tokens_in_brackets(text: str, query: tuple[int, int], key: tuple[int, int], expected: str) -> None:
    assert show.marked(exemplar(text, query, key)).plain == expected


def test_marked_styles_the_tokens() -> None:
    text = show.marked(exemplar("the cat sat", (8, 11), (4, 7)))
    styled = {str(span.style): text.plain[span.start : span.end] for span in text.spans}
    assert styled["bold"] == "sat"
    assert styled["underline"] == "cat"


@pytest.mark.parametrize(
    ("text", "query", "key", "expected"),
    [
        ("say [bold]loud[/bold] now", (22, 25), (0, 3), "{say} [bold]loud[/bold] [now]"),
        ("see [1] and {x}", (4, 7), (12, 15), "see [[1]] and {{x}}"),
        ("a :smile: b", (10, 11), (0, 1), "{a} :smile: [b]"),
    ],
)
def test_marked_is_printed_literally(text: str, query: tuple[int, int], key: tuple[int, int], expected: str) -> None:
    console = Console(file=StringIO(), width=200)
    console.print(show.marked(exemplar(text, query, key)))
    assert console.file.getvalue() == expected + "\n"  # type: ignore[attr-defined]


@pytest.mark.parametrize("control", ["\r", "\x0b", "\x0c", "\x07"])
def test_marked_finds_its_tokens_behind_control_characters(control: str) -> None:
    marked = show.marked(exemplar(f"the{control} cat sat", (9, 12), (5, 8)))
    assert "{cat} [sat]" in marked.plain


def test_exemplars_are_a_line_each(stats: ta.AttentionStats) -> None:
    legend, *lines = printed(show.exemplars, stats, "L0H2", n=3).splitlines()
    assert "[attending token] {receiving token}" in legend
    found = stats.exemplars("L0H2")[:3]
    for line, (_, row) in zip(lines, found.iterrows(), strict=True):
        weight, text = line.split("   ", 1)
        assert float(weight) == pytest.approx(row["weight"], abs=5e-4)
        assert text == show.marked(row).plain


def test_overview_names_model_and_size(stats: ta.AttentionStats) -> None:
    n_tokens = sum(len(s.words) for s in tiny.sentences(12, seed=9))
    output = printed(show.overview, stats)
    assert output.startswith(f"patterns: 2 layers × 3 heads, 12 sentences, {n_tokens} tokens (batches given in Python)")
    null, error = stats["null_share"].values, stats["null_share_se"].values
    mean = with_error(null.mean(), mean_error(stats, "null_share"))
    assert f"mean over heads {mean}, largest {with_error(null.max(), error.flatten()[null.argmax()])}\n" in output


@pytest.mark.parametrize(
    ("row", "name", "labels"),
    [
        ("null_share", "null_share", {}),
        ("distance", "distance", {}),
        ("entropy", "entropy", {}),
        ("dependency_alignment either", "dependency_alignment", {"direction": "either"}),
        ("pos_to NOUN", "pos_to", {"tag": "NOUN"}),
        ("pos_to PUNCT", "pos_to", {"tag": "PUNCT"}),
    ],
)
def test_overview_names_the_three_strongest_heads(
    stats: ta.AttentionStats, row: str, name: str, labels: dict[str, str]
) -> None:
    value, error = (stats[key].sel(labels) for key in (name, f"{name}_se"))
    doubtful = error.values > 0.5 * value.values
    if name != "null_share":
        doubtful |= stats["null_share"].values > 0.9
    doubtful &= np.isfinite(value.values)
    order = np.argsort(-np.where(doubtful, np.nan, value.values).flatten(), kind="stable")[:3]
    expected = []
    for layer, head in ((place // 3, place % 3) for place in order):
        shown = with_error(value[layer, head].item(), error[layer, head].item())
        expected += [f"L{layer}H{head}", *shown.split()]
    z = scipy.stats.norm.ppf(1 - (1 - 0.95 ** (1 / 6)) / 2)  # Šidák, for six heads
    sure = np.isfinite(value.values) & ~doubtful
    first = np.unravel_index(order[0], (2, 3))
    reach = value.values[first] - z * error.values[first]
    n_tied = int((sure & (value.values + z * error.values >= reach)).sum()) - 1
    counts = [str(n) for n in (n_tied, doubtful.sum()) if n]
    assert row_of(printed(show.overview, stats), row) == expected + counts


def test_overview_gives_the_bound_of_variability(stats: ta.AttentionStats) -> None:
    layer, head = np.unravel_index(np.nanargmax(stats["variability"].values), (2, 3))
    value, bound = (stats[name].values[layer, head] for name in ("variability", "variability_error"))
    cells = row_of(printed(show.overview, stats), "variability")
    assert cells[:5] == [f"L{layer}H{head}", *with_bound(value, bound, "binning ≤").split()]


def test_overview_names_no_doubtful_head_and_says_how_many_there_are() -> None:
    stats = collected(["null_share", "distance"])
    stats.dataset["distance"].values[:] = [[9, 8, 7], [6, 5, 4]]
    stats.dataset["distance_se"].values[:] = [[0.1, 5, 0.1], [0.1, 0.1, 0.1]]  # 5 is more than half of 8
    stats.dataset["null_share"].values[:] = [[0.95, 0.2, 0.2], [0.2, 0.9, 0.99]]  # 0.9 is not above 0.9
    output = printed(show.overview, stats)
    assert row_of(output, "distance")[::4] == ["L0H2", "L1H0", "L1H1", "3"]
    assert row_of(output, "null_share")[0] == "L1H2"
    stats.dataset["distance_se"].values[:] = 0.3  # 2.63 of which reach from 8 to 7.2, and from 7 to 7.8
    output = printed(show.overview, stats)
    assert row_of(output, "distance")[::4] == ["L0H1", "L0H2", "L1H0", "1"]
    assert row_of(output, "distance")[-1] == "2"
    assert "Not told apart from the first: heads whose bounds, 95% for all at once, overlap" in output
    assert "Doubtful heads, left out: null share above 0.9, or error above 50% of the value" in output


def test_overview_correlates_the_heads_that_have_values(stats: ta.AttentionStats) -> None:
    values = np.stack([stats["distance"].values.flatten(), stats["entropy"].values.flatten()])
    x, y = values[:, np.isfinite(values).all(0)]
    assert len(x) == 5  # all but L1H1
    replicates = [stats[f"{name}_replicates"].values for name in ("distance", "entropy")]
    there = [np.isfinite(d) & np.isfinite(e) for d, e in zip(*replicates, strict=True)]
    rs = [np.corrcoef(d[t], e[t])[0, 1] for d, e, t in zip(*replicates, there, strict=True)]
    r, error = np.corrcoef(x, y)[0, 1], float(np.std(rs, ddof=1))
    expected = f"r(distance, entropy) = {'−' if r < 0 else '+'}{with_error(abs(r), error)} over 5 heads, p = "
    assert expected in printed(show.overview, stats)


def test_overview_shows_the_most_content_driven_head(stats: ta.AttentionStats) -> None:
    variability = stats["variability"].values.copy()
    variability[stats["null_share"].values >= 0.5] = np.nan
    layer, head = np.unravel_index(np.nanargmax(variability), variability.shape)
    shown = to_error(variability[layer, head], stats["variability_error"].values[layer, head], bound=True)
    output = printed(show.overview, stats)
    line = f"L{layer}H{head}, the most content-driven head (variability {shown}):"
    _, after = output.split(line)
    assert after.strip().splitlines() == printed(show.exemplars, stats, f"L{layer}H{head}", n=3).splitlines()


def test_interesting_head_is_not_one_that_attends_to_null() -> None:
    sentences = tiny.sentences(12, seed=9)
    patterns = [tiny.patterns(1, 3, len(s.words), True, 9 + s.number) for s in sentences]
    for pattern in patterns:
        pattern[..., 0] *= 0.1  # almost no weight on the first token
    before = ta.collect_patterns(zip(patterns, sentences, strict=True))
    *_, second, first = np.argsort(before["variability"].values[0])
    assert show.interesting_head(before) == f"L0H{first}"
    for pattern in patterns:
        pattern[:, first] *= 0.2  # this does not change variability, which is a ratio
        pattern[:, first, :, 0] = 0.8
    after = ta.collect_patterns(zip(patterns, sentences, strict=True))
    assert after["variability"].values[0, first] > after["variability"].values[0, second]
    assert show.interesting_head(after) == f"L0H{second}"


@pytest.mark.parametrize("metric", ta.DEFAULT_METRICS)
def test_overview_of_one_statistic_alone(metric: str) -> None:
    assert "patterns: 2 layers × 3 heads" in printed(show.overview, collected([metric]))


def test_overview_of_a_model_of_one_head() -> None:
    stats = collected(n_layers=1, n_heads=1)
    output = printed(show.overview, stats)
    assert row_of(output, "distance")[:2] == ["L0H0", to_error(stats["distance"].item(), stats["distance_se"].item())]


def test_overview_of_one_sentence() -> None:
    pattern = tiny.patterns(2, 3, 5, True, seed=1)
    sentence = next(s for s in tiny.sentences(30) if len(s.words) == 5)
    output = printed(show.overview, ta.collect_patterns([(pattern, sentence)]))
    assert "±" not in row_of(output, "distance")


@pytest.mark.parametrize("page", [show.overview, lambda stats, console: show.head_page(stats, "L0H0", console)])
def test_pages_of_a_statistic_without_error(page: Callable[..., None]) -> None:
    stats = collected(["distance"])
    stats.dataset = stats.dataset.drop_vars("distance_se")  # as from a user's collector
    assert "L0H0" in printed(page, stats)


def test_head_page_has_values_errors_and_ranks(stats: ta.AttentionStats) -> None:
    output = printed(show.head_page, stats, "L0H2")
    assert output.startswith("L0H2: layer 0, head 2 of patterns\n")
    assert "rank of 6" in output
    rows: list[tuple[str, str, dict[str, str]]] = [
        ("distance", "distance", {}),
        ("pos_to VERB", "pos_to", {"tag": "VERB"}),
        ("dependency_alignment either", "dependency_alignment", {"direction": "either"}),
    ]
    for row, name, labels in rows:
        values, error = stats[name].sel(labels).values, stats[f"{name}_se"].sel(labels).values[0, 2]
        rank = 1 + int((values > values[0, 2]).sum())
        cells = row_of(output, row)
        assert [*cells[:3], cells[-1]] == [*with_error(values[0, 2], float(error)).split(), str(rank)]
        assert ("†" in cells) == (error > 0.5 * values[0, 2])


def test_head_page_shows_the_exemplars(stats: ta.AttentionStats) -> None:
    assert printed(show.head_page, stats, "L0H2").endswith(printed(show.exemplars, stats, "L0H2"))


def test_head_page_without_exemplars() -> None:
    output = printed(show.head_page, collected(["distance"]), "L0H0")
    assert "distance" in output
    assert "attending token" not in output


def test_head_page_of_an_undetermined_head(stats: ta.AttentionStats) -> None:
    output = printed(show.head_page, stats, "L1H1")
    assert row_of(output, "distance") == ["undetermined"]
    assert row_of(output, "null_share") == ["1.00", "±", "0", "1"]


def test_pages_mark_doubtful_values() -> None:
    stats = collected(["null_share", "distance", "variability"])
    stats.dataset["null_share"].values[0, 0] = 0.95
    page = printed(show.head_page, stats, "L0H0")
    assert [("†" in row_of(page, name)) for name in ("null_share", "distance", "variability")] == [False, True, True]
    assert "† doubtful: null share above 0.9, or error above 50% of the value" in page
    table = printed(show.top, stats, "distance", n=99)
    assert [line.split()[0] for line in table.splitlines() if "†" in line.split()[1:2]] == ["L0H0"]
    assert "† doubtful: " in table
    assert "†" not in printed(show.top, stats, "null_share", n=99)


def test_head_page_refuses_leading_zeros(stats: ta.AttentionStats) -> None:
    with pytest.raises(MetricError, match="head='L00H02': expected a name from L0H0 to L1H2"):
        printed(show.head_page, stats, "L00H02")


@pytest.mark.parametrize("head", ["L2H0", "L0H3", "foo"])
def test_head_page_of_an_unknown_head(stats: ta.AttentionStats, head: str) -> None:
    with pytest.raises(MetricError, match=f"head='{head}': expected a name from L0H0 to L1H2"):
        printed(show.head_page, stats, head)


def table_of(output: str) -> list[list[str]]:
    """Header and rows, without the line between them and the note on heads as strong."""
    lines = [line for line in output.splitlines() if line.strip() and "told apart" not in line]
    return [line.split() for line in lines if "─" not in line]


def test_top_is_the_table_of_top_heads(stats: ta.AttentionStats) -> None:
    header, *rows = table_of(printed(show.top, stats, "distance", n=4))
    assert header == ["head", "layer", "distance", "se", "low", "high", "null_share"]
    value, error, null = (stats[name].values.flatten() for name in ("distance", "distance_se", "null_share"))
    order = np.argsort(-np.nan_to_num(value, nan=-1))[:4]
    z = scipy.stats.norm.ppf(1 - (1 - 0.95 ** (1 / 6)) / 2)  # Šidák, for six heads
    null_error = stats["null_share_se"].values.flatten()
    for row, k in zip(rows, order, strict=True):
        numbers = [to_error(end[k], error[k]) for end in (value - z * error, value + z * error)]
        shown, shown_error = with_error(value[k], error[k]).split(" ± ")
        expected = [shown, shown_error, *numbers, to_error(null[k], null_error[k])]
        assert row == [f"L{k // 3}H{k % 3}", str(k // 3), *expected]


@pytest.mark.parametrize(("error", "said"), [(0.1, ""), (0.2, "1 more cannot be told apart from L0H0")])
def test_top_says_how_many_cannot_be_told_apart(error: float, said: str) -> None:
    stats = collected(["distance"])
    stats.dataset["distance"].values[:] = [[9, 8, 7], [6, 5, 4]]
    stats.dataset["distance_se"].values[:] = error  # 2.63 errors to either side
    printed_lines = printed(show.top, stats, "distance", n=1).splitlines()
    assert [line for line in printed_lines if "told" in line] == ([said] if said else [])


@pytest.mark.parametrize(
    ("name", "label", "where"),
    [
        ("pos_to", "NOUN", {"tag": "NOUN"}),
        ("dep_to", "nsubj", {"relation": "nsubj"}),
        ("dependency_alignment", "to_parent", {"direction": "to_parent"}),
        ("offset_profile", "1", {"offset": 1}),
        ("offset_profile", "-2", {"offset": -2}),
    ],
)
def test_top_takes_labels_as_strings(name: str, label: str, where: dict[str, Any]) -> None:
    stats = collected(causal=False)
    _, *rows = table_of(printed(show.top, stats, name, n=6, label=label))
    values, errors = (stats[n].sel(where).values.flatten() for n in (name, f"{name}_se"))
    order = [k for k in np.argsort(-values, kind="stable") if np.isfinite(values[k])]
    expected = [[f"L{k // 3}H{k % 3}", str(k // 3), to_error(values[k], errors[k])] for k in order]
    assert [[cell for cell in row if cell != "†"][:3] for row in rows] == expected


@pytest.mark.parametrize(
    ("name", "label", "message"),
    [
        ("pos_to", "NUON", "tag='NUON': expected one of ADJ, NOUN, PUNCT, VERB, X"),
        ("pos_to", None, "pos_to has a value for each tag: pass tag="),
        ("offset_profile", "99", "offset=99: expected one of 0, 1, "),
        ("offset_profile", "NOUN", "offset='NOUN': expected one of 0, 1, "),
        ("offset_profile", "--1", "offset='--1': expected one of 0, 1, "),
        ("offset_profile", "²", "offset='²': expected one of 0, 1, "),
        ("pos_frequency", "NOUN", "pos_frequency has no value for each head"),
        ("distance", "NOUN", "distance .*no label"),
        ("distnace", None, "no statistic 'distnace' here; there are: .*distance"),
    ],
)
def test_top_of_what_is_not_there(stats: ta.AttentionStats, name: str, label: str | None, message: str) -> None:
    with pytest.raises(MetricError, match=message):
        printed(show.top, stats, name, label=label)
