"""TensorBoard: scalars, settings (HPARAMS), pictures, and videos as animated pictures."""

from __future__ import annotations

import io
import subprocess
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import numpy as np
from torch.utils.tensorboard import SummaryWriter
from torch.utils.tensorboard.summary import hparams

from seqrl.errors import DataError
from seqrl.loggers import LoggedRun, Logger
from seqrl.registry import register_logger

_MOST_FRAMES, _WIDEST = 300, 320  # of a video that stands in an events file


@register_logger("tensorboard")
class TensorBoardLogger(Logger):
    """Writes `RUN/tensorboard`, a folder for each other stage; `tensorboard --logdir runs` shows all runs."""

    def __init__(self, run: LoggedRun) -> None:
        # What lies after purge_step in the files of a killed process is hidden.
        self._folder = run.folder / "tensorboard" / run.stage.prefix.removesuffix("/")
        self._prefix, self._purge = run.stage.prefix, run.resumed_step + 1
        self._writer: SummaryWriter | None = None

    @property
    def writer(self) -> SummaryWriter:
        if self._writer is None:
            self._writer = SummaryWriter(str(self._folder), purge_step=self._purge)
        return self._writer

    def log_settings(self, settings: Mapping[str, bool | int | float | str]) -> None:
        # Without the first summary, which would say which metrics there are: TensorBoard then takes all scalars.
        _, start, _ = hparams(dict(settings), {})
        self._add(start)

    def log_metrics(self, metrics: Mapping[str, float], step: int) -> None:
        for name, value in metrics.items():
            self.writer.add_scalar(name.removeprefix(self._prefix), float(value), step)

    def log_picture(self, name: str, path: Path, step: int) -> None:
        from PIL import Image

        with Image.open(path) as picture:
            pixels = np.asarray(picture.convert("RGB"))
        self.writer.add_image(name, pixels, step, dataformats="HWC")

    def log_video(self, name: str, path: Path, step: int) -> None:
        from tensorboard.compat.proto.summary_pb2 import Summary

        gif, width, height = _as_gif(path)
        picture = Summary.Image(width=width, height=height, colorspace=3, encoded_image_string=gif)
        self._add(Summary(value=[Summary.Value(tag=name, image=picture)]), step)

    def _add(self, summary: Any, step: int | None = None) -> None:
        writer: Any = self.writer.file_writer
        writer.add_summary(summary, step)

    def flush(self) -> None:
        if self._writer is not None:
            self._writer.flush()

    def close(self) -> None:
        if self._writer is not None:
            self._writer.close()


def _as_gif(path: Path) -> tuple[bytes, int, int]:
    """An MP4 as an animated GIF, at most `_WIDEST` pixels wide: (bytes, width, height)."""
    from imageio_ffmpeg import get_ffmpeg_exe
    from PIL import Image

    made = subprocess.run(
        [
            *(get_ffmpeg_exe(), "-v", "error", "-i", str(path), "-vf", f"scale='min({_WIDEST},iw)':-2"),
            *("-frames:v", str(_MOST_FRAMES), "-f", "gif", "-"),
        ],
        stdin=subprocess.DEVNULL,
        capture_output=True,
        check=False,
    )
    if made.returncode:
        raise DataError(f"{str(path)!r} is no video that can be shown ({made.stderr.decode(errors='replace').strip()})")
    with Image.open(io.BytesIO(made.stdout)) as film:
        return made.stdout, *film.size
