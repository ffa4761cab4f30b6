"""Environments as true dynamics: put into the state that an observation tells, and stepped from there."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import Any

import numpy as np

from seqrl.envs import Environments, make_environments
from seqrl.errors import ConfigError

_TOLERANCE = 1e-3  # of what an environment shows after it was put into a state, relative to 1 or to its size
_PROBED_STEPS = 12
_GENTLE = 0.3  # of the range of actions

Place = Callable[[Any, np.ndarray], None]
"""Puts an unwrapped environment into the state that an observation (O,) tells."""


class Simulator:
    """One environment that is put where it is wanted before every step, so that any imagined state can be tried.

    Args:
        envs: a single environment.
        place: how it is put into a state.
        options: handed to its reset, such as another target.
    """

    def __init__(self, envs: Environments, place: Place, options: Mapping[str, Any] | None = None) -> None:
        self._envs, self._place = envs, place
        self._envs.reset([0], options=[options])

    def step(
        self,
        observations: np.ndarray,
        actions: np.ndarray,
        discount: float,
        repeat: int = 1,
        *,
        end_reward: float | None = None,
    ) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
        """What follows from R states, each by itself.

        Args:
            observations: (R, O).
            actions: (R, A), each carried out `repeat` times; or (R, n * A), n carried out one after the other.
            discount: gamma of one step of the environment.
            repeat: of every action.
            end_reward: what the step of a true end earns instead, as a layout's penalty does; None leaves it.

        Returns:
            (R, O) float32 observations, (R,) float64 discounted rewards, (R,) bool, whether the episode truly ended.
        """
        following = np.empty(observations.shape, np.float32)
        rewards, over = np.zeros(len(observations)), np.zeros(len(observations), bool)
        for row, (observation, wanted) in enumerate(zip(observations, actions, strict=True)):
            self._place(self._envs.envs[0].unwrapped, np.asarray(observation, np.float64))
            for count, action in enumerate(wanted.reshape(-1, self._envs.action_size).repeat(repeat, axis=0)):
                self._envs.active[:] = True  # a time limit is of no concern here
                seen, earned, ended, _, _ = self._envs.step(action[None])
                rewards[row] += discount**count * (earned[0] if end_reward is None or not ended[0] else end_reward)
                if ended[0]:
                    over[row] = True
                    break
            following[row] = seen[0]
        return following, rewards, over

    def close(self) -> None:
        self._envs.close()


def simulator_of(env_id: str, options: Mapping[str, Any] | None = None) -> Simulator:
    """The simulator of an environment whose observations tell its state.

    That they do is tried out: an environment that was put into the states of an episode must go on as the episode did.

    Raises:
        ConfigError: its observations do not tell its state, or nothing is known of how to set it.
    """
    for place in (_by_options, _by_mujoco, _by_attribute):
        envs = make_environments(env_id, 1)
        simulator = Simulator(envs, place, options)
        try:
            if _goes_on_alike(simulator, env_id, options):
                return simulator
        except (AttributeError, TypeError, ValueError, IndexError):
            pass  # it has no such way to be put into a state
        simulator.close()
    raise ConfigError(
        f"{env_id} cannot be put into the state that an observation tells, so that there is no true simulator to look "
        "ahead with; seqrl's own worlds, MuJoCo's Hopper, HalfCheetah and Walker2d, and environments with a "
        "`state` that is their observation can be"
    )


def _goes_on_alike(simulator: Simulator, env_id: str, options: Mapping[str, Any] | None) -> bool:
    """Whether the simulator, put into the states of a random episode, does in most of them what the episode did.

    Actions are gentle, and a few exceptions do not matter: MuJoCo's observations hold velocities up to 10 only.
    """
    rng = np.random.default_rng(0)
    envs = make_environments(env_id, 1)
    try:
        observations, _ = envs.reset([1], options=[options])
        low, high = envs.action_low.reshape(-1).clip(-1e3), envs.action_high.reshape(-1).clip(max=1e3)
        alike: list[bool] = []
        while len(alike) < _PROBED_STEPS and envs.active[0]:
            action = ((low + high) / 2 + _GENTLE * rng.uniform(-1.0, 1.0, len(low)) * (high - low) / 2)[None]
            then, earned, over = simulator.step(observations, action, 1.0)
            observations, rewards, ended, _, _ = envs.step(action)
            near = np.abs(then - observations) <= _TOLERANCE * np.maximum(1.0, np.abs(observations))
            same = np.isclose(earned, rewards, atol=_TOLERANCE) & (over == ended)
            alike.append(bool(near.all() and same.all()))
        return sum(alike) > len(alike) / 2
    finally:
        envs.close()


def _by_options(env: Any, observation: np.ndarray) -> None:
    """Worlds of seqrl take their state with the options of a reset."""
    if not hasattr(env, "target"):
        raise AttributeError("no world of seqrl")
    env.reset(options={"state": observation, "target": env.target})


def _by_mujoco(env: Any, observation: np.ndarray) -> None:
    """MuJoCo's robots show positions and velocities; what is left out is where the robot stands, counted from 0."""
    positions, velocities = int(env.model.nq), int(env.model.nv)
    hidden = positions + velocities - len(observation)
    if not 0 <= hidden <= 2:
        raise ValueError("the observation is no position and velocity")
    qpos = np.concatenate([np.zeros(hidden), observation[: positions - hidden]])
    env.set_state(qpos, observation[positions - hidden :])


def _by_attribute(env: Any, observation: np.ndarray) -> None:
    """Classic control keeps its state in an attribute."""
    if np.shape(env.state) != observation.shape:
        raise ValueError("the state is not the observation")
    env.state = observation.copy()
    if hasattr(env, "steps_beyond_terminated"):
        env.steps_beyond_terminated = None
