"""Ending a training after a time."""

from __future__ import annotations

from typing import Any

import lightning.pytorch as pl
from lightning.pytorch.callbacks import Timer

from seqrl.training.checkpoint_io import validation_follows
from seqrl.training.loading import lacks_batches


class StopAfter(Timer):
    """Ends training after a time (`trainer.max_time`), which every command counts anew."""

    def on_fit_start(self, trainer: pl.Trainer, *args: Any, **kwargs: Any) -> None:
        """Nothing: no time has gone by, and one step at least is made."""

    def on_train_batch_end(self, trainer: pl.Trainer, *args: Any, **kwargs: Any) -> None:
        if lacks_batches(trainer):
            return  # in the midst of a step
        stopped, validates = trainer.should_stop, validation_follows(trainer)
        super().on_train_batch_end(trainer, *args, **kwargs)
        if trainer.should_stop and not stopped and not validates:
            trainer.limit_val_batches = 0  # see `StopAtInterrupt`

    def state_dict(self) -> dict[str, Any]:
        return {}

    def load_state_dict(self, state_dict: dict[str, Any]) -> None:
        """Nothing: the time that earlier commands took does not count."""
