"""Whether, and how soon, a plan arrives at the goal."""

from __future__ import annotations

from typing import Annotated

import torch
from annotated_types import Ge, Gt
from torch import Tensor

from seqrl.layout import Layout
from seqrl.registry import register_score
from seqrl.scores import Score, Trace, check_goal


@register_score("arrival")
class ArrivalScore(Score):
    """`reward - cost * t` for a plan that comes near the goal first after t transitions, 0 for one that does not.

    Args:
        radius: distance within which a state has arrived, in the data's units, above 0.
        reward: of an arrival.
        cost: of each transition before it, 0 or more.
        dims: which dimensions of the observation a goal is made of, as in the layout.
    """

    wants_transitions = True
    wants_next_observation = True
    wants_goals = True

    def __init__(
        self,
        *,
        radius: Annotated[float, Gt(0)] = 0.5,
        reward: float = 1000.0,
        cost: Annotated[float, Ge(0)] = 10.0,
        dims: tuple[Annotated[int, Ge(0)], ...] = (0, 1),
    ) -> None:
        self.radius = radius
        self.reward = reward
        self.cost = cost
        self.dims = list(dims)

    def check(self, layout: Layout) -> None:
        check_goal(layout, self.dims, "score=arrival")

    def __call__(self, trace: Trace) -> Tensor:
        assert trace.observations is not None and trace.target is not None and trace.next_observation is not None
        path = torch.cat([trace.observations, trace.next_observation[..., None, :]], -2)[..., self.dims]
        near = (path - trace.target[..., None, :]).norm(dim=-1) <= self.radius
        if trace.over is not None:
            near = near & ~trace.over
        first = near.to(torch.uint8).argmax(-1)
        return torch.where(near.any(-1), self.reward - self.cost * first, 0.0)
