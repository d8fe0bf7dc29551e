"""What a head is, in one sentence: the numbers that stand out against their baselines."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any, NamedTuple

from tl_attnstats.results.numbers import number, with_error
from tl_attnstats.results.stats import AttentionStats, simultaneous_z

LEAST = 0.1
"""Smaller shares are not worth a word, however certain."""
EDGE = 0.003
"""Rows that sum to 1 give a purely positional head an alignment excess of up to about this."""
KINDS = {
    "induction": "attends to what followed an earlier copy of the token",
    "duplicate": "attends to earlier copies of the token",
    "previous": "attends to the previous token",
}
WAYS = {"to_parent": "from dependent to parent", "from_parent": "from parent to dependent"}


class Trait(NamedTuple):
    """A part of the sentence, and the value that it is about: the statistic, and the label if it has labels."""

    said: str
    statistic: str
    label: str = ""


def character(stats: AttentionStats, head: str) -> list[Trait]:
    """The traits of a head that stand out, those that qualify all others first; empty if none does.

    A value stands out if its simultaneous 95% bound (see `AttentionStats.top_heads`) lies beyond its baseline.
    """
    layer, number = stats.find_head(head)
    at = {"layer": layer, "head": number}
    return [*_null(stats, at), *_sinks(stats, at), *_behaviours(stats, at), *_syntax(stats, at)]


def sentence_of(traits: list[Trait]) -> str:
    """The traits as a sentence; "" for none."""
    said = "; ".join(trait.said for trait in traits)
    return said[:1].upper() + said[1:] + "." if said else ""


def _bounds(stats: AttentionStats, name: str, at: dict[str, Any]) -> tuple[float, float, str]:
    """The value of a head, its lower bound, and the value with its error in words."""
    z = simultaneous_z(stats["layer"].size * stats["head"].size)
    value, error = float(stats[name].sel(at)), float(stats[f"{name}_se"].sel(at))
    return value, value - z * error, with_error(value, error)


def _null(stats: AttentionStats, at: dict[str, Any]) -> Iterator[Trait]:
    if "null_share" in stats.dataset:
        _, low, said = _bounds(stats, "null_share", at)
        if low > 0.5:
            yield Trait(f"gives {said} of its attention to null tokens", "null_share")


def _sinks(stats: AttentionStats, at: dict[str, Any]) -> Iterator[Trait]:
    if "sink_share" not in stats.dataset:
        return
    _, low, said = _bounds(stats, "sink_share", at)
    if low > LEAST:
        tokens = stats["sink_tokens"].sel(at)
        first = tokens[int(tokens.values.argmax())]
        name = "" if str(first["token"].item()) == "other" else f", most of all {str(first['token_text'].item())!r}"
        yield Trait(f"sinks take {said} of its content attention{name}", "sink_share")


def _behaviours(stats: AttentionStats, at: dict[str, Any]) -> Iterator[Trait]:
    for kind, does in KINDS.items():
        if "behaviour" not in stats.dataset or kind not in stats["kind"].values:
            continue
        _, low, said = _bounds(stats, "behaviour", at | {"kind": kind})
        chance = float(stats["behaviour_baseline"].sel(kind=kind))
        if low > max(LEAST, 2 * chance):
            yield Trait(f"{does}: {said} where chance gives {number(chance, 2)}", "behaviour", kind)


def _syntax(stats: AttentionStats, at: dict[str, Any]) -> Iterator[Trait]:
    for direction, does in WAYS.items():
        if "alignment_excess" not in stats.dataset:
            continue
        value, low, said = _bounds(stats, "alignment_excess", at | {"direction": direction})
        if low > EDGE and value > LEAST:
            said = f"follows dependencies {does}: {said} beyond what offsets explain"
            yield Trait(said, "alignment_excess", direction)
