"""Means of what stages log: over many batches and all ranks, taken out whenever somebody writes them down."""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence

import lightning.pytorch as pl
import torch
from torch import Tensor
from torchmetrics import Metric

from seqrl.objectives import Outcome


class FieldMeans(Metric):
    """Means over the tokens of many batches (and all ranks), in one tensor: adding a batch does not wait for a GPU.

    Args:
        fields: names of the fields that carry a loss.
        with_accuracy: whether there are modes that can be right.

    Attributes:
        names: `loss`, then `<field>_loss` and `<field>_accuracy` of every field; the order of `compute()`.
    """

    totals: Tensor  # (2, names) sums, and the counts that they are divided by

    def __init__(self, fields: Sequence[str], *, with_accuracy: bool = True) -> None:
        super().__init__()
        self._fields = list(fields)
        self._kinds = ("loss", "accuracy") if with_accuracy else ("loss",)
        self.names = ["loss", *(f"{name}_{kind}" for name in self._fields for kind in self._kinds)]
        self.add_state("totals", torch.zeros(2, len(self.names)), dist_reduce_fx="sum")

    def update(self, outcome: Outcome) -> None:
        fields = [outcome.fields[name] for name in self._fields]
        sums = [outcome.total, *(n for field in fields for n in (field.loss, field.correct)[: len(self._kinds)])]
        counts = [outcome.count, *(field.count for field in fields for _ in self._kinds)]
        self.totals += torch.stack([number.detach().to(self.totals) for number in (*sums, *counts)]).view(2, -1)

    def compute(self) -> Tensor:
        return self.totals[0] / self.totals[1]


class ScalarMeans(Metric):
    """Means of named scalars over many batches and all ranks, each batch weighted by its size.

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
        self.totals += size * torch.stack([scalars[name].detach().to(self.totals) for name in self.names])
        self.count += size

    def compute(self) -> Tensor:
        return self.totals / self.count


def pop_means(metrics: FieldMeans | ScalarMeans, stage: str) -> dict[str, float]:
    """Means over all ranks since the last call, by logged name.

    Args:
        stage: `train` or `val`, the beginning of the names.
    """
    means: list[float] = metrics.compute().tolist()
    metrics.reset()
    return {f"{stage}/{name}": mean for name, mean in zip(metrics.names, means, strict=True)}


def log_validation(module: pl.LightningModule, entries: Mapping[str, float]) -> None:
    """Hand the means of a validation to checkpoints, the progress bar and the loggers of a module's trainer."""
    for name, value in entries.items():
        module.log(name, value, prog_bar=name == "val/loss", logger=False, sync_dist=True)
    for logger in module.trainer.loggers:  # Lightning itself would file them under the step before
        logger.log_metrics(dict(entries), step=module.trainer.global_step)
