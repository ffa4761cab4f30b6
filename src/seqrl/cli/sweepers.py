"""The sweeper of `-m`: every combination of the values that are listed, less what is finished or runs elsewhere."""

from __future__ import annotations

import math
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from hydra.core.utils import JobReturn, JobStatus
from hydra.plugins.launcher import Launcher
from hydra.plugins.sweeper import Sweeper
from hydra.types import HydraContext, TaskFunction
from omegaconf import DictConfig, open_dict

from seqrl.cli.patches import awaited_jobs, bound_workers, end_workers
from seqrl.cli.sweep import Identity, lost
from seqrl.console import say
from seqrl.errors import ConfigError, SeqrlError
from seqrl.evaluation.jobs import Job, locate_record, read_job, write_job
from seqrl.processes import usable_cores
from seqrl.runs.folder import is_held


class GridSweeper(Sweeper):
    """Hydra's basic sweeper, whose launcher is given only those jobs that need to run."""

    def __init__(self, max_batch_size: int | None, params: dict[str, str] | None) -> None:
        # Hydra runs the modules of its plugins a second time when it looks for them: a subclass would be of another
        # BasicSweeper than the one that is there then.
        from hydra._internal.core_plugins.basic_sweeper import BasicSweeper

        self._basic = BasicSweeper(max_batch_size, params)

    def setup(self, *, hydra_context: HydraContext, task_function: TaskFunction, config: DictConfig) -> None:
        self._basic.setup(hydra_context=hydra_context, task_function=task_function, config=config)
        assert self._basic.launcher is not None
        folder = Path(config.hydra.sweep.dir)
        self._dispatch = Dispatch(self._basic.launcher, folder, hydra_context, task_function, config)
        self._basic.launcher = self._dispatch

    def sweep(self, arguments: list[str]) -> Any:
        try:
            results = self._basic.sweep(arguments)
        finally:
            end_workers()
        self._dispatch.forget_others()
        return results


class Dispatch(Launcher):
    """Stands before a launcher: hands on what is missing, answers for the rest, and keeps the records in order.

    Args:
        folder: of the sweep.
    """

    def __init__(
        self,
        launcher: Launcher,
        folder: Path,
        hydra_context: HydraContext,
        task_function: TaskFunction,
        config: DictConfig,
    ) -> None:
        self._launcher, self._folder = launcher, folder
        self._known: set[Path] = set()
        self.setup(hydra_context=hydra_context, task_function=task_function, config=config)

    def setup(self, *, hydra_context: HydraContext, task_function: TaskFunction, config: DictConfig) -> None:
        self._context, self._task, self._config = hydra_context, task_function, config

    def launch(self, job_overrides: Sequence[Sequence[str]], initial_job_idx: int) -> Sequence[JobReturn]:
        return self.launch_numbered(job_overrides, range(initial_job_idx, initial_job_idx + len(job_overrides)))

    def launch_numbered(self, job_overrides: Sequence[Sequence[str]], numbers: Sequence[int]) -> Sequence[JobReturn]:
        """Run a batch.

        Args:
            numbers: of the jobs in the sweep, rising.

        Returns:
            In the order of the batch, all of them completed: of what failed or was skipped, the return value is the
            objective as far as it is known, or NaN.
        """
        records = [locate_record(self._folder, overrides) for overrides in job_overrides]
        (self._folder / "jobs").mkdir(parents=True, exist_ok=True)
        self._known.update(records)
        missing = []
        for place, (record, overrides) in enumerate(zip(records, job_overrides, strict=True)):
            job = self._plan(record, overrides, numbers[place])
            write_job(record, job)
            if job.skipped is None:
                missing.append(place)
        if len(missing) < len(records):
            say(f"{len(records) - len(missing)} of {len(records)} jobs are finished or run elsewhere: not started")
        results = []
        if missing:
            limit_workers(self._launcher, len(missing))
            with awaited_jobs(), bound_workers():
                results = list(self._launcher.launch([job_overrides[place] for place in missing], numbers[missing[0]]))
        for place, result in zip(missing, results, strict=True):
            if result.status == JobStatus.FAILED:
                lost(records[place], str(result._return_value))
        return [_returned(read_job(record)) for record in records]

    def forget_others(self) -> None:
        """Remove records of jobs that the sweep does not have (any more)."""
        for path in (self._folder / "jobs").glob("*"):
            if path.with_name(f"{path.name.partition('.')[0]}.json") not in self._known:
                path.unlink()

    def _plan(self, record: Path, overrides: Sequence[str], number: int) -> Job:
        """The record of a job before it starts, with the reason if it need not start."""
        identity = self._identify(overrides)
        if identity is None:
            return Job(list(overrides), "waiting", number=number)
        earlier = read_job(record) if record.exists() else Job()
        earlier.number, earlier.skipped = number, None
        if _is_finished(earlier, identity):
            earlier.skipped = "finished before"
            return earlier
        if is_held(identity.folder):
            earlier.overrides, earlier.state, earlier.skipped = list(overrides), "running", "runs elsewhere"
            earlier.folder = str(identity.folder)
            return earlier
        return Job(list(overrides), "waiting", number=number, key=identity.key)

    def _identify(self, overrides: Sequence[str]) -> Identity | None:
        """What a job would compute; None where its configuration is wrong, which the job itself will tell."""
        config = self._context.config_loader.load_sweep_config(self._config, list(overrides))
        with open_dict(config):
            del config["hydra"]
        try:
            identity: Identity = self._task.identify(config, overrides)  # type: ignore[attr-defined]
        except (SeqrlError, OSError):
            return None
        return identity


def limit_workers(launcher: Launcher, jobs: int) -> None:
    """Let joblib start no more processes than there are jobs, and refuse more than can be of use.

    Raises:
        ConfigError: `hydra.launcher.n_jobs` is beyond the cores of this machine and the launcher's default of 10.
    """
    options = getattr(launcher, "joblib", None)  # of other launchers, others decide where jobs run
    if not isinstance(options, dict) or not isinstance(options.get("n_jobs"), int):
        return
    asked, allowed = options["n_jobs"], max(10, usable_cores())
    if min(asked, jobs) > allowed:
        raise ConfigError(
            f"hydra.launcher.n_jobs={asked} is refused: at most {allowed} jobs at once on this machine, since each is "
            f"a process with torch and a model of its own; give {allowed} or fewer"
        )
    if asked > jobs:
        options["n_jobs"] = jobs


def _is_finished(job: Job, identity: Identity) -> bool:
    results = all((Path(folder) / "results.json").exists() for folder in job.results)
    return job.state == "done" and job.key == identity.key and identity.complete and results


def _returned(job: Job) -> JobReturn:
    value = job.objective[1]
    return JobReturn(
        overrides=job.overrides, status=JobStatus.COMPLETED, _return_value=math.nan if value is None else value
    )
