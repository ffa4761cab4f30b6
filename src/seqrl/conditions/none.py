"""No condition: the null goal where the layout has a goal."""

from __future__ import annotations

from torch import Tensor

from seqrl.conditions import Condition
from seqrl.layout import Layout
from seqrl.models import Model
from seqrl.registry import register_condition


@register_condition("none")
class NoCondition(Condition):
    """Decode as the data behaves; goals, if any are given, are not looked at."""

    wants_goals = False

    def check(self, layout: Layout) -> None:
        """Fits every layout."""

    def prefix(self, model: Model, goals: Tensor | None, rows: int) -> Tensor | None:
        return model.encode_goals(None, rows)
