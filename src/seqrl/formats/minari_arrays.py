"""The arrays of a Minari data set, looked at before the library reads them: they lie in its own files, in sizes that
these files can hold."""

from __future__ import annotations

from collections.abc import Mapping
from importlib.metadata import PackageNotFoundError, version
from pathlib import Path
from typing import Any

from seqrl.errors import DataError
from seqrl.formats.hdf5_chunks import check_sizes
from seqrl.formats.hdf5_links import check_contained
from seqrl.formats.recording import first_line

_PYARROW = (14, 0, 1)  # before it, reading a file could run code that the file holds (CVE-2023-47248)


def check_arrays(place: Path, metadata: Mapping[str, Any], dataset_id: str) -> None:
    """Refuse files that would have the library read other files, or more than there is.

    Args:
        place: the folder of the data set.

    Raises:
        DataError: a link or array that leads into another file, arrays larger than the file can hold, what HDF5 cannot
            follow, or a pyarrow that runs code of files. Files that HDF5 cannot open are left to the library.
    """
    if metadata["data_format"] != "hdf5":
        _check_pyarrow()
        return
    import h5py

    path = place / "data" / "main_data.hdf5"
    origin = f"the Minari data set {dataset_id!r}"
    try:
        file = h5py.File(path, "r")
    except OSError:
        return  # the library fails likewise, and what it says is told
    with file:
        try:
            check_contained(file, path, origin)
            check_sizes(file, path, origin, at_once=False)
        except (OSError, RuntimeError, KeyError, ValueError, TypeError) as error:  # the library might read past it
            raise DataError(
                f"{origin} is damaged ({type(error).__name__}: {first_line(error)}); take a copy of it, or fetch it "
                "again"
            ) from error


def _check_pyarrow() -> None:
    """Without pyarrow the library says how to install it.

    Raises:
        DataError: a version that runs code of files.
    """
    try:
        found = tuple(int(part) for part in version("pyarrow").split(".")[:3])
    except (PackageNotFoundError, ValueError):
        return
    if found < _PYARROW:
        raise DataError(
            f"pyarrow {'.'.join(map(str, found))} runs code that a data file may hold; "
            f"install {'.'.join(map(str, _PYARROW))} or later"
        )
