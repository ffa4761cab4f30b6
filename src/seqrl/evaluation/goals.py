"""Did an episode get where it was sent?"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np

from seqrl.errors import ConfigError
from seqrl.worlds import four_rooms
from seqrl.worlds.maze import Maze, find_maze
from seqrl.worlds.maze_physics import SUCCESS_RADIUS

_MAZE_PREFIX = "seqrl/Maze2d-"  # of the Gymnasium ids of our mazes


@dataclass(frozen=True)
class GoalOutcome:
    """Every start against every goal.

    Attributes:
        success: (n, m) bool, whether the episode from start i came within `SUCCESS_RADIUS` of goal j.
        steps: (n, m) float, first step at the goal; NaN without success.
        time_at_goal: (n, m) share of the steps from the first arrival on that were spent there; NaN without success.
    """

    success: np.ndarray
    steps: np.ndarray
    time_at_goal: np.ndarray


def judge(paths: np.ndarray, goals: np.ndarray) -> GoalOutcome:
    """Judge driven paths.

    Args:
        paths: (n, m, T + 1, 2) positions of the episode from start i toward goal j.
        goals: (m, 2).
    """
    near = np.linalg.norm(paths - goals[None, :, None], axis=-1) <= SUCCESS_RADIUS  # (n, m, T + 1)
    success = near.any(-1)
    first = np.where(success, near.argmax(-1).astype(float), np.nan)
    after = near.shape[-1] - near.argmax(-1)
    share = np.where(success, near.sum(-1) / after, np.nan)
    return GoalOutcome(success, first, share)


def is_maze(env_id: str) -> bool:
    """Whether an environment is seen from above: its observations begin with a position on a map."""
    return env_id == four_rooms.ENV_ID or env_id.startswith(_MAZE_PREFIX)


def maze_of(env_id: str) -> Maze:
    """The map of an environment id.

    Raises:
        ConfigError: goals were given for an environment that is no maze.
    """
    if env_id == four_rooms.ENV_ID:
        return four_rooms.FOUR_ROOMS
    if not is_maze(env_id):
        raise ConfigError(
            f"goals are given for {env_id}; they can be judged in seqrl/Maze2d-* and {four_rooms.ENV_ID} only"
        )
    return find_maze(env_id.removeprefix(_MAZE_PREFIX).split("-")[0].lower())


def start_states(
    maze: Maze, cells: list[list[int]] | None, per_cell: int, seed: int
) -> tuple[np.ndarray, list[tuple[int, int]]]:
    """Start states (n, 4) and their cells: `per_cell` in each of the given cells, or as many spread over all.

    Positions are uniform within 0.1 of (row, column), velocities normal with deviation 0.1, as D4RL resets. Where the
    environment has no velocity, states are (n, 2).

    Raises:
        ConfigError: no cell, or one that is a wall or lies outside the maze.
    """
    rng = np.random.default_rng([seed, 5])
    if cells is None:
        free = maze.free_cells()
        chosen = [free[i] for i in rng.integers(len(free), size=per_cell)]
    else:
        chosen = [(int(row), int(column)) for row, column in cells for _ in range(per_cell)]
    if not chosen:
        raise ConfigError(f"start_cells={cells} names no cell; free: {maze.free_cells()}")
    for cell in chosen:
        if not maze.is_free(cell):
            raise ConfigError(f"start cell {list(cell)} is no free cell of the maze; free: {maze.free_cells()}")
    positions = np.array(chosen, float) + rng.uniform(-0.1, 0.1, (len(chosen), 2))
    states = np.concatenate([positions, 0.1 * rng.normal(size=(len(chosen), 2))], axis=1)
    return states[:, : maze.state_size], chosen


def far_enough(maze: Maze, cells: list[tuple[int, int]], goals: np.ndarray, min_cells: int) -> np.ndarray:
    """(n, m) bool: whether the shortest path from a start's cell to a goal's has more than `min_cells` steps.

    Raises:
        ConfigError: a goal inside a wall.
    """
    far = np.zeros((len(cells), len(goals)), bool)
    for j, goal in enumerate(goals):
        cell = maze.cell_of(goal)
        if not maze.is_free(cell):
            raise ConfigError(f"goal {goal.tolist()} lies in a wall; free cells: {maze.free_cells()}")
        distances = maze.distances(cell)
        far[:, j] = [distances[start] > min_cells for start in cells]
    return far
