"""One stage of a run, trained to its end or to where it is stopped."""

from __future__ import annotations

from pathlib import Path

import lightning.pytorch as pl
from lightning.pytorch.callbacks import EarlyStopping
from lightning.pytorch.utilities import rank_zero_only

from seqrl.checkpoints.reading import read_checkpoint
from seqrl.console import say
from seqrl.errors import ConfigError, PrunedError, Stopped, UnfinishedError
from seqrl.files import copy_file
from seqrl.runs.folder import RunFolder
from seqrl.training.callbacks import StopAtInterrupt
from seqrl.training.checkpoint_io import resumable
from seqrl.training.extensions import Extension
from seqrl.training.pruning import PruneTrial
from seqrl.training.same_data import check_data
from seqrl.training.stages import Stage
from seqrl.training.time_limit import StopAfter
from seqrl.training.trainer import make_trainer


def fit_stage(stage: Stage, folder: RunFolder) -> Path:
    """Train a stage, or what is left of it; afterwards its module holds the weights of its `last.ckpt`.

    Returns:
        The stage's `last.ckpt`.

    Raises:
        seqrl.errors.Stopped: Ctrl-C, or a signal of a cluster; `last.ckpt` holds the last whole step.
        seqrl.errors.DivergedError: a loss or gradient is not finite; see `StopWhenNotFinite`.
        seqrl.errors.PrunedError: a search gave the training up.
        seqrl.errors.UnfinishedError: an option of the trainer or a callback ended the training before its last step.
        seqrl.errors.ConfigError: a checkpoint that is there was trained on other data.
        seqrl.errors.CheckpointError: no checkpoint of those that are there can be read.
    """
    name, dataset = stage.kind.name, stage.dataset
    last = folder.checkpoint(name)
    if folder.is_done(name):
        content = read_checkpoint(last, name)
        check_data(last, content, dataset)
        stage.module.load_state_dict(content["state_dict"])
        return last
    checkpoint, resumed_step = resumable(last.parent, name)
    if checkpoint is not None:
        check_data(checkpoint, read_checkpoint(checkpoint, name), dataset)
        if getattr(rank_zero_only, "rank", 0) == 0:
            say(f"{stage.kind.title}continues at step {resumed_step} of {stage.settings.max_steps}")
    interrupt = StopAtInterrupt()
    search = PruneTrial(**vars(stage.trial)) if stage.trial else None
    callbacks = [interrupt, *([search] if search else [])]
    trainer = make_trainer(stage, folder, resumed_step=resumed_step, callbacks=callbacks)
    if trainer.is_global_zero and checkpoint is not None and checkpoint != last:
        copy_file(checkpoint, last)  # else a run that needs no more steps would be left without it
    try:
        trainer.fit(stage.module, stage.data, ckpt_path=checkpoint, weights_only=True)
    except BaseException as error:
        if trainer.is_global_zero:
            _note_failure(stage, folder, error, resumed_step)
        if isinstance(error.__context__, Stopped):  # before the first step, Lightning turns that into SystemExit
            raise error.__context__ from None
        if _is_by_hand(error):
            raise KeyboardInterrupt from error
        raise
    pruned = search is not None and search.pruned
    asked = _asked_end(trainer)
    early = None if asked or trainer.global_step >= stage.settings.max_steps else _tell_early_end(stage, trainer)
    state = "interrupted" if interrupt.interrupted else "pruned" if pruned else "interrupted" if early else "done"
    if trainer.is_global_zero:
        if state == "done":
            if asked:
                say(f"{stage.kind.title}{asked}; ended after {trainer.global_step} of {stage.settings.max_steps} steps")
            _say_metrics(stage, trainer)
        reason = early if not interrupt.interrupted and not pruned else None
        folder.set_status(name, state, trainer.global_step, reason)
    if interrupt.number is not None:
        raise Stopped(interrupt.number)
    if pruned:
        raise PrunedError(f"given up after {trainer.global_step} steps: other trials did better")
    if early:
        raise UnfinishedError(early)
    return last


def _note_failure(stage: Stage, folder: RunFolder, error: BaseException, resumed_step: int) -> None:
    begun = folder.status().get(stage.kind.name)
    if begun is None and isinstance(error, ConfigError):
        return  # it was refused, and there is nothing to tell
    state = "interrupted" if _is_by_hand(error) else "pruned" if isinstance(error, PrunedError) else "failed"
    reason = None if _is_by_hand(error) else f"{type(error).__name__}: {error}"
    folder.set_status(stage.kind.name, state, resumed_step if begun is None else begun.step, reason)


def _is_by_hand(error: BaseException) -> bool:
    return isinstance(error, (KeyboardInterrupt, SystemExit))  # a second Ctrl-C: Lightning exits


def _asked_end(trainer: pl.Trainer) -> str | None:
    """Why a callback of the run ended it, which then is its end; None where none did."""
    found = [each.training for each in getattr(trainer, "callbacks", []) if isinstance(each, Extension)]
    return next((each.end_reason for each in found if each is not None and each.end_reason), None)


def _tell_early_end(stage: Stage, trainer: pl.Trainer) -> str:
    """Which part of the trainer may have ended it, as far as it is known."""
    found = getattr(trainer, "callbacks", [])  # which Lightning does not declare
    known = ["trainer.max_time" for each in found if isinstance(each, StopAfter)]
    known += [type(each).__name__ for each in found if isinstance(each, EarlyStopping)]
    who = " or ".join(known) or "an option of the trainer or a callback"
    return (
        f"{stage.kind.title}{who} ended the training after {trainer.global_step} of {stage.settings.max_steps} steps; "
        "the same command goes on from there"
    )


def _say_metrics(stage: Stage, trainer: pl.Trainer) -> None:
    logged = {name: float(value) for name, value in trainer.callback_metrics.items() if name.startswith("val/")}
    if "val/loss" in logged:
        say(f"{stage.kind.title}held-out loss after {trainer.global_step} steps: {stage.tell_loss(logged)}")
