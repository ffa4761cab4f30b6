"""Act at random: the baseline below which nothing was learnt."""

from __future__ import annotations

import torch

from seqrl.layout import Layout
from seqrl.model import SequenceModel
from seqrl.planners import Planner
from seqrl.registry import register_planner
from seqrl.sampling import Noise
from seqrl.scores import Score
from seqrl.types import History, Plan


@register_planner("random")
class RandomPlanner(Planner):
    """Every action dimension is uniform between the smallest and the largest bin centre of the data."""

    horizon = 1

    def check(self, layout: Layout, score: Score) -> None:
        """Fits everything."""

    def plan(self, model: SequenceModel, history: History, score: Score, noise: Noise) -> Plan:
        action = model.layout.field("action")
        centres = [model.tokenizer.bin_centres(s) for s in range(action.start, action.start + action.size)]
        low = torch.stack([c.min() for c in centres])
        high = torch.stack([c.max() for c in centres])
        uniform = torch.stack([noise.uniform(d)[:, 0] for d in range(action.size)], dim=-1)
        actions = low + uniform.to(low.dtype) * (high - low)
        return Plan(actions[:, None], torch.zeros(len(actions), device=actions.device))
