"""Rollouts of a critic's own policy: what each candidate begins with, and who acts after that."""

from __future__ import annotations

from typing import Any

import pytest
import torch
from tests.unit.planners.scripted import ROWS, Follower, Recording, observed, rounded
from torch import Tensor

from seqrl.acting.policy import Policy
from seqrl.decoding.noise import Noise
from seqrl.errors import ConfigError
from seqrl.layout import Layout
from seqrl.models.token import TokenModel
from seqrl.planners._outside import distance_outside
from seqrl.planners.rollouts import RolloutsPlanner
from seqrl.scores import Trace
from seqrl.testing import samples
from seqrl.testing.contract import Component, Contract
from seqrl.testing.planners import CONTRACTS
from seqrl.types import TokenHistory

CANDIDATES, HORIZON = 8, 4
FIELDS = {"observation": {}, "action": {}, "reward": {}, "value": {"hidden": True}}


def prefer_small_first_actions(trace: Trace) -> Tensor:
    assert trace.actions is not None
    return -trace.actions[..., 0, 0]


def imagined(chunk: int = 1, **options: Any) -> tuple[Trace, Any, TokenHistory, Any]:
    """The one trace of a plan, the plan, the history and the model."""
    section = {"fields": FIELDS, "discount": 0.9, "stride": chunk, "chunk": chunk}
    model = samples.model(Layout.from_config(section, samples.OBSERVATION_SIZE, samples.ACTION_SIZE))
    history = observed(model)
    given = {"candidates": CANDIDATES, "horizon": HORIZON, "critic": Follower(chunk=chunk).double(), **options}
    planner, score = RolloutsPlanner(**given), Recording(prefer_small_first_actions)
    planner.check(model, score)
    plan = planner.plan(model, history, score, Noise.of(5, torch.arange(ROWS), time=0))
    assert len(score.traces) == 1, "nothing is ranked on the way"
    return score.traces[0], plan, history, model


@pytest.mark.parametrize("chunk", [1, 2])
@pytest.mark.parametrize("share", [0.0, 0.5, 1.0])
def test_the_policy_is_followed_from_the_second_transition_on(chunk: int, share: float) -> None:
    trace, _, history, model = imagined(chunk, actor_share=share, actor_noise=0.4, follow="actor")
    assert trace.actions is not None
    assert trace.observations is not None
    wanted = rounded(model, Follower(chunk=chunk).act(trace.observations))
    assert trace.actions[:, :, 1:].numpy() == pytest.approx(wanted[:, :, 1:].numpy())
    assert history.observation is not None
    exact = rounded(model, Follower(chunk=chunk).act(history.observation))[:, None]
    same = (trace.actions[:, :, 0] - exact).abs().amax(-1) < 1e-9
    first = {0.0: None, 0.5: 1, 1.0: 0}[share]  # of the candidates that the policy proposes
    assert first is None or bool(same[:, first].all())
    assert same.float().mean() < 0.5


def test_without_following_only_first_actions_are_the_policys() -> None:
    trace, _, history, model = imagined(actor_share=1.0, actor_noise=0.0)
    assert trace.actions is not None
    assert trace.observations is not None
    assert history.observation is not None
    exact = rounded(model, Follower().act(history.observation))[:, None].expand_as(trace.actions[:, :, 0])
    assert trace.actions[:, :, 0].numpy() == pytest.approx(exact.numpy())
    followed = rounded(model, Follower().act(trace.observations))
    assert (trace.actions - followed)[:, :, 1:].abs().amax(-1).gt(1e-6).float().mean() > 0.5


def test_noise_is_the_same_for_all_actions_of_a_chunk() -> None:
    trace, plan, history, _ = imagined(3, actor_share=1.0, actor_noise=0.2, candidates=64)
    assert trace.actions is not None
    assert history.observation is not None
    exact = Follower(chunk=3).act(history.observation)[:, None]
    away = (trace.actions[:, :, 0] - exact).unflatten(-1, (3, samples.ACTION_SIZE))
    inside = (trace.actions[:, :, 0].abs() < 0.8).unflatten(-1, (3, samples.ACTION_SIZE)).all(2)  # nothing was cut off
    spread = (away.amax(2) - away.amin(2))[inside]
    assert inside.sum() > 10
    assert spread.max() < 0.35, "up to the width of a bin"
    assert away[:, 1:].std() > 0.1
    assert plan.actions[:, 0, 0].tolist() == pytest.approx(trace.actions[:, :, 0, 0].amin(1).tolist())


@pytest.mark.parametrize("margin", [0.0, 0.05, 0.2, 10.0])
def test_another_plan_must_promise_more_than_the_policys_own(margin: float) -> None:
    """The score is minus the first number of the action."""
    trace, plan, _, _ = imagined(actor_share=1.0, actor_noise=0.3, actor_margin=margin)
    assert trace.actions is not None
    first = trace.actions[:, :, 0, 0]
    own, least = first[:, 0], first.amin(1)
    wanted = torch.where(least < own - margin, least, own)
    assert plan.actions[:, 0, 0].tolist() == pytest.approx(wanted.tolist())
    assert plan.value.tolist() == pytest.approx((-wanted).tolist())


class Onward(Recording):
    wants_next_observation = True


class Losing(Onward):
    """Gives plans up whose first action is large."""

    def find_lost(self, trace: Trace) -> Tensor:
        assert trace.actions is not None
        return trace.actions[..., 0, 0] > 0.2


def choose(model: TokenModel, score: Onward, outside_cost: float, **options: Any) -> tuple[Tensor, Tensor, Trace]:
    """(B, h, K) tokens of the plan that is taken, its (B,) value, and the trace of the whole plans."""
    history = observed(model)
    planner = RolloutsPlanner(candidates=32, horizon=3, k_obs=None, outside_cost=outside_cost, **options)
    planner.check(model, score)
    plan = planner.plan(model, history, score, Noise.of(5, torch.arange(ROWS), time=0))
    assert plan.tokens is not None
    return plan.tokens, plan.value, score.traces[-1]


def distances_outside(trace: Trace) -> Tensor:
    """(B, C) in widths of the range that the observations of the samples have, over dimensions and transitions; those
    that end the episode, or come later, do not count."""
    assert trace.observations is not None
    assert trace.next_observation is not None
    assert trace.over is not None
    data = torch.from_numpy(samples.store().observations).double()
    low, high = data.amin(0), data.amax(0)
    found = torch.zeros(trace.log_probs.shape[:2], dtype=torch.float64)
    for depth in range(3):
        states = trace.observations[:, :, depth + 1] if depth < 2 else trace.next_observation
        for dim in range(samples.OBSERVATION_SIZE):
            below, above = low[dim] - states[..., dim], states[..., dim] - high[dim]
            beyond = (below.clamp(min=0) + above.clamp(min=0)) / (high[dim] - low[dim])
            found += torch.where(trace.over[..., depth + 1], 0.0, beyond)
    return found


@pytest.mark.parametrize(("kind", "margin"), [(Onward, None), (Losing, None), (Onward, 0.0), (Onward, 0.3)])
@pytest.mark.parametrize("cost", [0.0, 0.3, 5.0])
def test_leaving_the_data_costs_so_much_for_each_width(cost: float, margin: float | None, kind: type[Onward]) -> None:
    """The score is minus the first number of the action; the margin is of the policy's own plan, None where the model
    proposes. Where plans are lost, others are put in their places."""
    model, score = samples.model(samples.layout(differences=True)), kind(prefer_small_first_actions)
    critic, noisy = Follower().double(), {"actor_share": 1.0, "actor_noise": 0.3}
    options = {} if margin is None else {"actor_margin": margin, "critic": critic, **noisy}
    tokens, value, trace = choose(model, score, cost, **options)
    outside, promised = distances_outside(trace), prefer_small_first_actions(trace)
    assert trace.over is not None
    assert (outside > 0).float().mean() > 0.2
    assert trace.over[..., 1:].float().mean() > 0.2, "plans end, and what follows must not cost"
    ranked = promised - cost * outside
    ranked[:, 0] += margin or 0.0
    best = ranked.argmax(1)
    every = torch.arange(ROWS)
    assert value.tolist() == pytest.approx(promised[every, best].tolist())
    assert trace.actions is not None
    taken = model.tokenizer.decode(tokens)[:, :, model.layout.field("action").slice]
    assert torch.equal(taken, trace.actions[every, best])
    if cost == 5.0 and margin is None:
        assert not torch.equal(best, promised.argmax(1))


def test_models_of_whole_states_imagine_nothing_outside_and_refuse_a_cost_of_it() -> None:
    model = samples.model(samples.layout())
    _, _, trace = choose(model, Onward(prefer_small_first_actions), 0.0)
    assert distances_outside(trace).max() == 0.0
    planner = {"name": "rollouts", "outside_cost": 10}
    with pytest.raises(
        ConfigError, match=r"planner\.outside_cost=10 .*use planner\.outside_cost=0, or train with layout"
    ):
        Policy(model, planner=planner, score={"name": "reward"})


def test_a_dimension_that_never_changes_has_no_outside() -> None:
    model = samples.model(samples.layout(differences=True))
    values = torch.zeros(2, model.layout.size)
    values[1, 1:] = 2.0
    model.tokenizer.fit(values)
    states = torch.zeros(3, samples.OBSERVATION_SIZE)
    states[0, 0], states[1, 1], states[2, 1] = 7.0, 3.0, -1.0
    assert distance_outside(model, states).tolist() == [0.0, 0.5, 0.5]


@pytest.mark.parametrize(
    ("tokenizer", "refused"),
    [
        ({"name": "uniform"}, False),
        ({"name": "quantile", "decode_to": "midpoints"}, False),
        ({"name": "quantile"}, True),
        ({"name": "kmeans"}, True),
    ],
)
def test_a_tokenizer_that_tells_no_range_is_refused(tokenizer: dict[str, Any], *, refused: bool) -> None:
    """The outer bins of quantiles decode to means, so that the data themselves lie beyond them."""
    backbone = {"name": "gpt", "num_layers": 1, "num_heads": 1, "dim": 4}
    model = TokenModel(samples.layout(differences=True), tokenizer, backbone, context=4)
    planner = RolloutsPlanner(outside_cost=2.0)
    if not refused:
        data = torch.randn(500, model.layout.size, generator=torch.Generator().manual_seed(0))
        model.tokenizer.fit(data)
        assert distance_outside(model, data[:, : samples.OBSERVATION_SIZE]).max() < 1e-6
        planner.check(model, Recording())
        return
    with pytest.raises(ConfigError, match=rf"outside_cost=2 needs .* the checkpoint's is {tokenizer['name']}; set it"):
        planner.check(model, Recording())


@pytest.mark.parametrize("contract", CONTRACTS, ids=lambda contract: contract.__name__)
def test_the_contracts_of_planners_hold_with_a_policy(contract: Contract) -> None:
    options = {"candidates": 4, "horizon": 3, "actor_share": 0.5, "follow": "actor"}
    contract(Component("planner", "rollouts", options))


def test_nothing_changes_without_a_policy() -> None:
    plain, without = imagined()[1], imagined(critic=None, actor_noise=5.0)[1]
    assert torch.equal(plain.tokens, without.tokens)


@pytest.mark.parametrize("option", [{"actor_share": 0.1}, {"follow": "actor"}, {"actor_share": 1.0, "follow": "actor"}])
def test_a_policy_that_is_not_there_is_refused(option: dict[str, Any]) -> None:
    planner = {"name": "rollouts", **option}
    with pytest.raises(ConfigError, match=r"planner\.(\w+)=\S+ lets a critic's policy .*critic=iql, or use .*\.\1="):
        Policy(samples.model(samples.layout()), planner=planner, score={"name": "reward"})
