"""What happens beside the optimisation: metrics, throughput, checkpoints."""

from __future__ import annotations

import signal
import threading
import time
from pathlib import Path
from types import FrameType
from typing import Any

import lightning.pytorch as pl
from lightning.pytorch.callbacks import Callback, ModelCheckpoint

from seqrl.training.module import SequenceModule
from seqrl.types import Batch


class TrainingMetrics(Callback):
    """Logs the means of the training metrics, tokens per second over all ranks and the learning rate.

    Args:
        every: steps between two entries.
    """

    def __init__(self, every: int) -> None:
        self.every = every

    def on_train_start(self, trainer: pl.Trainer, pl_module: pl.LightningModule) -> None:
        self._since, self._tokens = time.perf_counter(), 0

    def on_validation_end(self, trainer: pl.Trainer, pl_module: pl.LightningModule) -> None:
        self._since, self._tokens = time.perf_counter(), 0  # validation time is not training time

    def on_train_batch_end(
        self, trainer: pl.Trainer, pl_module: pl.LightningModule, outputs: Any, batch: Batch, batch_idx: int
    ) -> None:
        assert isinstance(pl_module, SequenceModule)
        self._tokens += batch.tokens.numel() * trainer.world_size
        if trainer.global_step % self.every and trainer.global_step != 1:
            return
        seconds = time.perf_counter() - self._since
        entries = pl_module.pop_metrics("train")
        entries["train/learning_rate"] = trainer.optimizers[0].param_groups[0]["lr"]
        if self._tokens:
            entries["train/tokens_per_second"] = self._tokens / seconds
        for logger in trainer.loggers:
            logger.log_metrics(entries, step=trainer.global_step)
        for name, shown in (("loss", entries["train/loss"]), ("tokens/s", entries.get("train/tokens_per_second", 0.0))):
            pl_module.log(name, shown, prog_bar=True, logger=False)
        self._since, self._tokens = time.perf_counter(), 0


def checkpoints(folder: Path, *, every: int, has_validation: bool) -> list[Callback]:
    """`last.ckpt` every so many steps and at the end; `best.ckpt` by held-out loss."""
    common: dict[str, Any] = {"dirpath": folder, "enable_version_counter": False, "auto_insert_metric_name": False}
    found: list[Callback] = [
        ModelCheckpoint(filename="last", every_n_train_steps=every, save_top_k=1, **common),
        SaveAtEnd(folder / "last.ckpt"),
    ]
    if has_validation:
        found.append(ModelCheckpoint(filename="best", monitor="val/loss", **common))
    return found


class SaveAtEnd(Callback):
    """Leaves a `last.ckpt` of the last whole step when training ends, regularly or early."""

    def __init__(self, path: Path) -> None:
        self.path = path

    def on_train_end(self, trainer: pl.Trainer, pl_module: pl.LightningModule) -> None:
        trainer.save_checkpoint(self.path)


class StopAtInterrupt(Callback):
    """Turns the first Ctrl-C into a stop after the present step, so that no step is saved half-done.

    The second one interrupts at once, as always.

    Attributes:
        interrupted: whether training was stopped this way.
    """

    interrupted = False

    def on_train_start(self, trainer: pl.Trainer, pl_module: pl.LightningModule) -> None:
        self._before: Any = None
        if threading.current_thread() is threading.main_thread():
            self._before = signal.signal(signal.SIGINT, self._remember)

    def on_train_batch_end(
        self, trainer: pl.Trainer, pl_module: pl.LightningModule, outputs: Any, batch: Batch, batch_idx: int
    ) -> None:
        if trainer.world_size > 1:  # ranks are told one by one and must stop at the same step
            self.interrupted = bool(trainer.strategy.reduce_boolean_decision(self.interrupted, all=False))
        if self.interrupted:
            trainer.should_stop = True

    def teardown(self, trainer: pl.Trainer, pl_module: pl.LightningModule, stage: str) -> None:
        if getattr(self, "_before", None) is not None:
            signal.signal(signal.SIGINT, self._before)

    def _remember(self, number: int, frame: FrameType | None) -> None:
        self.interrupted = True
        signal.signal(signal.SIGINT, self._before)
