"""The arrays of a Minari data set, looked at before the library reads them: they lie in its own files, in sizes that
these files can hold."""

from __future__ import annotations

from collections.abc import Mapping
from importlib.metadata import PackageNotFoundError, version
from pathlib import Path
from typing import Any

from seqrl.errors import DataError
from seqrl.formats.recording import first_line

_RATIO = 1100  # gzip's best is 1032: what an array of equal numbers may take less on disk than in memory
_SMALL = 2**30  # bytes that no file must account for
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
            _check_links(file, origin)
            _check_sizes(file, path.stat().st_size, origin)
        except (OSError, RuntimeError, KeyError, ValueError, TypeError) as error:  # the library might read past it
            raise DataError(
                f"{origin} is damaged ({type(error).__name__}: {first_line(error)}); take a copy of it, or fetch it "
                "again"
            ) from error


def _check_links(file: Any, origin: str) -> None:
    import h5py

    inner = (h5py.h5l.TYPE_HARD, h5py.h5l.TYPE_SOFT)

    def find(name: bytes, info: Any) -> str | None:
        return None if info.type in inner else name.decode(errors="replace")

    key = file.id.links.visit(find, info=True)
    if key is not None:
        raise DataError(f"{origin}: {key} is a link into another file; copy what it leads to into main_data.hdf5")


def _check_sizes(file: Any, size: int, origin: str) -> None:
    import h5py

    total = 0

    def add(name: bytes) -> str | None:
        nonlocal total
        item = h5py.h5o.open(file.id, name)
        if not isinstance(item, h5py.h5d.DatasetID):
            return None
        created = item.get_create_plist()
        if created.get_external_count() or created.get_layout() == h5py.h5d.VIRTUAL:
            return name.decode(errors="replace")
        space = item.get_space()
        total += item.get_type().get_size() * int(space.get_simple_extent_npoints())
        return None

    key = h5py.h5o.visit(file.id, add)
    if key is not None:
        raise DataError(f"{origin}: {key} is kept in another file; copy it into main_data.hdf5")
    if total > max(_SMALL, _RATIO * size):
        raise DataError(
            f"{origin} promises arrays of {total} bytes in a file of {size}; take a whole copy of it, or fetch it again"
        )


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
