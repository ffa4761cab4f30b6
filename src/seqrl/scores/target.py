"""A number that a plan should hold on average."""

from __future__ import annotations

from torch import Tensor

from seqrl.layout import Layout
from seqrl.registry import register_score
from seqrl.scores import Score, Trace
from seqrl.scores._dimension import Dimensions, check_dimension, find_dimension, find_extras


@register_score("target")
class TargetScore(Score):
    """`-|mean_k x_k - value|`: how near the mean of one dimension over the plan is to what is asked for.

    Of observations the imagined ones count, which follow the plan's actions. What stands after an imagined end does
    not; a plan that ends with its first action counts 0 in the place of the mean.

    Args:
        value: in the data's units.
        field: whose dimension it is: `observation`, `action`, or the name of an extra.
        dim: which dimension of the field, 0 or more; or several, whose Euclidean norm counts, such as a speed.
    """

    wants_transitions = True

    def __init__(self, *, value: float = 0.0, field: str = "observation", dim: Dimensions = 0) -> None:
        self.value = value
        self.field = field
        self.dim = dim
        self.wants_next_observation = field == "observation"
        self.wants_extras = find_extras(field)

    def check(self, layout: Layout) -> None:
        check_dimension(layout, self.field, self.dim)

    def __call__(self, trace: Trace) -> Tensor:
        values, counts = find_dimension(trace, self.field, self.dim)
        mean = values.masked_fill(~counts, 0.0).sum(-1) / counts.sum(-1).clamp(min=1)
        return -(mean - self.value).abs()
