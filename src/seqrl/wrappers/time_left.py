"""How much of an episode is left, as part of what is seen."""

from __future__ import annotations

from typing import Any

import gymnasium
import numpy as np
from gymnasium.spaces import Box

from seqrl.errors import ConfigError
from seqrl.registry import register_wrapper


@register_wrapper("time_left")
class TimeLeft(gymnasium.Wrapper[Any, Any, Any, Any]):
    """Adds a number to the observation, the share of the time limit that is left: 1 at the start, 0 at the end.

    What an action is worth near the end of an episode depends on it, and most environments do not show it.

    Args:
        env: with a vector of numbers as its observation, and a time limit.

    Raises:
        ConfigError: other observations, or no time limit.

    Reference: Pardo et al. 2018, "Time limits in reinforcement learning", https://arxiv.org/abs/1712.00378, section 3.
    """

    def __init__(self, env: gymnasium.Env[Any, Any]) -> None:
        super().__init__(env)
        space, limit = env.observation_space, None if env.spec is None else env.spec.max_episode_steps
        if not isinstance(space, Box) or len(space.shape) != 1:
            raise ConfigError(f"wrapper=time_left is for vectors of numbers, and these are {space}; leave it out")
        if limit is None:
            raise ConfigError("wrapper=time_left needs a time limit, which this environment has not; leave it out")
        self.limit, self.steps = limit, 0
        kind = np.result_type(space.dtype, np.float16)  # a share is no whole number
        low, high = np.append(space.low, 0.0).astype(kind), np.append(space.high, 1.0).astype(kind)
        self.observation_space = Box(low, high, dtype=kind.type)

    def reset(self, *, seed: int | None = None, options: dict[str, Any] | None = None) -> tuple[Any, dict[str, Any]]:
        observation, info = self.env.reset(seed=seed, options=options)
        self.steps = 0
        return self._extend(observation), info

    def step(self, action: Any) -> tuple[Any, Any, bool, bool, dict[str, Any]]:
        observation, reward, terminated, truncated, info = self.env.step(action)
        self.steps += 1
        return self._extend(observation), reward, terminated, truncated, info

    def _extend(self, observation: Any) -> np.ndarray:
        left = max(0.0, 1.0 - self.steps / self.limit)
        return np.append(observation, left).astype(self.observation_space.dtype)
