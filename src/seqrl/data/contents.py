"""What files hold, told by a hash that is computed once and remembered while the file stays as it is."""

from __future__ import annotations

import contextlib
import os
import time
from pathlib import Path

from seqrl import paths
from seqrl.console import say
from seqrl.errors import DataError
from seqrl.files import fingerprint, fingerprint_files, write_text

_SETTLED_NS = 2_000_000_000  # a file that was changed later than this ago may change again within one tick of its clock
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


def _hash_file(path: Path) -> str:
    """The hash of a file from the cache, where a file of the same inode, size and times was read before."""
    status = path.stat()
    record = _record(status)
    with contextlib.suppress(OSError):
        return record.read_text(encoding="utf-8")
    if status.st_size > _LARGE:
        say(f"reading {path} once, to tell later whether it has changed")
    try:
        content = fingerprint_files(path)
    except OSError as error:
        raise DataError(f"{str(path)!r} cannot be read ({error.strerror}); make it readable") from error
    after = path.stat()
    if _record(after) != record:
        raise DataError(f"{str(path)!r} changes while it is read; wait until it is written")
    if time.time_ns() - max(after.st_mtime_ns, after.st_ctime_ns) > _SETTLED_NS:
        with contextlib.suppress(OSError):  # nobody fails for lack of a cache
            record.parent.mkdir(parents=True, exist_ok=True)
            write_text(record, content)
    return content


def _record(status: os.stat_result) -> Path:
    """Where the hash of a file with this status is remembered."""
    known_by = (status.st_dev, status.st_ino, status.st_size, status.st_mtime_ns, status.st_ctime_ns)
    return paths.data_dir() / "contents" / fingerprint(known_by)[:32]
