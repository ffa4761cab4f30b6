"""How much a plan resembles the data."""

from __future__ import annotations

from typing import Literal

from torch import Tensor

from seqrl.layout import Layout
from seqrl.registry import register_score
from seqrl.scores import Score, Trace


@register_score("likelihood")
class LikelihoodScore(Score):
    """Log-likelihood of a plan's tokens under the model.

    Args:
        tokens: `action` counts the action tokens; `all` counts everything decoded, which favours predictable
            dynamics and standing still.

    Reference: Janner et al. 2021, section 3.2, "imitation learning".
    """

    def __init__(self, *, tokens: Literal["action", "all"] = "action") -> None:
        self.tokens = tokens

    def check(self, layout: Layout) -> None:
        layout.field("action")

    def __call__(self, trace: Trace) -> Tensor:
        return (trace.action_log_probs if self.tokens == "action" else trace.log_probs).sum(-1)
