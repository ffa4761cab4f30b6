"""How much a data file may promise: what it declares is compared with its size and with the memory, before reading."""

from __future__ import annotations

from contextlib import suppress
from pathlib import Path

from seqrl.errors import DataError

_SMALL = 2**28
"""Bytes that no file must account for: a recording of constants shrinks to nearly nothing."""
_RATIO = 256
"""Bytes of memory per byte of the file beyond them. Recorded numbers shrink by 1 to 10, one-hot rows by some 100; what
is made to fill the memory by 1000, which is the most that gzip can."""


def check_size(declared: int, stored: int, origin: str, *, at_once: bool = True) -> None:
    """Refuse arrays that are larger than their file can hold, or than the memory that is free.

    Args:
        declared: bytes of the arrays that are about to be read.
        stored: bytes of the files that they are read from.
        at_once: they are in memory together; else it need not hold them.

    Raises:
        DataError: naming both sizes.
    """
    if declared > max(_SMALL, _RATIO * stored):
        raise DataError(
            f"{origin} declares arrays of {_in_words(declared)} in a file of {_in_words(stored)}, more than recorded "
            f"numbers shrink to; take a whole copy of it, and do not compress it where it really holds so much"
        )
    free = free_memory() if at_once else None
    if free is not None and declared > free:
        raise DataError(
            f"{origin} holds arrays of {_in_words(declared)} and {_in_words(free)} of memory are free; read it on a "
            "machine with more, and save it in parts (data.mix=[a,b] reads several) or by EpisodeStore.save"
        )


def free_memory() -> int | None:
    """Bytes that this process may still take without swapping; None where the system does not say."""
    found = []
    with suppress(OSError, ValueError, IndexError, StopIteration):
        lines = Path("/proc/meminfo").read_text(encoding="ascii").splitlines()
        found.append(1024 * int(next(line for line in lines if line.startswith("MemAvailable")).split()[1]))
    with suppress(OSError, ValueError):  # of the container; "max" is no number
        group = Path("/sys/fs/cgroup")
        limit, used = (int((group / f"memory.{name}").read_text(encoding="ascii")) for name in ("max", "current"))
        cached = 0
        for line in (group / "memory.stat").read_text(encoding="ascii").splitlines():
            cached += int(line.split()[1]) if line.startswith(("active_file ", "inactive_file ")) else 0
        found.append(max(0, limit - used + cached))
    return min(found, default=None)


def _in_words(count: int) -> str:
    for power, unit in ((4, "TB"), (3, "GB"), (2, "MB"), (1, "kB")):
        if count >= 1000**power:
            return f"{count / 1000**power:.4g} {unit}"
    return f"{count} bytes"
