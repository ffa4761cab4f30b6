"""A goal to reach, as tokens before the sequence."""

from __future__ import annotations

from torch import Tensor

from seqrl.conditions import Condition
from seqrl.errors import ConfigError
from seqrl.layout import Layout
from seqrl.model import SequenceModel
from seqrl.registry import register_condition
from seqrl.vectors import VectorModel


@register_condition("goal")
class GoalCondition(Condition):
    """Put the goal's tokens, in the bins of the observation dimensions it names, before every plan.

    Reference: Janner et al. 2021, section 3.2, "goal-conditioned reinforcement learning".
    """

    wants_goals = True

    def check(self, layout: Layout) -> None:
        if layout.goal is None:
            raise ConfigError(
                "the checkpoint's layout has no goal, which condition 'goal' needs; train with "
                "'layout.goal={dims: [0, 1], dropout: 0.1, draw: uniform}' (the observation dimensions of your goal)"
            )

    def prefix(self, model: SequenceModel | VectorModel, goals: Tensor | None, rows: int) -> Tensor | None:
        self.check(model.layout)
        assert model.layout.goal is not None
        size = len(model.layout.goal.dims)
        if goals is None or goals.shape != (rows, size):
            given = "none" if goals is None else f"shape {tuple(goals.shape)}"
            raise ConfigError(f"condition 'goal' needs goals of shape ({rows}, {size}); {given} given")
        return model.goal_prefix(goals, rows)
