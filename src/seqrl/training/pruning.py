"""Giving up trainings that a search has better alternatives to."""

from __future__ import annotations

import math
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import lightning.pytorch as pl
from lightning.pytorch.callbacks import Callback

from seqrl.training.studies import open_study


class PruneTrial(Callback):
    """Reports every validation to the study of a search, and stops the training where its pruner says so.

    The first rank reports; all stop at the same step.

    Args:
        journal: the study's file.
        number: of the trial.
        metric: what is reported, of what validations log.
        pruner: see `seqrl.training.studies.open_study`.

    Attributes:
        pruned: whether training was stopped.
    """

    def __init__(self, journal: str, number: int, metric: str, pruner: Mapping[str, Any]) -> None:
        self._journal, self._number, self._metric, self._pruner = Path(journal), number, metric, pruner
        self._trial: Any = None
        self.pruned = False

    def on_validation_end(self, trainer: pl.Trainer, pl_module: pl.LightningModule) -> None:
        value = float(trainer.callback_metrics.get(self._metric, math.nan))
        if trainer.state.fn != "fit" or trainer.sanity_checking or not math.isfinite(value):
            return
        hopeless = trainer.is_global_zero and self._report(trainer.global_step, value)
        self.pruned = bool(trainer.strategy.broadcast(hopeless)) and trainer.global_step < trainer.max_steps
        if self.pruned:
            trainer.should_stop = True

    def _report(self, step: int, value: float) -> bool:
        from optuna.trial import Trial

        if self._trial is None:
            study = open_study(self._journal, pruner=self._pruner)
            self._trial = Trial(study, study.trials[self._number]._trial_id)
        if step not in self._trial.study._storage.get_trial(self._trial._trial_id).intermediate_values:
            self._trial.report(value, step)  # unless a run that was killed did, before its last checkpoint
        return bool(self._trial.should_prune())
