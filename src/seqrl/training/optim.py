"""The optimizer and the schedule of a Lightning module, as a run's configuration names them."""

from __future__ import annotations

import inspect
import math

import lightning.pytorch as pl
import torch
from lightning.pytorch.utilities.types import OptimizerLRScheduler

from seqrl.config import SchedulerComponent, SequenceConfig
from seqrl.errors import ConfigError
from seqrl.registry import OPTIMIZER, SCHEDULER
from seqrl.schedulers import Scheduler


def make_scheduler(
    config: SchedulerComponent, *, max_steps: int, steps_per_epoch: int, targets_per_epoch: int | None = None
) -> Scheduler:
    """What the section `scheduler` of a run names."""
    lengths = {"max_steps": max_steps, "steps_per_epoch": steps_per_epoch, "targets_per_epoch": targets_per_epoch}
    scheduler: Scheduler = SCHEDULER.build(config, **lengths)
    return scheduler


def build_scheduler(module: pl.LightningModule, config: SequenceConfig, targets: int | None = None) -> Scheduler:
    """The scheduler of a run, for the trainer that a module is in.

    Args:
        targets: of a window, where the module counts them.
    """
    trainer, data = module.trainer, getattr(module.trainer, "datamodule", None)
    windows = getattr(data, "windows_per_epoch", None)
    max_steps = trainer.estimated_stepping_batches  # loads the training data where epochs are counted
    batches = getattr(data, "steps_per_epoch", None) or _batches_of_epoch(trainer)
    return make_scheduler(
        config.scheduler,
        # Where there is no end, `check_length` has seen to it that nobody asks for it.
        max_steps=int(max_steps) if math.isfinite(max_steps) else 1,
        steps_per_epoch=math.ceil(batches / trainer.accumulate_grad_batches),
        targets_per_epoch=None if windows is None or targets is None else windows * targets,
    )


def build_optimizer_and_schedule(
    module: pl.LightningModule, config: SequenceConfig, scheduler: Scheduler | None = None
) -> OptimizerLRScheduler:
    """What `configure_optimizers` returns for the optimizer and the scheduler of a run.

    Args:
        scheduler: of `build_scheduler`, where the module keeps it.
    """
    optimizer = OPTIMIZER.build(config.optimizer).build(module)
    scheduler = scheduler or build_scheduler(module, config)

    def factor(step: int) -> float:  # a method's attributes would end in the checkpoint
        return scheduler.factor(step)

    schedule = torch.optim.lr_scheduler.LambdaLR(optimizer, factor)
    return {"optimizer": optimizer, "lr_scheduler": {"scheduler": schedule, "interval": "step"}}


def check_length(trainer: pl.Trainer, scheduler: SchedulerComponent) -> None:
    """Refuse a training without an end to a schedule that needs one.

    Raises:
        ConfigError: neither `max_steps` nor `max_epochs`, and a scheduler that asks for `max_steps`.
    """
    if trainer.max_steps != -1 or trainer.max_epochs != -1:
        return
    if "max_steps" in inspect.signature(SCHEDULER.named_by(scheduler)).parameters:
        raise ConfigError(
            f"scheduler={scheduler['name']} spreads the learning rate over the whole training, of which "
            "this trainer has neither max_steps nor max_epochs; give one of them (max_time may end it earlier), or use "
            "scheduler='constant'"
        )


def _batches_of_epoch(trainer: pl.Trainer) -> int:
    """Of a loader that came without its data module, as far as its length is known."""
    trainer.fit_loop.setup_data()
    return int(trainer.num_training_batches) if math.isfinite(trainer.num_training_batches) else 1
