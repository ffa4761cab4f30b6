"""The loggers of a run as loggers of a Lightning trainer."""

from __future__ import annotations

from argparse import Namespace
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from lightning.pytorch.loggers import Logger as LightningLogger
from lightning.pytorch.utilities import rank_zero_only

from seqrl.loggers import LoggedRun, Logger, logger_config, open_loggers
from seqrl.loggers.csv import METRICS, CsvLogger
from seqrl.runs.settings import flatten_settings
from seqrl.runs.stages import MODEL, StageKind


class StageLogger(LightningLogger):
    """Hands the metrics of a stage to a logger of the run, on the first rank, with the stage's prefix.

    Args:
        logger: of the slot `logger`.
        name: under which it is registered.
        stage: whose metrics these are.
        settings: of the run, which the logger gets before the first metric.
    """

    def __init__(self, logger: Logger, name: str, stage: StageKind, settings: Mapping[str, Any]) -> None:
        super().__init__()
        self._logger, self._name, self._stage, self._settings = logger, name, stage, settings
        self._began = self._closed = False

    @property
    def name(self) -> str:
        return self._name

    @property
    def version(self) -> str:
        return ""

    def log_hyperparams(self, params: dict[str, Any] | Namespace, *args: Any, **kwargs: Any) -> None:
        """Nothing: the settings of the run are told by `log_metrics`."""

    @rank_zero_only
    def log_metrics(self, metrics: Mapping[str, float], step: int | None = None) -> None:
        if not self._began:
            self._began = True
            self._logger.log_settings(self._settings)
        self._logger.log_metrics({f"{self._stage.prefix}{name}": value for name, value in metrics.items()}, step or 0)

    @rank_zero_only
    def save(self) -> None:
        self._logger.flush()

    @rank_zero_only
    def finalize(self, status: str) -> None:
        if not self._closed:
            self._closed = True
            self._logger.close()


class CsvMetrics(StageLogger):
    """`metrics.csv` of a run, for a trainer of one's own as well.

    Args:
        path: of the file, which the stages of a run share.
        stage: whose metrics these are; its prefix begins their names.
        resumed_step: rows of the stage after this step are from training that was lost, and are removed.
    """

    def __init__(self, path: Path, *, stage: StageKind = MODEL, resumed_step: int = 0) -> None:
        super().__init__(CsvLogger(LoggedRun(path.parent, stage, resumed_step)), "csv", stage, {})


def loggers(
    folder: Path,
    *,
    names: Sequence[str | Mapping[str, Any]] | None,
    stage: StageKind = MODEL,
    resumed_step: int,
    config: Mapping[str, Any] | None = None,
) -> list[LightningLogger]:
    """The loggers of a stage of a run.

    Args:
        names: the setting `training.loggers`.
        config: of the run.

    Raises:
        ConfigError: an unknown name or option, or a package that is not installed.
    """
    choices = [names] if isinstance(names, str) else list(names or ())
    run = LoggedRun(folder, stage, resumed_step)
    settings = {key: _plain(value) for key, value in flatten_settings(config or {}).items()}
    called = [logger_config(choice)["name"] for choice in choices]
    return [
        CsvMetrics(folder / METRICS, stage=stage, resumed_step=resumed_step)
        if name == "csv"
        else StageLogger(logger, name, stage, settings)
        for logger, name in zip(open_loggers(choices, run), called, strict=True)
    ]


def _plain(value: Any) -> bool | int | float | str:
    return value if isinstance(value, bool | int | float | str) else str(value)
