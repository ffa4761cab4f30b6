"""NPZ files: reading their arrays, writing them."""

from __future__ import annotations

import zipfile
import zlib
from collections.abc import Collection, Mapping
from pathlib import Path
from typing import Any

import numpy as np

from seqrl.data.checks import DISCRETE
from seqrl.errors import DataError
from seqrl.formats.recording import Recording, first_line

TEXTS = ("name", "env_id")
"""What a file may say in arrays of one text, since NPZ has no attributes."""
COUNTS = tuple(DISCRETE.values())
"""What it may say in arrays of one whole number."""


def read_npz(path: Path, keys: Collection[str] | None = None) -> Recording:
    """Read the arrays of a file, and the attributes that stand in arrays of one text or number.

    Args:
        keys: read these arrays only, as far as the file has them; all by default.

    Raises:
        DataError: the file is cut short or damaged, or holds Python objects.
    """
    arrays: dict[str, np.ndarray] = {}
    attributes: dict[str, Any] = {}
    try:
        with path.open("rb") as opened, np.load(opened, allow_pickle=False) as file:  # NumPy leaves damaged ones open
            names = list(file.files)
            for key in names:
                if keys is not None and key not in (*keys, *TEXTS, *COUNTS):
                    continue
                try:
                    array = np.asarray(file[key])
                except ValueError as error:
                    raise DataError(
                        f"{path.name}: {key} cannot be read ({first_line(error)}); save plain arrays, one row per "
                        "transition, instead of lists of arrays"
                    ) from error
                if array.ndim == 0 and array.dtype.kind == "U" and key in TEXTS:
                    attributes[key] = str(array)
                elif array.ndim == 0 and array.dtype.kind in "iu" and key in COUNTS:
                    attributes[key] = int(array)
                else:
                    arrays[key] = array
    except (OSError, EOFError, KeyError, RuntimeError, zipfile.BadZipFile, zlib.error) as error:
        raise DataError(f"{path.name} is truncated or damaged ({first_line(error)}); fetch or make it again") from error
    return Recording(path.name, arrays, {**attributes, "path": path.name}, names)


def write_npz(path: Path, arrays: Mapping[str, np.ndarray], attributes: Mapping[str, Any]) -> None:
    """Write arrays, compressed, and those of the attributes that `read_npz` reads."""
    texts = {key: np.array(str(attributes[key])) for key in TEXTS if attributes.get(key)}
    counts = {key: np.array(attributes[key]) for key in COUNTS if attributes.get(key) is not None}
    everything: dict[str, Any] = {**arrays, **texts, **counts}
    with path.open("wb") as file:  # given a name, NumPy would append .npz to it
        np.savez_compressed(file, **everything)
