"""The file of a run: netCDF with the values at the top, and the state they are computed from in its group `state`.

`docs/files.md` describes what is in it.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path

import h5netcdf
import xarray as xr
from xarray.backends import H5NetCDFStore

from tl_attnstats.corpus.files import write_whole
from tl_attnstats.corpus.seal import BROKEN, seal, seal_of, wrong_version
from tl_attnstats.errors import AttnStatsError, StatsError
from tl_attnstats.results.flat import flattened, unflattened

FORMAT = "tl_attnstats 3"
PACKED = {"zlib": True, "complevel": 1, "shuffle": True}  # higher levels take a fifth longer and save 4%
UNSEALED = ("tl_attnstats 2",)  # the same without a checksum


def write_state(path: Path, state: Mapping[str, xr.Dataset], values: xr.Dataset | None, *, quick: bool = False) -> None:
    """Write a run's state, and its values if given, to one file, whole or not at all.

    Args:
        path: the file.
        state: the sums, by group.
        values: what follows from them.
        quick: write the sums as one array, unpacked, which only this package reads.

    Raises:
        StatsError: the file cannot be written.
    """
    top = xr.Dataset() if values is None else values
    groups = {"state": flattened(state)} if quick else {f"state/{name}": part for name, part in state.items()}
    try:
        with write_whole(path) as temporary:
            # Open it once: `to_netcdf` would open it again for each group, and read all groups before it each time.
            with h5netcdf.File(temporary, "w") as file:
                top.assign_attrs(format=FORMAT).dump_to_store(H5NetCDFStore(file, mode="a"))
                for name, part in groups.items():
                    numbers = [v for v in part.data_vars if part[v].dtype.kind in "fi"]
                    group = H5NetCDFStore(file.create_group(name), mode="a")
                    part.dump_to_store(group, encoding={v: {**PACKED, "_FillValue": None} for v in numbers})
            # After its end, because no attribute can cover HDF5's own metadata, and with a user block before its
            # beginning, xarray no longer recognizes the file.
            seal(temporary)
    except OSError as error:
        raise StatsError(f"{path}: cannot be written ({error.strerror or error})") from None


def read_state(path: Path) -> dict[str, xr.Dataset]:
    """Read the state from a file written by `write_state`. Raises `StatsError` for any other file."""
    with damage(path):
        with opened(path) as file:
            names = list(file["state"].groups)
            flat = "bytes" in file["state"].variables
        if flat:
            return unflattened(xr.load_dataset(path, group="state", engine="h5netcdf"))
        # The encoding has the length of the longest text; longer ones, from a merge, would be cut when saved again.
        return {name: xr.load_dataset(path, group=f"state/{name}", engine="h5netcdf").drop_encoding() for name in names}


@contextmanager
def opened(path: Path) -> Iterator[h5netcdf.File]:
    """A file written by `write_state`, once its checksum and format are checked. Raises `StatsError` for any other."""
    with damage(path):
        with path.open("rb") as raw:
            found = seal_of(raw)
        if found == "broken":
            raise StatsError(f"{path}: {BROKEN}")
        with h5netcdf.File(path, "r") as file:
            if wrong := wrong_version(file.attrs.get("format"), FORMAT, found, unsealed=UNSEALED):
                raise StatsError(f"{path}: not a file of tl_attnstats ({wrong})")
            yield file


@contextmanager
def damage(path: Path) -> Iterator[None]:
    """Turn whatever a missing or damaged file makes a reader raise into `StatsError`."""
    try:
        yield
    except (AttnStatsError, MemoryError):
        raise
    except FileNotFoundError:
        raise StatsError(
            f"{path}: no such file; expected a file written by AttentionStats.save or attnstats run"
        ) from None
    except Exception as error:  # readers raise errors of any kind for what they do not expect
        raise StatsError(f"{path}: not a readable file of tl_attnstats ({type(error).__name__}: {error})") from None
