"""Parts of a swapped search, each against its own definition."""

from __future__ import annotations

from statistics import NormalDist
from typing import Any

import numpy as np
import pytest
import torch
from torch import Tensor

from seqrl.data.episodes import EpisodeStore
from seqrl.errors import ConfigError
from seqrl.evaluation.maze_valuation import MazeValuation
from seqrl.evaluation.search_parts import (
    ActorCandidates,
    CriticValuation,
    DataCandidates,
    FieldValuation,
    ModelCandidates,
    ModelDynamics,
    RolloutValuation,
    SimulatorDynamics,
    UniformCandidates,
)
from seqrl.evaluation.simulators import simulator_of
from seqrl.evaluation.swapped_search import Candidates, Dynamics, Outcome
from seqrl.layout import Layout
from seqrl.models.token import TokenModel
from seqrl.testing import samples
from seqrl.worlds.maze import MAZES

ROWS = 5


def states() -> Tensor:
    return torch.randn(ROWS, samples.OBSERVATION_SIZE, generator=torch.Generator().manual_seed(4)).double()


def actions() -> Tensor:
    return torch.rand(ROWS, samples.ACTION_SIZE, generator=torch.Generator().manual_seed(5)).double() * 2 - 1


def outcome(rewards: Tensor, *, over: bool = False) -> Outcome:
    return Outcome(rewards, states() / 2, torch.full((ROWS,), over))


def scalars(model: TokenModel, rewards: Tensor | None = None) -> Tensor:
    """(R, K) tokens of the states, the actions and perhaps the rewards."""
    layout = model.layout
    values = torch.zeros(ROWS, layout.size, dtype=torch.float64)
    values[:, layout.field("observation").slice] = states()
    values[:, layout.field("action").slice] = actions()
    if rewards is not None:
        values[:, layout.field("reward").start] = rewards
    return model.tokenizer.encode(values)


def logits_after(model: TokenModel, tokens: Tensor, known: int) -> Tensor:
    """(R, V + 1) of the token at place `known`, from one whole pass over those before it."""
    padded = torch.zeros(ROWS, 2, model.tokens_per_step, dtype=torch.int64)
    padded[:, 0] = tokens
    with torch.no_grad():
        return model(padded)[:, known - 1]


def expectation(model: TokenModel, logits: Tensor, place: int) -> Tensor:
    return logits.softmax(-1)[:, :-1] @ model.tokenizer.bin_centres(place).to(logits)


def test_a_model_imagines_expected_rewards_and_likeliest_states() -> None:
    model = samples.model(samples.layout())
    found = ModelDynamics(model).advance(states(), actions())
    tokens, reward = scalars(model), model.places("reward").start
    logits = logits_after(model, tokens, reward)
    assert found.rewards.numpy() == pytest.approx(expectation(model, logits, reward).numpy())
    tokens[:, reward] = logits.argmax(-1)
    tokens[:, reward + 1] = logits_after(model, tokens, reward + 1).argmax(-1)
    padded = torch.zeros(ROWS, 2, model.tokens_per_step, dtype=torch.int64)
    padded[:, 0] = tokens
    for place in range(samples.OBSERVATION_SIZE):
        with torch.no_grad():
            padded[:, 1, place] = model(padded)[:, model.tokens_per_step + place - 1].argmax(-1)
    over = (padded[:, 1, : samples.OBSERVATION_SIZE] == model.termination_token).any(1)
    assert torch.equal(found.over, over)
    wanted = model.tokenizer.decode(padded[:, 1])[:, : samples.OBSERVATION_SIZE]
    assert found.observations[~over].numpy() == pytest.approx(wanted[~over].numpy())


@pytest.mark.parametrize("over", [False, True])
def test_the_value_field_is_read_behind_the_true_reward(over: bool) -> None:
    model = samples.model(samples.layout())
    rewards = torch.linspace(-1, 1, ROWS).double()
    rated = FieldValuation(model, 0.9).rate(states(), actions(), outcome(rewards, over=over))
    place = model.places("value").start
    value = expectation(model, logits_after(model, scalars(model, rewards), place), place)
    assert rated.numpy() == pytest.approx((rewards + 0.0 if over else rewards + 0.9 * value).numpy())


def test_a_critic_rates_by_q_or_by_v_of_what_follows() -> None:
    critic, rewards = samples.critic(), torch.linspace(-1, 1, ROWS).double()
    found = outcome(rewards)
    q = CriticValuation(critic, "q", 0.9).rate(states(), actions(), found)
    v = CriticValuation(critic, "v", 0.9).rate(states(), actions(), found)
    ended = CriticValuation(critic, "v", 0.9).rate(states(), actions(), outcome(rewards, over=True))
    assert torch.equal(q, critic.q(states(), actions()))
    assert torch.allclose(v, rewards + 0.9 * critic.v(found.observations))
    assert torch.equal(ended, rewards)


def test_candidates_are_drawn_from_where_they_say() -> None:
    model, critic = samples.model(samples.layout()), samples.critic()
    store = samples.store()
    draws = torch.rand(ROWS, 4, generator=torch.Generator().manual_seed(6)).double()
    recorded = {tuple(action) for action in store.actions.astype(np.float32)}
    assert all(
        tuple(row.numpy().astype(np.float32)) in recorded for row in DataCandidates(store).propose(states(), draws)
    )
    low, high = np.array([-2.0, 0.0]), np.array([-1.0, 3.0])
    drawn = UniformCandidates(low, high).propose(states(), draws[:, :2]).numpy()
    assert drawn == pytest.approx(low + draws[:, :2].numpy() * (high - low))
    assert torch.equal(ActorCandidates(critic).propose(states(), draws), critic.act(states()))
    greedy = ModelCandidates(model, temperature=0.0).propose(states(), draws)
    many = torch.stack([ModelCandidates(model).propose(states(), draws * share) for share in (0.0, 0.5, 1.0)])
    tokens = scalars(model)
    for place in range(samples.OBSERVATION_SIZE, samples.OBSERVATION_SIZE + samples.ACTION_SIZE):
        tokens[:, place] = logits_after(model, tokens, place).argmax(-1)
    wanted = model.tokenizer.decode(tokens)[:, model.layout.field("action").slice]
    assert greedy.numpy() == pytest.approx(wanted.numpy())
    assert len(many[:, 0].unique(dim=0)) > 1


def test_nearby_actions_of_the_data_come_from_nearby_states() -> None:
    episode = {"observations": np.arange(60.0)[:, None], "rewards": np.zeros(60), "terminated": False}
    store = EpisodeStore.from_episodes([{**episode, "actions": np.arange(60.0)[:, None]}])
    drawn = DataCandidates(store).propose(torch.full((50, 1), 30.0), torch.linspace(0, 0.999, 50)[:, None])
    assert drawn.min() >= 22
    assert drawn.max() <= 38
    assert len(drawn.unique()) == 16


@pytest.mark.parametrize(("noise", "chunk"), [(0.3, 1), (1.0, 1), (0.2, 2)])
def test_noise_around_the_policy_is_a_share_of_the_datas_range(noise: float, chunk: int) -> None:
    critic = samples.critic()
    size = len(critic.action_low)
    policy = critic.act(states()).detach()
    who = ActorCandidates(critic, noise, chunk)
    assert who.num_draws == size // chunk
    still = torch.full((ROWS, who.num_draws), 0.5).double()
    assert who.propose(states(), still).detach().numpy() == pytest.approx(policy.numpy())
    draws = torch.rand(ROWS, who.num_draws, generator=torch.Generator().manual_seed(8)).double()
    low, high = critic.action_low.double(), critic.action_high.double()
    for row, found in enumerate(who.propose(states(), draws)):
        for dim in range(size):
            normal = NormalDist().inv_cdf(draws[row, dim % who.num_draws].item())
            wanted = policy[row, dim] + noise * normal * (high - low)[dim] / 2
            assert found[dim].item() == pytest.approx(wanted.clamp(low[dim], high[dim]).item(), abs=1e-5)


class Doubling(Dynamics):
    """States double, and earn their first number; beyond 5 it is over."""

    def advance(self, observations: Tensor, actions: Tensor) -> Outcome:
        return Outcome(observations[:, 0] + actions[:, 0], 2 * observations, observations[:, 0] > 5)


class Ones(Candidates):
    num_draws = 0

    def propose(self, observations: Tensor, uniform: Tensor) -> Tensor:
        return torch.ones(len(observations), 1)


@pytest.mark.parametrize("transitions", [1, 3, 6])
def test_a_rollout_adds_up_what_a_policy_earns(transitions: int) -> None:
    starts = torch.tensor([[1.0], [3.0]])
    found = Outcome(torch.tensor([7.0, 8.0]), starts, torch.tensor([False, False]))
    rated = RolloutValuation(Doubling(), Ones(), transitions, 0.5).rate(starts, starts, found)
    for row, start in enumerate(starts[:, 0].tolist()):
        total = found.rewards[row].item()
        for step in range(transitions):
            state = start * 2**step
            total += 0.5 ** (step + 1) * (state + 1)
            if state > 5:
                break
        assert rated[row].item() == pytest.approx(total)


def test_a_maze_is_worth_more_along_the_way_and_most_at_the_goal() -> None:
    maze = MAZES["umaze"]
    way = [(3, 1), (3, 2), (3, 3), (2, 3), (1, 3), (1, 2), (1, 1)]
    places = torch.tensor([[row - 0.2, column - 0.2, 0.0, 0.0] for row, column in way]).double()
    found = Outcome(torch.zeros(len(way)).double(), places, torch.zeros(len(way), dtype=torch.bool))
    rated = MazeValuation(maze, maze.target, 0.05, 0.99, 1).rate(places, places[:, :2], found)
    assert (rated.diff() > 0).all()
    assert rated[-1].item() == pytest.approx(0.99 / 0.01)
    between = places[:1] + torch.tensor([[0.0, 0.4, 0.0, 0.0]])
    nearer = MazeValuation(maze, maze.target, 0.05, 0.99, 1).rate(
        between, between[:, :2], Outcome(torch.zeros(1).double(), between, torch.zeros(1, dtype=torch.bool))
    )
    assert rated[0] < nearer[0] < rated[1]


def test_a_discount_of_one_has_no_value_of_staying() -> None:
    maze = MAZES["umaze"]
    with pytest.raises(ConfigError, match=r"layout\.discount=1, at which staying at a maze's target has no finite"):
        MazeValuation(maze, maze.target, 0.05, 1.0, 1)


def test_a_penalty_replaces_the_reward_of_the_last_step_alone() -> None:
    """As a layout does with the data of a transition of several steps."""
    simulator = simulator_of("CartPole-v1")
    fields: dict[str, dict[str, Any]] = {name: {} for name in ("observation", "action", "reward", "value")}
    settings = {"fields": fields, "stride": 4, "discount": 0.5, "termination_penalty": -100.0}
    states = torch.tensor([[0.0, 0.0, 0.15, 2.0], [0.0, 0.0, 0.0, 0.0]])
    outcome = SimulatorDynamics(simulator, Layout.from_config(settings, 4, 1)).advance(states, torch.ones(2, 1))
    simulator.close()
    assert outcome.over.tolist() == [True, False]
    ones = np.cumsum(0.5 ** np.arange(4))
    assert float(outcome.rewards[1]) == pytest.approx(ones[3])
    possible = [ones[last - 1] - 100 * 0.5**last for last in (1, 2, 3)]  # every step earns 1, the last the penalty
    assert min(abs(float(outcome.rewards[0]) - each) for each in possible) < 1e-4
