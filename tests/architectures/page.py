"""The tables of docs/models.md, made from the entries: grouped by result, sorted by name."""

from __future__ import annotations

from collections.abc import Collection, Mapping

from tests.architectures.table import Architecture

BRIDGE = ("hooks", "streamed")
GROUPS = {
    "both": ("Hooks and streamed", 'Right through both. `source="auto"`, the default, streams.'),
    "hooks": ("Hooks only", 'Right through hooks, which `source="auto"` uses. Streaming is refused.'),
    "streams": ("Some streams", "Encoder–decoders that are right through both, except for the streams listed."),
    "plain": (
        "Only as transformers models",
        "TransformerLens has no bridge for these, or one without pattern hooks. Pass the transformers model itself: "
        "`ta.collect(model, corpus, tokenizer=tokenizer)`. It is streamed, and right.",
    ),
    "fault": (
        "Faults of TransformerLens",
        "What is wrong in the bridge, and whether the transformers model itself can be read.",
    ),
    "refused": ("Refused", "Refused with an error that contains these words."),
    "untestable": ("Not tested", "There is no model to test with."),
    "untested": ("Untested", "New in TransformerLens: no entry yet in `tests/architectures`."),
}


def render(entries: Mapping[str, Architecture], registered: Collection[str]) -> str:
    """All tables."""
    groups: dict[str, list[str]] = {name: [] for name in GROUPS}
    for name in sorted({*entries, *registered}):
        groups[group(entries.get(name))].append(name)
    parts = []
    for key, (title, said) in GROUPS.items():
        if names := groups[key]:
            rows = "".join(row(key, name, entries.get(name, Architecture())) for name in names)
            parts.append(f"### {title}: {len(names)}\n\n{said}\n\n| Architecture | |\n| --- | --- |\n{rows}")
    return "\n".join(parts)


def group(entry: Architecture | None) -> str:
    """The table that an entry is in."""
    if entry is None:
        return "untested"
    if entry.untestable or entry.fault:
        return "untestable" if entry.untestable else "fault"
    if any("." in way for way in entry.refused):
        return "streams"
    able = [way for way in BRIDGE if not entry.boots and way not in entry.refused]
    if able:
        return "both" if len(able) == 2 else able[0]
    return "refused" if "plain" in entry.refused else "plain"


def row(key: str, name: str, entry: Architecture) -> str:
    """A row of a table: the name and the remarks."""
    said = [entry.note, entry.fault, entry.untestable]
    if entry.model_class:
        said.append(f"another name of `{entry.model_class}`")
    if key == "fault" and all(way in entry.refused for way in BRIDGE):
        said.append("the transformers model: " + entry.refused.get("plain", "right"))
    elif key == "refused":
        said.append(entry.refused["plain"])
    elif key in ("hooks", "streams"):
        reasons: dict[str, list[str]] = {}
        for way, reason in entry.refused.items():
            reasons.setdefault(reason, []).append(way.replace(".", " "))
        said += [f"{', '.join(ways)}: {reason}" for reason, ways in reasons.items()]
    return f"| `{name}` | {'; '.join(part for part in said if part)} |\n"
