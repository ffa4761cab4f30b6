"""What an HDF5 file says of other files: links, arrays that are kept elsewhere, virtual arrays. They are refused."""

from __future__ import annotations

from pathlib import Path
from typing import Any

from seqrl.errors import DataError

_DEEPEST = 64  # groups within groups


def check_contained(file: Any, path: Path, origin: str, *, neighbours: bool = False) -> None:
    """Refuse a file that would have HDF5 read another one, wherever in it; nothing of the other file is looked at.

    Args:
        file: an open `h5py.File`.
        path: where it lies.
        origin: how to call it in messages.
        neighbours: links to a file of the same folder are taken, if they give its bare name, it is no symbolic link,
            and it contains all that it has. Recordings are split so; the user put the file there.

    Raises:
        DataError: naming the key.
    """
    import h5py

    found: set[str] = set()

    def find_link(name: bytes, info: Any) -> str | None:
        if name.count(b"/") > _DEEPEST:
            return _decode(name)
        if info.type in (h5py.h5l.TYPE_HARD, h5py.h5l.TYPE_SOFT):
            return None
        if neighbours and info.type == h5py.h5l.TYPE_EXTERNAL:
            other = _decode(file.id.links.get_val(name)[0])
            if _is_neighbour(other, path):
                found.add(other)
                return None
        return _decode(name)

    key = file.id.links.visit(find_link, info=True)
    if (
        key is not None and key.count("/") > _DEEPEST
    ):  # to visit thousands takes minutes: HDF5 goes the way to each anew
        raise DataError(f"{origin} has more than {_DEEPEST} groups within each other; put its arrays into fewer")
    if key is not None:
        raise DataError(f"{origin}: {key} is a link into another file; copy what it leads to into {path.name}")
    key = h5py.h5o.visit(file.id, lambda name: _find_elsewhere(file, name))
    if key is not None:
        raise DataError(f"{origin}: {key} is kept in another file; copy it into {path.name}")
    for other in sorted(found):
        with h5py.File(path.with_name(other), "r") as opened:
            check_contained(opened, path.with_name(other), f"{origin} has a link to {other}, and there")


def _find_elsewhere(file: Any, name: bytes) -> str | None:
    """The name of an array with external storage, or of a virtual one."""
    import h5py

    item = h5py.h5o.open(file.id, name)
    if not isinstance(item, h5py.h5d.DatasetID):
        return None
    created = item.get_create_plist()
    elsewhere = created.get_external_count() or created.get_layout() == h5py.h5d.VIRTUAL
    return _decode(name) if elsewhere else None


def _is_neighbour(name: str, path: Path) -> bool:
    if name in ("", ".", "..") or "/" in name or "\\" in name or "\0" in name:
        return False
    other = path.with_name(name)
    return other.is_file() and not other.is_symlink()


def _decode(name: bytes | str) -> str:
    return name.decode(errors="replace") if isinstance(name, bytes) else name
