"""What worlds that are recorded on the spot have in common: their settings, and the file that keeps a recording."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from importlib.metadata import version
from pathlib import Path
from typing import Any

import numpy as np

from seqrl.console import show_progress
from seqrl.formats.cutting import TRAINING_KEYS
from seqrl.formats.hdf5_writing import write_hdf5
from seqrl.formats.reading import read_recording
from seqrl.formats.recording import Recording
from seqrl.formats.targets import write_whole


def read_or_record(
    path: Path,
    record: Callable[[Callable[[int], None]], Mapping[str, np.ndarray]],
    *,
    name: str,
    count: int,
    attributes: Mapping[str, Any],
    packages: Sequence[str],
) -> Recording:
    """The recording at a path, made there first if there is none.

    Args:
        record: makes the arrays; it is given a function to call with how many rows are new.
        name: what the progress bar shows.
        count: rows that there will be.
        attributes: of the file.
        packages: those that decide the numbers; their versions become attributes.

    Raises:
        DataError: it cannot be written or read.
    """
    if not path.exists():
        with show_progress(f"recording {name}", count) as advance:
            arrays = record(advance)
        attributes = {**attributes, **{package: version(package) for package in packages}}
        advice = "let data.cache_dir or SEQRL_DATA name a folder with room that you may write to"
        write_whole(path, lambda new: write_hdf5(new, arrays, attributes), overwrite=False, advice=advice)
    return read_recording(path, TRAINING_KEYS)
