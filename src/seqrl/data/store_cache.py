"""Episodes of files that take seconds to read, kept as a saved store that is mapped into memory at once."""

from __future__ import annotations

import shutil
from collections.abc import Callable
from functools import cache
from pathlib import Path

from seqrl import paths
from seqrl.data.episodes import EpisodeStore
from seqrl.data.made_once import made_once
from seqrl.errors import DataError
from seqrl.files import fingerprint

FORMAT_VERSION = 2
"""Part of every key: raise it whenever the same file and options would give other episodes."""


def cached_store(file: Path, options: object, build: Callable[[], EpisodeStore]) -> EpisodeStore:
    """The episodes that `build` makes of a file, mapped from the cache; made and written there first where it has none.

    The file is known by its path, size and time of change. See `made_once` for who makes them, and for what becomes of
    a cache that cannot be written.

    Args:
        options: everything else that decides what is built, as something whose `repr` says it.
        build: reads the file; its errors are raised, and leave nothing in the cache.

    Raises:
        OSError: there is no such file.
    """
    status = file.stat()
    known_by = [FORMAT_VERSION, str(file.resolve()), status.st_size, status.st_mtime_ns, repr(options)]
    key = fingerprint(known_by)[:32]
    built = cache(build)  # needed again where it cannot be written

    def make(folder: Path) -> None:
        episodes = built()
        shutil.rmtree(folder, ignore_errors=True)  # it could not be read
        try:
            episodes.save(folder)
        except DataError as error:
            raise OSError(str(error.__cause__ or error)) from error

    return made_once(paths.data_dir() / "episodes" / key, _opened, make, built, what="episodes")


def _opened(folder: Path) -> EpisodeStore | None:
    try:
        return EpisodeStore.open(folder) if folder.exists() else None
    except DataError:
        return None
