"""Environments that are put into the state that an observation tells, against the same environment left alone."""

from __future__ import annotations

import numpy as np
import pytest

from seqrl.envs import make_environments
from seqrl.errors import ConfigError
from seqrl.evaluation.simulators import simulator_of

TELLING = [
    "seqrl/Maze2d-Umaze-v1",
    "seqrl/FourRooms-v0",
    "Hopper-v5",
    "HalfCheetah-v5",
    "Walker2d-v5",
    "CartPole-v1",
    "MountainCarContinuous-v0",
]


@pytest.mark.parametrize("env_id", TELLING)
def test_it_goes_on_as_the_environment_does(env_id: str) -> None:
    """From states in any order, held actions included."""
    simulator, envs = simulator_of(env_id), make_environments(env_id, 1)
    rng = np.random.default_rng(3)
    observations, _ = envs.reset([5])
    states, actions, rewards, following = [], [], [], []
    for _ in range(6):
        action = 0.1 * rng.uniform(envs.action_low, envs.action_high).reshape(1, -1)  # velocities stay below 10
        states.append(observations[0])
        actions.append(action[0])
        earned = 0.0
        for repeat in range(2):
            if envs.active[0]:
                observations, reward, _, _, _ = envs.step(action)
                earned += 0.9**repeat * reward[0]
        rewards.append(earned)
        following.append(observations[0])
        if not envs.active[0]:
            break
    order = rng.permutation(len(states))
    then, found, _ = simulator.step(np.array(states)[order], np.array(actions)[order], 0.9, 2)
    assert then == pytest.approx(np.array(following)[order], abs=2e-3, rel=2e-3)
    assert found == pytest.approx(np.array(rewards)[order], abs=2e-3)
    simulator.close()
    envs.close()


def test_a_true_end_is_told_and_ends_the_rewards() -> None:
    simulator = simulator_of("CartPole-v1")
    states = np.array([[0.0, 0.0, 0.2, 2.0], [0.0, 0.0, 0.0, 0.0]])
    _, rewards, over = simulator.step(states, np.ones((2, 1)), 1.0, 4)
    assert over.tolist() == [True, False]
    assert rewards[0] < rewards[1] == 4.0
    _, punished, _ = simulator.step(states, np.ones((2, 1)), 0.5, 4, end_reward=-100.0)
    _, plain, _ = simulator.step(states, np.ones((2, 1)), 0.5, 4)
    steps = int(rewards[0])  # every step earns 1; the last one's is replaced, and no other
    assert punished[0] == pytest.approx(plain[0] - 0.5 ** (steps - 1) + 0.5 ** (steps - 1) * -100.0)
    assert punished[1] == plain[1]
    simulator.close()


@pytest.mark.parametrize("env_id", ["Pendulum-v1", "Acrobot-v1"])
def test_observations_that_do_not_tell_the_state_are_refused(env_id: str) -> None:
    with pytest.raises(ConfigError, match=f"{env_id} cannot be put into the state"):
        simulator_of(env_id)
