"""Means of what stages log: over many batches and all ranks, taken out whenever somebody writes them down."""

from __future__ import annotations

from collections.abc import Callable, Collection, Iterable, Mapping, Sequence
from typing import Any

import lightning.pytorch as pl
import torch
from torch import Tensor, nn
from torchmetrics import Metric

from seqrl.objectives import Outcome


class Means(Metric):
    """Means whose sums stay whole when a module is rounded to half precision."""

    def _apply(self, fn: Callable[[Tensor], Tensor], *args: Any, **kwargs: Any) -> nn.Module:
        def move(tensor: Tensor) -> Tensor:
            return moved_whole(fn(tensor), tensor)

        found: nn.Module = super()._apply(move, *args, **kwargs)
        return found


def moved_whole(converted: Tensor, before: Tensor) -> Tensor:
    """A converted tensor, or the one before on the same device where the conversion took digits."""
    return before.to(converted.device) if converted.dtype.itemsize < before.dtype.itemsize else converted


class FieldMeans(Means):
    """Means over the tokens of many batches (and all ranks), in one tensor: adding a batch does not wait for a GPU.

    Args:
        fields: names of the fields that carry a loss.
        modes: names of those whose predictions have a mode that can be right; all by default.

    Attributes:
        names: `loss`, then of every field `<field>_loss`, then `<field>_accuracy` of those with a mode; the order
            of `compute()`.
    """

    totals: Tensor  # (2, names) sums, and the counts that they are divided by

    def __init__(self, fields: Sequence[str], *, modes: Collection[str] | None = None) -> None:
        super().__init__()
        modes = fields if modes is None else modes
        self._parts = [(name, "loss") for name in fields] + [(name, "accuracy") for name in fields if name in modes]
        self.names = ["loss", *(f"{name}_{kind}" for name, kind in self._parts)]
        self.add_state("totals", torch.zeros(2, len(self.names)), dist_reduce_fx="sum")

    def update(self, outcome: Outcome) -> None:
        fields = [(outcome.fields[name], kind) for name, kind in self._parts]
        sums = [outcome.total, *(field.loss if kind == "loss" else field.correct for field, kind in fields)]
        counts = [outcome.count, *(field.count for field, _ in fields)]
        batch = torch.stack([number.detach().to(self.totals) for number in (*sums, *counts)]).view(2, -1)
        self.totals = self.totals + batch  # not in place: validations may have left a tensor of inference mode

    def compute(self) -> Tensor:
        return self.totals[0] / self.totals[1]


class ScalarMeans(Means):
    """Means of named scalars over many batches and all ranks, each batch weighted by its size; empty ones are none.

    Attributes:
        names: the order of `compute()`.
    """

    totals: Tensor
    count: Tensor

    def __init__(self, names: Iterable[str]) -> None:
        super().__init__()
        self.names = list(names)
        self.add_state("totals", torch.zeros(len(self.names)), dist_reduce_fx="sum")
        self.add_state("count", torch.zeros(()), dist_reduce_fx="sum")

    def update(self, scalars: Mapping[str, Tensor], size: int) -> None:
        if not size:  # a rank may have no share of a batch, and means over nothing are not numbers
            return
        batch = torch.stack([scalars[name].detach().to(self.totals) for name in self.names])
        self.totals, self.count = self.totals + size * batch, self.count + size  # not in place, as above

    def compute(self) -> Tensor:
        return self.totals / self.count


def pop_means(metrics: FieldMeans | ScalarMeans, stage: str) -> dict[str, float]:
    """Means over all ranks since the last call, by logged name.

    Args:
        stage: `train` or `val`, the beginning of the names.
    """
    means: list[float] = metrics.compute().reshape(-1).tolist()  # torchmetrics makes a number of a single one
    metrics.reset()
    return {f"{stage}/{name}": mean for name, mean in zip(metrics.names, means, strict=True)}


def log_validation(module: pl.LightningModule, entries: Mapping[str, float]) -> None:
    """Hand the means of a validation to checkpoints, the progress bar and the loggers of a module's trainer.

    `trainer.validate` and `trainer.test` return them. The batches before a training, which only try whether validation
    works, are logged nowhere.
    """
    trainer = module.trainer
    fitting = trainer.state.fn == "fit"
    for name, value in entries.items():
        module.log(name, value, prog_bar=name.endswith("/loss"), logger=not fitting, sync_dist=True)
    if fitting and not trainer.sanity_checking:
        for logger in trainer.loggers:  # Lightning itself would file them under the step before
            logger.log_metrics(dict(entries), step=trainer.global_step)
