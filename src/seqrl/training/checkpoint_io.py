"""Checkpoints of a stage: when they are written, so that a full disk or a kill never costs the one that was there."""

from __future__ import annotations

import math
import os
import re
from collections.abc import Callable, Mapping
from importlib.metadata import version
from pathlib import Path
from typing import Any

import lightning.pytorch as pl
import torch
from lightning.fabric.plugins import TorchCheckpointIO
from lightning.pytorch.callbacks import Checkpoint

from seqrl.checkpoints.migration import FORMAT
from seqrl.checkpoints.reading import DamagedError, find_newest, read_file
from seqrl.config import CriticConfig, SequenceConfig
from seqrl.console import say
from seqrl.files import copy_file, write_file
from seqrl.plugins import origin, source
from seqrl.training.loading import lacks_batches
from seqrl.training.machine import describe_machine

_NUMBERED = re.compile(r"step-(\d+)\.ckpt")


class AtomicCheckpointIO(TorchCheckpointIO):
    """Writes beside the target, flushes to disk and then renames; compares checksums when it reads.

    Lightning's own writer renames as well, but from the system's temporary folder, which copies where that lies on
    another disk: what is there after a failed copy is the beginning of a checkpoint.
    """

    def save_checkpoint(
        self, checkpoint: dict[str, Any], path: str | os.PathLike[str], storage_options: Any = None
    ) -> None:
        """Raises OSError with the checkpoint's name when the disk is full; the old file stays then."""
        target = Path(path)
        target.parent.mkdir(parents=True, exist_ok=True)
        try:
            with write_file(target) as file:
                torch.save(checkpoint, file)
        except OSError as error:
            raise OSError(error.errno, error.strerror or str(error), str(target)) from error
        except RuntimeError as error:  # torch's zip writer wraps what the disk says
            cause = error.__context__ if isinstance(error.__context__, OSError) else OSError(None, str(error))
            raise OSError(cause.errno, cause.strerror or str(error), str(target)) from error

    def load_checkpoint(
        self, path: str | os.PathLike[str], map_location: Any = None, weights_only: bool | None = None
    ) -> dict[str, Any]:
        """As `seqrl.checkpoints.reading.read_file`: tensors on the CPU and plain values, whatever is asked for."""
        return read_file(Path(path))


def is_save_step(trainer: pl.Trainer, every: int) -> bool:
    """Whether the present step gets a `last.ckpt`: one of every so many, and the last one, early or not."""
    return trainer.global_step % every == 0 or trainer.global_step == trainer.max_steps or trainer.should_stop


def validation_follows(trainer: pl.Trainer) -> bool:
    """Whether Lightning validates after the present step, which a checkpoint then waits for."""
    every, batches = trainer.val_check_batch, trainer.accumulate_grad_batches
    due = every and trainer.global_step * batches % every == 0
    return bool(trainer.enable_validation and (trainer.should_stop or due))


class Checkpoints(Checkpoint):
    """`last.ckpt` every so many steps and at the end, with older ones beside it, and `best.ckpt` by held-out loss.

    A checkpoint is always of a whole step, its metrics and, where one is due, its validation: training that goes on
    from it repeats nothing and leaves nothing out.

    Args:
        folder: of the stage.
        stage: goes into the checkpoint, which is refused elsewhere.
        every: steps between two `last.ckpt`.
        keep: how many of these are kept, older ones as `step-N.ckpt`.
        continued: whether training goes on from the `last.ckpt` that is there.
        saved: is told the step, on the first rank, when training begins and after each `last.ckpt`.
    """

    def __init__(
        self, folder: Path, *, stage: str, every: int, keep: int, continued: bool, saved: Callable[[int], None]
    ) -> None:
        self._folder, self._stage, self._every, self._keep, self._continued = folder, stage, every, keep, continued
        self._tell = saved
        self._best = math.inf
        self._step: int | None = None  # of the last.ckpt that is there

    def state_dict(self) -> dict[str, Any]:
        return {"best": self._best}

    def load_state_dict(self, state_dict: dict[str, Any]) -> None:
        self._best = state_dict["best"]

    def on_save_checkpoint(
        self, trainer: pl.Trainer, pl_module: pl.LightningModule, checkpoint: dict[str, Any]
    ) -> None:
        checkpoint["stage"] = self._stage

    def on_train_start(self, trainer: pl.Trainer, pl_module: pl.LightningModule) -> None:
        self._step = trainer.global_step if self._continued else None
        if trainer.is_global_zero:
            self._tell(trainer.global_step)

    def on_train_batch_end(
        self, trainer: pl.Trainer, pl_module: pl.LightningModule, outputs: Any, batch: Any, batch_idx: int
    ) -> None:
        if not validation_follows(trainer) and not lacks_batches(trainer):
            self._save_if_due(trainer)

    def on_validation_end(self, trainer: pl.Trainer, pl_module: pl.LightningModule) -> None:
        if trainer.state.fn != "fit" or trainer.sanity_checking:
            return
        score = float(trainer.callback_metrics.get("val/loss", math.inf))
        if score < self._best:
            self._best = score
            self._save(trainer, "best.ckpt")
        self._save_if_due(trainer)

    def on_train_end(self, trainer: pl.Trainer, pl_module: pl.LightningModule) -> None:
        if self._step != trainer.global_step:  # a callback of the user's ended it at another place than those above
            self._save_last(trainer)

    def _save_if_due(self, trainer: pl.Trainer) -> None:
        if is_save_step(trainer, self._every):
            self._save_last(trainer)

    def _save_last(self, trainer: pl.Trainer) -> None:
        if trainer.is_global_zero and self._step is not None and self._keep > 1:
            _link(self._folder / "last.ckpt", self._folder / f"step-{self._step}.ckpt")
        self._save(trainer, "last.ckpt")
        self._step = trainer.global_step
        if trainer.is_global_zero:
            for path in _older(self._folder, self._step)[self._keep - 1 :]:
                path.unlink(missing_ok=True)
            self._tell(self._step)

    def _save(self, trainer: pl.Trainer, name: str) -> None:
        for logger in trainer.loggers:  # what was logged must not be younger on disk than the checkpoint
            logger.save()
        trainer.save_checkpoint(self._folder / name, weights_only=False)


def _older(folder: Path, step: int) -> list[Path]:
    """The `step-N.ckpt` before a step, newest first; then those of later steps, which a run left that went back.

    Times of files tell nothing: copying a run may change them.
    """
    found = [(int(match[1]), path) for path in folder.iterdir() if (match := _NUMBERED.fullmatch(path.name))]
    return [path for _, path in sorted(found, key=lambda each: (each[0] < step, each[0]), reverse=True)]


def _link(path: Path, other: Path) -> None:
    """A second name for a file, so that it outlives what replaces it under the first; what has the name goes."""
    try:
        other.unlink(missing_ok=True)  # of a run that was killed right after, or damaged
        os.link(path, other)
    except OSError:  # a file system without links: a copy takes longer and does the same
        copy_file(path, other)


def resumable(folder: Path, stage: str) -> tuple[Path | None, int]:
    """The checkpoint from which a stage goes on, and its step: `last.ckpt`, or else the newest that is whole.

    Args:
        folder: of the stage.

    Returns:
        (None, 0) where there is none.

    Raises:
        DamagedError: there are checkpoints, and all are damaged; says what to remove.
        CheckpointError: as `find_newest`.
    """
    try:
        found = find_newest(folder, stage, to_train=True)
    except DamagedError as error:
        raise DamagedError(f"{error}; delete {str(folder)!r} to train this stage from the start") from error
    if found is None:
        return None, 0
    if found.faults:
        say(f"{found.faults[0]}; training goes on from {found.path.name}, which is of step {found.step}")
    return found.path, found.step


def describe_checkpoint(
    config: SequenceConfig | CriticConfig, parts: Mapping[str, Any], *, model: str | None = None
) -> dict[str, Any]:
    """What a checkpoint says of itself: its format, the plugins that its parts come from, and versions.

    Args:
        parts: components by slot.
        model: what its sequences are made of; None of stages that train no model.
    """
    origins = {slot: origin(type(part)) for slot, part in parts.items()}
    others = [slot for slot, where in origins.items() if where != "seqrl"]
    return {
        "format": FORMAT,
        "model": model,
        "plugins": list(config.plugins),
        "origins": {slot: Path(origins[slot]).name for slot in others},
        "code": {slot: source(type(parts[slot]).__module__) for slot in others},
        "machine": describe_machine(config.trainer),
        "versions": {package: version(package) for package in ("seqrl", "torch", "lightning", "numpy")},
    }
