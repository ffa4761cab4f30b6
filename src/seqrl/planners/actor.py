"""The policy that a critic brings along."""

from __future__ import annotations

from seqrl.critics import Critic
from seqrl.decoding.noise import Noise
from seqrl.errors import ConfigError
from seqrl.models import Model
from seqrl.planners import Planner
from seqrl.registry import register_planner
from seqrl.scores import Score
from seqrl.types import History, Plan


@register_planner("actor")
class ActorPlanner(Planner):
    """Act by the critic's own policy, which looks at the present observation alone; the sequence model is not asked.

    The row that a search with the same critic must beat. A plan's value is the critic's Q of its action.

    Args:
        critic: of the same run.
    """

    horizon = 1
    shows = None
    serves = Model
    asks_model = False

    def __init__(self, critic: Critic | None = None) -> None:
        self.critic = critic

    def check(self, model: Model, score: Score) -> None:
        if self.critic is None:
            raise ConfigError("planner=actor needs a critic and the run has none; train with critic=iql")

    def plan(self, model: Model, history: History, score: Score, noise: Noise) -> Plan:
        assert self.critic is not None
        if history.observation is None:
            raise ConfigError("planner=actor looks at observations as they are; make histories with model.history(...)")
        actions = self.critic.act(history.observation)
        return Plan(actions[:, None], self.critic.q(history.observation, actions))
