"""Which episodes an evaluation runs: from the environment's own starts, or from every start toward every goal."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import torch

from seqrl.acting.extras import read_extras, require_outcomes
from seqrl.acting.policy import Policy
from seqrl.acting.strategy import Strategy
from seqrl.config import EvaluationConfig
from seqrl.data.episodes import EpisodeStore
from seqrl.envs import check_returns, check_spaces, make_environments
from seqrl.envs.told import read_told
from seqrl.errors import ConfigError
from seqrl.evaluation.archive import OUTCOME, label_of
from seqrl.evaluation.courses import find_courses
from seqrl.evaluation.goals import judge
from seqrl.evaluation.rollout import Episodes, Watch, rollout
from seqrl.evaluation.told_goals import check_told_goals, check_told_success, judge_told, read_goals, shuffle_goals
from seqrl.layout import Layout
from seqrl.registry import CONDITION, PLANNER
from seqrl.worlds.environments import is_maze, maze_of
from seqrl.worlds.maze import Maze

PLANS_EVERY = 25  # steps between two imagined paths that are kept for the pictures


@dataclass(frozen=True)
class EpisodeResults:
    """The episodes of one evaluation.

    Attributes:
        episodes: as they were run.
        results: `returns` and `lengths` (n, runs), and `outcome_NAME` of each outcome of one number; with goals, or
            where the environment tells success, also `success`, `steps`, `time_at_goal` and `counted` (n, m) and
            `goals` (m, 2); in mazes `paths` (n, runs, T + 1, 2), and `entered` and `clear` (n, m) where regions are
            given. A row is a start state; `runs` is m for policies that are told the goal, else 1. Where tasks or near
            goals are asked for, every episode has its own start and goal: `runs` is m, `aims` (n, m, 2) holds the
            goals, and `goals` the places that tasks are named after, none for near goals and for those that the
            environment tells.
    """

    episodes: Episodes
    results: dict[str, np.ndarray]


def check_protocol(config: EvaluationConfig, strategy: Strategy, layout: Layout, env_id: str) -> None:
    """Refuse episodes that cannot be run as asked for.

    Raises:
        ConfigError: goals and starts that do not fit the environment or the layout.
    """
    for low_x, low_y, high_x, high_y in config.regions or ():
        if not (low_x < high_x and low_y < high_y):
            raise ConfigError(
                f"regions has {[low_x, low_y, high_x, high_y]}, whose lower corner is not below its upper one; give "
                "[x_low, y_low, x_high, y_high]"
            )
    if config.map_landmarks and not strategy.condition.wants_landmarks:
        raise ConfigError("map_landmarks=true is a control of strategy=landmarks; add it, or leave map_landmarks out")
    given = [name for name in ("goals", "tasks", "near") if getattr(config, name) is not None]
    if config.start_cells is not None and config.goals is None:
        raise ConfigError(
            "start_cells are of episodes toward goals=[[x,y]], and none is given; add goals, or leave start_cells out"
        )
    if not given:
        if config.regions is not None:
            raise ConfigError("regions judge episodes toward goals, and none is given; add goals=[[x,y]]")
        if config.end_at_goal and is_maze(env_id):
            raise ConfigError("end_at_goal=true ends episodes at goals, and none is given; add goals=[[x,y]]")
        if config.end_at_goal:
            check_told_success(env_id)
        if strategy.wants_goals and is_maze(env_id):
            raise ConfigError("the strategy decodes toward a goal and none is given; add goals=[[x,y]]")
        if strategy.wants_goals and layout.goal is not None:
            check_told_goals(env_id, layout)
        return
    if len(given) > 1:
        raise ConfigError(f"{' and '.join(given)} are given, which are different episodes; leave out all but one")
    if config.near is None:
        find_courses(config, env_id)
    else:
        maze_of(env_id)
    if strategy.wants_goals and layout.goal is not None and layout.goal.dims != (0, 1):
        raise ConfigError(
            f"goals are positions [x, y] and the layout's goal is made of dimensions {list(layout.goal.dims)}; train "
            "with layout.goal.dims=[0,1]"
        )
    several = config.goals or config.tasks or ()
    if config.shuffle_goals and not 2 <= len(several) == len(set(several)):
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
        if layout is not None and getattr(PLANNER.named_by(config.planner), "asks_model", True):
            _check_told(config, layout, env_id, *check_returns(envs))
        else:
            check_returns(envs)
    finally:
        envs.close()


def _check_told(config: EvaluationConfig, layout: Layout, env_id: str, *infos: Sequence[Mapping[str, Any]]) -> None:
    """Refuse an environment that does not tell the extras which a policy needs, at its start and with its step."""
    sizes = {extra.name: extra.size for extra in (*layout.contexts, *layout.outcomes)}
    fixed = CONDITION.build(config.condition).contexts
    for moment, told in enumerate(read_told(each, sizes, env_id) for each in infos):
        _, outcomes = read_extras(layout, told, np.ones(1, bool), fixed, torch.device("cpu"))
        if moment:
            require_outcomes(layout, outcomes)


def run_episodes(
    config: EvaluationConfig,
    policy: Policy,
    env_id: str,
    *,
    watch: Watch | None = None,
    store: EpisodeStore | None = None,
) -> EpisodeResults:
    """Run the episodes that an evaluation asks for.

    Args:
        watch: shown every plan, see `rollout`.
        store: the episodes that the model was trained on, which near goals are drawn from.

    Raises:
        ConfigError: an environment or goals that do not fit the policy.
    """
    check_protocol(config, policy.strategy, policy.model.layout, env_id)
    if config.goals is None and config.tasks is None and config.near is None:
        return _free(config, policy, env_id, watch)
    return _toward_goals(config, policy, env_id, watch, store)


def _free(config: EvaluationConfig, policy: Policy, env_id: str, watch: Watch | None) -> EpisodeResults:
    """The environment's own starts, and its own goals for a strategy that is told one; the same seeds give the same
    starts to every strategy."""
    count = config.num_episodes
    seeds = [1_000_000 * config.seed + index for index in range(count)]
    layout = policy.model.layout

    def find_goals(infos: Sequence[Mapping[str, Any]]) -> np.ndarray:
        goals = read_goals(infos, layout, env_id)
        return shuffle_goals(goals, config.seed) if config.shuffle_goals else goals

    told = find_goals if policy.strategy.wants_goals else None
    until = _has_succeeded if config.end_at_goal else None
    episodes = _run(config, policy, env_id, count, seeds=seeds, goals=told, until=until, watch=watch)
    results = {"returns": episodes.returns[:, None], "lengths": episodes.lengths[:, None]}
    results |= {f"{OUTCOME}{name}": sums[:, None] for name, sums in episodes.outcome_sums.items()}
    if episodes.success is not None:
        results |= judge_told(episodes.success, episodes.lengths, env_id)
    return EpisodeResults(episodes, results)


def _has_succeeded(observations: np.ndarray, success: np.ndarray) -> np.ndarray:
    """Which (B,) episodes told success, of (B,) that may be NaN."""
    told: np.ndarray = success > 0
    return told


def _start_options(states: np.ndarray, goals: np.ndarray, maze: Maze) -> list[dict[str, Any]]:
    """How each of (n, ...) episodes begins.

    Where an environment draws its target, it gets the episode's own goal (the first, where one drive is judged against
    several), so that returns are of the task that was asked for. A maze with one target keeps it: returns are then
    those of the data, whatever goal is told.
    """
    if not maze.tasks:
        return [{"state": state} for state in states]
    return [{"state": state, "target": goal} for state, goal in zip(states, goals, strict=True)]


def _toward_goals(
    config: EvaluationConfig, policy: Policy, env_id: str, watch: Watch | None, store: EpisodeStore | None
) -> EpisodeResults:
    """Every course; a policy that is not told the goal drives once from a start and is judged against all its goals."""
    courses, radius = find_courses(config, env_id, store), maze_of(env_id).radius
    (count, columns), own = courses.counted.shape, courses.states.shape[1]
    told = policy.strategy.wants_goals
    runs = columns if told else own
    start = np.repeat(np.arange(count), runs)
    states = np.broadcast_to(courses.states, (count, runs, courses.states.shape[2])).reshape(len(start), -1)
    episodes = _run(
        config,
        policy,
        env_id,
        len(start),
        seeds=[config.seed] * len(start),
        options=_start_options(states, courses.goals[:, :runs].reshape(-1, 2), maze_of(env_id)),
        goals=_told_goals(courses.goals, config) if told else None,
        keys=start if own == 1 else np.arange(len(start)),
        plans_every=PLANS_EVERY,
        until=_Arrivals(courses.goals, runs, radius) if config.end_at_goal else None,
        watch=watch,
    )
    paths = episodes.observations[:, :, :2].reshape(count, runs, -1, 2)
    regions = None if config.regions is None else np.array(config.regions, np.float64)
    outcome = judge(np.broadcast_to(paths, (count, columns, *paths.shape[2:])), courses.goals, regions, radius=radius)
    results = {
        "returns": episodes.returns.reshape(count, runs),
        "lengths": episodes.lengths.reshape(count, runs),
        "success": outcome.success,
        "steps": outcome.steps,
        "time_at_goal": outcome.time_at_goal,
        "counted": courses.counted,
        "goals": np.zeros((0, 2)) if courses.names is None else courses.names,
        "paths": paths.astype(np.float32),
    }
    results |= {f"{OUTCOME}{name}": sums.reshape(count, runs) for name, sums in episodes.outcome_sums.items()}
    if config.goals is None:
        results["aims"] = courses.goals
    if regions is not None:
        results |= {"entered": outcome.entered, "clear": outcome.success & ~outcome.entered}
    return EpisodeResults(episodes, results)


class _Arrivals:
    """Which episodes have reached their goal, or, where one episode is judged by all goals, every one of them.

    Args:
        goals: (n, m, 2).
        runs: episodes of each start: m where every episode has its own goal, else 1.
        radius: within which a goal is reached.
    """

    def __init__(self, goals: np.ndarray, runs: int, radius: float) -> None:
        self._goals = goals.reshape(len(goals) * runs, -1, 2)
        self._reached = np.zeros(self._goals.shape[:2], bool)
        self._radius = radius

    def __call__(self, observations: np.ndarray, success: np.ndarray) -> np.ndarray:
        distance = np.linalg.norm(observations[:, None, :2] - self._goals, axis=-1)
        self._reached |= distance <= self._radius
        arrived: np.ndarray = np.all(self._reached, axis=1)
        return arrived


def _told_goals(goals: np.ndarray, config: EvaluationConfig) -> np.ndarray:
    """(n * m, 2) of goals (n, m, 2): what each episode is told; for the control, always another one than judged."""
    starts, columns, _ = goals.shape
    number = np.tile(np.arange(columns), starts)
    if config.shuffle_goals:
        rng = np.random.default_rng([config.seed, 6])
        number = (number + rng.integers(1, columns, len(number))) % columns
    told: np.ndarray = goals[np.repeat(np.arange(starts), columns), number]
    return told


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
