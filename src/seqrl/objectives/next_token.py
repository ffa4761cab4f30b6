"""Cross-entropy of every token given the tokens before it."""

from __future__ import annotations

from functools import lru_cache
from typing import Annotated, Literal

import torch
from annotated_types import Gt
from torch import Tensor
from torch.nn import functional as F

from seqrl.errors import ConfigError
from seqrl.models.autoregressive import AutoregressiveModel
from seqrl.objectives import FieldOutcome, Objective, Outcome, whole
from seqrl.registry import register_objective
from seqrl.types import CodeBatch, TokenBatch


@register_objective("next_token")
class NextTokenObjective(Objective):
    """Teacher-forced maximum likelihood, weighted by field.

    The mask belongs to the targets. `average="valid"` divides by the tokens that carry a loss; `average="all"` by all
    of them, as the published code does, which weakens batches that contain the end of the longest episode.

    With `ordinal`, the target of a token that stands for a number is no single bin but a Gaussian around its middle,
    cut at the ends of the range: a near miss costs less than a far one, and what is learnt of a bin tells of its
    neighbours. Tokens without order (discrete values, clusters) and the termination token stay as they are.

    Args:
        average: `valid` or `all`.
        mask: None for that of the targets, or `inputs`: a target counts if the token before it may, as published.
        ordinal: standard deviation of that Gaussian in bins, above 0; None for single bins.

    Raises:
        ConfigError: `ordinal` with a model none of whose tokens stands for a number; `mask="inputs"` with differences,
            of which single tokens are not learnt.

    Reference: Janner et al. 2021, equation 1; weights and mask from their code. Ordinal targets are HL-Gauss, Imani and
    White 2018, "Improving regression performance with distributional losses", with the deviation of Farebrother et al.
    2024, "Stop regressing" (0.75 bins).
    """

    def __init__(
        self,
        *,
        average: Literal["valid", "all"] = "valid",
        mask: Literal["inputs"] | None = None,
        ordinal: Annotated[float, Gt(0)] | None = None,
    ) -> None:
        self.average = average
        self.mask = mask
        self.ordinal = ordinal

    def check(self, model: AutoregressiveModel) -> None:
        if self.mask == "inputs" and model.layout.has("difference"):
            raise ConfigError(
                "objective.mask=inputs moves the mask by a token, and layout.fields.difference is not learnt where "
                "nobody knows what follows; leave one of them out"
            )
        if self.ordinal is not None and not any(model.ordered):
            raise ConfigError(
                f"objective.ordinal={self.ordinal:g} is for tokens that stand for numbers, and this model's "
                f"{model.made_of} do not; leave it out, or use tokenizer=uniform or quantile"
            )

    def __call__(self, model: AutoregressiveModel, batch: TokenBatch | CodeBatch) -> Outcome:
        inputs = model.loss_inputs(batch)
        targets, mask, place = inputs.targets, inputs.mask, inputs.places
        if self.mask == "inputs":
            mask = batch.mask.flatten(1)[:, : mask.shape[1]]
        logits = model(*inputs.arguments)
        losses = F.cross_entropy(whole(logits).flatten(0, 1), targets.flatten(), reduction="none")
        losses = losses.view_as(targets)
        if self.ordinal is not None:
            ordered = torch.tensor(model.ordered, device=targets.device)[place]
            smooth = _soft_targets(model.num_classes, self.ordinal).to(losses)[targets]
            losses = torch.where(ordered, -(smooth * whole(logits).log_softmax(-1)).sum(-1), losses)
        losses = losses * mask
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


@lru_cache(maxsize=8)
def _soft_targets(num_classes: int, deviation: float) -> Tensor:
    """(V + 1, V + 1) distributions: each bin's Gaussian over the V bins, and the termination token's own."""
    bins = torch.arange(num_classes - 1, dtype=torch.float64)
    edges = torch.arange(num_classes, dtype=torch.float64) - 0.5
    below = torch.special.ndtr((edges - bins[:, None]) / deviation)
    shares = below.diff(dim=1) / (below[:, -1:] - below[:, :1])
    found = torch.zeros(num_classes, num_classes, dtype=torch.float64)
    found[:-1, :-1], found[-1, -1] = shares, 1.0
    return found
