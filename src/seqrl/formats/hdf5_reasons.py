"""Why HDF5 does not open or read a file, and what helps: few of its errors mean that the file is damaged."""

from __future__ import annotations

from pathlib import Path

from seqrl.formats.recording import first_line

_DAMAGE = (
    "checksum",
    "inflate() failed",
    "fletcher32",
    "signature",
    "bad object header",
    "address overflow",
    "corrupt",
)


def explain_failure(error: Exception, path: Path) -> str:
    """One sentence about a file, which passes on what the library says.

    Args:
        error: of h5py, while the file was opened or read.
    """
    said, text, name = first_line(error), str(error).lower(), path.name
    if isinstance(error, PermissionError) or "permission denied" in text or "errno = 13" in text:
        return f"{name} may not be read ({said}); check its permissions"
    if "unable to lock file" in text:
        if any(word in text for word in ("errno = 11", "temporarily unavailable")):
            return (
                f"{name} cannot be locked, since another process has it open for writing ({said}); close it there, or "
                "set HDF5_USE_FILE_LOCKING=FALSE if nobody writes to it"
            )
        return f"{name} lies on a file system without locks ({said}); set HDF5_USE_FILE_LOCKING=FALSE"
    if "already open for" in text or "consistency flags" in text:
        return (
            f"{name} is marked as open for writing ({said}); close it where it is open, or run `h5clear -s {name}` if "
            "its writer was killed"
        )
    if ("filter" in text and "fletcher32" not in text) or "plugin" in text:
        return (
            f"{name} is compressed by what HDF5 lacks here ({said}); install that filter, such as those of hdf5plugin "
            "(`h5dump -p -H` names it)"
        )
    if "truncated" in text:
        size = path.stat().st_size
        return f"{name} is a truncated HDF5 file of {size} bytes ({said}); fetch or make it again"
    if "superblock version" in text:
        return f"{name} is of a version that HDF5 does not know here ({said}); install a newer h5py"
    if isinstance(error, MemoryError) or "memory allocation failed" in text or "unable to allocate" in text:
        return f"{name} does not fit into memory ({said}); read it on a machine with more"
    if any(word in text for word in _DAMAGE):
        return f"{name} is a damaged HDF5 file ({said}); fetch or make it again"
    return f"{name} cannot be read by HDF5 ({said}); if other programs read it, it is not damaged: update h5py"
