"""Where metrics go: TensorBoard, and a CSV that is only ever appended to."""

from __future__ import annotations

from argparse import Namespace
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from lightning.pytorch.loggers import Logger, TensorBoardLogger
from lightning.pytorch.utilities import rank_zero_only

from seqrl.errors import ConfigError
from seqrl.runs.metrics import Metric, append_metrics, flush_metrics, read_metrics, write_metrics
from seqrl.runs.stages import MODEL, StageKind

_NAMES = ("csv", "tensorboard")


class CsvMetrics(Logger):
    """Keeps `metrics.csv` (see `seqrl.runs.metrics`), of which a resumed run loses no row.

    Lightning's own logger rewrites the file whenever a new name turns up, and empties it when a run is resumed.

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
        rows = (Metric(step or 0, f"{self._stage.prefix}{name}", value) for name, value in metrics.items())
        append_metrics(self._path, rows)

    @rank_zero_only
    def save(self) -> None:
        """Bring the rows to the disk, where a checkpoint that follows must find them."""
        if self._started:
            flush_metrics(self._path)

    def _start(self) -> None:
        logged = read_metrics(self._path)
        kept = [each for each in logged if each.step <= self._resumed_step or not self._stage.owns(each.name)]
        write_metrics(self._path, kept)
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
