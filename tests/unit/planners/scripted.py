"""A critic and a score whose every answer is known, for tests of searches that a critic's policy takes part in."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace
from typing import Any

import torch
from torch import Tensor

from seqrl.critics import Critic, Transitions
from seqrl.scores import Score, Trace
from seqrl.testing import samples
from seqrl.types import TokenHistory

ROWS = 3


class Follower(Critic):
    """Its policy is a function of the state that tells the state; Q prefers the larger first action, or the smaller."""

    def __init__(self, q_sign: float = 1.0, *, chunk: int = 1) -> None:
        super().__init__(samples.OBSERVATION_SIZE, samples.ACTION_SIZE * chunk)
        self.q_sign, self.chunk = q_sign, chunk

    def q(self, observations: Tensor, actions: Tensor) -> Tensor:
        return self.q_sign * actions[..., 0]

    def v(self, observations: Tensor) -> Tensor:
        return observations.sum(-1)

    def act(self, observations: Tensor) -> Tensor:
        return torch.cat([torch.tanh(observations[..., :2] * (step + 1)) for step in range(self.chunk)], -1)

    def loss(self, batch: Transitions) -> dict[str, Tensor]:
        return {"loss": batch.rewards.mean()}


def rank_by_nothing(trace: Trace) -> Tensor:
    return torch.zeros_like(trace.log_probs[..., 0])


class Recording(Score):
    """Keeps the traces that it was shown; ranks them as it is told, or by nothing."""

    wants_transitions = True

    def __init__(self, rank: Callable[[Trace], Tensor] = rank_by_nothing) -> None:
        self.traces: list[Trace] = []
        self.rank = rank

    def check(self, layout: Any) -> None: ...

    def __call__(self, trace: Trace) -> Tensor:
        self.traces.append(trace)
        return self.rank(trace)


def observed(model: Any) -> TokenHistory:
    """A history of `ROWS` environments, which knows what they showed last."""
    observation = 0.4 * torch.randn(ROWS, samples.OBSERVATION_SIZE, generator=torch.Generator().manual_seed(8)).double()
    history = replace(samples.history(model, [2] * ROWS), observation=observation)
    assert isinstance(history, TokenHistory)
    return history


def rounded(model: Any, actions: Tensor) -> Tensor:
    """Actions as their tokens decode."""
    values = actions.new_zeros(*actions.shape[:-1], model.layout.size)
    part = model.layout.field("action").slice
    values[..., part] = actions
    return model.tokenizer.decode(model.tokenizer.encode(values))[..., part]
