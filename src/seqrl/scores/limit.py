"""A number that a plan should keep within limits."""

from __future__ import annotations

from typing import Annotated

import torch
from annotated_types import Ge
from torch import Tensor

from seqrl.errors import ConfigError
from seqrl.layout import Layout
from seqrl.registry import register_score
from seqrl.scores import Score, Trace
from seqrl.scores._dimension import Dimensions, check_dimension, find_dimension, find_extras


@register_score("limit")
class LimitScore(Score):
    """`-cost * sum_k max(low - x_k, x_k - high, 0)`: how far one dimension of the plan leaves its limits.

    With `total` the limits are of the sum over the plan, such as a budget of an extra that holds costs:
    `-cost * max(low - sum_k x_k, sum_k x_k - high, 0)`.

    Of observations the imagined ones count, which follow the plan's actions. What stands after an imagined end does
    not.

    Args:
        low, high: limits in the data's units; None where there is none on that side.
        field: whose dimension it is: `observation`, `action`, or the name of an extra.
        dim: which dimension of the field, 0 or more; or several, whose Euclidean norm counts, such as a speed.
        cost: of one unit beyond a limit, in one transition or, with `total`, in the plan; 0 or more.
        total: whether the limits are of the sum over the plan.

    Raises:
        ConfigError: `low` is not below `high`.
    """

    wants_transitions = True

    def __init__(
        self,
        *,
        low: float | None = None,
        high: float | None = None,
        field: str = "observation",
        dim: Dimensions = 0,
        cost: Annotated[float, Ge(0)] = 1.0,
        total: bool = False,
    ) -> None:
        if low is not None and high is not None and not low < high:
            raise ConfigError(f"score.low={low:g} is not below score.high={high:g}; give the lower limit as score.low")
        self.low = low
        self.high = high
        self.field = field
        self.dim = dim
        self.cost = cost
        self.total = total
        self.wants_next_observation = field == "observation"
        self.wants_extras = find_extras(field)

    def check(self, layout: Layout) -> None:
        if self.low is None and self.high is None:
            raise ConfigError("score=limit has no limit; give score.low, score.high or both")
        check_dimension(layout, self.field, self.dim)

    def __call__(self, trace: Trace) -> Tensor:
        values, counts = find_dimension(trace, self.field, self.dim)
        if self.total:
            values = values.masked_fill(~counts, 0.0).sum(-1, keepdim=True)
            counts = torch.ones_like(values, dtype=torch.bool)
        beyond = values.new_zeros(values.shape)
        if self.low is not None:
            beyond = beyond.maximum(self.low - values)
        if self.high is not None:
            beyond = beyond.maximum(values - self.high)
        return -self.cost * beyond.masked_fill(~counts, 0.0).sum(-1)
