"""The result of a run: one labelled data set, its file, and methods to query it."""

from __future__ import annotations

import itertools
import re
from collections.abc import Mapping, Sequence
from html import escape
from pathlib import Path
from statistics import NormalDist
from typing import Any, NamedTuple

import numpy as np
import pandas as pd
import xarray as xr

from tl_attnstats.corpus.kinds import counted
from tl_attnstats.errors import MetricError, choices
from tl_attnstats.results.exemplars import strongest_table, typical_table
from tl_attnstats.results.file import damage
from tl_attnstats.results.marking import ExemplarTable
from tl_attnstats.results.relations import best_relation_heads
from tl_attnstats.results.state import RunState

HEAD = re.compile(r"L(0|[1-9]\d*)H(0|[1-9]\d*)", re.ASCII)
HEAD_DIMS = ("layer", "head")
DOUBTFUL_NULL = 0.9
"""Null share above which too little content attention is left to tell where it goes."""
DOUBTFUL_ERROR = 0.5
"""Error, as a share of the value, above which the value tells little."""


class Correlation(NamedTuple):
    """Pearson's r over heads, its two-sided p-value, and the number of heads."""

    r: float
    p: float
    n: int


class AttentionStats:
    """Statistics of every attention head of a model on a corpus.

    `stats["distance"]` is an xarray `DataArray` with dimensions `layer` and `head`, and more if the statistic has
    labels (`tag`, `relation`, `direction`, `offset`, `rank`). `stats["distance_se"]` is its standard error.
    `stats.dataset` holds all statistics; their attrs hold units and formulas, its own attrs the provenance.

    `collect`, `load` and `merge` create it.
    """

    def __init__(self, run: RunState):
        self.run = run
        self.dataset = run.values

    @property
    def state(self) -> Mapping[str, xr.Dataset]:
        """The sums from which the values are computed, by statistic."""
        return self.run.sums

    @property
    def provenance(self) -> dict[str, Any]:
        """Model, corpus, options and versions."""
        return {str(key): value for key, value in self.dataset.attrs.items()}

    @property
    def extent(self) -> str:
        """How much was read: the number of sentences (or windows of documents) and tokens, and whether shards lack."""
        sequences = counted(int(self.provenance["sequences"]), str(self.provenance.get("sequence_kind")))
        partial = f", {self.provenance['partial']}" if "partial" in self.provenance else ""
        return f"{sequences}, {self.provenance['tokens']} tokens{partial}"

    @property
    def subject(self) -> str:
        """The model, with its stream of attention if it has several."""
        model, stream = (str(self.provenance.get(key, "self")) for key in ("model", "stream"))
        return model if stream == "self" else f"{model} {'cross-attention' if stream == 'cross' else stream}"

    @property
    def head_statistics(self) -> list[str]:
        """Statistics with one value per head, without their errors."""
        return [name for name in self.statistics if self.dataset[name].dims == HEAD_DIMS]

    @property
    def statistics(self) -> list[str]:
        """All statistics and baselines, without their errors, replicates and exemplars."""
        names = (str(name) for name in self.dataset.data_vars)
        beside = ("_se", "_error", "_replicates")
        return [name for name in names if not name.endswith(beside) and not name.startswith(("exemplar_", "typical_"))]

    def __getitem__(self, name: str) -> xr.DataArray:
        if name not in self.dataset:
            raise MetricError(f"no statistic {name!r} here; there are: {choices(self.dataset.data_vars)}")
        return self.dataset[name]

    def error_of(self, name: str) -> str | None:
        """The name of a statistic's standard error or error bound; None if it has neither.

        A standard error (`distance_se`) estimates how much the value varies between samples of sentences. The bound
        (`variability_error`) covers only the error of binning.
        """
        return next((error for error in (f"{name}_se", f"{name}_error") if error in self.dataset), None)

    def head_values(self, name: str, **labels: Any) -> xr.DataArray:
        """A statistic with one value per head, `[layer, head]`: `head_values("pos_to", tag="NOUN")`."""
        values = self[name]
        extra = [str(dim) for dim in values.dims if dim not in HEAD_DIMS]
        if not set(HEAD_DIMS) <= set(values.dims):
            raise MetricError(f"{name} has no value for each head; those that have: {choices(self._by_head())}")
        for dim in [*extra, *labels]:
            if dim not in extra:
                raise MetricError(f"{name} has no {dim}; it takes {', '.join(extra) or 'no labels'}")
            if dim not in labels:
                raise MetricError(
                    f"{name} has a value for each {dim}: pass {dim}=…, one of {choices(values[dim].values)}"
                )
            if np.ndim(labels[dim]) or labels[dim] not in values[dim].values:
                raise MetricError(f"{dim}={labels[dim]!r}: expected one of {choices(values[dim].values)}")
        return values.sel(labels)

    def _by_head(self) -> list[str]:
        return [name for name in self.statistics if set(HEAD_DIMS) <= set(self.dataset[name].dims)]

    def doubtful(self, name: str, *, max_error: float = DOUBTFUL_ERROR, **labels: Any) -> xr.DataArray:
        """Which heads have an ill-determined value. All tables, figures and findings use this rule.

        A value is doubtful if more than 0.9 of the head's attention is on null tokens, or if the error exceeds half of
        the value. For statistics of all attention, such as `null_share`, only the error counts.

        Args:
            name: the statistic.
            max_error: the largest error that is not doubtful, as a share of the value.
            labels: as in `head_values`; without them the result has the dimensions of the statistic.

        Returns:
            True if the value is doubtful, False if it is not or there is none. `[layer, head]`.
        """
        if labels:
            self.head_values(name, **labels)  # checks the labels
        values, error = self[name], self.error_of(name)
        found = xr.zeros_like(values, dtype=bool)
        if error is not None:
            found = found | (self[error] > max_error * abs(values))
        if self.judged_by_null(name):
            found = found | (self["null_share"] > DOUBTFUL_NULL)
        return (found & values.notnull()).transpose(*values.dims).sel(labels)

    def judged_by_null(self, name: str) -> bool:
        """Whether a large null share makes a value doubtful: it is known, and the statistic is of content attention."""
        return "null_share" in self.dataset and self[name].attrs.get("attention") != "all"

    def top_heads(
        self, name: str, *, n: int = 10, ascending: bool = False, max_null: float | None = None, **labels: Any
    ) -> pd.DataFrame:
        """The heads with the largest (or smallest) value of a statistic, with its error and the null share.

        A head with nearly all its attention on null tokens has ill-determined shares. All heads are ranked unless
        `max_null` excludes such heads; `doubtful` tells which heads reports and figures mark.

        Args:
            name: the statistic.
            n: number of heads.
            ascending: take the smallest values instead.
            max_null: leave out heads with a null share above this, such as 0.9; None ranks all heads. It does not apply
                to statistics of all attention, such as `null_share`.
            labels: `tag="NOUN"`, `direction="either"` and so on, if the statistic has them.

        Returns:
            One row per head: `head` ("L4H2"), `layer`, the value under the statistic's name, `se`, `low` and `high`,
            `null_share`. `low` and `high` are 95% bounds that hold for all heads at once (Šidák): heads whose bounds
            overlap those of the first cannot be told apart from it. `variability` has no standard error but
            `error_bound`, the largest possible error of binning.

        Raises:
            MetricError: the statistic or label is unknown, or `max_null` is not a share or needs a null share that was
                not collected.
        """
        if max_null is not None and not 0 <= max_null <= 1:
            raise MetricError(f"max_null={max_null!r}: expected a share from 0 to 1, or None for all heads")
        if max_null is not None and "null_share" not in self.dataset:
            raise MetricError(f"max_null={max_null!r}: no null_share here; collect with metrics that include it")
        columns = {name: self.head_values(name, **labels)}
        error = self.error_of(name)
        if error is not None:
            columns["se" if error.endswith("_se") else "error_bound"] = self.head_values(error, **labels)
        if "se" in columns:
            margin = simultaneous_z(columns[name].size) * columns["se"]
            columns |= {"low": columns[name] - margin, "high": columns[name] + margin}
        if name != "null_share" and "null_share" in self.dataset:
            columns["null_share"] = self["null_share"]
        frame = pd.DataFrame({key: value.values.flatten() for key, value in columns.items()})
        heads = self._heads()
        frame.insert(0, "head", [head_name(*place) for place in zip(heads["layer"], heads["head"], strict=True)])
        frame.insert(1, "layer", heads["layer"])
        if max_null is not None and self.judged_by_null(name):
            frame = frame[frame["null_share"] <= max_null]
        ranked = frame.dropna(subset=[name]).sort_values(name, ascending=ascending, kind="stable")
        return ranked.head(n).reset_index(drop=True)

    def best_relation_heads(self) -> pd.DataFrame:
        """The best head of each dependency relation, held out, beside the best fixed offset between words.

        The head with most hits on one half of the corpus is scored on the other, both ways round, and the two
        accuracies are averaged (after Clark et al. 2019, who chose and scored on the same sentences).

        Returns:
            One row per relation and direction: `head` (two, if the halves chose different ones), `accuracy`, `se`,
            `best_offset` in words, `offset_accuracy`, `offset_se`, `pairs`. Accuracies are NaN if either half has fewer
            than 20 pairs.

        Raises:
            MetricError: the statistics do not include `relation_accuracy`.
        """
        if "relation_accuracy" not in self.state:
            raise MetricError("no relation_accuracy here; collect with metrics that include it")
        return best_relation_heads(self.state["relation_accuracy"], self.run.sequences)

    def _heads(self) -> pd.DataFrame:
        """Layer and head number of every head, in the order of flattened values."""
        pairs = itertools.product(self["layer"].values.tolist(), self["head"].values.tolist())
        return pd.DataFrame(pairs, columns=["layer", "head"])

    def exemplars(self, head: str) -> ExemplarTable:
        """The sentences with a head's largest weights, strongest first.

        Args:
            head: such as "L10H10".

        Returns:
            One row per sentence: `weight`; `sentence`, its number in the corpus from 0; `query` and `key`, the
            positions of the attending and the receiving token; `query_text` and `key_text`; `text`; and the character
            spans of the two tokens in it (`query_start`, `query_end`, `key_start`, `key_end`). Notebooks mark the two
            tokens in the sentence. In cross-attention the attending token is the decoder's and the receiving token the
            encoder's; both read the same text.
        """
        return strongest_table(self.dataset, *self.find_head(head))

    def typical_exemplars(self, head: str) -> ExemplarTable:
        """Random rows of a head, a few for each tenth of the range of the row's largest weight, smallest first.

        Args:
            head: such as "L10H10".

        Returns:
            The columns of `exemplars`, and `row_max`, the lower edge of the bin, and `rows`, how many rows it has.
        """
        return typical_table(self.dataset, *self.find_head(head))

    def head_table(self, head: str) -> pd.DataFrame:
        """Every value of a head, with its error and its rank among all heads (the largest is 1).

        Args:
            head: such as "L10H10".

        Returns:
            One row per value: `statistic`; `label`, the tag, relation, direction or offset, or ""; `value`; `error`,
            and `error_kind`, which is "standard error", "bound" (for variability: the largest possible error of
            binning) or ""; `doubtful`, whether the value is ill-determined; `rank`, from 1, among the heads with a
            value; `mean` over heads. NaN if the head has no value.
        """
        layer, number = self.find_head(head)
        columns = ["statistic", "label", "value", "error", "error_kind", "doubtful", "rank", "mean"]
        rows = []
        for name in self._by_head():
            values = self[name]
            extra = [str(dim) for dim in values.dims if dim not in HEAD_DIMS]
            if len(extra) > 1:
                continue
            stacked = values.transpose(*extra, ...).values.reshape(-1, values["layer"].size * values["head"].size)
            error = self.error_of(name)
            here = values.sel(layer=layer, head=number)
            frame = pd.DataFrame({"label": values[extra[0]].values if extra else [""], "value": np.atleast_1d(here)})
            frame["error"] = np.nan if error is None else np.atleast_1d(self[error].sel(layer=layer, head=number))
            frame["error_kind"] = "" if error is None else "standard error" if error.endswith("_se") else "bound"
            frame["doubtful"] = np.atleast_1d(self.doubtful(name).sel(layer=layer, head=number))
            frame["rank"] = [
                1 + int((heads > value).sum()) if np.isfinite(value) else np.nan
                for heads, value in zip(stacked, frame["value"], strict=True)
            ]
            finite = np.isfinite(stacked)
            frame["mean"] = np.where(finite, stacked, 0).sum(1) / np.where(finite.any(1), finite.sum(1), np.nan)
            frame.insert(0, "statistic", name)
            rows.append(frame)
        return pd.concat(rows, ignore_index=True) if rows else pd.DataFrame(columns=columns)

    def find_head(self, head: str) -> tuple[int, int]:
        """Layer and head of a name such as "L10H10"."""
        return find_head(head, self["layer"].values.tolist(), self["head"].values.tolist())

    def by_layer(self, name: str, **labels: Any) -> pd.DataFrame:
        """Mean, standard deviation, minimum and maximum of a statistic over the heads of each layer."""
        values = self.head_values(name, **labels)
        heads = pd.DataFrame(values.values, index=pd.Index(values["layer"].values, name="layer"))
        return pd.DataFrame({kind: heads.agg(kind, axis=1) for kind in ("mean", "std", "min", "max")})

    def correlation(self, x: str, y: str, **labels: Any) -> Correlation:
        """Pearson correlation of two statistics over heads. Labels apply to whichever of the two has them."""
        arrays = []
        for name in (x, y):
            dims = self[name].dims
            arrays.append(self.head_values(name, **{k: v for k, v in labels.items() if k in dims}).values.flatten())
        unused = [label for label in labels if label not in (*self[x].dims, *self[y].dims)]
        if unused:
            raise MetricError(f"neither {x} nor {y} has {unused[0]}")
        both = np.isfinite(arrays[0]) & np.isfinite(arrays[1])
        if both.sum() < 3:
            raise MetricError(f"correlation: {both.sum()} heads have both {x} and {y}, expected 3 or more")
        if min(np.ptp(array[both]) for array in arrays) == 0:
            return Correlation(np.nan, np.nan, int(both.sum()))  # undefined for a constant
        from scipy.stats import pearsonr  # takes half a second to import

        result = pearsonr(arrays[0][both], arrays[1][both])
        return Correlation(float(result.statistic), float(result.pvalue), int(both.sum()))

    def to_dataframe(self, name: str | None = None) -> pd.DataFrame:
        """All head-level statistics with their errors, one row per head; or one statistic, one row per value."""
        if name is not None:
            names = [name, self.error_of(name)]
            return xr.Dataset({n: self[n] for n in names if n is not None}).to_dataframe().reset_index()
        errors = [f"{s}_{kind}" for s in self.head_statistics for kind in ("se", "error")]
        columns = [c for c in [*self.head_statistics, *errors] if c in self.dataset]
        if not columns:
            return self._heads()[["layer", "head"]]
        return self.dataset[columns].to_dataframe().reset_index()

    def merge(self, other: AttentionStats) -> AttentionStats:
        """The statistics of both runs together, exactly as if one run had seen both.

        Raises:
            StatsError: the runs do not add up (`RunState.merge`): they have different models, settings or ways of
                reading, or sentences in common.
        """
        return AttentionStats(self.run.merge(other.run))

    def save(self, path: str | Path) -> None:
        """Write one netCDF file with the values, and in its group `state` the sums they are computed from.

        Raises:
            StatsError: the file cannot be written.
        """
        self.run.save(path)

    def __repr__(self) -> str:
        sizes = self.dataset.sizes
        return (
            f"AttentionStats of {self.subject}: {sizes.get('layer', 0)} layers × {sizes.get('head', 0)} heads, "
            f"{self.extent}\n{', '.join(self.statistics)}"
        )

    def _repr_html_(self) -> str:
        first, _, _ = repr(self).partition("\n")
        corpus = f"corpus: {self.provenance['corpus']}"
        return f"<p><strong>{escape(first)}</strong><br>{escape(corpus)}</p>{self.dataset._repr_html_()}"


def load(path: str | Path) -> AttentionStats:
    """Read a file written by `AttentionStats.save`. Raises `StatsError` for any other file."""
    run = RunState.load(path)
    with damage(Path(path)):  # sums that make no sense
        return AttentionStats(run)


def find_head(head: str, layers: Sequence[int], heads: Sequence[int]) -> tuple[int, int]:
    """Layer and head of a name such as "L10H10". Raises `MetricError` if there is no such head."""
    match = HEAD.fullmatch(str(head))
    if not match or int(match[1]) not in layers or int(match[2]) not in heads:
        first, last = head_name(layers[0], heads[0]), head_name(layers[-1], heads[-1])
        raise MetricError(f"head={head!r}: expected a name from {first} to {last}")
    return int(match[1]), int(match[2])


def head_name(layer: int, head: int) -> str:
    """The name of a head, such as "L10H10"."""
    return f"L{layer}H{head}"


def simultaneous_z(n: int) -> float:
    """How many standard errors to either side hold all of n values at once with a probability of 95% (Šidák)."""
    return NormalDist().inv_cdf(1 - (1 - 0.95 ** (1 / n)) / 2)
