"""The file of a data set of D4RL: where it comes from, and that it is one."""

from __future__ import annotations

import os
from pathlib import Path
from urllib.parse import urlsplit

from seqrl.d4rl.catalogue import Entry
from seqrl.d4rl.download import Download
from seqrl.errors import DataError
from seqrl.formats.hdf5 import open_hdf5

MIRROR = "SEQRL_D4RL_MIRROR"
"""Environment variable: the address of a copy of D4RL's folder `offline_rl`, asked instead of D4RL's server."""


def fetch(entry: Entry, url: str | None = None, sha256: str | None = None) -> Path:
    """The file of a data set, downloaded where it is not there yet.

    Args:
        url: another address than D4RL's own or the mirror's.
        sha256: what a download must have.

    Raises:
        DataError: it cannot be downloaded, or what comes is not such a file.
    """
    path = entry.path
    if not path.is_file():
        Download(url or find_address(entry), path, sha256).fetch(check_file)
    return path


def find_address(entry: Entry) -> str:
    """D4RL's own address, or that of the same file on the mirror."""
    mirror = os.environ.get(MIRROR)
    if not mirror:
        return entry.url
    return f"{mirror.rstrip('/')}/{urlsplit(entry.url).path.partition('/offline_rl/')[2]}"


def check_file(path: Path) -> None:
    """Refuse what is no whole file in D4RL's layout; HDF5 itself knows where its file must end.

    Raises:
        DataError: saying what it is instead.
    """
    with open_hdf5(path, alone=True) as file:
        if "observations" not in file:
            raise DataError(f"{path.name} is an HDF5 file without observations")
