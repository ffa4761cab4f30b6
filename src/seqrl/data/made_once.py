"""Files and folders in the cache that many processes need: one makes them, and nobody fails for lack of a cache."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any, TypeVar

from filelock import FileLock, Timeout

from seqrl.console import say

Made = TypeVar("Made")


def made_once(
    path: Path,
    read: Callable[[Path], Made | None],
    make: Callable[[Path], None],
    otherwise: Callable[[], Made],
    *,
    what: str,
) -> Made:
    """What lies at a path of the cache, made and written there first where there is nothing that can be read.

    Of several processes that ask at once (ranks, jobs of a sweep) one makes it, and the others wait for it. The system
    releases the lock of a process that dies, and the next one starts anew. Where the folder cannot be written, a line
    says so, and what is asked for is made in memory.

    Args:
        read: gives None where there is nothing, or something damaged.
        make: writes the path, whole or not at all; what it raises but `OSError` is raised.
        otherwise: makes the same in memory.
        what: how to call it in messages, a plural.
    """
    try:
        found = read(path)
        if found is not None:
            return found
        path.parent.mkdir(parents=True, exist_ok=True)
        with _locked(path.with_suffix(".lock"), what):
            found = read(path)
            if found is None:
                make(path)
                found = read(path)
        if found is not None:
            return found
        reason = "what was written cannot be read back"
    except (OSError, NotImplementedError) as error:  # the latter: a file system without locks
        reason = getattr(error, "strerror", None) or str(error)
    folder = str(path.parent)
    say(f"{what} stay in memory: {folder!r} cannot be used ({reason}); point SEQRL_DATA to a folder with room")
    return otherwise()


def _locked(path: Path, what: str) -> Any:
    lock = FileLock(path)
    try:
        return lock.acquire(timeout=0)
    except Timeout:
        say(f"waiting for another process that makes the same {what}")
        return lock.acquire()
