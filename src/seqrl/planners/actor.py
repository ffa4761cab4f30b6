"""The policy that a critic brings along."""

from __future__ import annotations

from torch import Tensor

from seqrl.critics import Critic
from seqrl.decoding.noise import Noise
from seqrl.errors import ConfigError
from seqrl.layout import Layout
from seqrl.models import Model
from seqrl.models.token import TokenModel
from seqrl.planners import Planner
from seqrl.registry import register_planner
from seqrl.scores import Score
from seqrl.types import History, Plan, TokenHistory


@register_planner("actor")
class ActorPlanner(Planner):
    """Act by the critic's own policy, which looks at the present observation alone; the sequence model is not asked.

    The row that a search with the same critic must beat. A plan's value is the critic's Q of its action.

    Args:
        critic: of the same run.
    """

    horizon = 1
    serves = Model
    asks_model = False

    def __init__(self, critic: Critic | None = None) -> None:
        self.critic = critic

    def check(self, layout: Layout, score: Score) -> None:
        if self.critic is None:
            raise ConfigError("planner=actor needs a critic and the run has none; train with critic=iql")

    def plan(self, model: Model, history: History, score: Score, noise: Noise) -> Plan:
        assert self.critic is not None
        observation = _present(model, history) if history.observation is None else history.observation
        actions = self.critic.act(observation)
        return Plan(actions[:, None], self.critic.q(observation, actions))


def _present(model: Model, history: History) -> Tensor:
    """(B, O) the present observation, as precisely as its tokens tell."""
    assert isinstance(model, TokenModel) and isinstance(history, TokenHistory)
    before = model.places("action").start
    tokens = history.tokens.new_zeros(len(history.tokens), model.tokens_per_step)
    tokens[:, :before] = history.tokens[:, -before:]
    return model.tokenizer.decode(tokens)[:, model.layout.field("observation").slice]
