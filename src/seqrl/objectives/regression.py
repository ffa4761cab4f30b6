"""Squared errors of predicted vectors."""

from __future__ import annotations

import torch
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
                losses = F.cross_entropy(values.transpose(1, 2), target[..., 0].long(), reduction="none")
                correct, size = (values.argmax(-1) == target[..., 0]) & mask, 1
            else:
                losses, size = (values - target).square().sum(-1), field.size
                correct = torch.zeros_like(mask)
            loss = (losses * mask).sum()
            total = total + field.loss_weight * loss
            count = count + mask.sum() * size
            fields[name] = FieldOutcome(loss, correct.sum(), mask.sum() * size)
        return Outcome(total, count, fields)
