"""What happens beside the optimisation: metrics, the gradient's norm, signals."""

from __future__ import annotations

import math
import signal
import time
from contextlib import ExitStack
from typing import Any

import lightning.pytorch as pl
import torch
from lightning.pytorch.callbacks import Callback
from torch import Tensor, nn
from torch.distributed.tensor import DTensor
from torchmetrics import Metric

from seqrl.console import is_log, say, show_duration, show_progress
from seqrl.signals import Handlers, give_back, restored_signals, take_signals
from seqrl.training.checkpoint_io import validation_follows
from seqrl.training.loading import lacks_batches
from seqrl.training.parallel import over_ranks
from seqrl.types import Batch

_SPEEDS = ("train/tokens_per_second", "train/steps_per_second")


class TrainingMetrics(Callback):
    """Logs the means of the training metrics, the throughput over all ranks and the learning rate.

    The module has a method `pop_metrics("train")`: means over all ranks since the last call, under names such as
    `train/loss`. Sums that no entry was made of yet (of its `torchmetrics.Metric`s) travel in checkpoints.

    A module adds this to a trainer of one's own by itself. There it also hands over what such a trainer's callbacks
    look at: the means whenever they are logged, and at the end of an epoch the means of all its batches. `train/loss`
    of every batch comes from the module.

    Args:
        every: steps between two entries; None: the trainer's `log_every_n_steps`, and the end of every epoch.
        gradient: measures the norm of the gradient.
    """

    def __init__(self, every: int | None = None, gradient: ClipGradient | None = None) -> None:
        self.every = every
        self._gradient = gradient

    def on_train_start(self, trainer: pl.Trainer, pl_module: pl.LightningModule) -> None:
        self._step = trainer.global_step
        self._unlogged = 0  # batches since the last entry
        self._epoch: list[tuple[int, dict[str, float]]] = []  # entries of the epoch, and of how many batches
        self._restart_clock()

    def on_validation_end(self, trainer: pl.Trainer, pl_module: pl.LightningModule) -> None:
        self._restart_clock()  # validation time is not training time

    def on_train_batch_end(
        self, trainer: pl.Trainer, pl_module: pl.LightningModule, outputs: Any, batch: Any, batch_idx: int
    ) -> None:
        self._batches += 1
        self._unlogged += 1
        self._tokens += batch.size * trainer.world_size if isinstance(batch, Batch) else 0
        stepped, self._step = trainer.global_step != self._step, trainer.global_step
        every: int | None = getattr(trainer, "log_every_n_steps") if self.every is None else self.every  # noqa: B009
        if not stepped or not is_log_step(trainer.global_step, every or 0):
            return
        entries = self._log(trainer, pl_module)
        if self.every is None:
            others = {name: value for name, value in entries.items() if name != "train/loss"}
            pl_module.log_dict(others, logger=False)
            return
        for name in ("train/loss", *_SPEEDS):
            if name in entries:
                pl_module.log(name.removeprefix("train/"), entries[name], prog_bar=True, logger=False)

    def on_train_epoch_end(self, trainer: pl.Trainer, pl_module: pl.LightningModule) -> None:
        if self.every is not None:
            return
        if self._unlogged:
            self._log(trainer, pl_module)
        total, entries = sum(count for count, _ in self._epoch), self._epoch
        self._epoch = []
        if total:
            means = {name: sum(n * entry[name] for n, entry in entries) / total for name in entries[0][1]}
            pl_module.log_dict(means, logger=False, sync_dist=True)

    def _log(self, trainer: pl.Trainer, module: pl.LightningModule) -> dict[str, float]:
        """Write the means since the last entry to the loggers."""
        seconds = time.perf_counter() - self._since
        entries = pop_metrics(module)
        if self.every is None:
            self._epoch.append((self._unlogged, dict(entries)))
        if self._gradient is not None:
            entries["train/gradient_norm"] = self._gradient.pop_mean()
        entries["train/learning_rate"] = trainer.optimizers[0].param_groups[0]["lr"]
        entries[_SPEEDS[0] if self._tokens else _SPEEDS[1]] = (self._tokens or self._batches) / seconds
        for logger in trainer.loggers:
            logger.log_metrics(entries, step=trainer.global_step)
        self._unlogged = 0
        self._restart_clock()
        return entries

    def on_save_checkpoint(
        self, trainer: pl.Trainer, pl_module: pl.LightningModule, checkpoint: dict[str, Any]
    ) -> None:
        checkpoint["metrics"] = {}
        for name, metric in metrics_of(pl_module).items():
            with metric.sync_context():  # over the ranks: the first one's file holds the sums of all
                checkpoint["metrics"][name] = sums_of(metric)

    def on_load_checkpoint(
        self, trainer: pl.Trainer, pl_module: pl.LightningModule, checkpoint: dict[str, Any]
    ) -> None:
        if not trainer.is_global_zero:
            return
        saved = checkpoint.get("metrics", {})
        for name, metric in metrics_of(pl_module).items():
            for key, value in saved.get(name, {}).items():
                setattr(metric, key, value.to(metric.device))

    def _restart_clock(self) -> None:
        self._since, self._tokens, self._batches = time.perf_counter(), 0, 0


class ShowProgress(Callback):
    """How far a stage came, with its newest loss and throughput, on the first rank: a bar, and lines in a log.

    Args:
        stage: how to call it.
        every: steps between two looks at it.
    """

    def __init__(self, stage: str, *, every: int) -> None:
        self._stage, self._every = stage, every
        self._bar = ExitStack()
        self._shown = 0

    def on_train_start(self, trainer: pl.Trainer, pl_module: pl.LightningModule) -> None:
        self._began = self._shown = trainer.global_step
        self._since = time.monotonic()
        if trainer.is_global_zero:
            bar = show_progress(f"training: {self._stage}", trainer.max_steps, done=self._shown)
            self._advance = self._bar.enter_context(bar)

    def on_train_batch_end(
        self, trainer: pl.Trainer, pl_module: pl.LightningModule, outputs: Any, batch: Any, batch_idx: int
    ) -> None:
        step = trainer.global_step
        due = step > self._shown and (is_log_step(step, self._every) or step == trainer.max_steps)
        if trainer.is_global_zero and due:
            numbers = ", ".join(f"{name} {float(value):.4g}" for name, value in trainer.progress_bar_metrics.items())
            self._advance(step - self._shown, numbers)
            self._shown = step
            if is_log():
                say(self._line(step, trainer.max_steps, numbers))

    def _line(self, step: int, steps: int, numbers: str) -> str:
        made, left = step - self._began, steps - step
        line = f"{self._stage}: step {step} of {steps}" + (f", {numbers}" if numbers else "")
        if made < 2 or not left:  # the first step takes longer than others
            return line
        return f"{line}, {show_duration((time.monotonic() - self._since) / made * left)} left"

    def on_train_end(self, trainer: pl.Trainer, pl_module: pl.LightningModule) -> None:
        self._bar.close()

    def on_exception(self, trainer: pl.Trainer, pl_module: pl.LightningModule, exception: BaseException) -> None:
        self._bar.close()


def is_log_step(step: int, every: int) -> bool:
    """Whether metrics are logged after so many steps: the first time after one, then every so many; 0 is never."""
    return every > 0 and (step == 1 or step % every == 0)


def pop_metrics(module: pl.LightningModule) -> dict[str, float]:
    """Means of the training metrics over all ranks since the last call, by logged name."""
    means: dict[str, float] = getattr(module, "pop_metrics")("train")  # noqa: B009 (torch types attributes as modules)
    return means


def sums_of(metric: Metric) -> dict[str, Tensor]:
    """A copy of what a metric has summed up so far."""
    return {key: value.clone() for key, value in metric.metric_state.items() if isinstance(value, Tensor)}


def metrics_of(module: pl.LightningModule) -> dict[str, Metric]:
    """The metric objects of a module, by their place in it."""
    return {name: each for name, each in module.named_modules() if isinstance(each, Metric)}


class ClipGradient(Callback):
    """Scales the gradient down to a norm, as Lightning does, and remembers what the norm was, which Lightning does not.

    Args:
        max_norm: None or 0 leaves the gradient as it is.

    Attributes:
        norm: of the last step, before clipping.
    """

    norm: Tensor

    def __init__(self, max_norm: float | None) -> None:
        self.max_norm = max_norm or math.inf
        self._sum, self._count = torch.zeros(()), 0

    def on_before_optimizer_step(
        self, trainer: pl.Trainer, pl_module: pl.LightningModule, optimizer: torch.optim.Optimizer
    ) -> None:
        parameters = [parameter for group in optimizer.param_groups for parameter in group["params"]]
        norm = nn.utils.clip_grad_norm_(parameters, self.max_norm)
        self.norm = norm.full_tensor() if isinstance(norm, DTensor) else norm  # of sharded parameters
        self._sum = self._sum.to(self.norm) + self.norm
        self._count += 1

    def pop_mean(self) -> float:
        """Of the norms since the last call."""
        mean = float(self._sum) / max(1, self._count)
        self._sum, self._count = torch.zeros(()), 0
        return mean

    def state_dict(self) -> dict[str, Any]:
        return {"sum": self._sum, "count": self._count}

    def load_state_dict(self, state_dict: dict[str, Any]) -> None:
        self._sum, self._count = state_dict["sum"], state_dict["count"]


class StopAtInterrupt(Callback):
    """Turns Ctrl-C and the signals of a cluster into a stop after the present step, so that no step is half-done.

    With several GPUs it is the step after that one.

    It is the only owner of these signals while training runs, and leaves them to their former owners after it. A
    second Ctrl-C interrupts at once, as always.

    Attributes:
        number: of the signal that stopped training, or None.
    """

    def __init__(self) -> None:
        self.number: int | None = None
        self._until_end = ExitStack()
        self._former: Handlers = {}
        self._asked: tuple[Tensor, torch.cuda.Event] | None = None  # of the step before, on GPUs

    @property
    def interrupted(self) -> bool:
        return self.number is not None

    def setup(self, trainer: pl.Trainer, pl_module: pl.LightningModule, stage: str) -> None:
        self._former = self._until_end.enter_context(restored_signals())  # Lightning installs its own after this

    def on_train_start(self, trainer: pl.Trainer, pl_module: pl.LightningModule) -> None:
        take_signals(self._remember, self._former)

    def on_train_batch_end(
        self, trainer: pl.Trainer, pl_module: pl.LightningModule, outputs: Any, batch: Any, batch_idx: int
    ) -> None:
        number = self.number if trainer.world_size == 1 else self.agree(trainer.strategy.root_device)
        if number is not None and not trainer.should_stop and not lacks_batches(trainer):
            self.number = number
            if not validation_follows(trainer):
                trainer.limit_val_batches = 0  # Lightning validates whenever it stops: uninterrupted runs do not here
            trainer.should_stop = True

    def agree(self, device: torch.device) -> int | None:
        """The signal that any rank has got: ranks are told one by one and must stop at the same step.

        On GPUs that is the signal until the step before: asking for this step's would wait for the device.
        """
        number = over_ranks(torch.full((), self.number or 0, device=device), torch.distributed.ReduceOp.MAX)
        if device.type != "cuda":
            return int(number) or None
        before, copy, done = self._asked, number.to("cpu", non_blocking=True), torch.cuda.Event()
        done.record()
        self._asked = copy, done
        if before is None:
            return None
        before[1].synchronize()
        return int(before[0]) or None

    def teardown(self, trainer: pl.Trainer, pl_module: pl.LightningModule, stage: str) -> None:
        self._until_end.close()

    def on_exception(self, trainer: pl.Trainer, pl_module: pl.LightningModule, exception: BaseException) -> None:
        self._until_end.close()

    def _remember(self, number: int) -> None:
        self.number = number
        if number == signal.SIGINT:
            give_back(number, self._former)
