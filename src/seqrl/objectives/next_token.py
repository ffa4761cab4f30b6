"""Cross-entropy of every token given the tokens before it."""

from __future__ import annotations

from typing import Literal

import torch
from torch.nn import functional as F

from seqrl.models.autoregressive import AutoregressiveModel
from seqrl.objectives import FieldOutcome, Objective, Outcome, whole
from seqrl.registry import register_objective
from seqrl.types import CodeBatch, TokenBatch


@register_objective("next_token")
class NextTokenObjective(Objective):
    """Teacher-forced maximum likelihood, weighted by field.

    The mask belongs to the targets. `average="valid"` divides by the tokens that carry a loss; `average="all"` by all
    of them, as the published code does, which weakens batches that contain the end of the longest episode.

    Args:
        average: `valid` or `all`.
        mask: None for that of the targets, or `inputs`: a target counts if the token before it may, as published.

    Reference: Janner et al. 2021, equation 1; weights and mask from their code.
    """

    def __init__(self, *, average: Literal["valid", "all"] = "valid", mask: Literal["inputs"] | None = None) -> None:
        self.average = average
        self.mask = mask

    def __call__(self, model: AutoregressiveModel, batch: TokenBatch | CodeBatch) -> Outcome:
        inputs = model.loss_inputs(batch)
        targets, mask, place = inputs.targets, inputs.mask, inputs.places
        if self.mask == "inputs":
            mask = batch.mask.flatten(1)[:, : mask.shape[1]]
        logits = model(*inputs.arguments)
        losses = F.cross_entropy(whole(logits).flatten(0, 1), targets.flatten(), reduction="none")
        losses = losses.view_as(targets) * mask
        weights = torch.tensor(model.loss_weights, dtype=losses.dtype, device=targets.device)[place]
        count = mask.sum() if self.average == "valid" else torch.tensor(mask.numel(), device=mask.device)
        with torch.no_grad():
            correct = (logits.argmax(-1) == targets) & mask
            fields = {}
            for name in model.fields:
                places = model.places(name)
                own = (place >= places.start) & (place < places.stop)
                fields[name] = FieldOutcome(losses[:, own].sum(), correct[:, own].sum(), mask[:, own].sum())
        return Outcome((losses * weights).sum(), count, fields)
