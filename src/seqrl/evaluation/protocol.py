"""Which episodes an evaluation runs: from the environment's own starts, or from every start toward every goal."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import numpy as np

from seqrl.acting.policy import Policy
from seqrl.acting.strategy import Strategy
from seqrl.config import EvaluationConfig
from seqrl.envs import check_returns, check_spaces, make_environments
from seqrl.errors import ConfigError
from seqrl.evaluation.archive import label_of
from seqrl.evaluation.goals import judge
from seqrl.evaluation.rollout import Episodes, Watch, rollout
from seqrl.layout import Layout
from seqrl.worlds.environments import maze_of
from seqrl.worlds.maze import SUCCESS_RADIUS, draw_starts, find_far_pairs

PLANS_EVERY = 25  # steps between two imagined paths that are kept for the pictures


@dataclass(frozen=True)
class EpisodeResults:
    """The episodes of one evaluation.

    Attributes:
        episodes: as they were run.
        results: `returns` and `lengths` (n, runs); with goals also `success`, `steps`, `time_at_goal` and `counted`
            (n, m), `goals` (m, 2) and `paths` (n, runs, T + 1, 2), and `entered` and `clear` (n, m) where regions are
            given. A row is a start state; `runs` is m for policies that are told the goal, else 1.
    """

    episodes: Episodes
    results: dict[str, np.ndarray]


def check_protocol(config: EvaluationConfig, strategy: Strategy, layout: Layout, env_id: str) -> None:
    """Refuse episodes that cannot be run as asked for.

    Raises:
        ConfigError: goals and starts that do not fit the environment or the layout.
    """
    wants_goals = strategy.wants_goals
    for low_x, low_y, high_x, high_y in config.regions or ():
        if not (low_x < high_x and low_y < high_y):
            raise ConfigError(
                f"regions has {[low_x, low_y, high_x, high_y]}, whose lower corner is not below its upper one; give "
                "[x_low, y_low, x_high, y_high]"
            )
    if config.goals is None:
        if config.regions is not None:
            raise ConfigError("regions judge episodes toward goals, and none is given; add goals=[[x,y]]")
        if wants_goals:
            raise ConfigError("the strategy decodes toward a goal and none is given; add goals=[[x,y]]")
        return
    _starts(config, env_id)
    if wants_goals and layout.goal is not None and layout.goal.dims != (0, 1):
        raise ConfigError(
            f"goals are positions [x, y] and the layout's goal is made of dimensions {list(layout.goal.dims)}; train "
            "with layout.goal.dims=[0,1]"
        )
    if config.shuffle_goals and not 2 <= len(config.goals) == len(set(config.goals)):
        raise ConfigError("shuffle_goals=true needs two goals or more, all different, to give each episode another's")


def check_environment(config: EvaluationConfig, layout: Layout | None, env_id: str) -> None:
    """Refuse an environment in which no episode can be run: make it, start an episode and act once.

    Args:
        layout: of a trained model, or of one that is about to be trained; None where its sizes are not known yet.

    Raises:
        ConfigError: it cannot be made, does not fit the layout, has no time limit, or returns what is no number.
    """
    envs = make_environments(env_id, 1)
    try:
        if layout is not None:
            check_spaces(envs, layout.field("observation").size, layout.action_size, layout.categories)
        envs.limit_steps(config.max_steps)
        check_returns(envs)
    finally:
        envs.close()


def run_episodes(
    config: EvaluationConfig, policy: Policy, env_id: str, *, watch: Watch | None = None
) -> EpisodeResults:
    """Run the episodes that an evaluation asks for.

    Args:
        watch: shown every plan, see `rollout`.

    Raises:
        ConfigError: an environment or goals that do not fit the policy.
    """
    check_protocol(config, policy.strategy, policy.model.layout, env_id)
    run = _free if config.goals is None else _toward_goals
    return run(config, policy, env_id, watch)


def _free(config: EvaluationConfig, policy: Policy, env_id: str, watch: Watch | None) -> EpisodeResults:
    """The environment's own starts; the same seeds give the same starts to every strategy."""
    count = config.num_episodes
    seeds = [1_000_000 * config.seed + index for index in range(count)]
    episodes = _run(config, policy, env_id, count, seeds=seeds, watch=watch)
    return EpisodeResults(episodes, {"returns": episodes.returns[:, None], "lengths": episodes.lengths[:, None]})


def _toward_goals(config: EvaluationConfig, policy: Policy, env_id: str, watch: Watch | None) -> EpisodeResults:
    """Every start against every goal; a policy that is not told the goal drives once and is judged against all."""
    states, goals, counted = _starts(config, env_id)
    told = policy.strategy.wants_goals
    runs = len(goals) if told else 1
    start = np.repeat(np.arange(len(states)), runs)
    episodes = _run(
        config,
        policy,
        env_id,
        len(start),
        seeds=[config.seed] * len(start),
        options=[{"state": states[i]} for i in start],
        goals=_told_goals(goals, len(states), config) if told else None,
        keys=start,
        plans_every=PLANS_EVERY,
        until=_Arrivals(goals, len(start), runs) if config.end_at_goal else None,
        watch=watch,
    )
    paths = episodes.observations[:, :, :2].reshape(len(states), runs, -1, 2)
    regions = None if config.regions is None else np.array(config.regions, np.float64)
    outcome = judge(np.broadcast_to(paths, (len(states), len(goals), *paths.shape[2:])), goals, regions)
    results = {
        "returns": episodes.returns.reshape(len(states), runs),
        "lengths": episodes.lengths.reshape(len(states), runs),
        "success": outcome.success,
        "steps": outcome.steps,
        "time_at_goal": outcome.time_at_goal,
        "counted": counted,
        "goals": goals,
        "paths": paths.astype(np.float32),
    }
    if regions is not None:
        results |= {"entered": outcome.entered, "clear": outcome.success & ~outcome.entered}
    return EpisodeResults(episodes, results)


class _Arrivals:
    """Which episodes have reached their goal, or, where one episode is judged by all goals, every one of them.

    Args:
        goals: (m, 2).
        episodes: how many there are, goal by goal for each start.
        runs: m where every episode has its own goal, else 1.
    """

    def __init__(self, goals: np.ndarray, episodes: int, runs: int) -> None:
        own = goals[:, None] if runs == len(goals) else goals[None]  # (m, 1, 2) or (1, m, 2)
        self._goals = np.tile(own, (episodes // runs, 1, 1))
        self._reached = np.zeros(self._goals.shape[:2], bool)

    def __call__(self, observations: np.ndarray) -> np.ndarray:
        distance = np.linalg.norm(observations[:, None, :2] - self._goals, axis=-1)
        self._reached |= distance <= SUCCESS_RADIUS
        arrived: np.ndarray = np.all(self._reached, axis=1)
        return arrived


def _starts(config: EvaluationConfig, env_id: str) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """Start states (n, 4 or 2), goals (m, 2), and which starts count for which goal, (n, m) bool."""
    assert config.goals is not None
    maze, goals = maze_of(env_id), np.array(config.goals, np.float64)
    cells = None if config.start_cells is None else [list(cell) for cell in config.start_cells]
    states, started = draw_starts(maze, cells, config.num_episodes, config.seed)
    counted = find_far_pairs(maze, started, goals, config.min_cells)
    for goal, starts in zip(goals, counted.T, strict=True):
        if not starts.any():
            raise ConfigError(
                f"no start is more than {config.min_cells} cells from goal {goal.tolist()}; set start_cells to "
                "cells that are, or min_cells to less"
            )
    return states, goals, counted


def _told_goals(goals: np.ndarray, num_starts: int, config: EvaluationConfig) -> np.ndarray:
    """(num_starts * m, 2): the goal that each episode is told; for the control, always another one than judged."""
    number = np.tile(np.arange(len(goals)), num_starts)
    if config.shuffle_goals:
        rng = np.random.default_rng([config.seed, 6])
        number = (number + rng.integers(1, len(goals), len(number))) % len(goals)
    return goals[number]


def _run(config: EvaluationConfig, policy: Policy, env_id: str, count: int, **arguments: Any) -> Episodes:
    layout = policy.model.layout
    envs = make_environments(env_id, count)
    try:
        check_spaces(envs, layout.field("observation").size, layout.action_size, layout.categories)
        if config.max_steps is not None:
            envs.extend_time_limit(config.max_steps)
        label = f"{label_of(config)}: {count} episodes"
        return rollout(
            policy,
            envs,
            max_steps=config.max_steps,
            description=label if config.progress_bar else None,
            **arguments,
        )
    finally:
        envs.close()
