"""D4RL's own tasks as Gymnasium environments: `d4rl/<id>` through its package, and its Ant without it."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

import gymnasium
import numpy as np
from gymnasium.spaces import Box

from seqrl.d4rl import package as d4rl_package
from seqrl.d4rl.catalogue import find

UNFELT_FORCES = 84  # 14 bodies x 6: contact forces, which MuJoCo 2 left at zero while D4RL recorded


class D4rlEnvironment(gymnasium.Env[np.ndarray, np.ndarray]):
    """The environment that the package `d4rl` makes for a data set; the time limit is Gymnasium's wrapper.

    Args:
        id: D4RL's name of the data set.

    Raises:
        seqrl.errors.ConfigError: the packages are missing, or do not simulate its family.
    """

    metadata: dict[str, Any] = {"render_modes": ["rgb_array"]}  # noqa: RUF012 (as in Gymnasium)

    def __init__(self, id: str, render_mode: str | None = None) -> None:
        self.render_mode = render_mode
        self._renderer: Any = None
        self._random = np.random.RandomState().get_state()
        with self._own_global_generator():
            self._env = d4rl_package.make(find(id))
        self._simulated = self._env
        while hasattr(type(self._simulated), "wrapped_env"):
            self._simulated = self._simulated.wrapped_env
        observations, actions = self._env.observation_space, self._env.action_space
        self.observation_space = Box(observations.low, observations.high, dtype=observations.dtype)
        self.action_space = Box(actions.low, actions.high, dtype=actions.dtype)

    @property
    def model(self) -> Any:
        """The `mujoco.MjModel`."""
        return self._simulated.sim.model.inner

    @property
    def data(self) -> Any:
        """The `mujoco.MjData`."""
        return self._simulated.sim.data.inner

    def reset(
        self, *, seed: int | None = None, options: dict[str, Any] | None = None
    ) -> tuple[np.ndarray, dict[str, Any]]:
        """Start as D4RL does; the seed is handed to what is simulated, which d4rl's own `seed` does not reach."""
        super().reset(seed=seed)
        if seed is not None:
            self._random = np.random.RandomState(seed % 2**32).get_state()
        with self._own_global_generator(), d4rl_package.quiet():
            if seed is not None:
                self._simulated.seed(seed)
            return np.asarray(self._env.reset()), {}

    @contextmanager
    def _own_global_generator(self) -> Iterator[None]:
        """For a while NumPy's global generator is this environment's: antmaze draws its goals from it."""
        others = np.random.get_state()  # noqa: NPY002
        np.random.set_state(self._random)  # noqa: NPY002
        try:
            yield
        finally:
            self._random = np.random.get_state()  # noqa: NPY002
            np.random.set_state(others)  # noqa: NPY002

    def step(self, action: np.ndarray) -> tuple[np.ndarray, float, bool, bool, dict[str, Any]]:
        observation, reward, done, info = self._env.step(action)
        return np.asarray(observation), float(reward), bool(done), False, info

    def render(self) -> np.ndarray | None:
        """(480, 480, 3) uint8, in the mode `rgb_array`; needs an OpenGL that works without a screen."""
        if self.render_mode != "rgb_array":
            return None
        from gymnasium.envs.mujoco.mujoco_rendering import MujocoRenderer

        self._renderer = self._renderer or MujocoRenderer(self.model, self.data)
        return np.asarray(self._renderer.render(self.render_mode))

    def close(self) -> None:
        if self._renderer is not None:
            self._renderer.close()
            self._renderer = None


class D4rlAnt(gymnasium.ObservationWrapper[np.ndarray, np.ndarray, np.ndarray]):
    """Gymnasium's Ant-v4 with the observations that D4RL recorded: 27 numbers and 84 contact forces that are zero."""

    def __init__(self, render_mode: str | None = None) -> None:
        super().__init__(gymnasium.make("Ant-v4", disable_env_checker=True, render_mode=render_mode).unwrapped)
        size = int(np.prod(self.env.observation_space.shape or ())) + UNFELT_FORCES
        self.observation_space = Box(-np.inf, np.inf, (size,), np.float64)

    def observation(self, observation: np.ndarray) -> np.ndarray:
        return np.concatenate([observation, np.zeros(UNFELT_FORCES)])
