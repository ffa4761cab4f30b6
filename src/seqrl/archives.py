"""Zip archives whose bytes are those that were written: torch keeps checkpoints in them and compares no checksum."""

from __future__ import annotations

import os
import zipfile
from pathlib import Path
from typing import BinaryIO

from seqrl.errors import is_damage

_IS_FOLDER = 0x10  # an external attribute (MS-DOS); torch reads no bytes of a member that has it
_KNOWN_FLAGS = 0x0808  # sizes after the content, names in UTF-8


def check_archive(file: BinaryIO) -> None:
    """Compare all members of an archive with the checksums (CRC-32) that were written with them.

    What an archive declares is compared with its size before anything is read: members are stored as they are, and
    together they are no larger than the file. Reading takes no more memory than the file has bytes.

    Args:
        file: open for reading; afterwards it stands at its beginning.

    Raises:
        zipfile.BadZipFile: the archive is damaged, cut off, or none; says what is wrong, and where.
        OSError: the disk refuses.
    """
    try:
        _check_members(file)
    except (OSError, MemoryError, zipfile.BadZipFile):
        raise
    except Exception as error:  # a broken byte can lead zipfile anywhere
        raise zipfile.BadZipFile(f"{type(error).__name__}: {error}") from error
    finally:
        file.seek(0)


def is_whole(path: Path) -> bool:
    """Whether there is an archive with all of its bytes as they were written.

    Raises:
        OSError: nobody can tell, because the disk refuses to read it; has its name.
    """
    try:
        with path.open("rb") as file:
            check_archive(file)
    except (OSError, zipfile.BadZipFile) as error:
        if is_damage(error):
            return False
        raise OSError(
            getattr(error, "errno", None), getattr(error, "strerror", None) or str(error), str(path)
        ) from error
    return True


def _check_members(file: BinaryIO) -> None:
    size = file.seek(0, os.SEEK_END)
    if not size:
        raise zipfile.BadZipFile("it is empty")
    with zipfile.ZipFile(file) as archive:
        members = archive.infolist()
        for member in members:
            if member.compress_type != zipfile.ZIP_STORED or member.file_size != member.compress_size:
                raise zipfile.BadZipFile(f"{member.filename!r} in it is compressed, as torch writes nothing")
            if member.flag_bits & ~_KNOWN_FLAGS or member.external_attr & _IS_FOLDER or member.is_dir():
                raise zipfile.BadZipFile(f"the entry of {member.filename!r} is not as torch writes one")
        declared = sum(member.file_size for member in members)
        if declared > size:
            raise zipfile.BadZipFile(f"it declares {declared} bytes and has {size}")
        if len({member.filename for member in members}) < len(members):
            raise zipfile.BadZipFile("two members have one name")
        damaged = archive.testzip()
        if damaged is not None:
            raise zipfile.BadZipFile(f"{damaged!r} in it does not have the checksum that was written with it")
