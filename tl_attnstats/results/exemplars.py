"""Tables of exemplars: a head's strongest sentences, and random rows of each bin of the largest weight."""

from __future__ import annotations

import numpy as np
import pandas as pd
import xarray as xr

from tl_attnstats.errors import MetricError
from tl_attnstats.results.marking import CROSS_SIDES, ExemplarTable

FIELDS = ("weight", "number", "query", "key", "query_start", "query_end", "key_start", "key_end")


def strongest_table(dataset: xr.Dataset, layer: int, head: int) -> ExemplarTable:
    """See `AttentionStats.exemplars`."""
    if "exemplar_weight" not in dataset:
        raise MetricError("no exemplars here; collect with metrics that include 'exemplars'")
    here = dataset.sel(layer=layer, head=head)
    frame = pd.DataFrame({field: here[f"exemplar_{field}"].values for field in FIELDS}).dropna()
    return _with_texts(frame, dataset, dataset["exemplar_text"], "sentence")


def typical_table(dataset: xr.Dataset, layer: int, head: int) -> ExemplarTable:
    """See `AttentionStats.typical_exemplars`."""
    if "typical_weight" not in dataset:
        raise MetricError("no typical exemplars here; collect with metrics that include 'typical_exemplars'")
    here = dataset.sel(layer=layer, head=head)
    frame = pd.DataFrame({field: here[f"typical_{field}"].values.ravel() for field in FIELDS})
    n_samples = here.sizes["sample"]
    frame["row_max"] = here["row_max"].values.repeat(n_samples)
    frame["rows"] = here["typical_rows"].values.astype(np.int64).repeat(n_samples)
    return _with_texts(frame.dropna(ignore_index=True), dataset, dataset["typical_text"], "typical_sentence")


def _with_texts(frame: pd.DataFrame, dataset: xr.Dataset, texts: xr.DataArray, dim: str) -> ExemplarTable:
    """The table with the sentences and the two tokens."""
    frame.insert(4, "text", [str(texts.sel({dim: number}).item()) for number in frame["number"]])
    for token in ("key", "query"):
        spans = zip(frame["text"], frame[f"{token}_start"], frame[f"{token}_end"], strict=True)
        frame.insert(4, f"{token}_text", [text[start:end] for text, start, end in spans])
    table = ExemplarTable(frame.rename(columns={"number": "sentence"}))
    if dataset.attrs.get("stream") == "cross":
        table.attrs["sides"] = CROSS_SIDES
    return table
