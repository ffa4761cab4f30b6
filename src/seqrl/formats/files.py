"""Episodes in HDF5 and NPZ files: told apart by content, read whole, cut by `seqrl.formats.keys.by_keys`."""

from __future__ import annotations

import zipfile
import zlib
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import numpy as np

from seqrl.data.checks import DISCRETE
from seqrl.errors import DataError
from seqrl.formats.flat import FlatEpisodes
from seqrl.formats.keys import by_keys

MAIN = ("observations", "actions", "rewards")
HDF5, _ZIP, _NPY = b"\x89HDF\r\n\x1a\n", b"PK", b"\x93NUMPY"
TEXTS = ("name", "env_id")  # what NPZ files may say in arrays of one text or number; HDF5 has attributes for it
COUNTS = tuple(DISCRETE.values())


def read_file(path: Path, *, lenient: bool = False) -> FlatEpisodes:
    """Read an HDF5 or NPZ file in any of the layouts of `by_keys`.

    Raises:
        DataError: the file is missing, empty, truncated, damaged or of another kind, or lacks arrays.
    """
    start = _start(path)
    if start == HDF5:
        arrays, attributes = _hdf5(path)
    elif start[: len(_NPY)] == _NPY:
        raise DataError(f"{path.name} is a single NumPy array; save the arrays of all keys with numpy.savez")
    elif start[: len(_ZIP)] == _ZIP:
        arrays, attributes = _npz(path)
    else:
        raise DataError(f"{path.name} is neither an HDF5 nor an NPZ file; give data.path one of the two")
    return by_keys(arrays, origin=path.name, attributes={**attributes, "path": path.name}, lenient=lenient).in_columns()


@contextmanager
def opened_hdf5(path: Path) -> Iterator[Any]:
    """The `h5py.File` of a path, open for reading.

    Raises:
        DataError: the file is missing, empty, cut short, damaged, forbidden or of another kind.
    """
    import h5py

    if _start(path) != HDF5:
        raise DataError(f"{path.name} is not an HDF5 file; give an HDF5 file, or read an NPZ file by data=arrays")
    try:
        with h5py.File(path, "r") as file:
            yield file
    except (OSError, RuntimeError, KeyError) as error:  # whatever h5py makes of bytes that are not what they were
        if "truncated" in str(error) or "read failed" in str(error).lower():
            size = path.stat().st_size
            raise DataError(f"{path.name} is a truncated HDF5 file of {size} bytes; fetch or make it again") from error
        raise DataError(f"{path.name} is a damaged HDF5 file ({_reason(error)}); fetch or make it again") from error


def _start(path: Path) -> bytes:
    if path.is_dir():
        raise DataError(f"{str(path)!r} is a folder; give the path of an HDF5 or NPZ file")
    try:
        with path.open("rb") as file:
            start = file.read(len(HDF5))
    except FileNotFoundError as error:
        raise DataError(f"there is no file {str(path)!r}; give data.path the path of an HDF5 or NPZ file") from error
    except PermissionError as error:
        raise DataError(f"{str(path)!r} may not be read; check its permissions") from error
    if not start:
        raise DataError(f"{path.name} is an empty file; fetch or make it again")
    return start


def _hdf5(path: Path) -> tuple[dict[str, np.ndarray], dict[str, Any]]:
    import h5py

    found: dict[str, Any] = {}

    def take(key: str, item: Any) -> None:
        if isinstance(item, h5py.Dataset) and (key in MAIN or (item.dtype.kind in "fiub" and item.ndim)):
            found[key] = item

    with opened_hdf5(path) as file:
        file.visititems(take)
        rows = len(found["observations"]) if "observations" in found and found["observations"].ndim else None
        # D4RL keeps the weights of its policies in a group: what has other rows and no name of ours stays there.
        arrays = {k: np.asarray(item[()]) for k, item in found.items() if "/" not in k or len(item) == rows}
        return arrays, {key: plain(value) for key, value in file.attrs.items()}


def _npz(path: Path) -> tuple[dict[str, np.ndarray], dict[str, Any]]:
    arrays: dict[str, np.ndarray] = {}
    attributes: dict[str, Any] = {}
    try:
        with path.open("rb") as opened, np.load(opened, allow_pickle=False) as file:  # NumPy leaves damaged ones open
            for key in file.files:
                try:
                    array = np.asarray(file[key])
                except ValueError as error:
                    raise DataError(
                        f"{path.name}: {key} cannot be read ({_reason(error)}); save plain arrays, one row per "
                        "transition, instead of lists of arrays"
                    ) from error
                if array.ndim == 0 and array.dtype.kind == "U" and key in TEXTS:
                    attributes[key] = str(array)
                elif array.ndim == 0 and array.dtype.kind in "iu" and key in COUNTS:
                    attributes[key] = int(array)
                else:
                    arrays[key] = array
    except (OSError, EOFError, KeyError, RuntimeError, zipfile.BadZipFile, zlib.error) as error:
        raise DataError(f"{path.name} is truncated or damaged ({_reason(error)}); fetch or make it again") from error
    return arrays, attributes


def _reason(error: Exception) -> str:
    return (str(error).splitlines() or [type(error).__name__])[0].rstrip(".")


def plain(value: Any) -> Any:
    """An attribute of an HDF5 file as a plain Python value."""
    if isinstance(value, bytes):
        return value.decode(errors="replace")
    return value.tolist() if isinstance(value, (np.generic, np.ndarray)) else value


def plain_attributes(attributes: Mapping[str, Any]) -> dict[str, Any]:
    """The attributes that a file can keep: texts, numbers, booleans and lists of them."""
    return {
        key: value
        for key, value in attributes.items()
        if isinstance(value, (str, int, float, bool)) or (isinstance(value, list) and value)
    }
