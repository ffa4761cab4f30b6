"""What is written is whole or not there, content is told by one fingerprint, and one kind of lock lets one work alone.

New content is written beside its place as `.<name>.<8 random hexadecimal digits>.tmp`, brought to the disk and renamed.
A process that is killed meanwhile leaves that file or folder and no other trace: see `remove_leftovers`, and
`remove_abandoned` where several may write.
"""

from __future__ import annotations

import errno
import fcntl
import glob
import hashlib
import json
import os
import shutil
import stat
import uuid
from collections.abc import Iterable, Iterator
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import Any, BinaryIO

from seqrl.console import say


@contextmanager
def write_file(path: Path) -> Iterator[BinaryIO]:
    """A new file that takes the place of `path` in one step when the block ends, and never if the block fails.

    Its `name` is where it lies until then, for libraries that open files themselves.
    """
    new = _beside(path)
    try:
        with new.open("x+b") as file:  # x: neither a file of somebody else nor what a link points to
            _claim(file.fileno())
            yield file
            flush_file(file)
        new.replace(path)
    finally:
        new.unlink(missing_ok=True)


def write_text(path: Path, text: str) -> None:
    """Write a text file so that a reader sees the old content or the new, never a part."""
    with write_file(path) as file:
        file.write(text.encode())


def read_bytes(path: Path) -> bytes:
    """The content of a file, whoever put it there: it waits at no pipe, and reads no device without end.

    Raises:
        OSError: there is none, it cannot be read, or it is a folder, a pipe or a device.
    """
    with open(path, "rb", opener=_without_waiting) as file:
        if not stat.S_ISREG(os.fstat(file.fileno()).st_mode):
            raise OSError(errno.EINVAL, "it is no file", str(path))
        return file.read()


def read_text(path: Path, *, lenient: bool = False) -> str:
    """The content of a small text file in UTF-8.

    Args:
        lenient: whether bytes that are no UTF-8 are replaced.

    Raises:
        OSError: there is none, it cannot be read, or it is a folder or a pipe.
        ValueError: it is not UTF-8; says so.
    """
    content = read_bytes(path)
    try:
        return content.decode(errors="replace" if lenient else "strict")
    except UnicodeDecodeError as error:
        raise ValueError(f"its byte {error.start} is no UTF-8") from error


def read_json(path: Path) -> Any:
    """The content of a small JSON file, of whatever type.

    Raises:
        OSError: as `read_text`.
        ValueError: it is empty or no JSON; says so.
    """
    text = read_text(path)
    if not text.strip():
        raise ValueError("it is empty")
    try:
        return json.loads(text)
    except (ValueError, RecursionError) as error:
        raise ValueError(f"it is no JSON: {error}") from error


def reason_of(error: Exception) -> str:
    """Why a file could not be read, in words for a bracket."""
    return (isinstance(error, OSError) and error.strerror) or str(error) or type(error).__name__


def copy_file(source: Path, target: Path) -> None:
    """Copy a file; the target is there whole, or as it was before."""
    with source.open("rb") as content, write_file(target) as file:
        shutil.copyfileobj(content, file, 1 << 20)


@contextmanager
def write_folder(path: Path, *, overwrite: bool = False) -> Iterator[Path]:
    """A new, empty folder that takes the place of `path` when the block ends, and never if the block fails.

    Args:
        overwrite: a folder with content is replaced. A process that is killed between the two renames leaves the old
            content as `.<name>.<8 random digits>.old`.

    Raises:
        OSError: there is a folder with content, or a file; or the disk refuses.
    """
    new = _beside(path)
    old = new.with_suffix(".old")
    path.parent.mkdir(parents=True, exist_ok=True)
    new.mkdir()
    claimed = os.open(new, os.O_RDONLY)
    try:
        _claim(claimed)
        yield new
        for file in new.rglob("*"):
            if file.is_file():
                with file.open("rb") as opened:
                    flush_file(opened)
        if overwrite and path.exists():
            path.rename(old)  # a folder that has content cannot be replaced in one step
        new.rename(path)
    finally:
        os.close(claimed)
        with suppress(OSError):
            if old.exists() and not path.exists():
                old.rename(path)
        shutil.rmtree(new, ignore_errors=True)
        shutil.rmtree(old, ignore_errors=True)


def remove_leftovers(path: Path) -> None:
    """Remove what killed processes left of the file or folder `path`; for who alone may write it, as under a lock."""
    for leftover in path.parent.glob(f".{glob.escape(path.name)}.*.tmp"):
        if leftover.is_dir():
            shutil.rmtree(leftover, ignore_errors=True)
        else:
            leftover.unlink(missing_ok=True)


def remove_abandoned(path: Path) -> None:
    """Remove what killed processes left of the file or folder `path`, and leave what somebody still writes.

    What is being written is locked. On a file system without locks nothing is removed, since nobody can tell.
    """
    for leftover in path.parent.glob(f".{glob.escape(path.name)}.*.tmp"):
        with suppress(OSError):
            held = os.open(leftover, os.O_RDONLY | os.O_NOFOLLOW)
            try:
                fcntl.flock(held, fcntl.LOCK_EX | fcntl.LOCK_NB)
                if leftover.is_dir():
                    shutil.rmtree(leftover, ignore_errors=True)
                else:
                    leftover.unlink()
            finally:
                os.close(held)


def flush_file(file: BinaryIO) -> None:
    """Bring what was written to the disk, where it outlives a loss of power."""
    file.flush()
    os.fsync(file.fileno())


def refuse_links(path: str, flags: int) -> int:
    """An opener, as `open` takes one, for names that others can foresee: it follows no link and waits at no pipe."""
    return os.open(path, flags | os.O_NOFOLLOW | os.O_NONBLOCK, 0o666)


def _without_waiting(path: str, flags: int) -> int:
    """An opener, as `open` takes one, that does not wait for who writes to a pipe."""
    return os.open(path, flags | os.O_NONBLOCK)


def fingerprint(value: object) -> str:
    """64 hexadecimal digits for plain values: mappings in any order, lists, texts, numbers, None.

    Of anything else in them its text counts. All fingerprints are SHA-256 without a salt or a version: names that
    users have on disk are made of them. What may change its meaning has a version of its own among the values.
    """
    return fingerprint_bytes([json.dumps(value, sort_keys=True, default=str).encode()])


def fingerprint_bytes(parts: Iterable[bytes | memoryview]) -> str:
    """64 hexadecimal digits for bytes, which may come in parts: arrays of any size, cut anywhere, as `array.data`.

    Where one part ends and the next begins does not count: put lengths or shapes before what could run together.
    """
    digest = hashlib.sha256()
    for part in parts:
        digest.update(part)
    return digest.hexdigest()


def fingerprint_files(*paths: Path) -> str:
    """64 hexadecimal digits for the content of files in this order; of one file, those that `sha256sum` prints."""
    return fingerprint_bytes(block for path in paths for block in _blocks(path))


def fingerprint_start(path: Path, size: int) -> str:
    """64 hexadecimal digits for the first so many bytes of a file."""
    return fingerprint_bytes(_blocks(path, size))


def _blocks(path: Path, size: int | None = None) -> Iterator[bytes]:
    with path.open("rb") as file:
        done = 0
        while block := file.read(1 << 20 if size is None else min(size - done, 1 << 20)):
            done += len(block)
            yield block


@contextmanager
def hold_lock(path: Path, waiting: str | None) -> Iterator[bool]:
    """Be the only one between processes, threads and machines that share the disk; whoever comes later waits.

    The file is made, with its folder, and stays. The system releases the lock of a process that dies. On a file system
    without locks nobody waits: what is done under a lock must then be merely done twice.

    Args:
        waiting: printed once if somebody else holds the lock, before waiting for as long as it takes; None: nothing.

    Yields:
        Whether there is a lock; False on a file system without.

    Raises:
        OSError: the file cannot be made, or is a link.
    """
    while True:
        path.parent.mkdir(parents=True, exist_ok=True)
        with open(path, "ab", opener=refuse_links) as file:
            locked = True
            try:
                fcntl.flock(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
            except BlockingIOError:
                if waiting is not None:
                    say(waiting)
                fcntl.flock(file, fcntl.LOCK_EX)
            except OSError:
                locked = False
            if _is_at(file, path):
                yield locked
                return
            # Whoever was waited for has removed the folder.


def is_locked(path: Path) -> bool:
    """Whether somebody holds the lock, perhaps another user or machine; asking takes it from nobody.

    False where there is no such file, or no lock on this file system.
    """
    try:
        with open(path, "rb", opener=_without_waiting) as file:
            fcntl.flock(file, fcntl.LOCK_SH | fcntl.LOCK_NB)  # shared: others may ask at the same time
    except BlockingIOError:
        return True
    except OSError:
        pass
    return False


def _claim(descriptor: int) -> None:
    """Lock what is being written, as long as its writer lives; see `remove_abandoned`."""
    with suppress(OSError):
        fcntl.flock(descriptor, fcntl.LOCK_EX | fcntl.LOCK_NB)


def _beside(path: Path) -> Path:
    return path.with_name(f".{path.name}.{uuid.uuid4().hex[:8]}.tmp")


def _is_at(file: BinaryIO, path: Path) -> bool:
    try:
        return os.path.samestat(os.fstat(file.fileno()), path.stat())
    except FileNotFoundError:
        return False
