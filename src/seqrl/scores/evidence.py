"""How much a plan looks like one that is on its way to the goal."""

from __future__ import annotations

from typing import Annotated

from annotated_types import Ge
from torch import Tensor

from seqrl.layout import Layout
from seqrl.registry import register_score
from seqrl.scores import Score, Trace


@register_score("evidence")
class EvidenceScore(Score):
    """`sum_k log P(a_k | goal) - log P(a_k | no goal)` over the last actions of a plan, in nats.

    The model's own knowledge of where a behaviour leads, with no distance in it: a plan that walks away from the goal
    to get round a wall has evidence for it long before it is near. See `seqrl.decoding.evidence.find_goal_evidence`.

    Args:
        steps: how many of the last transitions count, 1 or more.
    """

    wants_goals = True

    def __init__(self, *, steps: Annotated[int, Ge(1)] = 20) -> None:
        self.evidence_steps = steps

    def check(self, layout: Layout) -> None:
        layout.field("action")

    def __call__(self, trace: Trace) -> Tensor:
        assert trace.goal_evidence is not None
        return trace.goal_evidence[..., -self.evidence_steps :].sum(-1)
