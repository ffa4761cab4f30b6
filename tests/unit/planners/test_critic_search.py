"""Searching with a critic: what is added up, what a search shows to scores, and what is refused."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace
from typing import Any

import numpy as np
import pytest
import torch
from torch import Tensor

from seqrl.acting.policy import Policy
from seqrl.critics import Critic, Transitions
from seqrl.decoding.noise import Noise
from seqrl.errors import ConfigError
from seqrl.models.token import TokenModel
from seqrl.planners.actor import ActorPlanner
from seqrl.planners.beam import BeamPlanner
from seqrl.registry import SCORE
from seqrl.scores import Score, Trace
from seqrl.scores.critic import CriticScore
from seqrl.testing import samples


class LinearCritic(Critic):
    """Q is the sum of observation and action, V twice that of the observation."""

    def __init__(self, reward_shift: float = 0.0) -> None:
        super().__init__(samples.OBSERVATION_SIZE, samples.ACTION_SIZE, reward_shift=reward_shift)

    def q(self, observations: Tensor, actions: Tensor) -> Tensor:
        return observations.sum(-1) + actions.sum(-1)

    def v(self, observations: Tensor) -> Tensor:
        return 2 * observations.sum(-1)

    def act(self, observations: Tensor) -> Tensor:
        return observations[..., :2] / 10

    def loss(self, batch: Transitions) -> dict[str, Tensor]:
        return {"loss": batch.rewards.mean()}


def trace(depth: int = 3) -> Trace:
    generator = torch.Generator().manual_seed(0)
    size, actions = samples.OBSERVATION_SIZE, samples.ACTION_SIZE
    zeros = torch.zeros(2, 4, depth, dtype=torch.float64)
    return Trace(
        zeros,
        zeros,
        torch.randn(2, 4, depth, dtype=torch.float64, generator=generator),
        zeros,
        observations=torch.randn(2, 4, depth, size, generator=generator),
        actions=torch.randn(2, 4, depth, actions, generator=generator),
        next_observation=torch.randn(2, 4, size, generator=generator),
    )


def test_nothing_past_an_imagined_end_counts() -> None:
    """An episode that is over before a transition neither earns in it, shift included, nor has a state to value."""
    gamma, shift, depth = 0.9, -1.0, 3
    whole = trace(depth)
    assert whole.rewards is not None
    for end in range(1, depth + 1):
        over = (torch.arange(depth + 1) >= end).expand(2, 4, -1)
        earned = ((whole.rewards + shift) * gamma ** torch.arange(depth))[..., :end].sum(-1)
        v = CriticScore(gamma, LinearCritic(shift), use="v")(replace(whole, over=over))
        torch.testing.assert_close(v, earned, check_dtype=False)
        q = CriticScore(gamma, LinearCritic(shift), use="q")
        if end < depth:  # the last action is past the end
            torch.testing.assert_close(q(replace(whole, over=over)), earned, check_dtype=False)
        else:
            torch.testing.assert_close(q(replace(whole, over=over)), q(whole))


@pytest.mark.parametrize("depth", [1, 3])
@pytest.mark.parametrize("shift", [0.0, -1.0])
def test_rewards_are_added_up_to_where_the_critic_takes_over(depth: int, shift: float) -> None:
    """Never the reward and the Q of one step; a shift of the rewards is in both."""
    imagined, gamma = trace(depth), 0.9
    assert imagined.rewards is not None
    assert imagined.observations is not None
    assert imagined.actions is not None
    assert imagined.next_observation is not None
    q, v = (CriticScore(gamma, LinearCritic(shift), use=use)(imagined) for use in ("q", "v"))
    for row in range(2):
        for beam in range(4):
            rewards = [float(r) + shift for r in imagined.rewards[row, beam]]
            last = float(imagined.observations[row, beam, -1].sum() + imagined.actions[row, beam, -1].sum())
            expected = sum(gamma**k * r for k, r in enumerate(rewards[:-1])) + gamma ** (depth - 1) * last
            assert float(q[row, beam]) == pytest.approx(expected, abs=1e-5)
            following = 2 * float(imagined.next_observation[row, beam].sum())
            expected = sum(gamma**k * r for k, r in enumerate(rewards)) + gamma**depth * following
            assert float(v[row, beam]) == pytest.approx(expected, abs=1e-5)


class Watching(Score):
    """Likelihood of the actions, and keeps the traces."""

    wants_transitions = True

    def __init__(self, *, following: bool) -> None:
        self.wants_next_observation = following
        self.traces: list[Trace] = []

    def check(self, layout: Any) -> None:
        """Fits everything."""

    def __call__(self, trace: Trace) -> Tensor:
        self.traces.append(trace)
        return trace.action_log_probs.sum(-1)


def planned(model: TokenModel, score: Score, **options: Any) -> Any:
    planner = BeamPlanner(beam_width=3, n_expand=2, **options)
    with torch.no_grad():
        return planner.plan(model, samples.history(model, [2, 0]), score, Noise.of(5, torch.arange(2), time=0))


def test_a_search_shows_what_it_imagines() -> None:
    """Through every selection: the winner's observations and actions are those of its tokens."""
    model = samples.model(samples.layout())
    score = Watching(following=False)
    plan = planned(model, score, horizon=3)
    values = model.tokenizer.decode(plan.tokens)
    last = score.traces[-1]
    assert last.observations is not None
    assert last.actions is not None
    assert [t.actions.shape[2] for t in score.traces if t.actions is not None] == [1, 2, 3]
    winner = last.action_log_probs.sum(-1).argmax(1)
    rows = torch.arange(2)
    assert torch.equal(last.observations[rows, winner], values[..., model.layout.field("observation").slice])
    assert torch.equal(last.actions[rows, winner], plan.actions)
    assert last.next_observation is None


def test_the_next_observation_is_the_one_that_the_search_goes_on_with() -> None:
    """Decoding it before the selection changes neither the plan nor what is seen a step later (greedily decoded)."""
    model = samples.model(samples.layout())
    early, late = Watching(following=True), Watching(following=False)
    first, second = planned(model, early, horizon=3), planned(model, late, horizon=3)
    assert torch.equal(first.tokens, second.tokens)
    assert torch.allclose(first.value, second.value)
    step, after = early.traces[0], early.traces[1]
    assert step.next_observation is not None
    assert after.observations is not None
    parents = step.action_log_probs.sum(-1).sort(dim=1, descending=True, stable=True).indices[:, :3]
    seen = step.next_observation.gather(1, parents[..., None].expand(-1, -1, samples.OBSERVATION_SIZE))
    assert torch.equal(after.observations[:, :, 1], seen.repeat_interleave(2, 1))


@pytest.mark.parametrize("following", [False, True])
@pytest.mark.parametrize("end", [0, 1, 2])
def test_an_imagined_end_is_shown(monkeypatch: pytest.MonkeyPatch, following: bool, end: int) -> None:
    """From the first later observation on that is a termination token; tokens of other fields end nothing."""
    model = samples.model(samples.layout())
    predict, observed, reached = model.next_logits, range(samples.OBSERVATION_SIZE), {"transition": 0}

    def ending(features: Tensor, place: int) -> Tensor:
        logits = predict(features, place)
        reached["transition"] += place == 0
        logits[..., -1] = 1e3 if place not in observed or reached["transition"] > end else -1e3
        return logits

    monkeypatch.setattr(model, "next_logits", ending)
    score = Watching(following=following)
    planned(model, score, horizon=3)
    for depth, shown in enumerate(score.traces, start=1):
        assert shown.over is not None
        expected = torch.arange(depth + 1) > end
        if not following:
            assert torch.equal(shown.over[..., :-1], expected[:-1].expand(2, 6, depth))
        else:
            assert torch.equal(shown.over, expected.expand(2, 6, depth + 1))


def test_horizon_one_is_the_best_sample_by_q() -> None:
    model, critic = samples.model(samples.layout()), LinearCritic()
    watching = Watching(following=False)
    planned(model, watching, horizon=1)  # the same noise, and so the same candidates
    candidates = watching.traces[0]
    assert candidates.observations is not None
    assert candidates.actions is not None
    assert candidates.actions.shape[:3] == (2, 6, 1)
    q = critic.q(candidates.observations[:, :, 0], candidates.actions[:, :, 0])
    plan = planned(model, CriticScore(0.9, critic), horizon=1)
    assert torch.allclose(plan.value, q.max(1).values.to(plan.value))
    assert torch.equal(plan.actions[:, 0], candidates.actions[torch.arange(2), q.argmax(1), 0])


def test_the_actor_looks_at_the_observation_or_at_its_tokens() -> None:
    model, planner = samples.model(samples.layout()), ActorPlanner(LinearCritic())
    history, noise = samples.history(model, [2, 0]), Noise.of(5, torch.arange(2), time=0)
    plan = planner.plan(model, history, CriticScore(0.9), noise)
    padded = torch.nn.functional.pad(history.tokens[:, -3:], (0, model.tokens_per_step - 3))
    assert torch.equal(plan.actions[:, 0], model.tokenizer.decode(padded)[:, :2] / 10)


STRATEGIES: dict[str, dict[str, Any]] = {
    "score=critic": {"planner": {"name": "beam", "horizon": 2, "context": 3}, "score": {"name": "critic"}},
    "planner=actor": {"planner": {"name": "actor"}},
}


@pytest.mark.parametrize("strategy", STRATEGIES)
def test_without_a_critic_the_override_that_trains_one_is_named(strategy: str) -> None:
    with pytest.raises(ConfigError, match=f"{strategy} needs a critic and the run has none; train with critic=iql"):
        Policy(samples.model(samples.layout()), **STRATEGIES[strategy])


@pytest.mark.parametrize("strategy", STRATEGIES)
def test_a_policy_with_a_critic_acts_within_the_data(strategy: str) -> None:
    policy = Policy(samples.model(samples.layout()), **STRATEGIES[strategy], critic=samples.critic())
    policy.reset(3)
    observations = np.random.default_rng(0).normal(size=(3, samples.OBSERVATION_SIZE))
    for rewards in (None, np.zeros(3)):
        assert np.abs(policy.act(observations, rewards)).max() <= 1.0


def test_a_termination_penalty_is_refused(plain_layout_config: Callable[..., dict[str, Any]]) -> None:
    from seqrl.layout import Layout

    layout = Layout.from_config(plain_layout_config(termination_penalty=-100.0), 3, 2)
    with pytest.raises(ConfigError, match=r"the layout's is -100.0; train with layout.termination_penalty=null"):
        CriticScore(0.9, LinearCritic()).check(layout)
    with pytest.raises(ConfigError, match=r"train with '\+layout.fields.reward={}'"):
        CriticScore(0.9, LinearCritic()).check(samples.layout(without=["reward"]))


def test_an_unknown_use_and_a_planner_that_shows_nothing_are_told() -> None:
    with pytest.raises(ConfigError, match=r"score.use='w' is unknown\. Choices: q or v"):
        SCORE.check({"name": "critic", "use": "w"})
    shown = trace()
    with pytest.raises(ConfigError, match="use=v looks at imagined states that this planner does not show"):
        CriticScore(0.9, LinearCritic(), use="v")(
            Trace(shown.action_log_probs, shown.log_probs, shown.rewards, None, shown.observations, shown.actions)
        )
