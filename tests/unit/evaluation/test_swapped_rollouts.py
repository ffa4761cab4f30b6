"""Rollouts of a policy in a ladder, against a loop over its candidates."""

from __future__ import annotations

import pytest
import torch
from torch import Tensor

from seqrl.decoding.noise import Noise
from seqrl.evaluation.swapped_search import Candidates, Dynamics, Outcome, Parts, SwappedSearch, Valuation
from seqrl.scores.likelihood import LikelihoodScore
from seqrl.testing import samples
from seqrl.types import TokenHistory

ROWS, DISCOUNT, SIZE = 3, 0.9, samples.ACTION_SIZE


class Drift(Dynamics):
    """Actions move the first two dimensions; far out, the episode is over."""

    def advance(self, observations: Tensor, actions: Tensor) -> Outcome:
        following = observations.clone()
        following[:, :SIZE] += actions
        return Outcome(-following[:, :SIZE].norm(dim=-1), following, following[:, 0] > 1.5)


class Far(Valuation):
    def rate(self, observations: Tensor, actions: Tensor, outcome: Outcome) -> Tensor:
        rest = DISCOUNT * -3 * outcome.observations[:, :SIZE].norm(dim=-1)
        return outcome.rewards + rest.masked_fill(outcome.over, 0.0)


class Anything(Candidates):
    num_draws = SIZE

    def propose(self, observations: Tensor, uniform: Tensor) -> Tensor:
        return 2 * uniform.to(observations) - 1


class Homeward(Candidates):
    num_draws = 0

    def propose(self, observations: Tensor, uniform: Tensor) -> Tensor:
        return -0.3 * observations[:, :SIZE]


def plan_by_hand(start: Tensor, first: Tensor, horizon: int) -> tuple[float, list[Tensor]]:
    """What one candidate earns, and its actions."""
    total, state, over, actions = 0.0, start[None], False, []
    for depth in range(horizon):
        action = first[None] if depth == 0 else Homeward().propose(state, state)
        actions.append(action[0])
        found = Drift().advance(state, action)
        if not over:
            last = depth + 1 == horizon
            worth = Far().rate(state, action, found) if last else found.rewards
            total += DISCOUNT**depth * float(worth)
        over = over or bool(found.over)
        state = found.observations
    return total, actions


@pytest.mark.parametrize("horizon", [1, 2, 5])
@pytest.mark.parametrize(("beam_width", "n_expand"), [(4, 2), (1, 1), (8, 1)])
def test_the_best_first_action_wins_by_what_the_policy_makes_of_it(
    horizon: int, beam_width: int, n_expand: int
) -> None:
    model = samples.model(samples.layout())
    history = samples.history(model, [0] * ROWS)
    assert isinstance(history, TokenHistory)
    observation = torch.randn(ROWS, samples.OBSERVATION_SIZE, generator=torch.Generator().manual_seed(2))
    history = TokenHistory(history.tokens, history.lengths, observation=observation)
    noise, count = Noise.of(4, torch.arange(ROWS), time=0), beam_width * n_expand
    search = SwappedSearch(
        Parts(Drift(), Far(), Anything()),
        discount=DISCOUNT,
        beam_width=beam_width,
        n_expand=n_expand,
        horizon=horizon,
        policy=Homeward(),
    )
    plan = search.plan(model, history, LikelihoodScore(), noise)
    draws = torch.stack([noise.uniform(dim, beams=count) for dim in range(SIZE)], -1)
    for row in range(ROWS):
        firsts = [2 * draw.float() - 1 for draw in draws[row]]
        firsts[0] = Homeward().propose(observation[row : row + 1], draws)[0]
        found = [plan_by_hand(observation[row], first, horizon) for first in firsts]
        total, actions = max(found, key=lambda each: each[0])
        assert float(plan.value[row]) == pytest.approx(total, abs=1e-4)
        assert plan.actions[row].numpy() == pytest.approx(torch.stack(actions).numpy(), abs=1e-5)
