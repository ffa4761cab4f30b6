"""HDF5 files: reading their arrays."""

from __future__ import annotations

from collections.abc import Collection, Iterator
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import Any

import numpy as np

from seqrl.data.checks import LINKED
from seqrl.errors import DataError
from seqrl.formats.hdf5_chunks import check_chunks, count_bytes
from seqrl.formats.hdf5_links import check_contained
from seqrl.formats.hdf5_reasons import explain_failure
from seqrl.formats.limits import check_size
from seqrl.formats.recording import Recording, is_hdf5, read_start

MAIN = ("observations", "actions", "rewards")
GOALS = "infos/goal"
"""D4RL's key of the goal of the moment of whoever acted."""
_MOST_KEYS = 20_000  # soft links can make a small file endless
_LARGEST_ATTRIBUTE = 2**16  # bytes, and values


@contextmanager
def open_hdf5(path: Path, *, alone: bool = False) -> Iterator[Any]:
    """The `h5py.File` of a path, open for reading; whatever would have it read other files is refused before.

    Args:
        alone: links to files of the same folder are refused as well, as of a download.

    Raises:
        DataError: the file is missing, empty, cut short, damaged, in use, forbidden, of another kind, or not all in it.
    """
    import h5py

    if not is_hdf5(path, read_start(path)):
        raise DataError(f"{path.name} is not an HDF5 file; give an HDF5 file, or read an NPZ file by data=arrays")
    try:
        with h5py.File(path, "r") as file:
            check_contained(file, path, path.name, neighbours=not alone)
            yield file
    except (OSError, RuntimeError, KeyError, ValueError, MemoryError) as error:  # h5py has no error of its own
        raise DataError(explain_failure(error, path)) from error


def read_hdf5(path: Path, keys: Collection[str] | None = None) -> Recording:
    """Read the arrays of numbers and the attributes; soft links are followed, and links to files of the same folder.

    What the arrays declare to hold is compared with the size of the file before they are read.

    Args:
        keys: read these arrays only, as far as the file has them; all by default.

    Raises:
        DataError: as `open_hdf5`, arrays larger than the file can hold or the memory, or observations, actions or
            rewards that are a group of arrays or no numbers.
    """
    with open_hdf5(path) as file:
        found = dict(_datasets(file)) if keys is None else _chosen(file, keys)
        for name in MAIN:
            if name not in found and hasattr(file.get(name), "keys"):
                parts = ", ".join(sorted(file[name]))
                raise DataError(f"{path.name}: {name} is a group of {parts}; join its parts into one array of N rows")
        rows = found["observations"].shape[0] if "observations" in found and found["observations"].shape else None
        ours = {key: item for key, item in found.items() if _is_ours(key, item, rows, path.name)}
        files = {path.name: path} | {Path(item.file.filename).name: Path(item.file.filename) for item in ours.values()}
        stored = sum(each.stat().st_size for each in files.values())
        check_size(sum(count_bytes(item.id) for item in ours.values()), stored, path.name)
        for key, item in ours.items():
            check_chunks(item.id, key, Path(item.file.filename), path.name)
        arrays = {key: np.asarray(item[()]) for key, item in ours.items()}
        attributes = {**_attributes(file), "path": path.name}
        attributes.pop(LINKED, None)
        if len(files) > 1:
            attributes[LINKED] = sorted(files.keys() - {path.name})
        return Recording(path.name, arrays, attributes, names=sorted(file))


def _chosen(file: Any, keys: Collection[str]) -> dict[str, Any]:
    import h5py

    found = {key: file.get(key) for key in keys}
    return {key: item for key, item in found.items() if isinstance(item, h5py.Dataset)}


def _datasets(file: Any) -> Iterator[tuple[str, Any]]:
    """Every array by its key, through groups and links.

    Raises:
        DataError: there is no end of keys.
    """
    import h5py

    left = _MOST_KEYS

    def walk(group: Any, prefix: str, above: frozenset[Any]) -> Iterator[tuple[str, Any]]:
        nonlocal left
        about = h5py.h5o.get_info(group.id)
        above |= {(about.fileno, about.addr)}
        for name in group:
            left -= 1
            if left < 0:
                raise DataError(f"{Path(file.filename).name} has more than {_MOST_KEYS} keys; name each array once")
            item = group.get(name)  # None for a link that leads nowhere
            if isinstance(item, h5py.Dataset):
                yield f"{prefix}{name}", item
            elif isinstance(item, h5py.Group):
                about = h5py.h5o.get_info(item.id)
                if (about.fileno, about.addr) not in above:
                    yield from walk(item, f"{prefix}{name}/", above)

    return walk(file, "", frozenset())


def _is_ours(key: str, item: Any, rows: int | None, origin: str) -> bool:
    """Whether an array is one of numbers, and of the episodes: D4RL keeps the weights of its policies in a group.

    Raises:
        DataError: one that training needs holds something else.
    """
    try:
        kind, numbers = item.dtype, item.dtype.kind in "fiub" and item.shape is not None
    except TypeError:
        kind, numbers = "unknown to NumPy", False
    if key in (*MAIN, GOALS):
        if not numbers:
            raise DataError(f"{origin}: {key} has shape {item.shape} and type {kind}; numbers are needed")
        return True
    return bool(numbers and item.shape and ("/" not in key or item.shape[0] == rows))


def _attributes(file: Any) -> dict[str, Any]:
    """Texts, numbers and short lists of them."""
    import h5py

    found: dict[str, Any] = {}
    for name in file.attrs:
        about = file.attrs.get_id(name)
        count = int(np.prod(about.shape)) if about.shape is not None else 0
        if about.get_storage_size() > _LARGEST_ATTRIBUTE or count == 0:
            continue
        with suppress(TypeError):  # of a type that NumPy does not know
            text = h5py.check_string_dtype(about.dtype) is not None
            if about.dtype.kind in "fiubS" or (text and count == 1):  # texts of any length may be one and the same
                found[name] = _plain(file.attrs[name])
    return found


def _plain(value: Any) -> Any:
    """An attribute as a plain Python value."""
    if isinstance(value, bytes):
        return value.decode(errors="replace")
    return value.tolist() if isinstance(value, (np.generic, np.ndarray)) else value
