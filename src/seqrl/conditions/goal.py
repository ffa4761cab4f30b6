"""A goal to reach, as tokens before the sequence."""

from __future__ import annotations

from typing import Annotated

from annotated_types import Interval
from torch import Tensor

from seqrl.conditions import Condition
from seqrl.errors import ConfigError
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
        if layout.goal is None:
            raise ConfigError(
                "the checkpoint's layout has no goal, which condition 'goal' needs; train with "
                "'layout.goal={dims: [0, 1], dropout: 0.1, draw: uniform}' (the observation dimensions of your goal)"
            )
        if self.guidance != 1 and layout.goal.dropout == 0:
            raise ConfigError(
                f"condition.guidance={self.guidance:g} compares the goal with the null goal, which this checkpoint "
                "never saw; use condition.guidance=1, or train with layout.goal.dropout=0.5"
            )

    def prefix(self, model: Model, goals: Tensor | None, rows: int) -> Tensor | None:
        self.check(model.layout)
        assert model.layout.goal is not None
        size = len(model.layout.goal.dims)
        if goals is None or goals.shape != (rows, size):
            given = "none" if goals is None else f"shape {tuple(goals.shape)}"
            raise ConfigError(f"condition 'goal' needs goals of shape ({rows}, {size}); {given} given")
        return model.encode_goals(goals, rows)
