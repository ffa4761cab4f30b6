"""A continuous four-rooms environment in NumPy alone.

This module imports Gymnasium, so it is itself imported only from functions.
"""

from __future__ import annotations

from typing import Any

import gymnasium
import numpy as np
from gymnasium.spaces import Box

from seqrl.worlds.four_rooms import FOUR_ROOMS, MAX_STEP, limited, move, random_position
from seqrl.worlds.maze import is_success

PIXELS = 24  # per cell, of a rendered picture


class FourRooms(gymnasium.Env[np.ndarray, np.ndarray]):
    """Walk through doors to a fixed target; 1 for every step that ends within 0.5 of it, and no end but a time limit.

    Observation (2,) float64 `(x, y)`, x along the rows of the map and y along its columns; action (2,) float32 the step
    to take, at most `MAX_STEP` long (longer ones are shortened). A wall stops what points into it; the rest slides.

    Args:
        noise: standard deviation of Gaussian noise on both parts of every step, 0 or more; the noisy step is shortened
            as well.
    """

    metadata: dict[str, Any] = {"render_modes": ["rgb_array"], "render_fps": 15}  # noqa: RUF012 (as in Gymnasium)

    def __init__(self, noise: float = 0.0, render_mode: str | None = None) -> None:
        if not 0.0 <= noise < float("inf"):
            raise ValueError(f"noise={noise} is no standard deviation; give 0 or more")
        self.render_mode = render_mode
        self.noise = noise
        self.target = FOUR_ROOMS.target
        self.position = np.array(FOUR_ROOMS.free_cells()[0], np.float64)
        size = len(FOUR_ROOMS.rows)
        self.observation_space = Box(0.5, size - 1.5, (2,), np.float64)
        self.action_space = Box(-MAX_STEP, MAX_STEP, (2,), np.float32)

    def reset(
        self, *, seed: int | None = None, options: dict[str, Any] | None = None
    ) -> tuple[np.ndarray, dict[str, Any]]:
        """Start anywhere with the map's own target, or exactly where the options say.

        Args:
            options: `state` (2,) the exact start, `target` (2,) the exact target, neither in a wall; either may be left
                out.
        """
        super().reset(seed=seed)
        options = options or {}
        position = random_position(self.np_random)  # always drawn: options do not shift later draws
        self.position = _free(options, "state", position)
        self.target = _free(options, "target", FOUR_ROOMS.target)
        return self.position.copy(), {"target": self.target.copy()}

    def step(self, action: np.ndarray) -> tuple[np.ndarray, float, bool, bool, dict[str, Any]]:
        step = limited(np.asarray(action, np.float64))
        if self.noise:
            step = limited(step + self.noise * self.np_random.standard_normal(2))
        self.position = move(self.position, step)
        success = is_success(self.position, self.target)
        return self.position.copy(), float(success), False, False, {"success": success, "target": self.target.copy()}

    def render(self) -> np.ndarray | None:
        """(312, 312, 3) uint8 from above, in the mode `rgb_array`: walls, the target in red, the walker in blue."""
        if self.render_mode != "rgb_array":
            return None
        walls = np.array([[character == "#" for character in row] for row in FOUR_ROOMS.rows])
        picture = np.where(walls.repeat(PIXELS, 0).repeat(PIXELS, 1)[..., None], 130, 255).repeat(3, -1)
        places = (np.indices(picture.shape[:2]) + 0.5) / PIXELS - 0.5  # (2, height, width)
        for centre, color in ((self.target, (214, 39, 40)), (self.position, (31, 119, 180))):
            picture[np.hypot(*(places - centre[:, None, None])) < 0.3] = color
        return picture.astype(np.uint8)


def _free(options: dict[str, Any], name: str, default: np.ndarray) -> np.ndarray:
    if options.get(name) is None:
        return default.copy()
    vector = np.asarray(options[name], np.float64)
    if vector.shape != (2,) or not np.isfinite(vector).all() or not FOUR_ROOMS.is_free(FOUR_ROOMS.cell_of(vector)):
        raise ValueError(f"options[{name!r}]={options[name]!r} must be 2 finite numbers outside the walls")
    return vector
