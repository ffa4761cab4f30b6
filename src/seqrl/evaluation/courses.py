"""Where the episodes of an evaluation begin, and where each of them is to go."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np

from seqrl.config import EvaluationConfig
from seqrl.data.episodes import EpisodeStore
from seqrl.errors import ConfigError
from seqrl.worlds.environments import maze_of
from seqrl.worlds.maze import Maze, draw_starts, find_far_pairs


@dataclass(frozen=True)
class Courses:
    """Starts as rows and goals as columns.

    Attributes:
        states: (n, r, S) exact starts; r is m where each goal has starts of its own, else 1.
        goals: (n, m, 2).
        counted: (n, m) bool, which pairs count.
        names: (m, 2) what the goals are called in tables and pictures; None where every episode has its own.
    """

    states: np.ndarray
    goals: np.ndarray
    counted: np.ndarray
    names: np.ndarray | None


def find_courses(config: EvaluationConfig, env_id: str, store: EpisodeStore | None = None) -> Courses:
    """The courses that an evaluation toward goals asks for.

    Args:
        store: the episodes that the model was trained on, which `near` draws from.

    Raises:
        ConfigError: cells that are no free ones, goals that no start counts for, or no pair that is near.
    """
    maze = maze_of(env_id)
    if config.tasks is not None:
        return _tasks(config, maze)
    if config.near is not None:
        assert store is not None
        return _near_pairs(config.near, config, maze, store)
    return _every_pair(config, maze)


def _every_pair(config: EvaluationConfig, maze: Maze) -> Courses:
    """Every start toward every goal."""
    assert config.goals is not None
    goals = np.array(config.goals, np.float64)
    cells = None if config.start_cells is None else [list(cell) for cell in config.start_cells]
    states, started = draw_starts(maze, cells, config.num_episodes, config.seed)
    counted = find_far_pairs(maze, started, goals, config.min_cells)
    for goal, starts in zip(goals, counted.T, strict=True):
        if not starts.any():
            raise ConfigError(
                f"no start is more than {config.min_cells} cells from goal {goal.tolist()}; set start_cells to "
                "cells that are, or min_cells to less"
            )
    return Courses(states[:, None], np.broadcast_to(goals, (len(states), *goals.shape)), counted, goals)


def _tasks(config: EvaluationConfig, maze: Maze) -> Courses:
    """So many episodes of each task, whose starts and goals are drawn around the places of its cells."""
    assert config.tasks is not None
    states, goals = [], []
    for number, (start, goal) in enumerate(config.tasks):
        cells = [[list(start)], [list(goal)]]
        seeds = [1000 * config.seed + 2 * number, 1000 * config.seed + 2 * number + 1]
        begin, end = (draw_starts(maze, c, config.num_episodes, s)[0] for c, s in zip(cells, seeds, strict=True))
        states.append(begin)
        goals.append(end[:, :2])
    names = np.stack([maze.place_of(goal) for _, goal in config.tasks])
    ends = np.stack(goals, 1)
    return Courses(np.stack(states, 1), ends, np.ones(ends.shape[:2], bool), names)


def _near_pairs(near: tuple[int, int], config: EvaluationConfig, maze: Maze, store: EpisodeStore) -> Courses:
    """States of the data, each with a goal that its own episode came to so many steps later.

    Pairs that are nearer to each other than the radius of success are left out: they would be reached before the first
    step.
    """
    rng = np.random.default_rng([config.seed, 8])
    observations, ends = store.observations, store.offsets[1:]
    states: list[np.ndarray] = []
    goals: list[np.ndarray] = []
    for _ in range(1000 * config.num_episodes):
        row, steps = int(rng.integers(len(store))), int(rng.integers(near[0], near[1] + 1))
        if row + steps >= ends[np.searchsorted(ends, row, side="right")]:
            continue
        state, goal = (np.asarray(observations[each], np.float64) for each in (row, row + steps))
        if np.linalg.norm(state[:2] - goal[:2]) <= maze.radius:
            continue
        states.append(state[: maze.state_size])
        goals.append(goal[:2])
        if len(states) == config.num_episodes:
            found = np.stack(goals)[:, None]
            return Courses(np.stack(states)[:, None], found, np.ones(found.shape[:2], bool), None)
    raise ConfigError(
        f"near={list(near)}: the data hold hardly any two states of an episode that so many steps lie between, and "
        f"that are more than {maze.radius:g} apart; give other numbers of steps"
    )
