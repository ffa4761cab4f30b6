"""Files of episodes, read by whichever reader knows their content."""

from __future__ import annotations

from collections.abc import Collection
from pathlib import Path

from seqrl.errors import DataError
from seqrl.formats.hdf5 import read_hdf5
from seqrl.formats.npz import read_npz
from seqrl.formats.recording import Recording, is_hdf5, read_start

_ZIP_START, _NPY_START = b"PK", b"\x93NUMPY"


def read_recording(path: Path, keys: Collection[str] | None = None) -> Recording:
    """Read an HDF5 or NPZ file, which are told apart by their content: HDF5 itself says what is of its kind.

    Args:
        keys: read these arrays only, as far as the file has them; all by default.

    Raises:
        DataError: the file is missing, empty, truncated, damaged or of another kind.
    """
    start = read_start(path)
    zipped = start[: len(_ZIP_START)] == _ZIP_START
    if not zipped and is_hdf5(path, start):
        return read_hdf5(path, keys)
    if zipped:
        return read_npz(path, keys)
    if start[: len(_NPY_START)] == _NPY_START:
        raise DataError(f"{path.name} is a single NumPy array; save the arrays of all keys with numpy.savez")
    raise DataError(f"{path.name} is neither an HDF5 nor an NPZ file; give data.path one of the two")
