"""Two files that are only ever appended to: `metrics.csv` and `evaluations.csv`."""

from __future__ import annotations

from collections.abc import Mapping

from seqrl.loggers import LoggedRun, Logger
from seqrl.registry import register_logger
from seqrl.runs.metrics import Metric, append_metrics, flush_metrics, read_metrics, write_metrics

METRICS, ROWS = "metrics.csv", "evaluations.csv"


@register_logger("csv")
class CsvLogger(Logger):
    """Keeps `metrics.csv` (see `seqrl.runs.metrics`), of which a resumed run loses no row, and `evaluations.csv`.

    `metrics.csv` is what `seqrl status`, curves and objectives of searches are read from.
    """

    def __init__(self, run: LoggedRun) -> None:
        self._run = run
        self._path = run.folder / METRICS
        self._started = False

    def log_metrics(self, metrics: Mapping[str, float], step: int) -> None:
        if not self._started:
            self._start()
        append_metrics(self._path, (Metric(step, name, float(value)) for name, value in metrics.items()))

    def log_row(self, label: str, numbers: Mapping[str, float], step: int) -> None:
        path = self._run.folder / ROWS
        if not path.exists():
            write_metrics(path, [])
        append_metrics(path, (Metric(step, f"eval/{label}/{name}", value) for name, value in numbers.items()))

    def flush(self) -> None:
        if self._started:
            flush_metrics(self._path)

    def _start(self) -> None:
        run = self._run
        logged = read_metrics(self._path)
        write_metrics(self._path, [e for e in logged if e.step <= run.resumed_step or not run.stage.owns(e.name)])
        self._started = True
