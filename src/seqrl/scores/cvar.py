"""Return of a plan as a careful user counts it."""

from __future__ import annotations

from typing import Annotated

import torch
from annotated_types import Gt, Le
from torch import Tensor

from seqrl.layout import Layout
from seqrl.registry import register_score
from seqrl.scores import Score, Trace


@register_score("cvar")
class ConditionalValueAtRiskScore(Score):
    """`sum_{k<h} gamma^k CVaR(r_k) + gamma^h CVaR(V_{h-1})`: the formula of `score=reward` with tail means.

    The conditional value at risk of a number is its mean over the worst `share` of what the model believes of it. The
    sum of tail means is at most the tail mean of the sum, and equal to it where a bad reward comes with bad ones; it
    needs no samples of whole plans. With share 1 this is `score=reward`.

    Args:
        discount: gamma in [0, 1], the layout's (known from the checkpoint).
        share: of the mass, from its worst end, above 0 and at most 1.

    Reference: Rockafellar and Uryasev 2002, "Conditional value-at-risk for general loss distributions", corollary 12
    (coherence: CVaR is subadditive for losses).
    """

    wants_distributions = True

    def __init__(self, discount: float, *, share: Annotated[float, Gt(0), Le(1)] = 0.25) -> None:
        self.discount = discount
        self.share = share

    def check(self, layout: Layout) -> None:
        layout.field("reward")
        layout.field("value")

    def __call__(self, trace: Trace) -> Tensor:
        assert trace.reward_distributions is not None and trace.value_distributions is not None
        rewards = trace.reward_distributions.find_tail_mean(self.share)
        values = trace.value_distributions.find_tail_mean(self.share)
        depth = rewards.shape[-1]
        powers = self.discount ** torch.arange(depth + 1, device=rewards.device, dtype=rewards.dtype)
        return (rewards * powers[:depth]).sum(-1) + powers[depth] * values[..., -1]
