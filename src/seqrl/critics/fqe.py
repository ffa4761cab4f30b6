"""Fitted Q evaluation: what a given policy is worth, from the data of another one."""

from __future__ import annotations

import copy
import math
from typing import Annotated

import torch
from annotated_types import Gt, Interval, Le
from torch import Tensor, nn

from seqrl.critics import Critic, Transitions
from seqrl.critics._networks import make_mlp
from seqrl.registry import register_critic


@register_critic("fqe")
class FqeCritic(Critic):
    """The value of one policy, which is not improved: Q(s, a) is regressed on `r + gamma Q(s', pi(s'))`.

    What the policy does in the next states stands in the batches (`Transitions.next_actions`), as `seqrl estimate`
    fills them in for any checkpoint and strategy. Where it does not, the policy is the critic's own, which imitates the
    mean action of the data.

    Args:
        observation_size, action_size, discount: known from the data and the layout.
        target_rate: how far the slow copy moves toward Q in every step, in (0, 1]. Values come near their end in
            several times 1 / (target_rate (1 - discount)) steps; the default of other critics, 0.005, makes that 20,000
            with a discount of 0.99.
        dim: width of the hidden layers.
        num_layers: hidden layers, 1 or more.
        reward_scale: factor on the rewards inside the critic, more than 0; `q` and `v` take it out again.

    Reference: Le, Voloshin and Yue 2019, https://arxiv.org/abs/1903.08738, algorithm 3; with networks and a slow copy
    as in Voloshin et al. 2019, https://arxiv.org/abs/1911.06854.
    """

    def __init__(
        self,
        observation_size: int,
        action_size: int,
        discount: float,
        *,
        target_rate: Annotated[float, Gt(0), Le(1)] = 0.05,
        dim: Annotated[int, Interval(ge=1, le=65_536)] = 256,
        num_layers: Annotated[int, Interval(ge=1, le=1000)] = 2,
        reward_scale: Annotated[float, Gt(0)] = 1.0,
    ) -> None:
        super().__init__(observation_size, action_size)
        self.discount, self.target_rate, self.reward_scale = discount, target_rate, reward_scale
        hidden = [dim] * num_layers
        self.value = make_mlp(observation_size + action_size, hidden, 1)
        self.target = copy.deepcopy(self.value).requires_grad_(False)
        self.actor = make_mlp(observation_size, hidden, action_size)

    @property
    def time_constant(self) -> float:
        """Steps in which values come nearer to their end by a factor of e, if Q follows its targets at once."""
        return math.inf if self.discount >= 1 else 1.0 / (self.target_rate * (1.0 - self.discount))

    def q(self, observations: Tensor, actions: Tensor) -> Tensor:
        return self._rate(self.value, observations, actions) / self.reward_scale

    def v(self, observations: Tensor) -> Tensor:
        return self.q(observations, self.act(observations))

    def act(self, observations: Tensor) -> Tensor:
        mean: Tensor = self.actor(self.normalise(observations)).tanh()
        return self.action_low + (mean + 1) / 2 * (self.action_high - self.action_low)

    def loss(self, batch: Transitions) -> dict[str, Tensor]:
        if self.training:
            self._move_target()
        with torch.no_grad():
            taken = batch.next_actions
            following = self.act(batch.next_observations) if taken is None else taken
            values = self._rate(self.target, batch.next_observations, following)
            # not a product: what stands for the state after an end must not matter, whatever it is
            values = torch.where(batch.terminated, 0.0, self.discount * values)
            backup = self.reward_scale * batch.rewards + values
        rated = self._rate(self.value, batch.observations, batch.actions)
        q_loss = (rated - backup).square().mean()
        span = (self.action_high - self.action_low).clamp(min=1e-6)
        imitation_loss = ((self.act(batch.observations) - batch.actions.to(span)) / span).square().mean()
        return {
            "loss": q_loss + imitation_loss,  # of disjoint parameters: each is minimised by itself
            "q_loss": q_loss,
            "imitation_loss": imitation_loss,
            "value": rated.mean() / self.reward_scale,
        }

    def _rate(self, network: nn.Module, observations: Tensor, actions: Tensor) -> Tensor:
        """(...) scaled values; the networks see the range of the data's actions as [-1, 1]."""
        span = (self.action_high - self.action_low).clamp(min=1e-6)
        unit = 2 * (actions.to(self.action_low) - self.action_low) / span - 1
        values: Tensor = network(torch.cat([self.normalise(observations), unit], dim=-1))[..., 0]
        return values

    @torch.no_grad()
    def _move_target(self) -> None:
        for slow, fast in zip(self.target.parameters(), self.value.parameters(), strict=True):
            slow.lerp_(fast, self.target_rate)
