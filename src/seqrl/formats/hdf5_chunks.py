"""What the blocks ("chunks") of an HDF5 array take to read: HDF5 unpacks a block whole, whatever it declares.

A block of a few kB can unpack to gigabytes, and a block may be declared larger than the array that it is part of. Both
are looked at before HDF5 reads.
"""

from __future__ import annotations

import math
import zlib
from pathlib import Path
from typing import Any

from seqrl.errors import DataError
from seqrl.formats.limits import check_size

_PLAIN = {2, 3}  # H5Z_FILTER_SHUFFLE, H5Z_FILTER_FLETCHER32: they change no size, but for the checksum
_CHECKSUM = 3
_DEFLATE = 1
_DEFLATE_RATIO = 1032  # the most that deflate can shrink by
_SMALL = 2**26  # bytes that a block may unpack to whatever it declares: it is read, and gone
_SLACK = 2**12  # bytes; what cannot be shrunk grows a little


def check_sizes(file: Any, path: Path, origin: str, *, at_once: bool) -> None:
    """Refuse a file any of whose arrays holds more than it can, whoever will read it.

    Args:
        file: an open `h5py.File` without links into others.
        path: where it lies.
        origin: how to call it in messages.
        at_once: its arrays will be in memory together.

    Raises:
        DataError: naming the key, or both sizes.
        OSError, RuntimeError: HDF5 cannot read the file.
    """
    import h5py

    found: dict[str, Any] = {}

    def add(name: bytes) -> None:
        item = h5py.h5o.open(file.id, name)
        if isinstance(item, h5py.h5d.DatasetID):
            found[name.decode(errors="replace")] = item

    h5py.h5o.visit(file.id, add)
    check_size(sum(map(count_bytes, found.values())), path.stat().st_size, origin, at_once=at_once)
    for key, item in found.items():
        check_chunks(item, key, path, origin)


def count_bytes(item: Any) -> int:
    """Bytes of memory that reading an array takes, by what it declares: of the array, or of one block if that is more.

    Args:
        item: an `h5py.h5d.DatasetID`.
    """
    shape = item.shape  # None of an array without values
    array = 0 if shape is None else math.prod(shape) * item.get_type().get_size()  # NumPy's product may overflow
    return max(array, _block_size(item))


def check_chunks(item: Any, key: str, path: Path, origin: str) -> None:
    """Refuse an array with a block that unpacks to more than it declares, before HDF5 unpacks it.

    Args:
        item: an `h5py.h5d.DatasetID`.
        path: of the file that it lies in.
        origin: how to call the file in messages.

    Raises:
        DataError: naming the key.
        OSError: the file cannot be read.
    """
    filters = _filters(item)
    if not filters:
        return
    unpackers = [number for number in filters if number not in _PLAIN]
    behind = filters[filters.index(unpackers[0]) + 1 :] if unpackers else []
    if len(unpackers) > 1 or any(number != _CHECKSUM for number in behind):
        raise DataError(
            f"{origin}: the blocks of {key} are packed more than once, which no recording is; write the file again "
            "with one compression"
        )
    declared, size = _block_size(item), path.stat().st_size
    # What a compression does not shrink is kept as it was, or grows by what it says of itself.
    largest = min(size, declared + declared // 64 + _SLACK)
    suspicious: list[Any] = []

    def look(block: Any) -> bool | None:
        deflated = unpackers == [_DEFLATE] and _DEFLATE_RATIO * block.size > max(declared, _SMALL)
        if block.size > largest or deflated:
            suspicious.append(block)
        return block.size > largest or None

    item.chunk_iter(look)
    for block in suspicious:
        if block.size > largest or _unpacks_to_more(item.read_direct_chunk(block.chunk_offset)[1], declared):
            raise DataError(
                f"{origin}: a block of {key} holds more than the {declared} bytes that it declares; take a whole copy "
                "of the file, or write it again"
            )


def _filters(item: Any) -> list[int]:
    """Numbers of what packs the blocks of an array, in the order of writing; none where it has no blocks."""
    import h5py

    created = item.get_create_plist()
    if created.get_layout() != h5py.h5d.CHUNKED:
        return []
    return [created.get_filter(number)[0] for number in range(created.get_nfilters())]


def _block_size(item: Any) -> int:
    """Bytes of a block, unpacked; 0 for an array that has none."""
    import h5py

    created = item.get_create_plist()
    if created.get_layout() != h5py.h5d.CHUNKED:
        return 0
    return math.prod(created.get_chunk()) * int(item.get_type().get_size())


def _unpacks_to_more(packed: bytes, declared: int) -> bool:
    unpack = zlib.decompressobj()
    count, left = 0, packed
    try:
        while left and not unpack.eof and count <= declared:
            count += len(unpack.decompress(left, 2**20))
            left = unpack.unconsumed_tail
    except zlib.error:  # HDF5 says so as well
        return False
    return count > declared
