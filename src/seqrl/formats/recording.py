"""The raw record of episodes: named arrays as a file or a library gives them, neither cut nor checked."""

from __future__ import annotations

import stat
from collections.abc import Collection, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np

from seqrl.errors import DataError

HDF5_START = b"\x89HDF\r\n\x1a\n"


@dataclass(frozen=True)
class Recording:
    """Named arrays of one origin; `seqrl.formats.cutting.cut_episodes` makes episodes of them.

    Attributes:
        origin: how to call the data in messages.
        arrays: by key, such as `observations` or `infos/qpos`.
        attributes: what the file says beside its arrays, as plain Python values.
        names: keys of everything that the origin holds, for messages; those of `arrays` by default.
    """

    origin: str
    arrays: Mapping[str, np.ndarray]
    attributes: Mapping[str, Any] = field(default_factory=dict)
    names: Collection[str] = ()

    def listing(self) -> str:
        """What there is, for messages."""
        return ", ".join(sorted(self.names or self.arrays)) or "no arrays"


def is_hdf5(path: Path, start: bytes) -> bool:
    """Whether a file is one of HDF5, which may begin with a block of the user's.

    Args:
        start: of `read_start`; a file that begins as HDF5's do is one, also where it is cut or cannot be locked.
    """
    if start == HDF5_START:
        return True
    import h5py

    return bool(h5py.is_hdf5(path))


def read_start(path: Path) -> bytes:
    """The first bytes of a file, which say of what kind it is.

    Raises:
        DataError: it is missing, a folder, no file, forbidden, unreadable or empty.
    """
    try:
        mode = path.stat().st_mode
        if stat.S_ISDIR(mode):
            raise DataError(f"{str(path)!r} is a folder; give the path of an HDF5 or NPZ file")
        if not stat.S_ISREG(mode):  # reading might wait for ever
            raise DataError(f"{str(path)!r} is a device, pipe or socket; give the path of an HDF5 or NPZ file")
        with path.open("rb") as file:
            start = file.read(len(HDF5_START))
    except OSError as error:
        raise DataError(explain_refusal(error, path)) from error
    if not start:
        raise DataError(f"{path.name} is an empty file; fetch or make it again")
    return start


def explain_refusal(error: OSError, path: Path) -> str:
    """One sentence about a file that the system does not give."""
    if isinstance(error, FileNotFoundError):
        return f"there is no file {str(path)!r}; give data.path the path of an HDF5 or NPZ file"
    if isinstance(error, PermissionError):
        return f"{str(path)!r} may not be read; check its permissions and those of its folder"
    return f"{str(path)!r} cannot be read ({error.strerror or first_line(error)}); check its disk and its name"


def first_line(error: Exception) -> str:
    """What a library says went wrong, short enough for one of our sentences."""
    return (str(error).splitlines() or [type(error).__name__])[0].rstrip(".")


def plain_attributes(attributes: Mapping[str, Any]) -> dict[str, Any]:
    """The attributes that a file can keep: texts, numbers, booleans and lists of them."""
    return {
        key: value
        for key, value in attributes.items()
        if isinstance(value, (str, int, float, bool)) or (isinstance(value, list) and value)
    }
