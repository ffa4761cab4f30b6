"""What to do if nothing but the price and the departure counts: a planner that learns nothing, to compare with."""

from __future__ import annotations

import torch

from seqrl import ConfigError, Model, Planner, Score, register_planner
from seqrl.decoding.noise import Noise
from seqrl.types import History, Plan
from seqrl_charging.home import CHARGER


@register_planner("cheapest_hours")
class CheapestHoursPlanner(Planner):
    """Charge with what the hours left that are cheaper than this one do not suffice for."""

    horizon = 1
    shows = None
    serves = Model
    asks_model = False
    sizes = (7, 1)  # of the observation and the action that it was written for

    def check(self, model: Model, score: Score) -> None:
        if (model.layout.field("observation").size, model.layout.field("action").size) != self.sizes:
            raise ConfigError("planner=cheapest_hours acts in charging/Home-v0 and charging/NextYear-v0 alone")

    def plan(self, model: Model, history: History, score: Score, noise: Noise) -> Plan:
        assert history.observation is not None
        wanted, left, cheaper = (history.observation[:, dim] for dim in (0, 1, 5))
        low, high = (bound.to(wanted) for bound in model.tokenizer.action_range(model.layout))
        power = (wanted / CHARGER - cheaper * left).clamp(low.clamp(min=0.0), high)
        return Plan(power[:, None, None], torch.zeros_like(power))
