"""The Lightning trainer of a stage: what happens beside its optimisation."""

from __future__ import annotations

import logging
import warnings
from collections.abc import Sequence
from typing import Any

import lightning.pytorch as pl
import torch
from lightning.fabric.utilities.exceptions import MisconfigurationException
from lightning.pytorch.callbacks import Callback

from seqrl.config import TrainerConfig
from seqrl.errors import ConfigError
from seqrl.runs.folder import RunFolder
from seqrl.training.callbacks import ClipGradient, ShowProgress, TrainingMetrics
from seqrl.training.checkpoint_io import AtomicCheckpointIO, Checkpoints
from seqrl.training.extensions import extend
from seqrl.training.health import StopWhenNotFinite
from seqrl.training.loggers import loggers
from seqrl.training.parallel import CompileModel, cluster_environment, strategy
from seqrl.training.stages import Stage
from seqrl.training.time_limit import StopAfter


def make_trainer(
    stage: Stage, folder: RunFolder, *, resumed_step: int = 0, callbacks: Sequence[Callback] = ()
) -> pl.Trainer:
    """The trainer of a stage: its metrics, checkpoints, loggers and progress bar.

    Args:
        resumed_step: what was logged after it is lost, and is removed.
        callbacks: more of them.

    Raises:
        ConfigError: options or loggers that there are not.
    """
    settings, name = stage.settings, stage.kind.name
    every, log_every = settings.checkpoint_every, settings.log_every
    batches = stage.trainer.accumulate_grad_batches
    gradient = ClipGradient(stage.clip_norm)
    found: list[Callback] = [
        *callbacks,
        gradient,
        *extend(settings.callbacks, name),
        StopWhenNotFinite(
            folder.path / name, every=log_every, checkpoint_every=every, gradient=gradient, rate=stage.rate
        ),
        TrainingMetrics(log_every, gradient),
        Checkpoints(
            folder.path / name,
            stage=name,
            every=every,
            keep=settings.keep_last,
            continued=resumed_step > 0,
            saved=lambda step: folder.set_status(name, "running", step),
        ),
    ]
    if settings.progress_bar:
        found.append(ShowProgress(name, every=log_every))
    return build_trainer(
        stage.trainer,
        max_steps=settings.max_steps,
        val_check_interval=min(settings.validate_every, settings.max_steps) * batches,  # which Lightning counts
        callbacks=found,
        logger=loggers(
            folder.path,
            names=settings.loggers,
            stage=stage.kind,
            resumed_step=resumed_step,
            config=stage.module.hparams["config"],
        ),
        enable_progress_bar=False,  # ours
        limit_val_batches=1.0 if stage.has_validation else 0,
        default_root_dir=folder.path,
    )


def quiet_lightning() -> None:
    """Leave out what Lightning and torch say for no reason that concerns a run; its own warnings stay.

    The only filters of warnings that the package sets for a whole process; versions are those that were looked at.
    """
    logging.getLogger("lightning.pytorch").setLevel(logging.WARNING)
    logging.getLogger("lightning.fabric").setLevel(logging.WARNING)
    for message in (
        ".*LeafSpec.*is deprecated",  # Lightning 2.6.6 uses what torch 2.13 deprecates: Lightning's issue 21326
        ".*does not have many workers",  # batches are cut in this process (Lightning 2.6.6)
        ".*your dataloader is not resumable",  # our order follows the step (Lightning 2.6.6)
        "The `srun` command is available",  # a login node may train as well (Lightning 2.6.6)
        "FSDP2-wrapped module .* returned a view",  # nothing works on it in place (torch 2.13)
    ):
        warnings.filterwarnings("ignore", message=message)


def build_trainer(options: TrainerConfig, **fixed: Any) -> pl.Trainer:
    """A Lightning trainer for a stage, counted in steps.

    Args:
        options: of the run; those that are not ours go to `lightning.pytorch.Trainer` under their own names.

    Raises:
        ConfigError: options that the trainer refuses.
    """
    if options.num_threads is not None:
        torch.set_num_threads(options.num_threads)
    ours = ("num_threads", "compile", "fast_cpu", "strategy", "max_time", "devices")
    passed = {key: value for key, value in vars(options).items() if key not in ours}
    passed["devices"] = list(options.devices) if isinstance(options.devices, tuple) else options.devices
    callbacks = [*fixed.pop("callbacks", []), *([CompileModel()] if options.compile else [])]
    try:
        if options.max_time is not None:
            callbacks.insert(0, StopAfter(options.max_time))  # before what saves and validates
        return pl.Trainer(
            **passed,
            **fixed,
            strategy=strategy(options),
            callbacks=callbacks,
            plugins=[AtomicCheckpointIO(), cluster_environment(options)],
            max_epochs=-1,
            check_val_every_n_epoch=None,
            num_sanity_val_steps=0,
            use_distributed_sampler=False,
            log_every_n_steps=1,
            enable_model_summary=False,
        )
    except (ImportError, TypeError, ValueError, RuntimeError, MisconfigurationException) as error:
        raise ConfigError(f"trainer={passed} is refused by Lightning: {error}") from error
