"""Where metrics go: TensorBoard, and a CSV that is only ever appended to."""

from __future__ import annotations

import csv
import os
from argparse import Namespace
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from lightning.pytorch.loggers import Logger, TensorBoardLogger
from lightning.pytorch.utilities import rank_zero_only

from seqrl.errors import ConfigError
from seqrl.files import write_text
from seqrl.runs.stages import MODEL, StageKind

_NAMES = ("csv", "tensorboard")


class CsvMetrics(Logger):
    """`metrics.csv` with the columns `step,name,value`, one row per number.

    Rows of this long form can be appended whatever is logged when; Lightning's own logger rewrites the file whenever
    a new name turns up, and empties it when a run is resumed.

    Args:
        path: of the file, which the stages of a run share.
        stage: whose metrics these are; its prefix begins their names.
        resumed_step: rows of the stage after this step are from training that was lost, and are removed.
    """

    def __init__(self, path: Path, *, stage: StageKind = MODEL, resumed_step: int = 0) -> None:
        super().__init__()
        self._path = path
        self._stage = stage
        self._resumed_step = resumed_step
        self._started = False

    @property
    def name(self) -> str:
        return "csv"

    @property
    def version(self) -> str:
        return ""

    def log_hyperparams(self, params: dict[str, Any] | Namespace, *args: Any, **kwargs: Any) -> None:
        """The run's configuration has its own file, config.yaml."""

    @rank_zero_only
    def log_metrics(self, metrics: Mapping[str, float], step: int | None = None) -> None:
        if not self._started:
            self._start()
        with self._path.open("a", newline="") as file:
            csv.writer(file, lineterminator="\n").writerows(
                (step, f"{self._stage.prefix}{name}", f"{value:.8g}") for name, value in metrics.items()
            )

    @rank_zero_only
    def save(self) -> None:
        """Bring the rows to the disk, where a checkpoint that follows must find them."""
        if self._started:
            with self._path.open("a") as file:
                os.fsync(file.fileno())

    def _start(self) -> None:
        kept = []
        if self._path.exists():
            with self._path.open(newline="") as file:
                whole = [row for row in csv.reader(file) if len(row) == 3 and row[0].isdigit()]  # a kill can tear a row
                kept = [row for row in whole if int(row[0]) <= self._resumed_step or not self._stage.owns(row[1])]
        lines = [",".join(row) for row in [["step", "name", "value"], *kept]]
        write_text(self._path, "\n".join(lines) + "\n")
        self._started = True


def loggers(folder: Path, *, names: Sequence[str] | None, stage: StageKind = MODEL, resumed_step: int) -> list[Logger]:
    """The loggers of a stage of a run, by name: `csv`, `tensorboard`.

    Raises:
        ConfigError: another name.
    """
    names = [names] if isinstance(names, str) else names or []
    for name in names:
        if name not in _NAMES:
            raise ConfigError(f"training.loggers has {name!r}; give a list of {' and '.join(_NAMES)}, or []")
    found: list[Logger] = []
    if "csv" in names:
        found.append(CsvMetrics(folder / "metrics.csv", stage=stage, resumed_step=resumed_step))
    if "tensorboard" in names:
        # A folder of its own for each other stage: TensorBoard then shows it as a run. What lies after purge_step in
        # the files of a killed process is hidden.
        version = stage.prefix.removesuffix("/")
        found.append(TensorBoardLogger(folder, name="tensorboard", version=version, purge_step=resumed_step + 1))
    return found
