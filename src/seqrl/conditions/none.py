"""No condition: the null goal where the layout has a goal."""

from __future__ import annotations

import torch
from torch import Tensor

from seqrl.conditions import Condition
from seqrl.layout import Layout
from seqrl.model import SequenceModel
from seqrl.registry import register_condition


@register_condition("none")
class NoCondition(Condition):
    """Decode as the data behaves; goals, if any are given, are not looked at."""

    wants_goals = False

    def check(self, layout: Layout) -> None:
        """Fits every layout."""

    def prefix(self, model: SequenceModel, goals: Tensor | None, rows: int) -> Tensor | None:
        if model.layout.goal is None:
            return None
        shape = (rows, model.layout.prefix_size)
        return torch.full(shape, model.termination_token, dtype=torch.int64, device=model.hidden.device)
