"""A proportional-derivative controller: the control of whatever chooses goals, since it learns nothing."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Annotated

import torch
from annotated_types import Ge

from seqrl.decoding.noise import Noise
from seqrl.errors import ConfigError
from seqrl.models import Model
from seqrl.planners import Planner
from seqrl.registry import register_planner
from seqrl.scores import Score
from seqrl.types import History, Plan


@register_planner("controller")
class ControllerPlanner(Planner):
    """Drive straight at the goal that is told: `position_gain (goal - position) - velocity_gain velocity`, clipped to
    the actions that the tokenizer decodes to. For actions that move or push along the goal's dimensions.

    Args:
        position_gain: 0 or more.
        velocity_gain: 0 or more.
        velocity: dimensions of the observation with the velocity along those of the goal; None where there are none.
    """

    horizon = 1
    shows = None
    serves = Model
    asks_model = False
    wants_target = True

    def __init__(
        self,
        *,
        position_gain: Annotated[float, Ge(0)] = 10.0,
        velocity_gain: Annotated[float, Ge(0)] = 0.0,
        velocity: Sequence[int] | None = None,
    ) -> None:
        if velocity_gain > 0 and velocity is None:
            raise ConfigError(
                f"planner.velocity_gain={velocity_gain:g} needs the dimensions of the observation that hold the "
                "velocity; add planner.velocity=[2,3]"
            )
        self.position_gain = float(position_gain)
        self.velocity_gain = float(velocity_gain)
        self.velocity = None if velocity is None else list(velocity)

    def check(self, model: Model, score: Score) -> None:
        layout = model.layout
        if layout.goal is None:
            raise ConfigError("planner=controller drives at a goal, and this checkpoint's layout has none")
        size, observed = layout.field("action").size, layout.field("observation").size
        if "action" in layout.categories or size != len(layout.goal.dims):
            raise ConfigError(
                f"planner=controller moves along the {len(layout.goal.dims)} dimensions of the goal, and actions have "
                f"{size}{' categories' if 'action' in layout.categories else ''}; use another planner"
            )
        velocity = self.velocity or []
        if velocity and (len(velocity) != size or not all(0 <= each < observed for each in velocity)):
            raise ConfigError(
                f"planner.velocity={velocity} must be {size} dimensions of the observation, each below {observed}"
            )

    def plan(self, model: Model, history: History, score: Score, noise: Noise) -> Plan:
        assert model.layout.goal is not None
        if history.target is None or history.observation is None:
            raise ConfigError("planner=controller is told no goal; use it with condition=goal or condition=landmarks")
        low, high = model.tokenizer.action_range(model.layout)
        actions = self.position_gain * (history.target - history.observation[:, list(model.layout.goal.dims)])
        if self.velocity is not None:
            actions = actions - self.velocity_gain * history.observation[:, self.velocity]
        actions = torch.minimum(torch.maximum(actions, low.to(actions)), high.to(actions))
        return Plan(actions[:, None], torch.zeros(len(actions), device=actions.device))
