"""Implicit Q-learning against dynamic programming on tables."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest
import torch
from scipy.stats import expectile as scipy_expectile

from seqrl.config import CriticConfig
from seqrl.critics import Critic, Transitions, build_critic
from seqrl.critics.iql import IqlCritic, expectile_loss
from seqrl.data.episodes import EpisodeStore
from seqrl.data.summary import DataSizes
from seqrl.errors import ConfigError
from seqrl.registry import CRITIC
from seqrl.training.critic_module import TransitionDataModule

DISCOUNT = 0.9
LAYOUT = {"fields": {"observation": {}, "action": {}, "reward": {}}, "discount": DISCOUNT}


@pytest.mark.parametrize("share", [0.5, 0.7, 0.9])
def test_the_loss_is_smallest_at_the_expectile(share: float) -> None:
    """Of uniform numbers in [0, 1] the expectile e solves `share (1 - e)^2 = (1 - share) e^2`."""
    values = (torch.arange(100_000) + 0.5) / 100_000
    analytic = share**0.5 / (share**0.5 + (1 - share) ** 0.5)
    estimate = torch.tensor(0.0, requires_grad=True)
    for _ in range(200):
        (gradient,) = torch.autograd.grad(expectile_loss(values - estimate, share).mean(), estimate)
        estimate = (estimate - 0.4 * gradient).detach().requires_grad_()
    assert estimate.item() == pytest.approx(analytic, abs=1e-4)
    assert scipy_expectile(values.numpy(), share) == pytest.approx(analytic, abs=1e-4)


class Chain:
    """Five states in a row; -1 and +1 move, 0 stays. The right end is left by earning 1; staying at the left end earns
    0.5 for ever. Episodes are short: what is worth having lies beyond most of their ends."""

    states = 5

    @staticmethod
    def step(state: int, action: int) -> tuple[int, float, bool]:
        reached = min(max(state + action, 0), Chain.states - 1)
        ends = state == Chain.states - 1 and action == 1
        return reached, 1.0 if ends else 0.5 if state == reached == 0 and action == 0 else 0.0, ends

    @staticmethod
    def record(episodes: int, limit: int) -> EpisodeStore:
        rng = np.random.default_rng(0)
        found = []
        for _ in range(episodes):
            state, rows, ends = int(rng.integers(Chain.states)), [], False
            while len(rows) < limit and not ends:
                action = int(rng.integers(-1, 2))
                following, reward, ends = Chain.step(state, action)
                rows.append((np.eye(Chain.states)[state], [action], reward))
                state = following
            observations, actions, rewards = (np.array(column, np.float32) for column in zip(*rows, strict=True))
            found.append({"observations": observations, "actions": actions, "rewards": rewards, "terminated": ends})
        return EpisodeStore.from_episodes(found)


def table(store: EpisodeStore, share: float) -> dict[tuple[int, int], float]:
    """Q by iteration: V is the expectile of Q over the actions that the data took, one entry per time."""
    state, action = store.observations.argmax(1), store.actions[:, 0].round().astype(int)
    pairs, count = np.unique(np.stack([state, action], 1), axis=0, return_counts=True)
    q = dict.fromkeys(map(tuple, pairs.tolist()), 0.0)
    for _ in range(120):
        v = [
            scipy_expectile(
                np.array([q[s, a] for s, a in q if s == here]),
                share,
                weights=np.array([c for (s, _), c in zip(pairs, count, strict=True) if s == here]),
            )
            for here in range(Chain.states)
        ]
        for s, a in q:
            following, reward, ends = Chain.step(s, a)
            q[s, a] = reward + (0.0 if ends else DISCOUNT * v[following])
    return q


def trained(store: EpisodeStore, steps: int, **options: Any) -> Critic:
    chosen = {"name": "iql", "dim": 32, "target_rate": 0.05, **options}
    config, sizes = CriticConfig.from_dict({"layout": LAYOUT, "critic": chosen}), DataSizes.of(store)
    torch.manual_seed(0)
    critic = build_critic(config, sizes)
    assert critic is not None
    layout = sizes.lay_out(config.layout)
    data = TransitionDataModule(store, layout, batch_size=128, validation_fraction=0.0)
    critic.fit(*data.statistics())
    optimizer = torch.optim.Adam([p for p in critic.parameters() if p.requires_grad], lr=3e-3)
    schedule = torch.optim.lr_scheduler.LinearLR(optimizer, 1.0, 0.05, total_iters=steps)
    for step in range(steps):
        optimizer.zero_grad()
        critic.loss(data.train_transitions.take(data.order.batch(step)))["loss"].backward()
        optimizer.step()
        schedule.step()
    return critic.eval()


@pytest.fixture(scope="module")
def chain() -> EpisodeStore:
    return Chain.record(episodes=300, limit=6)


@pytest.mark.parametrize("share", [0.5, 0.8])
def test_values_are_those_of_dynamic_programming(chain: EpisodeStore, share: float) -> None:
    """Through time limits and up to true ends. Standing at the left end is worth far more than an episode can earn."""
    expected = table(chain, share)
    critic = trained(chain, 800, expectile=share, reward_scale=2.0)
    states = torch.eye(Chain.states)[[s for s, _ in expected]]
    actions = torch.tensor([[float(a)] for _, a in expected])
    with torch.no_grad():
        learnt = critic.q(states, actions)
    assert learnt.tolist() == pytest.approx(list(expected.values()), abs=0.15)
    assert expected[4, 1] == 1.0, "nothing follows a true end"
    if share == 0.8:
        assert expected[0, 0] > 0.5 * sum(DISCOUNT**k for k in range(6)), "more than fits between two time limits"


def test_the_policy_prefers_what_is_worth_more(chain: EpisodeStore) -> None:
    """Away from the exit at the right end the data go nowhere in particular; the extracted policy goes left."""
    critic = trained(chain, 500, expectile=0.8, temperature=20.0)
    with torch.no_grad():
        actions = critic.act(torch.eye(Chain.states))[:, 0]
    assert (actions[1:3] < -0.5).all()
    assert abs(actions[0]) < 0.6 or actions[0] < 0, "it stays, or runs into the wall"
    imitation = trained(chain, 150, temperature=0.0)
    with torch.no_grad():
        assert (imitation.act(torch.eye(Chain.states)).abs() < 0.4).all()


def test_scale_is_taken_out_and_shift_stays() -> None:
    """One row, a true end that earns 3: Q is 3 whatever the scale, and 3 plus the shift."""
    one = np.zeros((1, 1))
    store = EpisodeStore.from_episodes(
        [{"observations": one, "actions": one, "rewards": np.array([3.0]), "terminated": True}]
    )
    for options, expected in (({"reward_scale": 0.1}, 3.0), ({"reward_scale": 0.5, "reward_shift": -1.0}, 2.0)):
        critic = trained(store, 120, **options)
        with torch.no_grad():
            assert critic.q(torch.zeros(1), torch.zeros(1)).item() == pytest.approx(expected, abs=0.05)


def test_the_slow_copy_moves_by_its_rate() -> None:
    torch.manual_seed(0)
    critic = IqlCritic(3, 2, 0.9, dim=8, target_rate=0.25)
    with torch.no_grad():
        for parameter in critic.twins.parameters():
            parameter.add_(1.0)
    before = [parameter.clone() for parameter in critic.target.parameters()]
    batch = Transitions(
        torch.randn(4, 3), torch.randn(4, 2), torch.randn(4), torch.randn(4, 3), torch.zeros(4, dtype=torch.bool)
    )
    critic.eval().loss(batch)
    assert all(torch.equal(a, b) for a, b in zip(critic.target.parameters(), before, strict=True))
    critic.train().loss(batch)
    for slow, was in zip(critic.target.parameters(), before, strict=True):
        assert torch.allclose(slow, was + 0.25, atol=1e-6)


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"expectile": 1.0}, r"critic.expectile=1.0 is too large; give 0\.5 or more and less than 1"),
        ({"reward_scale": 0.0}, r"critic.reward_scale=0.0 is too small; give more than 0"),
        ({"num_layers": 0}, r"critic.num_layers=0 is too small; give a number from 1"),
    ],
)
def test_impossible_options_are_refused(options: dict[str, Any], message: str) -> None:
    with pytest.raises(ConfigError, match=message):
        CRITIC.check({"name": "iql", **options})


def test_discrete_actions_are_refused() -> None:
    config = CriticConfig.from_dict({"layout": LAYOUT, "critic": {"name": "iql"}})
    with pytest.raises(ConfigError, match="these data have a discrete action; train without a critic"):
        build_critic(config, DataSizes(3, 1, categories={"action": 4}))


@pytest.mark.parametrize("n_step", [1, 2, 5])
def test_a_backup_bootstraps_after_as_many_transitions(n_step: int) -> None:
    """Where V is a constant c, Q learns towards r + gamma^n c, and towards r at a true end."""
    torch.manual_seed(0)
    critic = IqlCritic(2, 1, DISCOUNT, dim=8, n_step=n_step).eval()
    with torch.no_grad():
        for parameter in [*critic.value.parameters(), *critic.twins.parameters()]:
            parameter.zero_()
        critic.value[-1].bias.fill_(3.0)
    states, rewards = torch.randn(6, 2), torch.arange(6.0)
    ends = torch.tensor([False, True] * 3)
    found = critic.loss(Transitions(states, torch.zeros(6, 1), rewards, states, ends))["q_loss"]
    wanted = (rewards + torch.where(ends, 0.0, 3.0 * DISCOUNT**n_step)).square() * 2
    assert found.item() == pytest.approx(wanted.mean().item(), rel=1e-5)


def test_a_shift_of_rewards_has_no_place_in_long_backups() -> None:
    with pytest.raises(ConfigError, match=r"critic\.n_step=4 cannot be combined with critic\.reward_shift=-1"):
        IqlCritic(2, 1, DISCOUNT, n_step=4, reward_shift=-1.0)
    assert IqlCritic(2, 1, DISCOUNT, reward_shift=-1.0).n_step == 1


@pytest.mark.parametrize(("members", "pessimism"), [(2, 0.0), (3, 1.0), (4, 2.5)])
def test_an_ensemble_is_the_mean_of_its_members_less_their_deviation(members: int, pessimism: float) -> None:
    config = {
        "name": "ensemble",
        "members": members,
        "pessimism": pessimism,
        "of": {"name": "iql", "dim": 4, "n_step": 2},
    }
    torch.manual_seed(0)
    critic = CRITIC.build(config, observation_size=2, action_size=1, discount=DISCOUNT)
    states, actions = torch.randn(7, 2), torch.rand(7, 1)
    critic.fit(states, actions)
    single = [member for member in critic.members if isinstance(member, IqlCritic)]
    assert (len(single), critic.n_step) == (members, 2)
    for name, given in (("q", (states, actions)), ("v", (states,))):
        each = np.stack([getattr(member, name)(*given).detach().numpy() for member in single])
        wanted = each.mean(0) - pessimism * each.std(0)
        assert getattr(critic, name)(*given).detach().numpy() == pytest.approx(wanted, abs=1e-6)
    assert critic.act(states).detach().numpy() == pytest.approx(
        np.stack([member.act(states).detach().numpy() for member in single]).mean(0), abs=1e-6
    )
    batch = Transitions(states, actions, torch.ones(7), states, torch.zeros(7, dtype=torch.bool))
    losses = [member.eval().loss(batch) for member in single]
    found = critic.eval().loss(batch)
    assert found["loss"].item() == pytest.approx(sum(each["loss"].item() for each in losses), rel=1e-5)
    assert found["value"].item() == pytest.approx(np.mean([each["value"].item() for each in losses]), abs=1e-6)


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"of": {"name": "ensemble"}}, r"critic\.of is an ensemble itself"),
        ({"members": 1}, r"critic\.members="),
        ({"pessimism": -0.1}, r"critic\.pessimism="),
        ({"of": {"name": "iql", "expectile": 2.0}}, r"expectile"),
    ],
)
def test_what_an_ensemble_cannot_be_is_refused(options: dict[str, Any], message: str) -> None:
    with pytest.raises(ConfigError, match=message):
        CRITIC.build({"name": "ensemble", **options}, observation_size=2, action_size=1, discount=DISCOUNT)
