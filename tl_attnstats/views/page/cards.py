"""What statistics say of each head: a name of a few words, and a card of numbers."""

from __future__ import annotations

import math
from collections.abc import Iterator
from typing import TYPE_CHECKING, Any

from tl_attnstats.corpus.sentence import NO_LABEL
from tl_attnstats.results.character import character, sentence_of
from tl_attnstats.results.numbers import number, with_bound, with_error
from tl_attnstats.results.stats import head_name

if TYPE_CHECKING:
    from tl_attnstats.results.stats import AttentionStats

NAMES = {
    ("behaviour", "induction"): "induction",
    ("behaviour", "duplicate"): "duplicate token",
    ("behaviour", "previous"): "previous token",
    ("alignment_excess", "to_parent"): "dependent to parent",
    ("alignment_excess", "from_parent"): "parent to dependent",
    ("null_share", ""): "null tokens",
    ("sink_share", ""): "sinks",
}
N_TAGS = 2
LIFT = 1.2
"""A tag is named if its share exceeds that of the corpus by this factor."""


def cards_of(stats: AttentionStats | None, places: list[list[int]], stream: str) -> dict[str, dict[str, Any]] | None:
    """The name and the card of each head that the statistics have; None without statistics of the stream."""
    if stats is None or stats.provenance.get("stream", "self") != stream:
        return None
    layers, heads = stats.dataset["layer"].values.tolist(), stats.dataset["head"].values.tolist()
    known = [(layer, head) for layer, head in places if layer in layers and head in heads]
    return {head_name(*place): _card(stats, *place) for place in known}


def _card(stats: AttentionStats, layer: int, head: int) -> dict[str, Any]:
    traits = character(stats, head_name(layer, head))
    names = [NAMES.get((trait.statistic, trait.label), "") for trait in traits]
    tags = list(_tags(stats, layer, head))
    return {
        "name": ", ".join([*filter(None, names), *(["on " + " and ".join(tags)] if tags else [])]),
        "said": sentence_of(traits),
        "rows": list(_rows(stats, {"layer": layer, "head": head})),
    }


def _tags(stats: AttentionStats, layer: int, head: int) -> Iterator[str]:
    """The parts of speech that a head looks at most, beyond how often they can be looked at."""
    if "pos_to" not in stats.dataset or "pos_frequency" not in stats.dataset:
        return
    shares = stats["pos_to"].sel(layer=layer, head=head)
    doubtful = stats.doubtful("pos_to").sel(layer=layer, head=head)
    of_words = [at for at in shares.argsort().values[::-1] if shares["tag"].values[at] != NO_LABEL]
    for at in of_words[:N_TAGS]:
        tag = shares["tag"].values[at]
        chance = float(stats["pos_frequency"].sel(tag=tag))
        if not bool(doubtful[at]) and float(shares[at]) > LIFT * chance:
            yield str(tag)


def _rows(stats: AttentionStats, at: dict[str, int]) -> Iterator[list[str]]:
    """Name, and value with its error and unit, of the statistics with one value a head, and of behaviours."""
    for name in stats.head_statistics:
        attrs = stats[name].attrs
        yield [str(attrs.get("long_name", name)), f"{_value(stats, name, at)} {attrs.get('units', '')}".strip()]
    for kind in stats["kind"].values if "behaviour" in stats.dataset else ():
        yield [f"attention to {kind}", f"{_value(stats, 'behaviour', at | {'kind': kind})} share"]


def _value(stats: AttentionStats, name: str, at: dict[str, Any]) -> str:
    value = float(stats[name].sel(at))
    error = stats.error_of(name)
    if error is None or math.isnan(value):
        return number(value) + " (no error known)" * (not math.isnan(value))
    size = float(stats[error].sel(at))
    return with_error(value, size) if error.endswith("_se") else with_bound(value, size, "binning ≤")
