"""NPZ files: reading their arrays, writing them."""

from __future__ import annotations

import json
import math
import re
import zipfile
import zlib
from collections.abc import Collection, Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import numpy as np

from seqrl.data.checks import DISCRETE
from seqrl.errors import DataError
from seqrl.formats.limits import check_size
from seqrl.formats.recording import Recording, explain_refusal, first_line

TEXTS = ("name", "env_id")
"""What a file may say in arrays of one text, since NPZ has no attributes."""
COUNT = "num_"
"""Begins the names of arrays of one whole number, which say how many values an array of choices has.

Of an extra of several choices it is one text, `[5, 2]`, since an array of numbers might be an extra; one of another
length than the extra is read as counts, too.
"""
_ADVICE = "save plain arrays, one row per transition, instead of lists of arrays"
_COUNTS = re.compile(r"\[\d{1,18}(, ?\d{1,18})*\]")
_SUFFIX = ".npy"  # of the members
_UNREADABLE = (ValueError, TypeError, SyntaxError, OverflowError, RecursionError)  # what NumPy makes of odd headers


def read_npz(path: Path, keys: Collection[str] | None = None) -> Recording:
    """Read the arrays of a file, and the attributes that stand in arrays of one text or number.

    What they declare to hold is compared with the size of the file before they are read.

    Args:
        keys: read these arrays only, as far as the file has them; all by default.

    Raises:
        DataError: the file is cut short, damaged or forbidden, holds Python objects or one name twice, or arrays that
            are larger than it can hold or the memory.
    """
    arrays: dict[str, np.ndarray] = {}
    attributes: dict[str, Any] = {}
    with _open(path) as archive:
        members = _list_members(archive, path.name)
        wanted = {
            key: member
            for key, member in members.items()
            if (member.filename.endswith(_SUFFIX) if keys is None else key in (*keys, *TEXTS) or key.startswith(COUNT))
        }
        check_size(sum(member.file_size for member in wanted.values()), path.stat().st_size, path.name)
        for key, member in wanted.items():
            _check_header(archive, member, key, path.name)
        for key, member in wanted.items():
            array = _read_array(archive, member, key, path.name)
            if array.ndim == 0 and array.dtype.kind == "U" and key in TEXTS:
                attributes[key] = str(array)
            elif array.ndim == 0 and array.dtype.kind in "iu" and key.startswith(COUNT):
                attributes[key] = int(array)
            elif (
                array.ndim == 0 and array.dtype.kind == "U" and key.startswith(COUNT) and _COUNTS.fullmatch(str(array))
            ):
                attributes[key] = json.loads(str(array))
            elif array.ndim == 1 and array.dtype.kind in "iu" and key in DISCRETE.values():
                attributes[key] = array.tolist()
            else:
                arrays[key] = array
    for key in [key for key in arrays if _holds_counts(key, arrays)]:
        attributes[key] = arrays.pop(key).tolist()
    return Recording(path.name, arrays, {**attributes, "path": path.name}, list(members))


def _holds_counts(key: str, arrays: Mapping[str, np.ndarray]) -> bool:
    """Whether an array has a count for each number in a row of an extra, and is not an extra itself."""
    counts, rows = arrays[key], _find_choices(key, arrays)
    if rows is None or counts.ndim != 1 or counts.dtype.kind not in "iu":
        return False
    return rows.shape[0] != len(counts) == rows.shape[1]


def _find_choices(key: str, arrays: Mapping[str, np.ndarray]) -> np.ndarray | None:
    """(N, n) of the extra whose choices a key counts; None where there is none of several."""
    name = key.removeprefix(COUNT)
    rows = None if name == key else arrays.get(name, arrays.get(f"infos/{name}"))
    return None if rows is None or rows.ndim != 2 else rows


def write_npz(path: Path, arrays: Mapping[str, np.ndarray], attributes: Mapping[str, Any]) -> None:
    """Write arrays, compressed, and those of the attributes that `read_npz` reads."""
    texts = {key: np.array(str(attributes[key])) for key in TEXTS if attributes.get(key)}
    counts = {
        key: written
        for key, value in attributes.items()
        if key.startswith(COUNT) and key not in arrays and (written := _write_counts(key, value, arrays)) is not None
    }
    everything: dict[str, Any] = {**arrays, **texts, **counts}
    with path.open("wb") as file:  # given a name, NumPy would append .npz to it
        np.savez_compressed(file, **everything)


def _write_counts(key: str, value: Any, arrays: Mapping[str, np.ndarray]) -> np.ndarray | None:
    """The array of a count or several; None of what counts nothing here."""
    if type(value) is int:
        return np.array(value)
    if not isinstance(value, list):
        return None
    if len(value) == 1 or key in DISCRETE.values():
        return np.array(value[0] if len(value) == 1 else value)
    rows = _find_choices(key, arrays)
    return None if rows is None or rows.shape[1] != len(value) else np.array(json.dumps(value))


@contextmanager
def _open(path: Path) -> Iterator[zipfile.ZipFile]:
    """The archive, with what goes wrong while it is read told in a sentence."""
    again = "fetch or make it again"
    try:
        with path.open("rb") as file, zipfile.ZipFile(file) as archive:  # given a name, damaged ones stay open
            yield archive
    except (EOFError, zipfile.BadZipFile, zlib.error, KeyError) as error:
        raise DataError(f"{path.name} is truncated or damaged ({first_line(error)}); {again}") from error
    except NotImplementedError as error:  # before RuntimeError, which it is a kind of
        raise DataError(
            f"{path.name} is packed in a way that Python lacks here ({first_line(error)}); write it by numpy.savez"
        ) from error
    except RuntimeError as error:
        raise DataError(f"{path.name} cannot be unpacked ({first_line(error)}); write it without a password") from error
    except MemoryError as error:
        raise DataError(f"{path.name} does not fit into memory; read it on a machine with more") from error
    except OSError as error:
        raise DataError(explain_refusal(error, path)) from error


def _list_members(archive: zipfile.ZipFile, origin: str) -> dict[str, zipfile.ZipInfo]:
    """Members by the name of their array.

    Raises:
        DataError: two have one name, so that it is chance which one is read.
    """
    found: dict[str, zipfile.ZipInfo] = {}
    for member in archive.infolist():
        key = member.filename.removesuffix(_SUFFIX)
        if key in found:
            raise DataError(f"{origin} holds {key!r} twice; write the file again with one array of that name")
        found[key] = member
    return found


def _check_header(archive: zipfile.ZipFile, member: zipfile.ZipInfo, key: str, origin: str) -> None:
    """Refuse what is no array of plain values, or one that is not all there, before memory is taken for it.

    Raises:
        DataError: naming the key.
    """
    formats = np.lib.format
    try:
        with archive.open(member) as file:
            version = formats.read_magic(file)
            # Version 3 differs from 2 in the encoding of names of fields, which no array of numbers has.
            read = formats.read_array_header_1_0 if version == (1, 0) else formats.read_array_header_2_0
            shape, _, dtype = read(file)
            if not all(0 <= size < 2**63 for size in shape):  # NumPy would count on with what overflows
                raise ValueError(f"its shape is {shape}")
            declared = math.prod(shape) * dtype.itemsize + file.tell()
    except (*_UNREADABLE, MemoryError) as error:
        raise DataError(
            f"{origin}: {key} cannot be read, since it is no array of NumPy ({first_line(error)}); {_ADVICE}"
        ) from error
    if dtype.hasobject:
        raise DataError(f"{origin}: {key} cannot be read, since it holds Python objects; {_ADVICE}")
    if declared > member.file_size:
        raise DataError(
            f"{origin}: {key} cannot be read, since it declares {declared} bytes and holds {member.file_size}; fetch "
            "or copy the file again, or make it again"
        )


def _read_array(archive: zipfile.ZipFile, member: zipfile.ZipInfo, key: str, origin: str) -> np.ndarray:
    try:
        with archive.open(member) as file:
            array: np.ndarray = np.lib.format.read_array(file, allow_pickle=False)
            file.read()  # to the end, where its checksum is compared
    except _UNREADABLE as error:
        raise DataError(f"{origin}: {key} cannot be read ({first_line(error)}); {_ADVICE}") from error
    return array
