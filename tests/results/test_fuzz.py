"""Files of statistics that are damaged, or whole but nonsense, are refused with a `StatsError`, or can be used."""

from __future__ import annotations

import json
import random
import warnings
from collections.abc import Mapping
from pathlib import Path

import h5netcdf
import numpy as np
import pytest
import xarray as xr
from hypothesis import strategies as st

import tl_attnstats as ta
from tests import tiny
from tests.fuzzing import fuzz
from tl_attnstats.errors import StatsError
from tl_attnstats.results.file import write_state

RANDOMS = st.randoms(use_true_random=False)
# One of each kind of state; those that are left out take long to compute.
METRICS = ["distance", "pos_to", "behaviour", "sinks", "relation_accuracy", "exemplars", "baselines"]
NUMBERS = ["float64", "float32", "int64", "str"]
ODD_NUMBERS = (np.nan, np.inf, -np.inf, -1, 0, 1e30)
ODD_INTEGERS = (-1, 0, 1, 2**62, -(2**63))
ODD_VALUES = (None, "", "x", "\0", -1, 0, 2**70, 1.5, [], {}, [[1]], {"a": {}}, True)


@pytest.fixture(scope="module")
def stats() -> ta.AttentionStats:
    patterns = [(tiny.patterns(2, 2, len(s.words), True, 0), s) for s in tiny.sentences(4)]
    return ta.collect_patterns(patterns, METRICS)


def use(path: Path) -> None:
    """Read a file and ask what everybody asks."""
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", RuntimeWarning)  # arithmetic with infinity and NaN
        stats = ta.load(path)
        assert stats.subject
        assert stats.extent
        for name in stats.head_statistics:
            stats.top_heads(name)
        with pytest.raises(StatsError):
            stats.merge(stats)


# h5netcdf cannot close a file that it could not open.
@pytest.mark.filterwarnings("ignore:.*File.close:pytest.PytestUnraisableExceptionWarning")
def test_a_file_without_a_checksum_is_read_or_refused_whatever_is_damaged(
    stats: ta.AttentionStats, tmp_path: Path
) -> None:
    path = tmp_path / "stats.nc"
    stats.save(path)
    path.write_bytes(path.read_bytes()[:-91])
    with h5netcdf.File(path, "a") as file:
        file.attrs["format"] = "tl_attnstats 2"
    use(path)
    whole = path.read_bytes()

    def read(rng: random.Random) -> None:
        data = bytearray(whole)
        for _ in range(rng.randint(1, 4)):
            data[rng.randrange(len(data))] = rng.choice([0, 255, rng.randrange(256)])
        path.write_bytes(data[: rng.choice([len(data), len(data), rng.randrange(len(data))])])
        use(path)

    assert fuzz(30, RANDOMS, read)["refused"]


def test_a_state_that_makes_no_sense_is_refused_or_can_be_used(stats: ta.AttentionStats, tmp_path: Path) -> None:
    path, state = tmp_path / "stats.nc", stats.run.state_dict()

    def read(rng: random.Random) -> None:
        changed = dict(state)
        try:
            for _ in range(rng.choice([1, 1, 2, 3])):
                changed = mutated(changed, rng)
            write_state(path, changed, None, quick=rng.random() < 0.5)
        except (ValueError, TypeError, OverflowError):  # xarray or netCDF cannot hold it
            return
        use(path)

    found = fuzz(60, RANDOMS, read)
    assert found["refused"]
    assert found["read"]


def mutated(state: Mapping[str, xr.Dataset], rng: random.Random) -> dict[str, xr.Dataset]:
    """The state with a group, variable, dimension, label, number or a word of its books changed."""
    if not state:
        return dict(state)
    group = rng.choice([*state, "run"])
    if group not in state:
        return dict(state)
    part = state[group]
    names, dims = [str(name) for name in part.variables], [str(dim) for dim in part.dims]
    match rng.randrange(9):
        case 0:
            return {name: other for name, other in state.items() if name != group}
        case 1:
            return {**state, rng.choice([*state, "made up", "distance"]): part}
        case 2 if names:
            part = part.drop_vars(rng.choice(names))
        case 3 if dims:
            part = part.transpose(*rng.sample(dims, len(dims)))
        case 4 if dims:
            dim = rng.choice(dims)
            places = rng.choice([[], [0], [0, 0], [*range(part.sizes[dim])][::-1]])
            part = part.isel({dim: [place for place in places if place < part.sizes[dim]]})
        case 5 if dims:
            dim = rng.choice(dims)
            part = part.rename({dim: f"made_up_{dim}"})
        case 6 if names:
            name = rng.choice(names)
            values = part[name].astype(rng.choice(NUMBERS if part[name].dtype.kind in "fi" else ["str"]))
            part = part.drop_vars(name).assign({name: (values.dims, values.values)})
        case 7 if names:
            name = rng.choice(names)
            values = np.array(part[name].values)
            if values.size and values.dtype.kind in "fi":
                odd = ODD_NUMBERS if values.dtype.kind == "f" else ODD_INTEGERS
                values.flat[rng.randrange(values.size)] = rng.choice(odd)
                part = part.drop_vars(name).assign({name: (part[name].dims, values)})
        case 8 if part.attrs:
            name = rng.choice([*part.attrs])
            part = part.assign_attrs({name: changed_json(str(part.attrs[name]), rng)})
    return {**state, group: part}


def changed_json(text: str, rng: random.Random) -> str:
    value = json.loads(text) if text.startswith("{") else None
    if rng.random() < 0.2 or not value:
        return rng.choice(["", "{", "null", "[]", "{}", text[:-1], text + "x"])
    key = rng.choice([*value])
    if rng.random() < 0.3:
        del value[key]
    else:
        value[rng.choice([key, "made up"])] = rng.choice(ODD_VALUES)
    return json.dumps(value)
