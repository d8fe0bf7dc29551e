"""State what stands out in sentences. Each number comes with its error, if it has one."""

from __future__ import annotations

import math
from collections.abc import Iterator
from typing import Any, NamedTuple

from markupsafe import Markup

from tl_attnstats.results.counterparts import counterparts_of
from tl_attnstats.results.numbers import with_error
from tl_attnstats.results.ranking import (
    DOUBT,
    correlations,
    interesting_head,
    mean_error,
    mean_shown,
    row_shown,
    signed,
    strongest,
    tied_words,
)
from tl_attnstats.results.stats import AttentionStats

LINK = Markup('<a href="#{0}">{0}</a>')


class Named(NamedTuple):
    """A link to a head, its value with error, and a note on heads as strong and on doubtful ones left out (or "")."""

    head: Markup
    value: str
    note: str


class Finding(NamedTuple):
    """What stands out, and what remains of it beyond what position alone explains; "" if it has no counterpart."""

    said: Markup
    beyond: Markup = Markup("")


def findings(stats: AttentionStats) -> list[Finding]:
    """One or two sentences for each statistic with a finding, with links to the heads they name.

    Doubtful heads are never named: see `AttentionStats.doubtful`.
    """
    makers = {
        "null_share": _null_share,
        "distance": _distance,
        "dependency_alignment": _alignment,
        "variability": _variability,
    }
    found = [
        Finding(sentence, _beyond(stats) if name == "dependency_alignment" else Markup(""))
        for name, maker in makers.items()
        if name in stats.dataset and stats[name].notnull().any()
        for sentence in maker(stats)
    ]
    if any("doubtful" in text for finding in found for text in finding):
        found.append(Finding(_sentence("Doubtful means: {}.", DOUBT)))
    return [*found, *_correlations(stats), *map(Finding, _undetermined(stats))]


def _null_share(stats: AttentionStats) -> Iterator[Markup]:
    text = "Null tokens, which say nothing, take {} of attention on average over heads"
    most, least = _extreme(stats, "null_share"), _extreme(stats, "null_share", ascending=True)
    mean = mean_shown(stats, "null_share")
    if most is None or least is None:
        yield _sentence(text + ".", mean)
        return
    yield _sentence(text + ": the most in {}, {}{}, the least in {}, {}{}.", mean, *most, *least)


def _distance(stats: AttentionStats) -> Iterator[Markup]:
    furthest = _extreme(stats, "distance")
    layers = stats.by_layer("distance")["mean"].dropna()
    layer = int(layers.index[int(layers.argmax())])
    first = "{} looks furthest, {} tokens on average{}." if furthest else "Every head's distance is doubtful."
    yield _sentence(
        first
        + " Layer {} looks furthest of all layers: the mean over its heads is {} tokens, the mean over all heads {}.",
        *(furthest or ()),
        layer,
        mean_shown(stats, "distance", layer),
        mean_shown(stats, "distance"),
    )


def _alignment(stats: AttentionStats) -> Iterator[Markup]:
    most = _extreme(stats, "dependency_alignment", direction="either")
    text = "{} follows dependencies most: {} of its attention runs along them, in either direction{}."
    first = _sentence(text, *most) if most else Markup("Every head's dependency alignment is doubtful.")
    if "dependency_baseline" not in stats.dataset:
        yield first
        return
    chance, error = (float(stats[n].sel(direction="either")) for n in ("dependency_baseline", "dependency_baseline_se"))
    above = int((stats.head_values("dependency_alignment", direction="either") > chance).sum())
    yield _sentence(
        "{} Of all token pairs, {} are in a relation; {} of {} heads lie above that.",
        first,
        with_error(chance, error),
        above,
        stats["layer"].size * stats["head"].size,
    )


def _beyond(stats: AttentionStats) -> Markup:
    """What remains of alignment beyond position."""
    if not {"alignment_by_position", "alignment_excess"} <= set(stats.dataset):
        return Markup("")
    alone, beyond = (
        with_error(float(stats.head_values(name, direction="either").mean()), mean_error(stats, name))
        for name in ("alignment_by_position", "alignment_excess")
    )
    means = _sentence("Position alone gives {} on average over heads; {} lies beyond it.", alone, beyond)
    most = _extreme(stats, "alignment_excess", direction="either")
    return _sentence("{} Most in {}: {}{}.", means, *most) if most else means


def _variability(stats: AttentionStats) -> Iterator[Markup]:
    least = _extreme(stats, "variability", ascending=True)
    if least is None:
        yield Markup("Every head's variability is doubtful.")
        return
    yield _sentence("{} depends on position most, with a variability of {}{}.", *least)
    head = interesting_head(stats)
    if head:
        heads = strongest(stats, "variability", None).heads
        value = row_shown(heads[heads["head"] == head].iloc[0], "variability")
        text = (
            "Of the heads with little attention on null tokens, {} depends on content most, with a variability of {}."
        )
        yield _sentence(text, LINK.format(head), value)


def _correlations(stats: AttentionStats) -> Iterator[Finding]:
    found = [
        f"r({x.replace('_', ' ')}, {y.replace('_', ' ')}) = {signed(r, se)} (p = {p:.2g}, {n} heads)"
        for x, y, r, se, p, n in correlations(stats)
        if not math.isnan(r)
    ]
    if found:
        counterpart = counterparts_of(stats).get("distance_and_alignment")
        beyond = Markup("")
        if counterpart and not math.isnan(counterpart.value):
            said = "r(distance, alignment beyond position) = {}."
            beyond = _sentence(said, signed(counterpart.value, counterpart.se))
        yield Finding(_sentence("Over heads, {}.", "; ".join(found)), beyond)


def _undetermined(stats: AttentionStats) -> Iterator[Markup]:
    if "distance" in stats.dataset:
        n = int(stats["distance"].isnull().sum())
        if n:
            yield _sentence(
                "{} {} no attention off null tokens; their undetermined values are shown in grey.",
                n,
                "head has" if n == 1 else "heads have",
            )


def _extreme(stats: AttentionStats, name: str, ascending: bool = False, **labels: Any) -> Named | None:
    """The head with the largest (or smallest) value that is not doubtful; None if all are doubtful."""
    heads, n_doubtful, n_tied = strongest(stats, name, ascending=ascending, **labels)
    if heads.empty:
        return None
    row = heads.iloc[0]
    heads_are = "head is" if n_doubtful == 1 else "heads are"
    left_out = f"; {n_doubtful} doubtful {heads_are} left out" if n_doubtful else ""
    others = f" ({tied_words(n_tied)})" if n_tied else ""
    return Named(LINK.format(row["head"]), row_shown(row, name), others + left_out)


def _sentence(text: str, *parts: Any) -> Markup:
    return Markup(text).format(*parts)  # format() escapes the parts
