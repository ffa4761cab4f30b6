"""A desired return, which the sequence itself carries."""

from __future__ import annotations

from torch import Tensor

from seqrl.conditions import Condition
from seqrl.layout import Layout
from seqrl.models import Model
from seqrl.registry import register_condition


@register_condition("target_return")
class TargetReturnCondition(Condition):
    """Ask for a return; what is earned is taken off it as the episode goes on.

    Args:
        target: the return of the whole episode, in the units of the data's rewards (hopper 3600 and 1800, halfcheetah
            12000 and 6000, walker2d 5000 and 2500 in the published system).

    Raises:
        ConfigError: a target that is not finite.

    Reference: Chen et al. 2021, algorithm 1 and appendix A.
    """

    wants_goals = False

    def __init__(self, *, target: float) -> None:
        self.target_return = float(target)

    def check(self, layout: Layout) -> None:
        layout.field("return")

    def prefix(self, model: Model, goals: Tensor | None, rows: int) -> Tensor | None:
        return model.encode_goals(None, rows)
