"""OGBench's pointmaze as a Gymnasium environment, without OGBench.

This module imports Gymnasium, so it is itself imported only from functions.
"""

from __future__ import annotations

from typing import Any

import gymnasium
import numpy as np
from gymnasium.spaces import Box

from seqrl.worlds.maze import is_success
from seqrl.worlds.ogbench import PointSimulation, find_pointmaze


class PointMazeTasks(gymnasium.Env[np.ndarray, np.ndarray]):
    """Go to a goal through a maze; reward 1 for every step that ends within 1.0 of it, and no end but a time limit.

    Observation (2,) float64 `(x, y)`, action (2,) float32 in [-1, 1] (clipped to it); a step goes 0.2 times the action.

    Args:
        maze: `medium`, `large` or `giant`.
    """

    metadata: dict[str, Any] = {"render_modes": []}  # noqa: RUF012 (as in Gymnasium)

    def __init__(self, maze: str = "medium") -> None:
        self.render_mode = None
        self.simulation = PointSimulation(find_pointmaze(maze))
        self.target = self.simulation.maze.target
        self.position = self.simulation.maze.place_of(self.simulation.maze.tasks[0][0])
        low_y, high_y, high_x, low_x = self.simulation.maze.extent
        self.observation_space = Box(np.array([low_x, low_y]), np.array([high_x, high_y]), dtype=np.float64)
        self.action_space = Box(-1.0, 1.0, (2,), np.float32)

    def reset(
        self, *, seed: int | None = None, options: dict[str, Any] | None = None
    ) -> tuple[np.ndarray, dict[str, Any]]:
        """Start a random one of the five tasks, drawn as OGBench does, or exactly where the options say.

        Args:
            options: `state` (2,) the exact start, `target` (2,) the exact goal; either may be left out.
        """
        super().reset(seed=seed)
        options, maze = options or {}, self.simulation.maze
        start, goal = maze.tasks[self.np_random.integers(len(maze.tasks))]  # always drawn: options shift no later draws
        noise = self.np_random.uniform(-maze.noise, maze.noise, (2, 2))
        self.position = _given(options, "state", maze.place_of(start) + noise[0])
        self.target = _given(options, "target", maze.place_of(goal) + noise[1])
        return self.position.copy(), {"target": self.target.copy()}

    def step(self, action: np.ndarray) -> tuple[np.ndarray, float, bool, bool, dict[str, Any]]:
        clipped = np.clip(action, -1.0, 1.0)
        self.position = self.simulation.step(self.position[None], clipped[None])[0]
        success = is_success(self.position, self.target, self.simulation.maze.radius)
        return self.position.copy(), float(success), False, False, {"success": success, "target": self.target.copy()}


def _given(options: dict[str, Any], name: str, default: np.ndarray) -> np.ndarray:
    if options.get(name) is None:
        return default
    vector = np.asarray(options[name], np.float64)
    if vector.shape != (2,) or not np.isfinite(vector).all():
        raise ValueError(f"options[{name!r}]={options[name]!r} must be 2 finite numbers")
    return vector
