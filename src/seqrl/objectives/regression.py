"""Squared errors of predicted vectors."""

from __future__ import annotations

from collections.abc import Sequence

import torch
from torch import Tensor
from torch.nn import functional as F

from seqrl.models.vector import VectorModel
from seqrl.objectives import FieldOutcome, Objective, Outcome, whole
from seqrl.registry import register_objective
from seqrl.types import VectorBatch


@register_objective("regression")
class RegressionObjective(Objective):
    """Mean squared error of normalised values, and cross-entropy (in nats) of discrete fields, weighted by field.

    Reference: Chen et al. 2021, section 3 and algorithm 1, where only actions are predicted.
    """

    learns = VectorModel

    def __call__(self, model: VectorModel, batch: VectorBatch) -> Outcome:
        predicted = model(batch.values, batch.goal, batch.starts)
        nothing = whole(batch.values).new_zeros(())
        layout, total, count = model.layout, nothing, nothing
        fields = {}
        for name, made in predicted.items():
            field = layout.field(name)
            mask = batch.mask
            if model.follows_a_transition(name):  # nothing comes before the first
                mask = torch.cat([torch.zeros_like(mask[:, :1]), mask[:, 1:]], dim=1)
            target, values = whole(batch.values[..., field.slice]), whole(made)
            if name in layout.categories:
                logits = values.split(layout.choices(name), dim=-1)
                each = zip(logits, target.long().unbind(-1), strict=True)
                losses, correct = _sum_choices(list(each))
            else:
                losses, correct = (values - target).square().sum(-1), torch.zeros_like(mask, dtype=torch.int64)
            loss = (losses * mask).sum()
            total = total + field.loss_weight * loss
            count = count + mask.sum() * field.size
            fields[name] = FieldOutcome(loss, (correct * mask).sum(), mask.sum() * field.size)
        return Outcome(total, count, fields)


def _sum_choices(scalars: Sequence[tuple[Tensor, Tensor]]) -> tuple[Tensor, Tensor]:
    """(B, T) cross-entropy, and (B, T) int64 how many modes are right, over (B, T, n) logits and (B, T) choices."""
    losses = [F.cross_entropy(logits.transpose(1, 2), chosen, reduction="none") for logits, chosen in scalars]
    correct = [(logits.argmax(-1) == chosen).long() for logits, chosen in scalars]
    return torch.stack(losses).sum(0), torch.stack(correct).sum(0)
