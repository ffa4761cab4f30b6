"""`hydra/sweeper=optuna`: a search by Optuna, whose trials are jobs like those of any sweep.

The study is a journal file in the sweep's folder. The parent asks it for settings and tells it results; a job reports
its validations to it (`seqrl.training.pruning`) and hears whether to go on. Whatever is killed, the file holds what
was known, and the same command goes on from there.
"""

from __future__ import annotations

import importlib.util
import json
import math
from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

from hydra.core.override_parser.overrides_parser import OverridesParser
from hydra.core.plugins import Plugins
from hydra.plugins.sweeper import Sweeper
from hydra.types import HydraContext, TaskFunction
from omegaconf import DictConfig

from seqrl.cli.optuna_space import Space
from seqrl.cli.patches import end_workers
from seqrl.cli.sweep import forget
from seqrl.cli.sweepers import Dispatch
from seqrl.console import say
from seqrl.errors import ConfigError
from seqrl.evaluation.jobs import locate_record, read_job
from seqrl.training.studies import JOURNAL, PRUNERS, open_study

if TYPE_CHECKING:
    from optuna import Study
    from optuna.samplers import BaseSampler

SAMPLERS = ("tpe", "random")
DIRECTIONS = ("minimize", "maximize")


class OptunaSweeper(Sweeper):
    """Asks Optuna for the next jobs and tells it what came of them; settings: conf/hydra/sweeper/optuna.yaml."""

    def __init__(
        self,
        n_trials: int,
        n_jobs: int,
        direction: str | None,
        sampler: str,
        seed: int,
        pruner: str,
        startup_trials: int,
        warmup_steps: int,
    ) -> None:
        _check("direction", direction, (*DIRECTIONS, None))
        _check("sampler", sampler, SAMPLERS)
        _check("pruner", pruner, PRUNERS)
        for name, value in (("n_trials", n_trials), ("n_jobs", n_jobs)):
            if value < 1:
                raise ConfigError(f"hydra.sweeper.{name}={value} is too small; give 1 or more")
        self.num_trials, self.num_jobs = n_trials, n_jobs
        self.direction, self.sampler, self.seed = direction, sampler, seed
        self.pruner: dict[str, Any] = {"name": pruner, "startup_trials": startup_trials, "warmup_steps": warmup_steps}

    def setup(self, *, hydra_context: HydraContext, task_function: TaskFunction, config: DictConfig) -> None:
        if importlib.util.find_spec("optuna") is None:
            raise ConfigError("hydra/sweeper=optuna needs Optuna, which is not installed: pip install 'seqrl[optuna]'")
        self._loader, self._config = hydra_context.config_loader, config
        self.folder = Path(config.hydra.sweep.dir).absolute()
        launcher = Plugins.instance().instantiate_launcher(
            hydra_context=hydra_context, task_function=task_function, config=config
        )
        self._dispatch = Dispatch(launcher, self.folder, hydra_context, task_function, config)

    def sweep(self, arguments: list[str]) -> None:
        space = Space(arguments, OverridesParser.create(config_loader=self._loader))
        objective = str(self._loader.load_sweep_config(self._config, space.fixed).objective_metric)
        direction = self.direction or DIRECTIONS[0 if objective.endswith("loss") else 1]
        self.folder.mkdir(parents=True, exist_ok=True)
        study = open_study(self.folder / JOURNAL, direction=direction)
        if study.direction.name.lower() != direction:
            raise ConfigError(
                f"the study in {str(self.folder)!r} was started to {study.direction.name.lower()} {objective}; remove "
                "the folder to start anew"
            )
        study.set_user_attr("objective", objective)
        study.sampler = self._sampler(len(study.trials))
        prunes = objective.startswith("val/") and self.pruner["name"] != "none"
        if not prunes:
            say(f"trials are run to their end: pruner={self.pruner['name']}, objective_metric={objective}")
        try:
            self._search(study, space, objective if prunes else None)
        finally:
            end_workers()

    def _search(self, study: Study, space: Space, metric: str | None) -> None:
        from optuna.trial import TrialState

        ended = (TrialState.COMPLETE, TrialState.PRUNED)
        retried = {trial.user_attrs.get("retry_of") for trial in study.trials}
        for trial in study.get_trials(states=(TrialState.FAIL,)):
            if trial.number not in retried:
                study.enqueue_trial(trial.params, user_attrs={"retry_of": trial.number})
                forget(self.folder, trial.number)
        begun = {trial.number: trial.params for trial in study.get_trials(states=(TrialState.RUNNING,))}
        left = self.num_trials - len(study.get_trials(states=ended))
        say(f"study: {self.num_trials - left} of {self.num_trials} trials have ended, {len(begun)} were begun")
        while left > 0:
            batch = {number: begun.pop(number) for number in sorted(begun)[: min(left, self.num_jobs)]}
            while len(batch) < min(left, self.num_jobs):
                asked = study.ask(space.distributions)
                batch[asked.number] = asked.params
            left -= len(batch)
            jobs = [[*space.overrides(params), *self._trial(n, metric)] for n, params in batch.items()]
            self._dispatch.launch_numbered(jobs, list(batch))
            for number, overrides in zip(batch, jobs, strict=True):
                self._tell(study, number, overrides)

    def _trial(self, number: int, metric: str | None) -> list[str]:
        """The override by which a job finds its trial; see `seqrl.training.pruning`."""
        if metric is None:
            return []
        where = json.dumps(str(self.folder / JOURNAL))
        pruner = ",".join(f"{key}:{value}" for key, value in self.pruner.items())
        return [f"trial={{journal:{where},number:{number},metric:{metric},pruner:{{{pruner}}}}}"]

    def _tell(self, study: Study, number: int, overrides: Sequence[str]) -> None:
        from optuna.trial import TrialState

        job = read_job(locate_record(self.folder, overrides))
        value = job.objective[1]
        if job.skipped == "runs elsewhere" or job.state == "interrupted":
            return  # the same command will hear of it
        if job.state == "pruned":
            study.tell(number, state=TrialState.PRUNED)
        elif job.state == "done" and value is not None and math.isfinite(value):
            study.tell(number, value)
        else:
            study.tell(number, state=TrialState.FAIL)

    def _sampler(self, num_trials: int) -> BaseSampler:
        """A continued study draws on from another seed, where it would repeat its first draws."""
        from optuna.samplers import RandomSampler, TPESampler

        seed = self.seed + num_trials
        if self.sampler == "random":
            return RandomSampler(seed=seed)
        return TPESampler(seed=seed, n_startup_trials=self.pruner["startup_trials"])


def _check(name: str, value: Any, allowed: Sequence[Any]) -> None:
    if value not in allowed:
        known = ", ".join("null" if each is None else str(each) for each in allowed)
        raise ConfigError(f"hydra.sweeper.{name}={value} is none; give one of {known}")
