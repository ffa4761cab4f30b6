"""MLflow: a server, or a database file beside the runs."""

from __future__ import annotations

import os
import re
import time
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from seqrl.errors import ConfigError
from seqrl.files import read_text, write_text
from seqrl.loggers import LoggedRun, Logger
from seqrl.registry import register_logger

_ID = "mlflow_id.txt"  # by which a run that goes on finds what it logged
_FORBIDDEN = re.compile(r"[^\w\-. :/]")
_LONGEST = 500  # characters of a parameter


@register_logger("mlflow")
class MlflowLogger(Logger):
    """One run of MLflow for each run folder; the same command continues it.

    Args:
        experiment: where it is filed.
        tracking_uri: null: as `$MLFLOW_TRACKING_URI` says, else `mlflow.db` beside the run folder, which
            `mlflow ui --backend-store-uri sqlite:///runs/mlflow.db` shows.
    """

    needs = "mlflow"
    extra = "mlflow"

    def __init__(self, run: LoggedRun, experiment: str = "seqrl", tracking_uri: str | None = None) -> None:
        self._run, self._experiment = run, experiment
        self._uri = tracking_uri or os.environ.get("MLFLOW_TRACKING_URI")
        self._client: Any = None
        self._id = ""

    @property
    def _remote(self) -> Any:
        if self._client is None:
            from mlflow import MlflowClient
            from mlflow.exceptions import MlflowException

            folder = self._run.folder.absolute()
            client = MlflowClient(tracking_uri=self._uri or f"sqlite:///{folder.parent / 'mlflow.db'}")
            try:
                self._id = self._find_run(client, folder)
            except MlflowException as error:
                raise ConfigError(f"mlflow refuses ({str(error).splitlines()[0]}); mend tracking_uri") from error
            self._client = client
        return self._client

    def _find_run(self, client: Any, folder: Path) -> str:
        file = self._run.folder / _ID
        if file.exists():
            return read_text(file).strip()
        found = client.get_experiment_by_name(self._experiment)
        place = None if self._uri else (folder.parent / "mlflow").as_uri()
        experiment = found.experiment_id if found else client.create_experiment(self._experiment, place)
        made: str = client.create_run(experiment, run_name=folder.name).info.run_id
        write_text(file, made)
        return made

    def log_settings(self, settings: Mapping[str, bool | int | float | str]) -> None:
        known = self._remote.get_run(self._id).data.params
        for key, value in settings.items():
            if _FORBIDDEN.sub("_", key) not in known:  # what was logged cannot be changed
                self._client.log_param(self._id, _FORBIDDEN.sub("_", key), str(value)[:_LONGEST])

    def log_metrics(self, metrics: Mapping[str, float], step: int) -> None:
        from mlflow.entities import Metric

        now = int(1000 * time.time())
        found = [Metric(_FORBIDDEN.sub("_", name), float(value), now, step) for name, value in metrics.items()]
        self._remote.log_batch(self._id, metrics=found)

    def log_picture(self, name: str, path: Path, step: int) -> None:
        self._remote.log_artifact(self._id, str(path), _FORBIDDEN.sub("_", name))

    def log_video(self, name: str, path: Path, step: int) -> None:
        self.log_picture(name, path, step)

    def close(self) -> None:
        if self._client is not None:
            self._client.set_terminated(self._id)
            self._client = None
