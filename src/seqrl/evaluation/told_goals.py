"""Goals and success as environments tell them in their infos: of tasks that no map of ours judges."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np

from seqrl.console import say
from seqrl.d4rl.reference import reference
from seqrl.envs import check_returns, make_environments
from seqrl.errors import ConfigError
from seqrl.layout import Layout
from seqrl.worlds.environments import is_maze

GOAL = "goal"  # of the info of a reset
SUCCESSES = ("success", "is_success")  # of the info of a step


def read_goals(infos: Sequence[Mapping[str, Any]], layout: Layout, env_id: str) -> np.ndarray:
    """(B, G) goals that B environments tell at their starts: an observation of the goal, or the layout's dimensions.

    Raises:
        ConfigError: they tell none, or other numbers.
    """
    assert layout.goal is not None
    dims, size = list(layout.goal.dims), layout.field("observation").size
    found = []
    for info in infos:
        if GOAL not in info:
            raise ConfigError(
                f"the strategy decodes toward a goal and none is given; add goals=[[x,y]] in a maze of seqrl's, or let "
                f"{env_id} tell its own in info[{GOAL!r}] of reset, as an observation of the goal or as its "
                f"{len(dims)} numbers"
            )
        try:
            numbers = np.asarray(info[GOAL], np.float32).reshape(-1)
        except (TypeError, ValueError):
            numbers = np.zeros(0, np.float32)
        if len(numbers) not in (size, len(dims)) or not np.isfinite(numbers).all():
            raise ConfigError(
                f"{env_id} tells the goal {info[GOAL]!r}; {size} finite numbers of an observation are needed, or the "
                f"{len(dims)} of the layout's goal (dimensions {dims})"
            )
        found.append(numbers[dims] if len(numbers) == size else numbers)
    return np.stack(found)


def check_told_goals(env_id: str, layout: Layout) -> None:
    """Refuse an environment that tells no goal at its start; one is made and reset.

    Raises:
        ConfigError: as `read_goals`.
    """
    envs = make_environments(env_id, 1)
    try:
        _, infos = envs.reset([0])
        read_goals(infos, layout, env_id)
    finally:
        envs.close()


def check_told_success(env_id: str) -> None:
    """Say that an environment tells no success with its first step, if episodes are to end with it; one is made.

    It may tell success only once there is some, so that nothing is refused.
    """
    envs = make_environments(env_id, 1)
    try:
        _, infos = check_returns(envs)
        if np.isnan(read_success(infos)).any():
            say(
                f"end_at_goal=true ends episodes with success, and {env_id} tells none in info[{SUCCESSES[0]!r}] of "
                "its first step; where it never does, they go on to their end"
            )
    finally:
        envs.close()


def shuffle_goals(goals: np.ndarray, seed: int) -> np.ndarray:
    """(B, G): to each episode another episode's goal, which differs from its own.

    Raises:
        ConfigError: all are the same.
    """
    rng, others = np.random.default_rng([seed, 6]), []
    for goal in goals:
        different = np.flatnonzero((goals != goal).any(1))
        if not len(different):
            raise ConfigError("shuffle_goals=true gives each episode another's goal, and all goals are the same")
        others.append(goals[rng.choice(different)])
    return np.stack(others)


def read_success(infos: Sequence[Mapping[str, Any]]) -> np.ndarray:
    """(B,) 1 where a step told success, 0 where it told none, NaN where it said nothing of it, or NaN itself."""
    found = np.full(len(infos), np.nan)
    for row, info in enumerate(infos):
        told = next((info[name] for name in SUCCESSES if name in info), None)
        if told is None or np.size(told) != 1 or np.asarray(told).dtype.kind not in "biuf":
            continue
        number = float(np.asarray(told).reshape(()))
        if not np.isnan(number):
            found[row] = number > 0
    return found


def judge_told(success: np.ndarray, lengths: np.ndarray, env_id: str) -> dict[str, np.ndarray]:
    """The results about goals of episodes whose environment tells success; none where it does not.

    Mazes of ours are judged by their goals, and environments with reference returns by their score.

    Args:
        success: (B, T) of `read_success`, step by step.
        lengths: (B,) steps of each episode.

    Returns:
        (B, 1) `success`, `steps`, `time_at_goal` and `counted`, as of one goal without a name, `goals` (0, 2).
    """
    lived: np.ndarray = np.arange(success.shape[1]) < lengths[:, None]
    if is_maze(env_id) or reference(env_id) is not None or not lived.any() or np.isnan(success[lived]).any():
        return {}
    reached: np.ndarray = lived & (success > 0)
    arrived, first = np.asarray(reached.any(1)), reached.argmax(1)
    share = reached.sum(1) / np.maximum(lengths - first, 1)
    return {
        "success": arrived[:, None],
        "steps": np.where(arrived, first + 1.0, np.nan)[:, None],
        "time_at_goal": np.where(arrived, share, np.nan)[:, None],
        "counted": np.ones((len(lengths), 1), bool),
        "goals": np.zeros((0, 2)),
    }
