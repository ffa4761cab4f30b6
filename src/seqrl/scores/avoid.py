"""Regions that a plan should keep out of."""

from __future__ import annotations

from typing import Annotated

import torch
from annotated_types import Ge
from torch import Tensor

from seqrl.errors import ConfigError
from seqrl.layout import Layout
from seqrl.registry import register_score
from seqrl.scores import Score, Trace, check_goal

Box = tuple[float, float, float, float]
Dimension = Annotated[int, Ge(0)]


@register_score("avoid")
class AvoidScore(Score):
    """`-cost` for every imagined state inside one of the regions; such plans are lost.

    The present state is a fact and costs nothing. A straight line between two states counts as a state inside where
    it cuts through a region. With `until_goal`, what follows an imagined arrival at the goal costs nothing.

    Args:
        regions: `[[x_low, y_low, x_high, y_high], ...]` in the data's units.
        dims: which dimensions of the observation x and y are.
        margin: regions are larger by this on all sides, 0 or more: imagined states are as exact as their bins.
        cost: of a state inside, 0 or more.
        until_goal: distance within which an imagined state has arrived, above 0; None where nothing ends the plan.
    """

    wants_transitions = True
    wants_next_observation = True

    def __init__(
        self,
        *,
        regions: tuple[Box, ...] = (),
        dims: tuple[Dimension, Dimension] = (0, 1),
        margin: Annotated[float, Ge(0)] = 0.0,
        cost: Annotated[float, Ge(0)] = 10000.0,
        until_goal: Annotated[float, Ge(0)] | None = None,
    ) -> None:
        for box in regions:
            if not (box[0] < box[2] and box[1] < box[3]):
                raise ConfigError(
                    f"score.regions has {list(box)}, whose lower corner is not below its upper one; give "
                    "[x_low, y_low, x_high, y_high]"
                )
        corners = torch.tensor(regions, dtype=torch.float32).view(-1, 4)
        self.low, self.high = corners[:, :2] - margin, corners[:, 2:] + margin
        self.dims = list(dims)
        self.cost = cost
        self.until_goal = until_goal
        self.wants_goals = until_goal is not None

    def check(self, layout: Layout) -> None:
        size = layout.field("observation").size
        if max(self.dims) >= size:
            raise ConfigError(
                f"score.dims={self.dims} names a dimension of the observation, and it has {size}; give 0 to {size - 1}"
            )
        if self.until_goal is not None:
            check_goal(layout, self.dims, "score.until_goal")

    def __call__(self, trace: Trace) -> Tensor:
        return -self.cost * self._find_inside(trace).sum(-1)

    def find_lost(self, trace: Trace) -> Tensor | None:
        return self._find_inside(trace).any(-1) if len(self.low) else None

    def _find_inside(self, trace: Trace) -> Tensor:
        """(..., h) bool, whether the way to the state after each transition touches a region."""
        assert trace.observations is not None
        path = trace.observations
        if trace.next_observation is not None:
            path = torch.cat([path, trace.next_observation[..., None, :]], -2)
        path = path[..., self.dims]
        inside = _cross(path[..., :-1, :], path[..., 1:, :], self.low.to(path), self.high.to(path))
        inside = inside & (~trace.over[..., 1 : path.shape[-2]] if trace.over is not None else True)
        if self.until_goal is not None:
            assert trace.target is not None
            near = (path - trace.target[..., None, :]).norm(dim=-1) <= self.until_goal
            inside = inside & ~(near.cumsum(-1) > 0)[..., :-1]
        return inside


def _cross(start: Tensor, end: Tensor, low: Tensor, high: Tensor) -> Tensor:
    """(..., h) bool: do the segments from (..., h, 2) to (..., h, 2) touch one of n boxes, (n, 2) corners each?

    The share of a segment that lies between two parallel sides is an interval; a box holds where both meet.
    """
    way = (end - start)[..., None, :]  # (..., h, 1, 2)
    still = way == 0
    safe = torch.where(still, torch.ones_like(way), way)
    one, other = (low - start[..., None, :]) / safe, (high - start[..., None, :]) / safe
    between = (start[..., None, :] >= low) & (start[..., None, :] <= high)
    enter, leave = torch.minimum(one, other), torch.maximum(one, other)
    enter = torch.where(still, torch.where(between, -torch.inf, torch.inf), enter)
    leave = torch.where(still, torch.where(between, torch.inf, -torch.inf), leave)
    first, last = enter.amax(-1).clamp(min=0.0), leave.amin(-1).clamp(max=1.0)
    return (first <= last).any(-1)
