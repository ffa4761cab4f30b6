"""A search whose parts can be swapped one by one: what follows an action, what a state is worth, which actions to try.

All parts look at the present observation alone. That costs a model with a long context something, which a ladder shows
in the difference between its first rung and the run's own search.
"""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor

from seqrl.decoding.noise import Noise
from seqrl.errors import ConfigError
from seqrl.models import Model
from seqrl.planners import Planner
from seqrl.scores import Score
from seqrl.types import History, Plan


@dataclass(frozen=True)
class Outcome:
    """What one transition leads to, R rows.

    Attributes:
        rewards: (R,) of the transition, in the data's units.
        observations: (R, O) after it; without meaning where the episode is over.
        over: (R,) bool, whether the episode truly ended.
    """

    rewards: Tensor
    observations: Tensor
    over: Tensor


class Dynamics(ABC):
    """What follows an action."""

    @abstractmethod
    def advance(self, observations: Tensor, actions: Tensor) -> Outcome:
        """(R, O) and (R, A) one transition further."""


class Valuation(ABC):
    """What a plan is worth from its last transition on.

    Attributes:
        reward_shift: what is added to every reward that is counted beside it.
    """

    reward_shift: float = 0.0

    @abstractmethod
    def rate(self, observations: Tensor, actions: Tensor, outcome: Outcome) -> Tensor:
        """(R,) discounted return of the transition and of all that follows it."""


class Candidates(ABC):
    """Which actions are tried."""

    @abstractmethod
    def propose(self, observations: Tensor, uniform: Tensor) -> Tensor:
        """Actions for R states.

        Args:
            observations: (R, O).
            uniform: (R, n) in [0, 1), independent draws; n is `num_draws`.

        Returns:
            (R, A) actions in the data's units.
        """

    @property
    @abstractmethod
    def num_draws(self) -> int:
        """Draws that a proposal takes."""


@dataclass(frozen=True)
class Parts:
    """The parts of a search."""

    dynamics: Dynamics
    valuation: Valuation
    candidates: Candidates


class SwappedSearch(Planner):
    """Beam search like `planner=beam`, over states instead of tokens; or rollouts of a policy like `planner=rollouts`.

    Args:
        parts: what it is made of.
        discount: gamma between two transitions.
        beam_width, n_expand, horizon: as in `planner=beam`.
        policy: who acts after the first transition; then nothing is ranked before the end, `beam_width * n_expand`
            candidates go all the way, and the first of them begins with the policy's action as well. None for a beam.
        find_cost: (..., O) states that plans come to, to (...) what each takes off a plan; None where nothing does.
    """

    serves = Model

    def __init__(
        self,
        parts: Parts,
        *,
        discount: float,
        beam_width: int,
        n_expand: int,
        horizon: int,
        policy: Candidates | None = None,
        find_cost: Callable[[Tensor], Tensor] | None = None,
    ) -> None:
        self.parts = parts
        self.find_cost = find_cost
        self.policy = policy
        self.discount = discount
        self.beam_width = beam_width
        self.n_expand = n_expand
        self.horizon = horizon

    def check(self, model: Model, score: Score) -> None:
        """Its parts were checked when they were made."""

    def plan(self, model: Model, history: History, score: Score, noise: Noise) -> Plan:
        if history.observation is None:
            raise ConfigError("a ladder looks at observations as they are; make histories with model.history(...)")
        columns = self._begin(history.observation, model.layout.field("action").size)
        rows = torch.arange(len(history.observation), device=history.observation.device)[:, None]
        for depth in range(self.horizon):
            later = 1 if self.policy else self.n_expand
            columns, promised = self._grow(columns, noise, depth, self.num_candidates if depth == 0 else later)
            best, order = promised.sort(dim=1, descending=True, stable=True)
            if self.policy is None or depth + 1 == self.horizon:
                kept = order[:, : self.beam_width]
                columns = {name: column[rows, kept] for name, column in columns.items()}
        return Plan(columns["actions"][:, 0].float(), best[:, 0])

    @property
    def num_candidates(self) -> int:
        """C, first actions that are tried."""
        return self.beam_width * self.n_expand

    def rate_first_actions(self, observations: Tensor, action_size: int, noise: Noise) -> Tensor:
        """What each candidate for the first action promises if nothing is given up on the way.

        With the same noise, the same candidates are tried whatever the dynamics and the value are: then each goes on
        with one further candidate (of rollouts: the policy's action) in each state that it comes to.

        Args:
            observations: (B, O).
            action_size: numbers of a transition's action.

        Returns:
            (B, C) discounted returns.
        """
        columns = self._begin(observations, action_size)
        for depth in range(self.horizon):
            columns, promised = self._grow(columns, noise, depth, self.num_candidates if depth == 0 else 1)
        return promised

    def try_first_actions(self, observations: Tensor, noise: Noise) -> Outcome:
        """What one transition with each candidate for the first action leads to: those of `rate_first_actions`.

        Args:
            observations: (B, O).

        Returns:
            (B, C) rewards and ends, (B, C, O) observations.
        """
        _, outcome, _ = self._extend(observations[:, None].repeat_interleave(self.num_candidates, 1), noise, 0)
        return outcome

    def _begin(self, observations: Tensor, action_size: int) -> dict[str, Tensor]:
        """(B, 1, ...) of plans that hold nothing yet."""
        states = observations[:, None]
        return {
            "states": states,
            "earned": states.new_zeros(len(states), 1),
            "costs": states.new_zeros(len(states), 1),
            "over": torch.zeros(len(states), 1, dtype=torch.bool, device=states.device),
            "actions": states.new_zeros(len(states), 1, 0, action_size),
        }

    def _grow(
        self, columns: dict[str, Tensor], noise: Noise, depth: int, copies: int
    ) -> tuple[dict[str, Tensor], Tensor]:
        """Copies of every plan, each a transition longer, and what they (B, C) promise with all that follows."""
        columns = {name: column.repeat_interleave(copies, 1) for name, column in columns.items()}
        actions, outcome, rating = self._extend(columns["states"], noise, depth)
        gone, power = columns["over"], self.discount**depth
        costs = columns["costs"]
        if self.find_cost is not None:
            costs = costs + self.find_cost(outcome.observations).to(costs).masked_fill(gone | outcome.over, 0.0)
        promised = columns["earned"] + (power * rating).masked_fill(gone, 0.0) - costs
        gained = power * (outcome.rewards + self.parts.valuation.reward_shift)
        columns = {
            "states": outcome.observations,
            "earned": columns["earned"] + gained.masked_fill(gone, 0.0),
            "costs": costs,
            "over": gone | outcome.over,
            "actions": torch.cat([columns["actions"], actions[:, :, None]], 2),
        }
        return columns, promised

    def _extend(self, states: Tensor, noise: Noise, depth: int) -> tuple[Tensor, Outcome, Tensor]:
        """One transition of (B, C, O) states: (B, C, A) actions, what follows, and (B, C) what it is worth."""
        parts, beams = self.parts, states.shape[1]
        flat = states.flatten(0, 1)
        actions = self._propose(
            parts.candidates if depth == 0 or self.policy is None else self.policy, states, noise, depth
        )
        if depth == 0 and self.policy is not None:
            first = self._propose(self.policy, states[:, :1], noise, depth)
            actions = actions.clone()
            actions[::beams] = first.to(actions)
        found = parts.dynamics.advance(flat, actions)
        rating = parts.valuation.rate(flat, actions, found)

        def unflatten(tensor: Any) -> Tensor:
            shaped: Tensor = tensor.unflatten(0, (-1, beams)).to(states.dtype if tensor.dtype != torch.bool else None)
            return shaped

        outcome = Outcome(*(unflatten(each) for each in (found.rewards, found.observations, found.over)))
        return unflatten(actions), outcome, unflatten(rating)

    def _propose(self, who: Candidates, states: Tensor, noise: Noise, depth: int) -> Tensor:
        """(B * C, A) actions for (B, C, O) states."""
        beams, flat = states.shape[1], states.flatten(0, 1)
        draws = [noise.uniform(depth * 100 + draw, beams=beams) for draw in range(who.num_draws)]
        uniform = torch.stack(draws, -1).flatten(0, 1) if draws else flat.new_zeros(len(flat), 0)
        return who.propose(flat, uniform.to(flat.device))
