"""Values of states and actions, learnt from transitions by dynamic programming (slot `critic`)."""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Callable
from dataclasses import dataclass, fields
from typing import Any

import torch
from torch import Tensor, nn

from seqrl.config import CriticConfig
from seqrl.data.summary import DataSizes
from seqrl.errors import ConfigError
from seqrl.registry import CRITIC


@dataclass
class Transitions:
    """A batch of single transitions, float32, in the units of the data; not frozen, see `seqrl.types.Batch`.

    Attributes:
        observations, next_observations: (B, O); what stands in `next_observations` at a true end has no meaning.
        actions: (B, A); with `layout.chunk`, A counts the numbers of all actions of a transition.
        rewards: (B,), without any termination penalty.
        terminated: (B,) bool, true ends; time limits are none.
        next_actions: (B, A) what the policy whose value is learnt does in the next states; None for critics whose own
            policy it is.
    """

    observations: Tensor
    actions: Tensor
    rewards: Tensor
    next_observations: Tensor
    terminated: Tensor
    next_actions: Tensor | None = None

    def to(self, device: torch.device | str) -> Transitions:
        return self._each(lambda tensor: tensor.to(device, non_blocking=True))

    def pin_memory(self) -> Transitions:
        return self._each(Tensor.pin_memory)

    def _each(self, change: Callable[[Tensor], Tensor]) -> Transitions:
        tensors: dict[str, Tensor | None] = {field.name: getattr(self, field.name) for field in fields(self)}
        changed: Any = {name: None if each is None else change(each) for name, each in tensors.items()}
        return Transitions(**changed)


class Critic(nn.Module, ABC):
    """Judges states and actions, and proposes actions; its statistics lie in buffers and travel in checkpoints.

    Args:
        observation_size, action_size: O and A, those of the layout's fields.
        reward_shift: what is added to every reward before values are learnt.

    Attributes:
        reward_shift: see above. A shift cannot be taken out of a value again (how often it was added depends on when
            the episode ends), so that `q` and `v` contain it, and who adds rewards to them shifts those as well.
        n_step: how many transitions of the layout the `rewards` and the `next_observations` of its training batches
            span; the actions are those of the first.
    """

    n_step: int = 1

    observation_mean: Tensor
    observation_std: Tensor
    action_low: Tensor
    action_high: Tensor

    def __init__(self, observation_size: int, action_size: int, *, reward_shift: float = 0.0) -> None:
        super().__init__()
        self.reward_shift = float(reward_shift)
        self.register_buffer("observation_mean", torch.zeros(observation_size))
        self.register_buffer("observation_std", torch.ones(observation_size))
        self.register_buffer("action_low", -torch.ones(action_size))
        self.register_buffer("action_high", torch.ones(action_size))

    def fit(self, observations: Tensor, actions: Tensor) -> None:
        """Collect statistics from (N, O) observations and (N, A) actions, N at least 1."""
        self.observation_mean.copy_(observations.double().mean(0))
        self.observation_std.copy_(observations.double().std(0, correction=0).clamp(min=1e-3))
        self.action_low.copy_(actions.amin(0))
        self.action_high.copy_(actions.amax(0))

    def normalise(self, observations: Tensor) -> Tensor:
        """(..., O) observations, in the type of the weights, with mean 0 and deviation 1 in the data (constants: 0)."""
        return (observations.to(self.observation_mean) - self.observation_mean) / self.observation_std

    @abstractmethod
    def q(self, observations: Tensor, actions: Tensor) -> Tensor:
        """(...) value of actions (..., A) in states (..., O), rewards in the data's units (plus `reward_shift`).

        A pessimistic one where there are several estimates.
        """

    @abstractmethod
    def v(self, observations: Tensor) -> Tensor:
        """(...) value of states (..., O), in the units of `q`."""

    @abstractmethod
    def act(self, observations: Tensor) -> Tensor:
        """(..., A) the action that the critic's own policy takes, within the range of the data."""

    @abstractmethod
    def loss(self, batch: Transitions) -> dict[str, Tensor]:
        """What a training step minimises, under `loss`, and what else to log; scalars, means over the batch.

        A step of training is one call in training mode, its gradient, and a step of the optimiser. Slow copies of
        networks move at the beginning of such a call; in eval mode nothing moves.
        """


def build_critic(config: CriticConfig, sizes: DataSizes) -> Critic | None:
    """The untrained critic that a run asks for, or None.

    Raises:
        ConfigError: an option that the critic refuses, or discrete observations or actions.
    """
    if config.critic is None:
        return None
    discrete = sorted({"observation", "action"} & set(sizes.categories or {}))
    if discrete:
        raise ConfigError(
            f"critic={config.critic['name']} works on vectors, and these data have a discrete {discrete[0]}; train "
            "without a critic"
        )
    layout = sizes.lay_out(config.layout)
    widths = {f"{name}_size": layout.field(name).size for name in ("observation", "action")}
    critic: Critic = CRITIC.build(config.critic, **widths, discount=layout.step_discount)
    return critic
