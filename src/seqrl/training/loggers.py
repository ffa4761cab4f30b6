"""Where metrics go: TensorBoard, and a CSV that is only ever appended to."""

from __future__ import annotations

import csv
from argparse import Namespace
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from lightning.pytorch.loggers import Logger, TensorBoardLogger
from lightning.pytorch.utilities import rank_zero_only

from seqrl.runs import write_atomically


class CsvMetrics(Logger):
    """`metrics.csv` with the columns `step,name,value`, one row per number.

    Rows of this long form can be appended whatever is logged when; Lightning's own logger rewrites the file whenever
    a new name turns up, and empties it when a run is resumed.

    Args:
        path: of the file.
        resumed_step: rows after this step are from training that was lost, and are removed.
    """

    def __init__(self, path: Path, *, resumed_step: int = 0) -> None:
        super().__init__()
        self._path = path
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
            csv.writer(file).writerows((step, name, f"{value:.8g}") for name, value in metrics.items())

    def _start(self) -> None:
        kept = []
        if self._path.exists():
            with self._path.open(newline="") as file:
                whole = [row for row in csv.reader(file) if len(row) == 3 and row[0].isdigit()]  # a kill can tear a row
                kept = [row for row in whole if int(row[0]) <= self._resumed_step]
        lines = [",".join(row) for row in [["step", "name", "value"], *kept]]
        write_atomically(self._path, "\n".join(lines) + "\n")
        self._started = True


def loggers(folder: Path, *, names: list[str], resumed_step: int) -> list[Logger]:
    """The loggers of a run, by name: `csv`, `tensorboard`."""
    found: list[Logger] = []
    if "csv" in names:
        found.append(CsvMetrics(folder / "metrics.csv", resumed_step=resumed_step))
    if "tensorboard" in names:
        found.append(TensorBoardLogger(folder, name="tensorboard", version=""))
    return found
