"""Candidates of a critic's own policy in a beam search."""

from __future__ import annotations

from typing import Any

import pytest
import torch
from tests.unit.planners.scripted import ROWS, Follower, Recording, observed, rounded

from seqrl.acting.policy import Policy
from seqrl.decoding.noise import Noise
from seqrl.errors import ConfigError
from seqrl.planners._actor_proposals import ActorProposals
from seqrl.planners.beam import BeamPlanner
from seqrl.scores import Score
from seqrl.scores.critic import CriticScore
from seqrl.testing import samples
from seqrl.testing.contract import Component, Contract
from seqrl.testing.planners import CONTRACTS
from seqrl.types import TokenHistory


def planned(score: Score, **options: Any) -> tuple[Any, TokenHistory, Any]:
    model = samples.model(samples.layout())
    history = observed(model)
    planner = BeamPlanner(**{"context": None, "cdf_act": None, "critic": Follower().double(), **options})
    planner.check(model, score)
    return planner.plan(model, history, score, Noise.of(5, torch.arange(ROWS), time=0)), history, model


@pytest.mark.parametrize(("share", "count"), [(0.0, 0), (0.25, 2), (0.5, 4), (0.3, 2), (1.0, 8)])
def test_a_share_of_the_first_candidates_is_the_policys(share: float, count: int) -> None:
    score = Recording()
    _, history, model = planned(score, beam_width=4, n_expand=2, horizon=1, actor_share=share, actor_noise=0.0)
    assert history.observation is not None
    wanted = rounded(model, Follower().act(history.observation))
    actions = score.traces[0].actions
    assert actions is not None
    same = (actions[:, :, 0] - wanted[:, None]).abs().amax(-1) < 1e-9
    chosen = ActorProposals(Follower(), share, 0.0).chosen(8)
    assert chosen.sum() == count
    assert same[:, chosen].all()
    assert share == 1 or not same[:, ~chosen].all()


def test_each_beam_goes_on_with_the_policy_in_its_own_imagined_state() -> None:
    score = Recording()
    _, _, model = planned(score, beam_width=3, n_expand=2, horizon=3, actor_share=0.5, actor_noise=0.3)
    deepest = score.traces[-1]
    assert deepest.actions is not None
    assert deepest.observations is not None
    follows = rounded(model, Follower().act(deepest.observations[:, :, 2]))
    assert deepest.actions[:, 1::2, 2].numpy() == pytest.approx(follows[:, 1::2].numpy())
    assert (deepest.actions[:, ::2, 2] - follows[:, ::2]).abs().max() > 0.1


def test_noise_spares_one_proposal_and_stays_within_the_data() -> None:
    score = Recording()
    options = {"beam_width": 32, "n_expand": 2, "horizon": 1, "actor_share": 1.0}
    _, history, model = planned(score, **options, actor_noise=0.3)
    assert history.observation is not None
    assert score.traces[0].actions is not None
    actions, exact = score.traces[0].actions[:, :, 0], rounded(model, Follower().act(history.observation))
    assert actions[:, 0].numpy() == pytest.approx(exact.numpy())
    away = actions[:, 1:] - Follower().act(history.observation)[:, None]
    assert 0.15 < away.std() < 0.4
    assert actions.abs().max() <= 1.0
    again = Recording()
    planned(again, **options, actor_noise=0.3)
    assert again.traces[0].actions is not None
    assert torch.equal(actions, again.traces[0].actions[:, :, 0])


@pytest.mark.parametrize("sign", [1.0, -1.0])
def test_the_policy_is_carried_out_where_nothing_is_better(sign: float) -> None:
    """With H = 1 and candidates of the policy alone, noise decides by Q; without noise it is the policy."""
    critic = Follower(sign).double()
    score = CriticScore(0.9, critic)
    plan, history, model = planned(
        score, critic=critic, beam_width=4, n_expand=1, horizon=1, actor_share=1.0, actor_noise=0.0
    )
    assert history.observation is not None
    wanted = rounded(model, critic.act(history.observation))
    assert plan.actions[:, 0].numpy() == pytest.approx(wanted.numpy(), abs=1e-6)
    noisy, _, _ = planned(score, critic=critic, beam_width=16, n_expand=1, horizon=1, actor_share=1.0, actor_noise=0.5)
    assert (sign * (noisy.actions[:, 0, 0] - plan.actions[:, 0, 0]) >= 0).all()


@pytest.mark.parametrize("contract", CONTRACTS, ids=lambda contract: contract.__name__)
def test_the_contracts_of_planners_hold_with_proposals(contract: Contract) -> None:
    options = {"beam_width": 3, "n_expand": 2, "horizon": 3, "actor_share": 0.5}
    contract(Component("planner", "beam", options))


def test_nothing_changes_without_a_share() -> None:
    plain, _, _ = planned(Recording(), beam_width=4, n_expand=2, horizon=3)
    without, _, _ = planned(Recording(), beam_width=4, n_expand=2, horizon=3, critic=None, actor_noise=5.0)
    assert torch.equal(plain.tokens, without.tokens)


@pytest.mark.parametrize(
    "planner",
    [{"name": "beam", "beam_width": 4, "n_expand": 2, "context": None}, {"name": "rollouts", "candidates": 8}],
)
def test_a_share_of_less_than_one_candidate_is_refused(planner: dict[str, Any]) -> None:
    parts = {"score": {"name": "reward"}, "critic": samples.critic()}
    model = samples.model(samples.layout())
    Policy(model, planner={**planner, "actor_share": 0.125}, **parts)
    with pytest.raises(
        ConfigError, match=r"actor_share=0\.12 of 8 candidates is less than one; use 0, or at least 0\.125"
    ):
        Policy(model, planner={**planner, "actor_share": 0.12}, **parts)


@pytest.mark.parametrize("share", [0.1, 0.5, 1.0])
def test_a_share_without_a_critic_is_refused(share: float) -> None:
    planner = {"name": "beam", "context": None, "actor_share": share}
    with pytest.raises(ConfigError, match=f"planner.actor_share={share:g} lets a critic's policy .*critic=iql"):
        Policy(samples.model(samples.layout()), planner=planner, score={"name": "reward"})
