"""Files and folders in the cache that many processes need: one makes them, and nobody fails for lack of a cache."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import TypeVar

from seqrl.console import say
from seqrl.files import hold_lock, remove_leftovers

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
        with hold_lock(path.with_suffix(".lock"), f"waiting for another process that makes the same {what}"):
            found = read(path)
            if found is None:
                remove_leftovers(path)
                make(path)
                found = read(path)
        if found is not None:
            return found
        reason = "what was written cannot be read back"
    except OSError as error:
        reason = error.strerror or str(error)
    folder = str(path.parent)
    say(f"{what} stay in memory: {folder!r} cannot be used ({reason}); point SEQRL_DATA to a folder with room")
    return otherwise()
