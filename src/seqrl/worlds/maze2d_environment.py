"""D4RL's maze2d-{umaze,medium,large}-v1 as a Gymnasium environment on the current MuJoCo.

This module imports Gymnasium, so it is itself imported only from functions.
"""

from __future__ import annotations

from typing import Any

import gymnasium
import numpy as np
from gymnasium.spaces import Box

from seqrl.worlds.maze import find_maze, is_success
from seqrl.worlds.point_mass import PointMaze


class Maze2d(gymnasium.Env[np.ndarray, np.ndarray]):
    """Push a ball to a fixed target; reward 1 for every step that ends within 0.5 of it, and no end but a time limit.

    Observation (4,) float64 `(x, y, v_x, v_y)`, action (2,) float32 force in [-1, 1] (clipped to it).

    Args:
        maze: `umaze`, `medium` or `large`.

    Reference: Fu et al. 2020, https://arxiv.org/abs/2004.07219, `d4rl/pointmaze/maze_model.py`.
    """

    metadata: dict[str, Any] = {"render_modes": ["rgb_array"], "render_fps": 100}  # noqa: RUF012 (as in Gymnasium)

    def __init__(self, maze: str = "umaze", render_mode: str | None = None) -> None:
        self.render_mode = render_mode
        self.simulation = PointMaze(find_maze(maze))
        self.target = self.simulation.maze.target
        self.observation_space = Box(-np.inf, np.inf, (4,), np.float64)
        self.action_space = Box(-1.0, 1.0, (2,), np.float32)
        self._renderer: Any = None

    def reset(
        self, *, seed: int | None = None, options: dict[str, Any] | None = None
    ) -> tuple[np.ndarray, dict[str, Any]]:
        """Start in a random free cell with the maze's own target, or exactly where the options say.

        Args:
            options: `state` (4,) the exact start, `target` (2,) the exact target; either may be left out.
        """
        super().reset(seed=seed)
        options = options or {}
        state = self.simulation.random_state(self.np_random)  # always drawn: options do not shift later draws
        if options.get("state") is not None:
            state = _vector(options["state"], 4, "state")
        target = options.get("target")
        self.target = self.simulation.maze.target if target is None else _vector(target, 2, "target")
        self.simulation.set_state(state)
        return self.simulation.state, {"target": self.target.copy()}

    def step(self, action: np.ndarray) -> tuple[np.ndarray, float, bool, bool, dict[str, Any]]:
        state = self.simulation.step(action)
        success = is_success(state[:2], self.target)
        return state, float(success), False, False, {"success": success, "target": self.target.copy()}

    def render(self) -> np.ndarray | None:
        """(480, 480, 3) uint8 from above, in the mode `rgb_array`; needs an OpenGL that works without a screen."""
        if self.render_mode != "rgb_array":
            return None
        import mujoco

        if self._renderer is None:
            self._renderer = mujoco.Renderer(self.simulation.model, 480, 480)
        camera = mujoco.MjvCamera()
        height, width = len(self.simulation.maze.rows), len(self.simulation.maze.rows[0])
        camera.lookat[:] = (height + 1) / 2, (width + 1) / 2, 0.0
        camera.distance, camera.azimuth, camera.elevation = 1.3 * max(height, width), 180.0, -90.0
        mujoco.mj_forward(self.simulation.model, self.simulation.data)
        self._renderer.update_scene(self.simulation.data, camera)
        return np.asarray(self._renderer.render())

    def close(self) -> None:
        if self._renderer is not None:
            self._renderer.close()
            self._renderer = None


def _vector(value: Any, size: int, name: str) -> np.ndarray:
    vector = np.asarray(value, np.float64)
    if vector.shape != (size,) or not np.isfinite(vector).all():
        raise ValueError(f"options[{name!r}]={value!r} must be {size} finite numbers")
    return vector
