"""Fitted Q evaluation where the truth is known."""

from __future__ import annotations

import warnings
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch

from seqrl.acting.policy import Policy
from seqrl.critics import Transitions
from seqrl.critics.fqe import FqeCritic
from seqrl.data.episodes import EpisodeStore
from seqrl.decoding.noise import Noise
from seqrl.errors import ConfigError
from seqrl.evaluation.off_policy import (
    FitSettings,
    choose_actions,
    count_steps,
    estimate_return,
    find_settled,
    fit_values,
)
from seqrl.testing import samples

DISCOUNT, STATES = 0.9, 5
QUICK = FitSettings(
    steps=700, batch_size=128, learning_rate=3e-3, fits=2, critic={"name": "fqe", "dim": 32, "target_rate": 0.05}
)


def step(state: int, action: int) -> tuple[int, float, bool]:
    """Five states in a row: the right end is left by earning 1; staying at the left end earns 0.5 for ever."""
    reached = min(max(state + action, 0), STATES - 1)
    ends = state == STATES - 1 and action == 1
    return reached, 1.0 if ends else 0.5 if state == reached == 0 and action == 0 else 0.0, ends


def record(episodes: int = 300, limit: int = 6) -> EpisodeStore:
    rng, found = np.random.default_rng(0), []
    for number in range(episodes):
        state, rows, ends = number % STATES, [], False
        while len(rows) < limit and not ends:
            action = int(rng.integers(-1, 2))
            following, reward, ends = step(state, action)
            rows.append((np.eye(STATES)[state], [action], reward))
            state = following
        columns = (np.array(column, np.float32) for column in zip(*rows, strict=True))
        observations, actions, rewards = columns
        found.append({"observations": observations, "actions": actions, "rewards": rewards, "terminated": ends})
    return EpisodeStore.from_episodes(found)


POLICIES = {
    "right": lambda state: 1,
    "left, then stay": lambda state: -1 if state else 0,
    "stay": lambda state: 0,
}


def true_values(policy: Any) -> list[float]:
    """Of every state, by running the policy until what is left does not matter."""
    found = []
    for first in range(STATES):
        state, total, power, ends = first, 0.0, 1.0, False
        while power > 1e-6 and not ends:
            state, reward, ends = step(state, policy(state))
            total, power = total + power * reward, power * DISCOUNT
        found.append(total)
    return found


@pytest.mark.parametrize("name", list(POLICIES))
def test_values_of_policies_that_nobody_followed_are_found(name: str) -> None:
    """Far beyond the six steps of an episode, and through true ends."""
    store, policy = record(), POLICIES[name]
    actions = np.array([[policy(int(state))] for state in store.observations.argmax(1)], np.float32)
    values = fit_values(store, actions, DISCOUNT, QUICK)
    states = store.observations[store.offsets[:-1]].argmax(1)
    wanted = np.array(true_values(policy))[states]
    assert values.shape == (2, store.num_episodes)
    np.testing.assert_allclose(values.mean(0), wanted, atol=0.25)
    truth = {label: np.mean(true_values(other)) for label, other in POLICIES.items()}
    assert min(truth, key=lambda label: abs(truth[label] - values.mean())) == name


def test_episodes_that_are_mapped_from_files_are_fitted_without_a_warning(tmp_path: Path) -> None:
    record(20).save(tmp_path / "saved")
    store = EpisodeStore.open(tmp_path / "saved")
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        fit_values(store, np.asarray(store.actions), DISCOUNT, FitSettings(steps=1, fits=1))


def test_what_stands_after_a_true_end_does_not_matter_and_next_actions_do() -> None:
    torch.manual_seed(0)
    critic = FqeCritic(3, 2, 0.9, dim=8).eval()
    states, actions, rewards = torch.randn(4, 3), torch.randn(4, 2), torch.randn(4)

    def loss(ends: bool, taken: torch.Tensor | None) -> float:
        batch = Transitions(states, actions, rewards, states + 1, torch.full((4,), ends), taken)
        return critic.loss(batch)["q_loss"].item()

    assert loss(True, actions) == loss(True, actions + 1)
    assert loss(False, actions) != loss(False, actions + 1)
    assert loss(False, None) == loss(False, critic.act(states + 1).detach()), "its own policy where none is given"


def test_a_policy_is_asked_with_what_was_recorded_before() -> None:
    store, model = samples.store(), samples.model(samples.layout())
    policy = Policy(model, planner={"name": "sample"}, seed=4)
    found = choose_actions(policy, store)
    values = np.concatenate(
        [store.observations, store.actions, store.rewards[:, None], np.full((len(store), 1), 1e6)], 1
    ).astype(np.float32)
    for episode in (0, 3):
        start, stop = store.offsets[episode : episode + 2]
        for row in range(start, stop):
            begun = max(start, row - model.context + 1)
            past, present = torch.from_numpy(values[begun:row])[None], torch.from_numpy(values[row]).clone()[None]
            present[:, 3:] = 0.0
            history = model.history(past, present, time=row - start)
            noise = Noise.of(4, torch.tensor([episode]), row - start)
            with torch.no_grad():
                wanted = policy.strategy.planner.plan(model, history, policy.strategy.score, noise)
            np.testing.assert_array_equal(found[row], wanted.actions[0, 0].float())


def test_an_estimate_says_what_the_behaviour_is_worth_as_well() -> None:
    store = samples.store()
    policy = Policy(samples.model(samples.layout()), planner={"name": "sample"})
    settings = FitSettings(steps=20, fits=2, critic={"name": "fqe", "dim": 8})
    found = estimate_return(policy, store, settings)
    powers = [0.9 ** np.arange(length) for length in store.lengths]
    earned = [
        float(power @ store.rewards[a:b]) for power, a, b in zip(powers, store.offsets, store.offsets[1:], strict=False)
    ]
    assert found.behaviour == pytest.approx(np.mean(earned), rel=1e-5)
    assert len(found.fits) == 2
    assert found.value == pytest.approx(np.mean(found.fits))
    assert found.distance > 0
    assert found.value_ci95 is not None
    assert found.value_ci95[0] <= found.value <= found.value_ci95[1]
    again = estimate_return(policy, store, settings)
    assert again == found, "seeds decide everything"


@pytest.mark.parametrize(
    ("discount", "options", "needed"),
    [
        (0.99, {}, 6_000),
        (0.9, {}, 600),
        (0.99, {"target_rate": 0.005}, 60_000),
        (0.999, {"target_rate": 1.0}, 3_000),
        (1.0, {}, None),
    ],
)
def test_steps_that_a_fit_needs_are_known_before(
    discount: float, options: dict[str, float], needed: int | None
) -> None:
    settings = FitSettings(critic={"name": "fqe", "dim": 8, **options})
    assert count_steps(record(3), discount, settings) in (needed, None if needed is None else needed + 1)
    assert count_steps(record(3), discount, FitSettings(critic={"name": "iql"})) is None


def test_values_rise_as_slowly_as_is_told() -> None:
    """One state that earns 1 for ever: Q follows 1 / (1 - discount) times the share of the way."""
    ones = np.ones((400, 1), np.float32)
    steady = EpisodeStore.from_episodes(
        [{"observations": ones[:20], "actions": ones[:20], "rewards": ones[:20, 0], "terminated": False}] * 20
    )
    critic = {"name": "fqe", "dim": 16, "target_rate": 0.05}
    for steps in (100, 400):
        settings = FitSettings(steps=steps, batch_size=16, learning_rate=1e-2, fits=1, critic=critic)
        share = find_settled(steps, count_steps(steady, 0.9, settings))
        assert share is not None
        assert float(fit_values(steady, ones, 0.9, settings).mean()) / 10 == pytest.approx(share, abs=0.08)


def test_what_cannot_be_estimated_is_refused() -> None:
    goal = Policy(samples.model(samples.layout(goal=True)), planner={"name": "sample"}, condition={"name": "goal"})
    with pytest.raises(ConfigError, match="decodes toward a goal"):
        choose_actions(goal, samples.store())
    late = Policy(
        samples.model(samples.layout()), planner={"name": "beam", "horizon": 2, "context": None}, plan_every=2
    )
    with pytest.raises(ConfigError, match="use plan_every=1"):
        choose_actions(late, samples.store())
    one = np.zeros((1, 1))
    cut = EpisodeStore.from_episodes(
        [{"observations": one, "actions": one, "rewards": np.zeros(1), "terminated": False}]
    )
    with pytest.raises(ConfigError, match="nothing can be estimated"):
        fit_values(cut, np.zeros((1, 1)), 0.9, QUICK)
    shifted = FitSettings(steps=1, critic={"name": "iql", "reward_shift": -1.0})
    with pytest.raises(ConfigError, match="reward_shift"):
        fit_values(record(5), np.zeros((30, 1)), 0.9, shifted)
