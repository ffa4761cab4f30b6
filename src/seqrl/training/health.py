"""Training that went wrong ends at once, with what is needed to see why."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, fields, is_dataclass
from pathlib import Path
from typing import Any

import lightning.pytorch as pl
import torch
from lightning.pytorch.callbacks import Callback
from torch import Tensor

from seqrl.errors import DivergedError
from seqrl.files import write_file
from seqrl.training.callbacks import ClipGradient, is_log_step, metrics_of, pop_metrics, sums_of
from seqrl.training.checkpoint_io import is_save_step
from seqrl.training.loading import lacks_batches


class StopWhenNotFinite(Callback):
    """Ends training when a loss or a gradient is not finite, and leaves the batch for inspection.

    On the CPU that is at once. Elsewhere flags are kept on the device, and looked at before metrics are logged or a
    checkpoint is written: a look waits for the device, and no checkpoint may be of a step after the fault.

    Args:
        folder: of the stage; `bad_batch-<step>.pt` is written there, one per rank where there are several.
        every: steps between two looks.
        checkpoint_every: steps between two checkpoints.
        gradient: measures the norm of the gradient.
        rate: the setting of the stage's learning rate.
    """

    def __init__(self, folder: Path, *, every: int, checkpoint_every: int, gradient: ClipGradient, rate: str) -> None:
        self._rate = rate
        self._folder, self._every, self._checkpoint_every, self._gradient = folder, every, checkpoint_every, gradient
        self._unseen: list[_Seen] = []  # steps since the last look

    def on_train_batch_end(
        self, trainer: pl.Trainer, pl_module: pl.LightningModule, outputs: Any, batch: Any, batch_idx: int
    ) -> None:
        step = trainer.global_step
        norm = torch.zeros(()) if lacks_batches(trainer) else self._gradient.norm  # known at the end of a step
        loss = outputs["loss"].detach()
        norm = norm.to(loss.device)
        if getattr(trainer.precision_plugin, "scaler", None) is not None:
            norm = torch.zeros_like(norm)  # scaled gradients overflow now and then; their steps are left out
        must = is_log_step(step, self._every) or is_save_step(trainer, self._checkpoint_every)
        must = must and not lacks_batches(trainer)
        look = must or _looks_at_once(trainer, loss)
        sums = {} if look else {name: sums_of(metric) for name, metric in metrics_of(pl_module).items()}
        self._unseen.append(_Seen(step, batch, loss, norm, sums))
        if not look:
            return
        flags = torch.stack([~torch.isfinite(seen.loss + seen.norm) for seen in self._unseen])
        if trainer.world_size > 1:
            flags = trainer.strategy.reduce(flags.float(), reduce_op="max") > 0
        bad = flags.nonzero()
        seen, self._unseen = self._unseen, []
        if len(bad):
            self._stop(trainer, pl_module, seen[int(bad[0])])

    def _stop(self, trainer: pl.Trainer, module: pl.LightningModule, seen: _Seen) -> None:
        metrics = metrics_of(module)
        for name, sums in seen.sums.items():
            for key, value in sums.items():
                setattr(metrics[name], key, value)
        means = pop_metrics(module)
        parts = [
            name.removeprefix("train/").removesuffix("_loss")
            for name, value in means.items()
            if name.endswith("_loss") and not math.isfinite(value)
        ]
        rank = "" if trainer.world_size == 1 else f"-rank{trainer.global_rank}"
        path = self._folder / f"bad_batch-{seen.step}{rank}.pt"
        path.parent.mkdir(parents=True, exist_ok=True)
        content = {"step": seen.step, "loss": float(seen.loss), "gradient_norm": float(seen.norm), "metrics": means}
        with write_file(path) as file:
            torch.save({**content, "batch": _plain(seen.batch)}, file)
        if parts:
            what = f"the loss of {' and '.join(parts)} is not finite"
        elif math.isfinite(means.get("train/loss", math.nan)):
            what = f"the gradient is not finite (norm {float(seen.norm)}), although the loss is"
        else:
            what = "the loss is not finite"
        raise DivergedError(
            f"{what} at step {seen.step}; the batch is in {str(path)!r}, and last.ckpt, if there is one, is of an "
            f"earlier step; try a lower {self._rate}"
        )


def _looks_at_once(trainer: pl.Trainer, loss: Tensor) -> bool:
    """Where looking costs nothing: no device to wait for, no other rank to ask."""
    return loss.device.type == "cpu" and trainer.world_size == 1


@dataclass(frozen=True)
class _Seen:
    step: int
    batch: Any
    loss: Tensor
    norm: Tensor
    sums: dict[str, dict[str, Any]]  # of the metrics after this step, where it is not looked at yet


def _plain(batch: Any) -> Any:
    """Tensors on the CPU, in dicts and lists: what `torch.load` reads with `weights_only=True`."""
    if isinstance(batch, Tensor):
        return batch.detach().cpu()
    if is_dataclass(batch):
        return {field.name: _plain(getattr(batch, field.name)) for field in fields(batch)}
    if isinstance(batch, Mapping):
        return {str(key): _plain(value) for key, value in batch.items()}
    if isinstance(batch, Sequence) and not isinstance(batch, str):
        return [_plain(value) for value in batch]
    return batch if isinstance(batch, (bool, int, float, str, type(None))) else repr(batch)
