"""HDF5 files: reading their arrays, writing them."""

from __future__ import annotations

from collections.abc import Collection, Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import numpy as np

from seqrl.errors import DataError
from seqrl.formats.recording import HDF5_START, Recording, first_line, plain_attributes, read_start

MAIN = ("observations", "actions", "rewards")
GOALS = "infos/goal"
"""D4RL's key of the goal of the moment of whoever acted."""


@contextmanager
def open_hdf5(path: Path) -> Iterator[Any]:
    """The `h5py.File` of a path, open for reading.

    Raises:
        DataError: the file is missing, empty, cut short, damaged, in use, forbidden or of another kind.
    """
    import h5py

    if read_start(path) != HDF5_START:
        raise DataError(f"{path.name} is not an HDF5 file; give an HDF5 file, or read an NPZ file by data=arrays")
    try:
        with h5py.File(path, "r") as file:
            yield file
    except (OSError, RuntimeError, KeyError) as error:  # whatever h5py makes of bytes that are not what they were
        reason = str(error).lower()
        if "unable to lock file" in reason:
            raise DataError(
                f"{path.name} cannot be locked, since another process has it open or its file system has no locks; "
                "close it there, or set HDF5_USE_FILE_LOCKING=FALSE if nobody writes to it"
            ) from error
        if "truncated" in reason or "read failed" in reason:
            size = path.stat().st_size
            raise DataError(f"{path.name} is a truncated HDF5 file of {size} bytes; fetch or make it again") from error
        raise DataError(f"{path.name} is a damaged HDF5 file ({first_line(error)}); fetch or make it again") from error


def read_hdf5(path: Path, keys: Collection[str] | None = None) -> Recording:
    """Read the arrays of numbers and the attributes; soft and external links are followed.

    Args:
        keys: read these arrays only, as far as the file has them; all by default.

    Raises:
        DataError: as `open_hdf5`, or observations, actions or rewards are a group of arrays.
    """
    with open_hdf5(path) as file:
        found = dict(_datasets(file)) if keys is None else _chosen(file, keys)
        for name in MAIN:
            if name not in found and hasattr(file.get(name), "keys"):
                parts = ", ".join(sorted(file[name]))
                raise DataError(f"{path.name}: {name} is a group of {parts}; join its parts into one array of N rows")
        rows = len(found["observations"]) if "observations" in found and found["observations"].ndim else None
        arrays = {key: np.asarray(item[()]) for key, item in found.items() if _is_ours(key, item, rows)}
        attributes = {key: _plain(value) for key, value in file.attrs.items()}
        return Recording(path.name, arrays, {**attributes, "path": path.name}, names=sorted(file))


def write_hdf5(path: Path, arrays: Mapping[str, np.ndarray], attributes: Mapping[str, Any]) -> None:
    """Write arrays, compressed, and the attributes that a file can keep."""
    import h5py

    with h5py.File(path, "w") as file:
        file.attrs.update(plain_attributes(attributes))
        for key, array in arrays.items():
            file.create_dataset(key, data=array, compression="gzip")


def _chosen(file: Any, keys: Collection[str]) -> dict[str, Any]:
    import h5py

    found = {key: file.get(key) for key in keys}
    return {key: item for key, item in found.items() if isinstance(item, h5py.Dataset)}


def _datasets(group: Any, prefix: str = "", above: tuple[Any, ...] = ()) -> Iterator[tuple[str, Any]]:
    """Every array by its key, through groups and links."""
    import h5py

    for name in group:
        item = group.get(name)  # None for a link that leads nowhere
        if isinstance(item, h5py.Dataset):
            yield f"{prefix}{name}", item
        elif isinstance(item, h5py.Group) and item not in (group, *above):
            yield from _datasets(item, f"{prefix}{name}/", (group, *above))


def _is_ours(key: str, item: Any, rows: int | None) -> bool:
    """Whether an array is one of numbers, and of the episodes: D4RL keeps the weights of its policies in a group."""
    if key in (*MAIN, GOALS):
        return True
    return bool(item.dtype.kind in "fiub" and item.ndim and ("/" not in key or len(item) == rows))


def _plain(value: Any) -> Any:
    """An attribute as a plain Python value."""
    if isinstance(value, bytes):
        return value.decode(errors="replace")
    return value.tolist() if isinstance(value, (np.generic, np.ndarray)) else value
