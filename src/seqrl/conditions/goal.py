"""A goal to reach, as tokens before the sequence."""

from __future__ import annotations

from typing import Annotated

from annotated_types import Interval
from torch import Tensor

from seqrl.conditions import Condition
from seqrl.conditions._goals import check_goals, encode_goals
from seqrl.layout import Layout
from seqrl.models import Model
from seqrl.registry import register_condition


@register_condition("goal")
class GoalCondition(Condition):
    """Put the goal's tokens, in the bins of the observation dimensions it names, before every plan.

    Args:
        guidance: how many times what the goal changes about actions counts, in [0, 1000000] (classifier-free guidance,
            see `seqrl.decoding.guided.GuidedSession`); 1 is the model as it was trained. Others need a model of tokens
            and a null goal, and twice the time.

    Raises:
        ConfigError: guidance out of range.

    Reference: Janner et al. 2021, section 3.2, "goal-conditioned reinforcement learning".
    """

    wants_goals = True

    def __init__(self, *, guidance: Annotated[float, Interval(ge=0, le=1_000_000)] = 1.0) -> None:
        self.guidance = float(guidance)

    def check(self, layout: Layout) -> None:
        check_goals("goal", layout, self.guidance)

    def prefix(self, model: Model, goals: Tensor | None, rows: int) -> Tensor | None:
        self.check(model.layout)
        return encode_goals("goal", model, goals, rows)
