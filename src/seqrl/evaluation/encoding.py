"""Frames as a film."""

from __future__ import annotations

import tempfile
from collections.abc import Iterable
from pathlib import Path
from typing import Any

import numpy as np

from seqrl.files import copy_file


def write_frames(path: Path, frames: Iterable[np.ndarray], fps: int) -> str:
    """Encode; returns the name of the file, whose suffix becomes `.gif` where there is no encoder for `.mp4`."""
    import imageio.v2 as imageio

    path.parent.mkdir(parents=True, exist_ok=True)
    if path.suffix == ".mp4" and not can_encode():
        path = path.with_suffix(".gif")
    options: dict[str, Any] = {"duration": 1000 / fps, "loop": 0} if path.suffix == ".gif" else {"fps": fps}
    writer: Any
    with tempfile.TemporaryDirectory() as folder:  # encoders go by the suffix, and follow links
        made = Path(folder) / path.name
        with imageio.get_writer(made, **options) as writer:
            for frame in frames:
                writer.append_data(frame)
        copy_file(made, path)
    return path.name


def can_encode() -> bool:
    try:
        import imageio_ffmpeg

        imageio_ffmpeg.get_ffmpeg_exe()
    except (ImportError, RuntimeError):
        return False
    return True
