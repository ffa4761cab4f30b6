"""What files hold, told by a hash that is computed once and remembered while the file stays as it is."""

from __future__ import annotations

import contextlib
import os
import time
from pathlib import Path
from typing import BinaryIO

from seqrl import paths
from seqrl.console import say
from seqrl.errors import DataError
from seqrl.files import fingerprint, fingerprint_files, fingerprint_start, write_text

_SETTLED_NS = 2_000_000_000  # a file that was changed later than this ago may change again within one tick of its clock
_SEAL = 64  # bytes
_LARGE = 2**31  # bytes; reading more takes seconds, which are announced


def hash_content(path: Path) -> str | None:
    """The SHA-256 of a file, or of a folder with the names and contents of all files below it.

    Returns:
        None where there is nothing.

    Raises:
        DataError: a file that cannot be read, or that changes while it is read.
    """
    if path.is_file():
        return _hash_file(path)
    if not path.is_dir():
        return None
    files = sorted(each for each in path.rglob("*") if each.is_file())
    return fingerprint([[file.relative_to(path).as_posix(), _hash_file(file)] for file in files])


def seal_file(file: BinaryIO) -> None:
    """Write the hash of all that a new file holds behind it, for `is_sealed` to compare."""
    file.flush()
    seal = fingerprint_files(Path(file.name))
    file.seek(0, os.SEEK_END)
    file.write(seal.encode("ascii"))


def is_sealed(path: Path) -> bool:
    """Whether a file ends with the hash of all that stands before, which is computed once while it stays as it is.

    Raises:
        DataError: it cannot be read, or changes while it is read.
    """
    try:
        with path.open("rb") as file:
            file.seek(-_SEAL, os.SEEK_END)
            seal = file.read()
    except OSError:
        return False
    return seal == _hash_file(path, _SEAL).encode("ascii")


def _hash_file(path: Path, without: int = 0) -> str:
    """The hash of a file from the cache, where a file of the same inode, size and times was read before.

    Args:
        without: bytes at the end that do not count.
    """
    status = path.stat()
    record = _record(status, without)
    with contextlib.suppress(OSError):
        return record.read_text(encoding="utf-8")
    if status.st_size > _LARGE:
        say(f"reading {path} once, to tell later whether it has changed")
    try:
        content = fingerprint_start(path, status.st_size - without) if without else fingerprint_files(path)
    except OSError as error:
        raise DataError(f"{str(path)!r} cannot be read ({error.strerror}); make it readable") from error
    after = path.stat()
    if _record(after, without) != record:
        raise DataError(f"{str(path)!r} changes while it is read; wait until it is written")
    if time.time_ns() - max(after.st_mtime_ns, after.st_ctime_ns) > _SETTLED_NS:
        with contextlib.suppress(OSError):  # nobody fails for lack of a cache
            record.parent.mkdir(parents=True, exist_ok=True)
            write_text(record, content)
    return content


def _record(status: os.stat_result, without: int) -> Path:
    """Where the hash of a file with this status is remembered."""
    known_by = (status.st_dev, status.st_ino, status.st_size, status.st_mtime_ns, status.st_ctime_ns)
    return paths.data_dir() / "contents" / fingerprint((*known_by, without) if without else known_by)[:32]
