"""Several critics at once, and less for what they disagree on."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Annotated, Any

import torch
from annotated_types import Ge, Interval
from torch import Tensor, nn

from seqrl.critics import Critic, Transitions
from seqrl.errors import ConfigError
from seqrl.registry import CRITIC, Slot, register_critic


@register_critic("ensemble")
class EnsembleCritic(Critic):
    """The mean of several critics, less a multiple of their deviation: low where the data do not decide the value.

        q = mean_i q_i - pessimism * std_i q_i,    v likewise;    the policy acts by the mean of their actions.

    The members differ in their first weights and see the same batches. A search that takes the best of many imagined
    states finds those that one critic overrates; few members overrate the same.

    Args:
        observation_size, action_size, discount: known from the data and the layout.
        members: how many, 2 or more; training takes as many times as long.
        pessimism: factor on the deviation (that of the members, divided by their number), 0 or more.
        of: what each one is, a config as in the slot `critic`; None for `iql` with its defaults.

    Raises:
        ConfigError: an ensemble of ensembles, or whatever a member refuses.

    Reference: deviations of ensembles as the measure of what is not known as in Lakshminarayanan et al. 2017, "Simple
    and scalable predictive uncertainty estimation using deep ensembles", section 2.4.
    """

    def __init__(
        self,
        observation_size: int,
        action_size: int,
        discount: float,
        *,
        members: Annotated[int, Interval(ge=2, le=100)] = 4,
        pessimism: Annotated[float, Ge(0)] = 1.0,
        of: Annotated[Mapping[str, Any], Slot("critic")] | None = None,
    ) -> None:
        config = dict(of or {"name": "iql"})
        if config["name"] == "ensemble":
            raise ConfigError("critic.of is an ensemble itself; give critic.members there, and a single critic here")
        sizes = {"observation_size": observation_size, "action_size": action_size, "discount": discount}
        made: list[Critic] = [CRITIC.build(config, **sizes) for _ in range(members)]
        super().__init__(observation_size, action_size, reward_shift=made[0].reward_shift)
        self.members = nn.ModuleList(made)
        self.pessimism = pessimism
        self.n_step = made[0].n_step

    def fit(self, observations: Tensor, actions: Tensor) -> None:
        super().fit(observations, actions)
        for member in self._each():
            member.fit(observations, actions)

    def q(self, observations: Tensor, actions: Tensor) -> Tensor:
        return self._doubt(torch.stack([member.q(observations, actions) for member in self._each()]))

    def v(self, observations: Tensor) -> Tensor:
        return self._doubt(torch.stack([member.v(observations) for member in self._each()]))

    def act(self, observations: Tensor) -> Tensor:
        return torch.stack([member.act(observations) for member in self._each()]).mean(0)

    def loss(self, batch: Transitions) -> dict[str, Tensor]:
        losses = [member.loss(batch) for member in self._each()]
        found = {name: torch.stack([each[name] for each in losses]) for name in losses[0]}
        # of disjoint parameters: each member is minimised by itself, as if it were alone
        return {name: each.sum() if name == "loss" else each.mean() for name, each in found.items()}

    def _each(self) -> list[Critic]:
        return [member for member in self.members if isinstance(member, Critic)]

    def _doubt(self, values: Tensor) -> Tensor:
        """(members, ...) to (...)."""
        return values.mean(0) - self.pessimism * values.std(0, correction=0)
