"""What is made once and kept in `$SEQRL_DATA`: one process makes it, and nobody fails for lack of a cache."""

from __future__ import annotations

import shutil
from collections.abc import Callable
from functools import cache
from pathlib import Path
from typing import TypeVar

from seqrl import paths
from seqrl.console import say
from seqrl.data.array_folder import check_unchanged
from seqrl.data.checks import LINKED
from seqrl.data.contents import hash_content
from seqrl.data.episodes import EpisodeStore
from seqrl.errors import DataError
from seqrl.files import fingerprint, hold_lock, remove_leftovers

Made = TypeVar("Made")

FORMAT_VERSION = 2
"""Part of every key: raise it whenever the same file and options would give other episodes."""


def read_or_make(
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


def read_or_build(file: Path, options: object, build: Callable[[], EpisodeStore]) -> EpisodeStore:
    """The episodes that `build` makes of a file, mapped from the cache; made and written there first where it has none.

    The file is known by its content (see `hash_content`). `read_or_make` says who makes them, and what becomes of a
    cache that cannot be written. Episodes with arrays of other files are not kept: those files may change.

    Args:
        options: everything else that decides what is built, as something whose `repr` says it.
        build: reads the file; its errors are raised, and leave nothing in the cache.

    Raises:
        DataError: there is no such file, or it changes while it is read.
    """
    content = hash_content(file)
    if content is None:
        raise DataError(f"there is no file {str(file)!r}; give the path of one")
    unkept: list[EpisodeStore] = []
    key = fingerprint([FORMAT_VERSION, content, repr(options)])[:32]

    @cache  # needed again where it cannot be written
    def built() -> EpisodeStore:
        episodes = build()
        if hash_content(file) != content:
            raise DataError(f"{str(file)!r} changes while it is read; wait until it is written")
        return episodes

    def make(folder: Path) -> None:
        episodes = built()
        if LINKED in episodes.attributes:
            unkept.append(episodes)
            return
        if folder.exists():
            say(f"episodes are read again: {str(folder)!r} is not as it was written, or of an older seqrl")
            shutil.rmtree(folder, ignore_errors=True)
        try:
            episodes.save(folder)
        except DataError as error:
            raise OSError(str(error.__cause__ or error)) from error

    def read(folder: Path) -> EpisodeStore | None:
        return unkept[0] if unkept else _opened(folder)

    return read_or_make(paths.data_dir() / "episodes" / key, read, make, built, what="episodes")


def _opened(folder: Path) -> EpisodeStore | None:
    try:
        if not folder.exists():
            return None
        check_unchanged(folder)
        return EpisodeStore.open(folder)
    except DataError:
        return None
