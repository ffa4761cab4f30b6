"""Files that are whole or not there: written beside their place, brought to the disk, then renamed."""

from __future__ import annotations

import os
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import BinaryIO


@contextmanager
def replacing(path: Path) -> Iterator[BinaryIO]:
    """A new file that takes the place of `path` in one step when the block ends, and never if the block fails.

    A process that is killed meanwhile leaves `<name>.<its id>.tmp` beside the old file.
    """
    temporary = path.with_name(f"{path.name}.{os.getpid()}.tmp")
    try:
        with temporary.open("wb") as file:
            yield file
            flush(file)
        temporary.replace(path)
    finally:
        temporary.unlink(missing_ok=True)


def write_atomically(path: Path, text: str) -> None:
    """Write a text file so that a reader sees the old content or the new, never a part."""
    with replacing(path) as file:
        file.write(text.encode())


def flush(file: BinaryIO) -> None:
    """Bring what was written to the disk, where it outlives a loss of power."""
    file.flush()
    os.fsync(file.fileno())
