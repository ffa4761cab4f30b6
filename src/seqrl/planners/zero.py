"""Do nothing: the baseline that costs nothing."""

from __future__ import annotations

import torch

from seqrl.decoding.noise import Noise
from seqrl.models import Model
from seqrl.planners import Planner
from seqrl.registry import register_planner
from seqrl.scores import Score
from seqrl.types import History, Plan


@register_planner("zero")
class ZeroPlanner(Planner):
    """Every action is zero, whatever was observed."""

    horizon = 1
    shows = None
    serves = Model
    asks_model = False

    def check(self, model: Model, score: Score) -> None:
        """Fits everything."""

    def plan(self, model: Model, history: History, score: Score, noise: Noise) -> Plan:
        rows, device = len(history), model.hidden.device
        size = model.layout.field("action").size
        return Plan(torch.zeros(rows, 1, size, device=device), torch.zeros(rows, device=device))
