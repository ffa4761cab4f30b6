"""Objectives composed when acting: what their scores count, what the sampled futures are, and what is refused."""

from __future__ import annotations

import itertools
from collections.abc import Iterator
from dataclasses import replace
from typing import Any

import numpy as np
import pytest
import torch
from torch import Tensor

from seqrl.acting.policy import Policy
from seqrl.acting.strategy import Strategy
from seqrl.decoding.evidence import find_goal_evidence
from seqrl.decoding.noise import Noise, draw
from seqrl.errors import ConfigError
from seqrl.layout import Layout
from seqrl.models.token import TokenModel
from seqrl.planners.rollouts import RolloutsPlanner
from seqrl.registry import SCORE
from seqrl.scores import Score, Trace
from seqrl.scores.arrival import ArrivalScore
from seqrl.scores.avoid import AvoidScore
from seqrl.scores.evidence import EvidenceScore
from seqrl.scores.likelihood import LikelihoodScore
from seqrl.testing import samples
from seqrl.types import TokenHistory


def path_trace(path: Tensor, target: Tensor | None = None, over: Tensor | None = None) -> Trace:
    """A trace whose states are those of (..., h + 1, 2) paths."""
    zeros = torch.zeros((*path.shape[:-2], path.shape[-2] - 1))
    goal = None if target is None else target.expand(*path.shape[:-2], 2)
    return Trace(
        zeros,
        zeros,
        None,
        None,
        observations=path[..., :-1, :],
        actions=path[..., :-1, :],
        next_observation=path[..., -1, :],
        target=goal,
        over=over,
    )


def goal_model(dropout: float = 0.5) -> TokenModel:
    config = {
        "fields": {"observation": {}, "action": {}},
        "goal": {"dims": [0, 1], "dropout": dropout},
        "discount": 0.9,
    }
    return samples.model(Layout.from_config(config, samples.OBSERVATION_SIZE, samples.ACTION_SIZE), window=4)


def history_of(model: TokenModel, target: Tensor) -> TokenHistory:
    """No past, a present observation, and the null goal in the sequence."""
    past = torch.zeros(len(target), 0, model.layout.size)
    present = torch.randn(len(target), model.layout.size, generator=torch.Generator().manual_seed(5))
    strategy = Strategy(RolloutsPlanner(), Strategy.build(model.layout, planner={"name": "zero"}).condition, Goals())
    made = model.history(past, present, strategy.conditioning(model, target, len(target)))
    assert isinstance(made, TokenHistory)
    return made


class Goals(Score):
    """Nothing but a wish for goals."""

    wants_goals = True

    def check(self, layout: Layout) -> None:
        """Fits all."""

    def __call__(self, trace: Trace) -> Tensor:
        assert trace.target is not None
        return trace.log_probs.sum(-1) * 0


def test_a_way_counts_as_inside_a_region_where_its_lines_cut_it() -> None:
    """Against points a thousandth of each line apart; lines that only graze a corner are left out."""
    generator = torch.Generator().manual_seed(0)
    path = 4 * torch.rand(200, 6, 2, generator=generator) - 2
    path[::7, 2] = path[::7, 1]  # some stand still
    path[1::7, 3, 0] = path[1::7, 2, 0]  # some move along an axis
    regions = ((-0.5, -1.0, 0.25, 0.5), (0.75, 0.75, 1.5, 1.0))
    score = AvoidScore(regions=regions, margin=0.1, cost=1.0)
    shares = torch.linspace(0, 1, 1001)[:, None]
    for row, found in zip(path, score(path_trace(path)), strict=True):
        least, most = 0, 0
        for start, end in itertools.pairwise(row):
            points = start + shares * (end - start)
            inside = [
                any(
                    bool(
                        (
                            (points[:, 0] > low_x - 0.1 + slack)
                            & (points[:, 1] > low_y - 0.1 + slack)
                            & (points[:, 0] < high_x + 0.1 - slack)
                            & (points[:, 1] < high_y + 0.1 - slack)
                        ).any()
                    )
                    for low_x, low_y, high_x, high_y in regions
                )
                for slack in (0.01, -0.01)
            ]
            least, most = least + inside[0], most + inside[1]
        assert least <= -float(found) <= most


def test_what_follows_an_arrival_or_an_end_is_not_avoided() -> None:
    along = torch.tensor([[0.0, 0.0], [1.0, 0.0], [2.0, 0.0], [3.0, 0.0], [4.0, 0.0]])
    score = AvoidScore(regions=((2.9, -1.0, 3.1, 1.0),), cost=1.0, until_goal=0.2)
    assert float(score(path_trace(along, torch.tensor([9.0, 9.0])))) == -2.0  # both lines that meet there
    assert float(score(path_trace(along, torch.tensor([2.1, 0.0])))) == 0.0
    assert float(score(path_trace(along, torch.tensor([3.9, 0.0])))) == -2.0
    over = torch.tensor([False, False, False, True, True])
    assert float(AvoidScore(regions=((2.9, -1.0, 3.1, 1.0),), cost=1.0)(path_trace(along, over=over))) == 0.0


def test_the_first_state_is_a_fact_but_the_way_out_of_a_region_counts() -> None:
    out = torch.tensor([[0.0, 0.0], [2.0, 0.0], [4.0, 0.0]])
    assert float(AvoidScore(regions=((-1.0, -1.0, 1.0, 1.0),), cost=3.0)(path_trace(out))) == -3.0


def test_an_arrival_counts_the_sooner_the_more() -> None:
    along = torch.arange(5.0)[:, None] * torch.tensor([1.0, 0.0])
    score = ArrivalScore(radius=0.25, reward=100.0, cost=3.0)
    for step in range(5):
        assert float(score(path_trace(along, along[step]))) == 100.0 - 3.0 * step
    assert float(score(path_trace(along, torch.tensor([9.0, 0.0])))) == 0.0
    ended = torch.tensor([False, True, True, True, True])
    assert float(score(path_trace(along, along[3], ended))) == 0.0


def test_a_sum_adds_its_terms_and_takes_over_their_wishes() -> None:
    terms = {
        "near": {"name": "arrival", "weight": 0.5},
        "far": {"name": "avoid", "regions": [[1.5, -1.0, 2.5, 1.0]], "cost": 4.0},
        "likely": {"name": "likelihood", "weight": -2},
        "gone": None,
    }
    score = SCORE.build({"name": "sum", "terms": terms}, discount=0.9, critic=None)
    along = torch.arange(5.0)[:, None] * torch.tensor([1.0, 0.0])
    trace = replace(path_trace(along, along[4]), action_log_probs=torch.full((4,), -1.5))
    assert float(score(trace)) == 0.5 * 960.0 - 2 * 4.0 + 2 * 6.0
    assert score.wants_transitions
    assert score.wants_next_observation
    assert score.wants_goals
    assert score.evidence_steps == 0
    assert bool(score.find_lost(trace))
    likely = SCORE.build({"name": "sum", "terms": {"a": {"name": "likelihood"}}}, discount=0.9, critic=None)
    assert likely.find_lost(trace) is None
    assert not likely.wants_goals


@pytest.mark.parametrize(
    ("terms", "message"),
    [
        ({}, "has no terms"),
        ({"a": None}, "has no terms"),
        ({"a": {"name": "sum", "terms": {}}}, "is a sum itself"),
        ({"a": {"name": "likelihod"}}, "likelihood"),
        ({"a": {"name": "likelihood", "weight": "much"}}, "score.terms.a.weight"),
        ({"a": {"name": "likelihood", "weight": float("nan")}}, "score.terms.a.weight"),
        ({"a": {"name": "avoid", "regions": [[1, 1, 0, 2]]}}, "lower corner"),
        ({"a": {"name": "avoid", "dims": [0, 7]}}, "dims"),
        ({"a": {"name": "arrival", "dims": [1, 2]}}, "layout.goal.dims"),
    ],
)
def test_terms_that_make_no_sum_are_refused(terms: dict[str, Any], message: str) -> None:
    with pytest.raises(ConfigError, match=message):
        SCORE.build({"name": "sum", "terms": terms}, discount=0.9, critic=None).check(goal_model().layout)


@pytest.mark.parametrize("steps", [1, 3, 4, 6, 8, 20])
def test_evidence_is_what_the_model_says_with_and_without_the_goal(steps: int) -> None:
    """Window by window, token by token, one row at a time."""
    model = goal_model()
    generator = torch.Generator().manual_seed(3)
    tokens = torch.randint(model.termination_token, (3, 7, model.tokens_per_step), generator=generator)
    goals = torch.randn(3, 2, generator=generator)
    encoded = model.encode_goals(goals, 3)
    null = model.encode_goals(None, 1)
    assert encoded is not None
    assert null is not None
    found = find_goal_evidence(model, tokens, encoded, steps=steps)
    wanted = min(steps, 7)
    assert found.shape == (3, wanted)
    action = model.places("action")
    for row in range(3):
        for back in range(1, wanted + 1):
            step = 7 - back
            # Windows of 4 end with the last transition: 3 to 6, and before it what is left, 0 to 2.
            first = 3 if step >= 3 else (0 if wanted > 4 else step)
            window = tokens[row, first : min(first + 4, 7 if first else 3)][None]
            at = (step - first) * model.tokens_per_step
            evidence = 0.0
            for place in range(action.start, action.stop):
                token = tokens[row, step, place]
                for goal, sign in ((encoded[row : row + 1], 1), (null, -1)):
                    logits = model(window, goal)[0, at + place - 1].detach()
                    evidence += sign * float(logits.log_softmax(-1)[token])
            assert float(found[row, -back]) == pytest.approx(evidence, abs=1e-9)


def futures(model: TokenModel, history: TokenHistory, noise: Noise, count: int, horizon: int) -> Iterator[Tensor]:
    """(H + 1, K) tokens of every candidate of the first row, each decoded alone and nothing kept."""
    known = history.tokens[:1, -model.places("observation").stop :]
    null = model.encode_goals(None, 1)
    steps = model.tokens_per_step
    for candidate in range(count):
        sequence = known.clone()
        while sequence.shape[1] < horizon * steps + known.shape[1]:
            first = max(0, sequence.shape[1] // steps - (model.context - 1)) * steps
            window = torch.nn.functional.pad(sequence[:, first:], (0, -sequence.shape[1] % steps))
            seen = sequence.shape[1] - first
            if not seen % steps:  # the next token opens a transition of its own
                window = torch.nn.functional.pad(window, (0, steps))
            logits = model(window.unflatten(1, (-1, steps)), null)[:, seen - 1]
            uniform = noise.uniform(sequence.shape[1], beams=count)[:1, candidate]
            sequence = torch.cat([sequence, draw(logits, uniform)[:, None]], 1)
        yield torch.nn.functional.pad(sequence[0], (0, -sequence.shape[1] % steps)).unflatten(0, (-1, steps))


def test_the_futures_are_samples_of_the_model_and_the_best_of_them_is_taken() -> None:
    """Against candidates decoded one by one; the model samples observations as well as actions."""
    model = goal_model()
    history = history_of(model, torch.tensor([[0.3, -0.2]]))
    noise = Noise.of(7, torch.arange(1), 0)
    horizon, count = 3, 6
    score = SCORE.build({"name": "sum", "terms": {"a": {"name": "evidence", "steps": 2}}}, discount=0.9, critic=None)
    plan = RolloutsPlanner(candidates=count, horizon=horizon, k_obs=None).plan(model, history, score, noise)
    goal = model.encode_goals(history.target, 1)
    assert goal is not None
    assert plan.tokens is not None
    candidates = list(futures(model, history, noise, count, horizon - 1))
    evidence = []
    for each in candidates:
        whole = each.clone()
        # The last transition has no next observation here, but its action.
        for place in range(model.places("action").start, model.places("action").stop):
            logits = model(whole[None], model.encode_goals(None, 1))[
                0, (horizon - 1) * model.tokens_per_step + place - 1
            ]
            number = (horizon - 1) * model.tokens_per_step + place
            index = len(evidence)
            whole[-1, place] = draw(logits[None], noise.uniform(number, beams=count)[:1, index])[0]
        candidates[len(evidence)] = whole
        evidence.append(float(find_goal_evidence(model, whole[None], goal, steps=2).sum()))
    best = int(np.argmax(evidence))
    assert float(plan.value[0]) == pytest.approx(evidence[best], abs=1e-9)
    assert torch.equal(plan.tokens[0], candidates[best])


class LosesAll(Score):
    """Whoever's first imagined observation is positive in its first dimension is lost."""

    wants_transitions = True
    wants_next_observation = True

    def check(self, layout: Layout) -> None:
        """Fits all."""

    def __call__(self, trace: Trace) -> Tensor:
        lost = self.find_lost(trace)
        assert lost is not None
        return -lost.double()

    def find_lost(self, trace: Trace) -> Tensor | None:
        assert trace.observations is not None
        assert trace.next_observation is not None
        states = torch.cat([trace.observations, trace.next_observation[..., None, :]], -2)
        return (states[..., 1:, 0] > 0).any(-1)


def test_lost_candidates_make_room_for_others() -> None:
    """Of few candidates nearly all would be lost after some steps; replaced, one of them is found that is not."""
    model = goal_model()
    target = torch.zeros(8, 2)
    history, noise = history_of(model, target), Noise.of(3, torch.arange(8), 0)

    class Tells(LosesAll):
        def find_lost(self, trace: Trace) -> Tensor | None:
            return None if self.silent else super().find_lost(trace)

        silent = True

        def __call__(self, trace: Trace) -> Tensor:
            lost = super().find_lost(trace)
            assert lost is not None
            return -lost.double()

    blind = RolloutsPlanner(candidates=8, horizon=8, k_obs=None).plan(model, history, Tells(), noise).value
    aware = RolloutsPlanner(candidates=8, horizon=8, k_obs=None).plan(model, history, LosesAll(), noise).value
    assert float(aware.mean()) > float(blind.mean())


@pytest.mark.parametrize(
    ("model", "score", "message"),
    [
        (goal_model(dropout=0.0), EvidenceScore(), "layout.goal.dropout"),
        (samples.model(samples.layout()), EvidenceScore(), "layout.goal.dropout"),
        (samples.model(samples.layout()), ArrivalScore(), "layout.goal.dims"),
        (samples.model(samples.layout(with_return=True)), LikelihoodScore(), "begins with 'return'"),
    ],
)
def test_models_that_cannot_tell_are_refused(model: TokenModel, score: Score, message: str) -> None:
    with pytest.raises(ConfigError, match=message):
        RolloutsPlanner().check(model, score)


def test_a_policy_gives_goals_to_scores_and_asks_for_them() -> None:
    model = goal_model()
    policy = Policy(
        model,
        planner={"name": "rollouts", "candidates": 4, "horizon": 2},
        score={"name": "sum", "terms": {"there": {"name": "arrival"}}},
    )
    with pytest.raises(ConfigError, match="the score looks at a goal"):
        policy.reset(2)
    policy.reset(2, goals=np.zeros((2, 2)))
    observations = np.zeros((2, samples.OBSERVATION_SIZE), np.float32)
    policy.act(observations)
    assert policy.plan is not None
    assert (policy.plan.value == 1000.0).all()
    policy.reset(2, goals=np.full((2, 2), 99.0))
    policy.act(observations)
    assert policy.plan is not None
    assert (policy.plan.value == 0.0).all()
