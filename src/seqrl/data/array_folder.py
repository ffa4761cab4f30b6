"""Named arrays in a folder: one .npy file each, mapped into memory when read, and a manifest that makes them whole."""

from __future__ import annotations

import errno
import json
from collections.abc import Iterable, Iterator, Mapping
from pathlib import Path
from typing import Any, BinaryIO
from urllib.parse import quote

import numpy as np

from seqrl.data.contents import hash_content
from seqrl.data.gathered_rows import CHUNK_ROWS, Rows
from seqrl.errors import DataError, explain_unread, is_damage
from seqrl.files import fingerprint, fingerprint_files, read_json, write_folder

MANIFEST = "store.json"
FORMAT = "seqrl episodes"
VERSION = 1
_DIGESTS, _SEAL = "sha256", "sealed"  # of the files, and of the manifest
UNREADABLE_NPY = (ValueError, TypeError, SyntaxError, OverflowError, EOFError)
"""What NumPy makes of a file that is no array, or not all there."""


def write_arrays(folder: Path, arrays: Mapping[str, np.ndarray | Rows], notes: Mapping[str, Any]) -> None:
    """Write arrays and notes as a new folder, whole or not at all.

    Args:
        arrays: written a chunk at a time, so that they may be larger than memory.
        notes: plain values for the manifest.

    Raises:
        DataError: the folder exists, cannot be written, or a note is no plain value.
    """
    entries = {name: {"shape": list(array.shape), "dtype": array.dtype.str} for name, array in arrays.items()}
    content = {"format": FORMAT, "version": VERSION, "arrays": entries, **notes}
    try:
        json.dumps(content)
    except TypeError as error:
        raise DataError(
            f"the store's attributes cannot be written as JSON ({error}); make them plain values"
        ) from error
    try:
        if folder.exists() and (not folder.is_dir() or any(folder.iterdir())):
            raise FileExistsError(errno.EEXIST, "it exists already")
        with write_folder(folder) as new:  # fails in the end where somebody else has filled the folder meanwhile
            for name, array in arrays.items():
                with (new / _file_name(name)).open("wb") as file:
                    write_npy(file, len(array), array.dtype, _chunks(array))
            content[_DIGESTS] = {name: fingerprint_files(new / _file_name(name)) for name in arrays}
            content[_SEAL] = fingerprint(content)
            (new / MANIFEST).write_text(json.dumps(content, indent=2) + "\n", encoding="utf-8")
    except OSError as error:
        why = "it exists already" if error.errno in (errno.EEXIST, errno.ENOTEMPTY) else error.strerror or str(error)
        raise DataError(
            f"the episodes cannot be saved to {str(folder)!r} ({why}); give a new folder where there is room"
        ) from error


def read_arrays(folder: Path) -> tuple[dict[str, np.ndarray], dict[str, Any]]:
    """The arrays of a folder, mapped and read-only, and its manifest.

    Raises:
        DataError: no such folder, no manifest of ours, another version, or an array that is missing, cut or changed.
    """
    manifest = folder / MANIFEST
    if not folder.is_dir():
        raise DataError(f"there is no folder {str(folder)!r}; give the folder that EpisodeStore.save wrote")
    try:
        content = read_json(manifest)
    except (OSError, ValueError) as error:
        if not is_damage(error):
            raise DataError(explain_unread(manifest, error)) from error
        why = "there is none" if isinstance(error, FileNotFoundError) else str(error)
        raise DataError(
            f"{str(folder)!r} has no readable {MANIFEST} ({why}); give a folder that EpisodeStore.save wrote"
        ) from error
    if not isinstance(content, dict) or content.get("format") != FORMAT:
        raise DataError(f"{str(manifest)!r} is not of seqrl; give a folder that EpisodeStore.save wrote")
    if content.get("version") != VERSION:
        raise DataError(
            f"{str(folder)!r} has version {content.get('version')!r} of the format and this seqrl reads {VERSION}; "
            "save the episodes again"
        )
    entries = content.get("arrays")
    if not isinstance(entries, dict):
        raise DataError(f"{str(manifest)!r} lists no arrays; save the episodes again")
    return {name: _read_npy(folder / _file_name(name), entry) for name, entry in entries.items()}, content


def check_unchanged(folder: Path) -> None:
    """Compare a folder with the hashes that were written into it; files are read once while they stay as they are.

    Raises:
        DataError: something was changed since, or there are no hashes, as in folders of an older seqrl.
    """
    try:
        content = read_json(folder / MANIFEST)
        seal, digests = content.pop(_SEAL), content[_DIGESTS]
        found = {name: hash_content(folder / _file_name(name)) for name in content["arrays"]}
    except (OSError, ValueError, KeyError, TypeError, AttributeError) as error:
        if not is_damage(error):
            raise DataError(explain_unread(folder, error)) from error
        raise DataError(f"{str(folder)!r} has no hashes of its files ({error}); save the episodes again") from error
    if fingerprint(content) != seal or found != digests:
        raise DataError(f"{str(folder)!r} is not as it was written; save the episodes again")


def write_npy(file: BinaryIO, rows: int, dtype: np.dtype[Any], chunks: Iterable[tuple[int, np.ndarray]]) -> None:
    """Write an (N, ...) array that comes in chunks `(first row, rows)`, in any order, one chunk at least.

    The bytes are written, not mapped: a full disk is then an `OSError` and no bus error.
    """
    start = row_bytes = 0
    for first, chunk in chunks:
        if not start:
            header = {"descr": dtype.str, "fortran_order": False, "shape": (rows, *chunk.shape[1:])}
            np.lib.format.write_array_header_1_0(file, header)
            start, row_bytes = file.tell(), dtype.itemsize * int(np.prod(chunk.shape[1:]))
        file.seek(start + first * row_bytes)
        file.write(np.ascontiguousarray(chunk, dtype).data)


def _file_name(name: str) -> str:
    return f"{quote(name, safe='')}.npy"  # D4RL's names have slashes


def _chunks(array: np.ndarray | Rows) -> Iterator[tuple[int, np.ndarray]]:
    for first in range(0, len(array), CHUNK_ROWS):
        yield first, array[first : first + CHUNK_ROWS]


def _read_npy(path: Path, entry: Any) -> np.ndarray:
    again = "save or copy the episodes again"
    try:
        # A plain array that keeps the mapping alive. (`np.load` would take other kinds of files as well.)
        array = np.asarray(np.lib.format.open_memmap(path, mode="r"))
    except FileNotFoundError as error:
        raise DataError(f"{str(path)!r} is missing; {again}") from error
    except (OSError, *UNREADABLE_NPY) as error:
        if not is_damage(error):
            raise DataError(explain_unread(path, error)) from error
        raise DataError(f"{str(path)!r} is cut or damaged ({error}); {again}") from error
    found = {"shape": list(array.shape), "dtype": array.dtype.str}
    if found != entry:
        raise DataError(f"{str(path)!r} holds {found} and {MANIFEST} says {entry}; {again}")
    return array
