"""The behaviour that D4RL's maze2d was recorded from, and its recording: a drive from goal to goal without resets."""

from __future__ import annotations

from collections.abc import Callable

import numpy as np

from seqrl.worlds.maze import Cell, Maze, is_success
from seqrl.worlds.point_mass import PointMaze

POSITION_GAIN, VELOCITY_GAIN = 10.0, -1.0
ARRIVAL_DISTANCE = 0.1
"""A waypoint counts as reached, and a goal as solved, within this distance."""
ARRIVAL_SPEED = 0.5
"""A goal is solved only below this speed."""


class WaypointController:
    """A proportional-derivative controller along the shortest path of cells to a goal.

    The action is `10 (waypoint - position) - velocity`, clipped to [-1, 1]; the last waypoint is the goal itself.
    Waypoints are passed once the ball is within 0.1 of them; a ball that left the path (a wall, noise) plans anew.

    Reference: the gains and distances of Fu et al. 2020, `d4rl/pointmaze/waypoint_controller.py`.
    """

    def __init__(self, maze: Maze) -> None:
        self._maze = maze
        self._policies: dict[Cell, dict[Cell, Cell]] = {}
        self._goal = np.zeros(2)
        self._path: list[Cell] = []

    def start(self, position: np.ndarray, goal: np.ndarray) -> None:
        """Plan from a position (2,) to a goal (2,)."""
        self._goal = goal
        goal_cell = self._maze.cell_of(goal)
        if goal_cell not in self._policies:
            self._policies[goal_cell] = self._maze.next_cells(goal_cell)
        policy = self._policies[goal_cell]
        cell = self._maze.cell_of(position)
        self._path = []
        while cell != goal_cell:
            cell = policy[cell]
            self._path.append(cell)

    def act(self, state: np.ndarray) -> np.ndarray:
        """(2,) the force for a state (4,), in [-1, 1]."""
        waypoint = self._waypoint()
        if len(self._path) > 1 and float(np.hypot(*(waypoint - state[:2]))) < ARRIVAL_DISTANCE:
            self._path.pop(0)
            waypoint = self._waypoint()
        elif float(np.abs(waypoint - state[:2]).max()) > 1.5:
            self.start(state[:2], self._goal)
            waypoint = self._waypoint()
        force: np.ndarray = POSITION_GAIN * (waypoint - state[:2]) + VELOCITY_GAIN * state[2:]
        return force.clip(-1.0, 1.0)

    def solved(self, state: np.ndarray) -> bool:
        """Whether the ball stands on the goal: near and slow."""
        near = float(np.hypot(*(state[:2] - self._goal))) < ARRIVAL_DISTANCE
        return near and float(np.hypot(*state[2:])) < ARRIVAL_SPEED

    def _waypoint(self) -> np.ndarray:
        waypoint: np.ndarray = np.array(self._path[0], np.float64) if len(self._path) > 1 else self._goal
        return waypoint


def record(
    maze: Maze,
    count: int,
    *,
    seed: int,
    action_noise: float,
    progress: Callable[[int], None] = lambda rows: None,
) -> dict[str, np.ndarray]:
    """Record `count` transitions of one uninterrupted stream, in D4RL's layout; a function of its arguments alone.

    `timeouts` marks the last row of each goal: reached, or given up after the maze's step limit. The reward is the
    environment's: 1 where the action leads to within 0.5 of the fixed evaluation target, whatever the goal of the
    moment. (D4RL's own files compare the position *before* the action; the two differ by one row at each crossing.)

    Args:
        action_noise: standard deviation of Gaussian noise on each action, which is recorded as applied, in [-1, 1].
        progress: called about every thousand rows with how many rows are new.

    Returns:
        `observations` (N, 4), `actions` (N, 2), `rewards` (N,) float32, `terminals`, `timeouts` (N,) bool,
        `infos/goal`, `infos/qpos`, `infos/qvel` (N, 2) float32.
    """
    rng = np.random.default_rng(seed)
    simulation, controller, target = PointMaze(maze), WaypointController(maze), maze.target
    states, goals = np.zeros((count, 4)), np.zeros((count, 2))
    actions = np.zeros((count, 2), np.float32)  # what is applied is the float32 that is recorded
    rewards, timeouts = np.zeros(count, np.float32), np.zeros(count, bool)
    state = simulation.random_state(rng)
    simulation.set_state(state)
    goal, steps = simulation.random_position(rng), 0
    controller.start(state[:2], goal)
    for row in range(count):
        states[row], goals[row] = state, goal
        actions[row] = np.clip(controller.act(state) + action_noise * rng.standard_normal(2), -1.0, 1.0)
        state = simulation.step(actions[row])
        rewards[row] = is_success(state[:2], target)
        steps += 1
        if controller.solved(state) or steps == maze.max_episode_steps:
            timeouts[row] = True
            goal, steps = simulation.random_position(rng), 0
            controller.start(state[:2], goal)
        if row % 1000 == 999:
            progress(1000)
    progress(count % 1000)
    observations = states.astype(np.float32)
    return {
        "observations": observations,
        "actions": actions,
        "rewards": rewards,
        "terminals": np.zeros(count, bool),
        "timeouts": timeouts,
        "infos/goal": goals.astype(np.float32),
        "infos/qpos": observations[:, :2],
        "infos/qvel": observations[:, 2:],
    }
