"""Writing HDF5 files, to disks that may be full."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from io import FileIO
from pathlib import Path
from typing import Any

import numpy as np

from seqrl.formats.recording import plain_attributes

_AT_ONCE = 2**24  # bytes that are written before anybody looks whether the disk took them


def write_hdf5(path: Path, arrays: Mapping[str, np.ndarray], attributes: Mapping[str, Any]) -> None:
    """Write arrays, compressed, and the attributes that a file can keep.

    Raises:
        OSError: the disk is full, or refuses.
    """
    import h5py

    with open_disk(path) as disk, h5py.File(disk, "w") as file:
        file.attrs.update(plain_attributes(attributes))
        for key, array in arrays.items():
            dataset = file.create_dataset(key, array.shape, array.dtype, compression="gzip")
            rows = dataset.chunks[0] * max(1, _AT_ONCE // max(1, dataset.chunks[0] * array[:1].nbytes))
            for first in range(0, len(array), rows):
                dataset[first : first + rows] = array[first : first + rows]
                disk.check()


class Disk:
    """A file for HDF5 that takes every write and keeps the first error, for `check` to raise.

    HDF5 cannot close a file that does not take its last bytes, and a process that holds such a file ends in a
    segmentation fault. So it never hears of a failure; whoever writes asks for it.
    """

    def __init__(self, file: FileIO) -> None:
        self._file = file
        self._error: OSError | None = None

    def check(self) -> None:
        """Raise what went wrong so far.

        Raises:
            OSError: as the system gave it.
        """
        if self._error is not None:
            raise self._error

    def write(self, data: Any) -> int:
        left = memoryview(data).cast("B")
        size = len(left)
        try:
            while left and self._error is None:
                left = left[self._file.write(left) :]
        except OSError as error:
            self._error = error
        return size

    def truncate(self, size: int) -> int:
        try:
            self._file.truncate(size)
        except OSError as error:
            self._error = self._error or error
        return size

    def readinto(self, buffer: Any) -> int:
        left = memoryview(buffer).cast("B")
        size = len(left)
        while left and (count := self._file.readinto(left)):
            left = left[count:]
        left[:] = bytes(len(left))  # what a full disk has not taken
        return size

    def read(self, size: int = -1) -> bytes:
        return self._file.read(size)

    def seek(self, offset: int, whence: int = 0) -> int:
        return self._file.seek(offset, whence)

    def tell(self) -> int:
        return self._file.tell()

    def flush(self) -> None:
        """Nothing is buffered."""


@contextmanager
def open_disk(path: Path) -> Iterator[Disk]:
    """The file of a path, emptied, as `h5py.File` takes it in place of a name; what it could not take is raised.

    Raises:
        OSError: the disk is full, or refuses.
    """
    with path.open("w+b", buffering=0) as file:
        disk = Disk(file)
        try:
            yield disk
        except Exception:
            disk.check()  # HDF5 may stumble over what was not written: the disk is the reason
            raise
        disk.check()
