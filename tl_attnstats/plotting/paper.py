"""Write the figures of the paper, and a few more, to files."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from functools import partial
from pathlib import Path
from typing import Any

import matplotlib.pyplot as plt
from matplotlib.figure import Figure

from tl_attnstats.corpus.untrusted import file_name
from tl_attnstats.plotting.behaviours import behaviours
from tl_attnstats.plotting.head_card import head_card
from tl_attnstats.plotting.heatmap import heatmap
from tl_attnstats.plotting.layers import DIRECTIONS, alignment_by_layer, alignment_excess, relations_by_layer
from tl_attnstats.plotting.norms import norms
from tl_attnstats.plotting.offsets import offset_profile
from tl_attnstats.plotting.pos import pos_grid
from tl_attnstats.plotting.relations import relations, scored_relations
from tl_attnstats.plotting.save import check_suffix, save
from tl_attnstats.plotting.scatter import scatter
from tl_attnstats.plotting.sinks import sinks
from tl_attnstats.results.ranking import correlations, interesting_head, strongest
from tl_attnstats.results.stats import AttentionStats

Drawing = Callable[[], tuple[Figure, Any]]


def paper_figures(
    stats: AttentionStats, directory: str | Path, formats: str | Sequence[str] = ("png", "svg")
) -> list[Path]:
    """Write every figure that the statistics allow: those of Vig & Belinkov (2019) and a few more.

    These are heatmaps of each statistic and each direction of alignment, with layer means beside them; a map for each
    part of speech; alignment and relations by layer; scatter plots of statistics; behaviours, sinks, alignment beyond
    position, norms, and the best heads of relations; offset profiles of three characteristic heads, and a page about
    one of them. The same statistics give the same bytes.

    Args:
        stats: the statistics.
        directory: the output directory; it is created if necessary.
        formats: one or several of "png", "svg" and "pdf".

    Returns:
        The files written.

    Raises:
        FigureError: a format is unknown, or a file cannot be written.
    """
    directory = Path(directory)
    suffixes = [f".{ending}" for ending in ([formats] if isinstance(formats, str) else formats)]
    for suffix in suffixes:
        check_suffix(directory / f"figure{suffix}")
    paths = []
    with plt.ioff():  # interactive backends would open windows
        for name, draw in _drawings(stats):
            figure, _ = draw()
            try:
                for suffix in suffixes:
                    paths.append(directory / f"{file_name(name)}{suffix}")
                    save(figure, paths[-1])
            finally:
                plt.close(figure)
    return paths


def _drawings(stats: AttentionStats) -> Iterator[tuple[str, Drawing]]:
    """Yield the file name (without suffix) and the drawing function of every figure that the statistics allow."""
    here = set(stats.dataset)
    for name in stats.head_statistics:
        yield name, partial(heatmap, stats, name, side_bar=True)
    if "dependency_alignment" in here:
        for direction in DIRECTIONS:
            drawing = partial(heatmap, stats, "dependency_alignment", side_bar=True, direction=direction)
            yield f"dependency_alignment_{direction}", drawing
        yield "alignment_by_layer", partial(alignment_by_layer, stats)
    for name in ("pos_to", "pos_from"):
        if name in here:
            yield name, partial(pos_grid, stats, name)
    if "dep_to" in here:
        yield "relations_by_layer", partial(relations_by_layer, stats)
    for x, y, *_ in correlations(stats):
        labels: dict[str, Any] = {"direction": "either"} if y == "dependency_alignment" else {}
        yield f"{x}_{y}", partial(scatter, stats, x, y, **labels)
    yield from _worth(stats)
    heads = _telling_heads(stats)
    if heads and "offset_profile" in here:
        yield "offset_profile", partial(offset_profile, stats, heads)
    if heads:
        yield f"head_{heads[0]}", partial(head_card, stats, heads[0])


def _worth(stats: AttentionStats) -> Iterator[tuple[str, Drawing]]:
    """The figures that say what the others are worth."""
    here = set(stats.dataset)
    if "behaviour" in here:
        yield "behaviours", partial(behaviours, stats)
    if "sink_share" in here:
        yield "sinks", partial(sinks, stats)
    if {"dependency_alignment", "alignment_excess"} <= here:
        yield "alignment_excess", partial(alignment_excess, stats)
    if {"null_share", "null_share_norm", "output_norm_relative"} <= here:
        both = stats["null_share"].notnull() & stats["null_share_norm"].notnull()
        if both.sum() > 2:  # as a correlation needs
            yield "norms", partial(norms, stats)
    if "relation_accuracy" in here and len(scored_relations(stats)):
        yield "relations", partial(relations, stats)


def _telling_heads(stats: AttentionStats) -> list[str]:
    """The most content-based head, the one with the highest alignment, and the one with the largest distance."""
    heads = [interesting_head(stats)]
    wanted: list[tuple[str, dict[str, Any]]] = [("dependency_alignment", {"direction": "either"}), ("distance", {})]
    for name, labels in wanted:
        if name in stats.dataset:
            heads += strongest(stats, name, **labels).heads["head"].tolist()
    return [head for head in dict.fromkeys(heads) if head]
