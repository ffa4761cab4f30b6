"""Where converted and collected episodes go: what a target names, whether it may be written, and writing it whole."""

from __future__ import annotations

import os
import shutil
from collections.abc import Callable
from pathlib import Path
from typing import Any

from seqrl.errors import ConfigError, DataError
from seqrl.files import remove_abandoned, write_file, write_folder
from seqrl.formats.minari import MINARI, check_id, import_minari
from seqrl.paths import find_path

HDF5_SUFFIXES = (".hdf5", ".h5")
FORMATS = ".hdf5 or .h5 (D4RL's layout), .npz, or minari:ID"
_ELSEWHERE = "give a place with room that you may write to"


def check_target(target: str, *, overwrite: bool) -> None:
    """Refuse a target of unknown format, one that exists or one that cannot be written, before the work.

    Raises:
        ConfigError: naming the formats, or the switch that replaces what exists.
        DataError: its folder takes no new files.
    """
    if target.startswith(MINARI):
        import_minari()
        check_id(target.removeprefix(MINARI))
    elif Path(target).suffix not in (*HDF5_SUFFIXES, ".npz"):
        raise ConfigError(f"{target!r} has no known format; give a name that ends in {FORMATS}")
    if not overwrite and find_place(target).exists():
        raise ConfigError(f"{target!r} exists already; choose another name, or --overwrite it")
    folder = next(each for each in find_place(target).absolute().parents if each.exists())
    if not folder.is_dir() or not os.access(folder, os.W_OK | os.X_OK):
        why = f"{str(folder)!r} takes no new files" if folder.is_dir() else f"{str(folder)!r} is a file"
        raise DataError(f"{target!r} cannot be written ({why}); {_ELSEWHERE}")


def copy_to_target(source: Path, target: str, *, overwrite: bool = False) -> None:
    """Copy a file, whole or not at all.

    Raises:
        ConfigError, DataError: as `check_target`.
    """
    check_target(target, overwrite=overwrite)
    write_whole(find_place(target), lambda new: shutil.copyfile(source, new), overwrite=overwrite)


def find_place(target: str) -> Path:
    """The file, or the folder of a Minari data set, that a target names."""
    if not target.startswith(MINARI):
        return find_path(target)
    import_minari()
    from minari.storage.datasets_root_dir import get_dataset_path

    return Path(get_dataset_path(target.removeprefix(MINARI)))


def write_whole(
    path: Path, make: Callable[[Path], Any], *, overwrite: bool, folder: bool = False, advice: str = _ELSEWHERE
) -> None:
    """Fill an empty file or folder beside its place, then put it there in one step.

    A file that is there is replaced, and a folder with `overwrite` only. What killed processes left of it is removed.

    Args:
        make: fills what lies at the path it is given.

    Raises:
        DataError: it cannot be written, which is followed by the advice; nothing is left of it.
    """
    try:
        remove_abandoned(path)
        if folder:
            with write_folder(path, overwrite=overwrite) as new:
                make(new)
        else:
            path.parent.mkdir(parents=True, exist_ok=True)
            with write_file(path) as file:
                make(Path(file.name))
    except OSError as error:
        why = os.strerror(error.errno) if error.errno else str(error)
        raise DataError(f"{str(path)!r} cannot be written ({why}); {advice}") from error
