"""Act at random: the baseline below which nothing was learnt."""

from __future__ import annotations

import torch

from seqrl.decoding.noise import Noise
from seqrl.models import Model
from seqrl.planners import Planner
from seqrl.registry import register_planner
from seqrl.scores import Score
from seqrl.types import History, Plan


@register_planner("random")
class RandomPlanner(Planner):
    """Every action dimension is uniform between the smallest and the largest value that the tokenizer decodes to;
    discrete actions are equally likely."""

    horizon = 1
    shows = None
    serves = Model
    asks_model = False

    def check(self, model: Model, score: Score) -> None:
        """Fits everything."""

    def plan(self, model: Model, history: History, score: Score, noise: Noise) -> Plan:
        action = model.layout.field("action")
        low, high = model.tokenizer.action_range(model.layout)
        uniform = torch.stack([noise.uniform(d)[:, 0] for d in range(action.size)], dim=-1)
        if "action" in model.layout.categories:
            counts = torch.tensor(model.layout.choices("action"), device=uniform.device)
            actions = (uniform * counts).floor().to(low.dtype)
        else:
            actions = low + uniform.to(low.dtype) * (high - low)
        return Plan(actions[:, None], torch.zeros(len(actions), device=actions.device))
