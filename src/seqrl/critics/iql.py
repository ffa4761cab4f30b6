"""Implicit Q-learning."""

from __future__ import annotations

import copy
from typing import Annotated

import torch
from annotated_types import Ge, Gt, Interval, Le, Lt
from torch import Tensor, nn

from seqrl.backbones import Dim, NumLayers
from seqrl.critics import Critic, Transitions
from seqrl.critics._networks import make_mlp
from seqrl.errors import ConfigError
from seqrl.registry import register_critic

LOG_STD = (-5.0, 2.0)  # range of the policy's log standard deviation, in units of half the data's action range


@register_critic("iql")
class IqlCritic(Critic):
    """Twin Q, a V that is an upper expectile of Q over the data's actions, and a policy extracted from both.

    With advantage `A = min_i Q'_i(s, a) - V(s)`, Q' a slow copy of Q, and `r' = reward_scale * (r + reward_shift)`:

        V       minimises   |expectile - 1(A < 0)| A^2
        Q_i     minimises   (r' + discount * (1 - terminated) * V(s_next) - Q_i(s, a))^2
        policy  maximises   min(exp(temperature * A), max_weight) * log pi(a | s)

    Args:
        observation_size, action_size, discount: known from the data and the layout.
        expectile: in [0.5, 1); 0.5 learns the value of the behaviour, towards 1 that of its best actions.
        temperature: inverse temperature of the policy's weights, 0 (plain imitation) or more.
        max_weight: bound on the policy's weights, more than 0.
        target_rate: how far the slow copy moves toward Q in every step, in (0, 1].
        dim: width of the hidden layers.
        num_layers: hidden layers, 1 or more.
        reward_scale: factor on the (shifted) rewards inside the critic, more than 0; `q` and `v` take it out again.
        reward_shift: added to the rewards, -1 in the published AntMaze runs; `q` and `v` keep it, see `Critic`.
        n_step: transitions that a backup spans, 1 or more: Q learns from the rewards of so many and the value after
            them, `discount^n_step`. Values spread faster and differ more between actions; but what follows the first
            action is the behaviour's, whose worse actions count (no correction).

    Raises:
        ConfigError: a shift of rewards with backups of several transitions, which do not tell how many were before an
            end.

    Reference: Kostrikov, Nair and Levine 2021, https://arxiv.org/abs/2110.06169, sections 4 and 5.
    """

    def __init__(
        self,
        observation_size: int,
        action_size: int,
        discount: float,
        *,
        expectile: Annotated[float, Ge(0.5), Lt(1)] = 0.7,
        temperature: Annotated[float, Ge(0)] = 3.0,
        max_weight: Annotated[float, Gt(0)] = 100.0,
        target_rate: Annotated[float, Gt(0), Le(1)] = 0.005,
        dim: Dim = 256,
        num_layers: NumLayers = 2,
        reward_scale: Annotated[float, Gt(0)] = 1.0,
        reward_shift: float = 0.0,
        n_step: Annotated[int, Interval(ge=1, le=1000)] = 1,
    ) -> None:
        super().__init__(observation_size, action_size, reward_shift=reward_shift)
        if n_step > 1 and reward_shift:
            raise ConfigError(
                f"critic.n_step={n_step} cannot be combined with critic.reward_shift={reward_shift:g}; use one of them"
            )
        self.discount = discount
        self.expectile = expectile
        self.temperature = temperature
        self.max_weight = max_weight
        self.target_rate = target_rate
        self.reward_scale = reward_scale
        self.n_step = n_step
        hidden = [dim] * num_layers
        self.twins = nn.ModuleList(make_mlp(observation_size + action_size, hidden, 1) for _ in range(2))
        self.target = copy.deepcopy(self.twins).requires_grad_(False)
        self.value = make_mlp(observation_size, hidden, 1)
        self.actor = make_mlp(observation_size, hidden, action_size)
        self.log_std = nn.Parameter(torch.zeros(action_size))

    def q(self, observations: Tensor, actions: Tensor) -> Tensor:
        return self._twins(self.twins, self.normalise(observations), self._unit(actions)).amin(0) / self.reward_scale

    def v(self, observations: Tensor) -> Tensor:
        values: Tensor = self.value(self.normalise(observations))[..., 0]
        return values / self.reward_scale

    def act(self, observations: Tensor) -> Tensor:
        return self.action_low + (self._mean(self.normalise(observations)) + 1) / 2 * self._span

    def loss(self, batch: Transitions) -> dict[str, Tensor]:
        if self.training:
            self._move_target()
        states, actions = self.normalise(batch.observations), self._unit(batch.actions)
        rewards = self.reward_scale * (batch.rewards + self.reward_shift)
        with torch.no_grad():
            following = self.value(self.normalise(batch.next_observations))[..., 0]
            # not a product: what stands for the state after an end must not matter, whatever it is
            backup = rewards + torch.where(batch.terminated, 0.0, self.discount**self.n_step * following)
            target = self._twins(self.target, states, actions).amin(0)
        values = self.value(states)[..., 0]
        advantage = target - values
        value_loss = expectile_loss(advantage, self.expectile).mean()
        q_loss = (self._twins(self.twins, states, actions) - backup).square().sum(0).mean()
        weights = (self.temperature * advantage.detach()).exp().clamp(max=self.max_weight)
        policy = torch.distributions.Normal(self._mean(states), self.log_std.clamp(*LOG_STD).exp(), validate_args=False)
        policy_loss = -(weights * policy.log_prob(actions).sum(-1)).mean()
        return {
            "loss": value_loss + q_loss + policy_loss,  # of disjoint parameters: each is minimised by itself
            "value_loss": value_loss,
            "q_loss": q_loss,
            "policy_loss": policy_loss,
            "value": values.mean() / self.reward_scale,
            "advantage": advantage.mean() / self.reward_scale,
        }

    @property
    def _span(self) -> Tensor:
        return (self.action_high - self.action_low).clamp(min=1e-6)

    def _unit(self, actions: Tensor) -> Tensor:
        """Actions as the networks see them: the range of the data is [-1, 1]."""
        return 2 * (actions.to(self.action_low) - self.action_low) / self._span - 1

    def _mean(self, states: Tensor) -> Tensor:
        mean: Tensor = self.actor(states).tanh()
        return mean

    @staticmethod
    def _twins(twins: nn.ModuleList, states: Tensor, actions: Tensor) -> Tensor:
        """(2, ...) both estimates."""
        inputs = torch.cat([states, actions], dim=-1)
        return torch.stack([network(inputs)[..., 0] for network in twins])

    @torch.no_grad()
    def _move_target(self) -> None:
        for slow, fast in zip(self.target.parameters(), self.twins.parameters(), strict=True):
            slow.lerp_(fast, self.target_rate)


def expectile_loss(errors: Tensor, expectile: float) -> Tensor:
    """Squared errors weighted by `expectile` where positive, else by `1 - expectile` (Kostrikov et al. 2021, eq. 5)."""
    return torch.where(errors < 0, 1 - expectile, expectile) * errors.square()
