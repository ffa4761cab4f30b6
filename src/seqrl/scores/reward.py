"""Expected discounted return of a plan."""

from __future__ import annotations

import torch
from torch import Tensor

from seqrl.layout import Layout
from seqrl.registry import register_score
from seqrl.scores import Score, Trace


@register_score("reward")
class RewardScore(Score):
    """`sum_{k<h} gamma^k r_k + gamma^h V_{h-1}`: imagined rewards, then the value field of the last transition.

    The value field excludes its own transition's reward, so nothing is counted twice.

    Args:
        discount: gamma in [0, 1], the layout's (known from the checkpoint).

    Reference: Janner et al. 2021, section 3.2, "offline reinforcement learning".
    """

    def __init__(self, discount: float) -> None:
        self.discount = discount

    def check(self, layout: Layout) -> None:
        layout.field("reward")
        layout.field("value")

    def __call__(self, trace: Trace) -> Tensor:
        assert trace.rewards is not None and trace.values is not None
        depth = trace.rewards.shape[-1]
        powers = self.discount ** torch.arange(depth + 1, device=trace.rewards.device, dtype=trace.rewards.dtype)
        return (trace.rewards * powers[:depth]).sum(-1) + powers[depth] * trace.values[..., -1]
