"""Tail means against samples, and what searches show of the model's beliefs."""

from __future__ import annotations

import pytest
import torch
from torch import Tensor

from seqrl.decoding.noise import Noise
from seqrl.layout import Layout
from seqrl.planners import Planner
from seqrl.planners.beam import BeamPlanner
from seqrl.planners.rollouts import RolloutsPlanner
from seqrl.scores import Distribution, Score, Trace
from seqrl.scores.cvar import ConditionalValueAtRiskScore
from seqrl.scores.reward import RewardScore
from seqrl.testing import samples


def test_tail_means_are_those_of_sorted_samples() -> None:
    """Of 1,000 values with whole counts, the worst share is a slice of the sorted list."""
    counts = torch.tensor([[100, 250, 50, 600], [1, 0, 998, 1]])
    values = torch.tensor([3.0, -1.0, 10.0, 0.5], dtype=torch.float64)
    beliefs = Distribution(counts / counts.sum(-1, keepdim=True).double(), values)
    for share in (0.001, 0.1, 0.25, 0.3, 0.9, 1.0):
        for row, found in zip(counts, beliefs.find_tail_mean(share), strict=True):
            ordered = values.repeat_interleave(row).sort().values
            assert float(found) == pytest.approx(float(ordered[: round(share * 1000)].mean()), abs=1e-9)
    assert torch.allclose(beliefs.find_tail_mean(1.0), beliefs.mean())


def test_a_sure_plan_passes_a_better_one_that_may_fail() -> None:
    """Two plans of one transition: 1 for sure, or 0 and 4 by even chances; the value is 0 either way."""
    values = torch.tensor([0.0, 1.0, 4.0])
    rewards = Distribution(torch.tensor([[[0.0, 1.0, 0.0]], [[0.5, 0.0, 0.5]]]), values)
    nothing = Distribution(torch.tensor([[[1.0, 0.0, 0.0]], [[1.0, 0.0, 0.0]]]), values)
    zeros = torch.zeros(2, 1)
    trace = Trace(
        zeros,
        zeros,
        rewards.mean(),
        nothing.mean(),
        reward_distributions=rewards,
        value_distributions=nothing,
    )
    assert RewardScore(0.9)(trace).argmax() == 1
    assert ConditionalValueAtRiskScore(0.9, share=0.5)(trace).argmax() == 0
    assert torch.allclose(ConditionalValueAtRiskScore(0.9, share=1.0)(trace), RewardScore(0.9)(trace))


class Watching(Score):
    """Keeps the traces that it ranks."""

    wants_distributions = True

    def __init__(self) -> None:
        self.seen: list[Trace] = []

    def check(self, layout: Layout) -> None:
        """Fits all."""

    def __call__(self, trace: Trace) -> Tensor:
        self.seen.append(trace)
        return trace.log_probs.sum(-1)


@pytest.mark.parametrize(
    "planner",
    [BeamPlanner(beam_width=3, n_expand=2, horizon=3), RolloutsPlanner(candidates=5, horizon=3)],
    ids=["beam", "rollouts"],
)
def test_distributions_follow_the_plans_that_they_belong_to(planner: Planner) -> None:
    """Their means are the expectations, which follow every selection by a way of their own."""
    model, score = samples.model(samples.layout()), Watching()
    planner.check_score(score)
    planner.plan(model, samples.history(model, [2, 0]), score, Noise(torch.tensor([1, 2])))
    last = score.seen[-1]
    assert last.rewards is not None
    assert last.values is not None
    assert last.rewards.shape[-1] == 3
    for beliefs, means in ((last.reward_distributions, last.rewards), (last.value_distributions, last.values)):
        assert beliefs is not None
        assert torch.allclose(beliefs.probabilities.sum(-1), torch.ones_like(means))
        assert torch.allclose(beliefs.mean(), means, atol=1e-6)
    plain = ConditionalValueAtRiskScore(0.9, share=1.0)(last)
    assert torch.allclose(plain, RewardScore(0.9)(last), atol=1e-5)
