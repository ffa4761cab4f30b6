"""Four rooms with doors, continuous: a point that walks, walls that stop it, and a walker that knows the way.

The map is the gridworld of Sutton, Precup and Singh 1999, https://doi.org/10.1016/S0004-3702(99)00052-1, figure 2; the
continuous variant is the one that Janner et al. 2021, https://arxiv.org/abs/2106.02039, show goal-reaching paths in.
"""

from __future__ import annotations

from collections.abc import Callable

import numpy as np

from seqrl.worlds.maze import Cell, Maze, is_success

ENV_ID = "seqrl/FourRooms-v0"

FOUR_ROOMS = Maze(
    "four_rooms",
    (
        "#############",
        "#OOOOO#OOOOO#",
        "#OOOOO#OOOOO#",
        "#OOOOOOOOOOO#",
        "#OOOOO#OOOOO#",
        "#OOOOO#OOOOO#",
        "##O####OOOOO#",
        "#OOOOO###O###",
        "#OOOOO#OOOOO#",
        "#OOOOO#OOGOO#",
        "#OOOOOOOOOOO#",
        "#OOOOO#OOOOO#",
        "#############",
    ),
    max_episode_steps=150,
    offset=0.0,
    state_size=2,
)
"""Cells of side 1, centred at (row, column)."""

MAX_STEP = 0.25
"""Length of the longest step."""

GAP = 1e-6
"""A walker comes no nearer to a wall, so that a position never lies on the edge of two cells."""

ARRIVAL_DISTANCE = 0.25
"""The recorded walker passes a waypoint, and ends its episode at the goal, within this distance."""

DOORS: tuple[Cell, ...] = ((3, 6), (7, 9), (10, 6), (6, 2))
"""Door i leads from room i to room i + 1: upper left, upper right, lower right, lower left, and round again."""

_WALLS = np.array(FOUR_ROOMS.walls(), np.float64)
_LOW, _HIGH = _WALLS - 0.5 - GAP, _WALLS + 0.5 + GAP
_AHEAD = np.array([[0.0, 0.75], [0.75, 0.0], [0.0, -0.75], [-0.75, 0.0]])  # from a door's middle into the next room


def move(position: np.ndarray, displacement: np.ndarray) -> np.ndarray:
    """Where a point gets that is pushed from `position` (2,) by `displacement` (2,): exactly, it cannot tunnel.

    It goes straight to the first wall in its way, loses what points into that wall, and slides along with the rest.
    """
    position, rest = _outside(np.array(position, np.float64)), np.array(displacement, np.float64)
    while rest.any():
        with np.errstate(divide="ignore", invalid="ignore", over="ignore"):
            near, far = (_LOW - position) / rest, (_HIGH - position) / rest
        still = rest == 0.0  # along such an axis a wall is in the way always or never
        beside = still & ((position <= _LOW) | (position >= _HIGH))
        enter = np.where(still, -np.inf, np.minimum(near, far))
        leave = np.where(still, np.inf, np.maximum(near, far))
        first = enter.max(1)
        hit = ~beside.any(1) & (first < leave.min(1)) & (first < 1.0) & (leave.min(1) > 0.0)
        if not hit.any():
            return position + rest
        wall = int(np.where(hit, first, np.inf).argmin())
        axis, share = int(enter[wall].argmax()), max(float(first[wall]), 0.0)
        face = (_LOW if rest[axis] > 0 else _HIGH)[wall, axis]
        position, rest = position + share * rest, (1.0 - share) * rest
        position[axis], rest[axis] = face, 0.0
    return position


def _outside(position: np.ndarray) -> np.ndarray:
    """A position (2,) that lies within the gap before a wall, or a rounding error past it, put onto the wall's face.

    From there on every wall is entered or left at a share of the way that is not negative.
    """
    while True:
        depth = np.minimum(position - _LOW, _HIGH - position)
        inside = (depth > 0.0).all(1)
        if not inside.any():
            return position
        wall = int(inside.argmax())
        axis = int(depth[wall].argmin())
        low, high = _LOW[wall, axis], _HIGH[wall, axis]
        position[axis] = low if position[axis] - low < high - position[axis] else high


def limited(step: np.ndarray) -> np.ndarray:
    """A step (2,), shortened to `MAX_STEP` where it is longer."""
    length = float(np.hypot(*step))
    shortened: np.ndarray = step * (MAX_STEP / length) if length > MAX_STEP else step
    return shortened


def random_position(rng: np.random.Generator) -> np.ndarray:
    """(2,) uniform over the free area, doors included."""
    cells = FOUR_ROOMS.free_cells()
    return np.array(cells[rng.integers(len(cells))], np.float64) + (0.5 - GAP) * rng.uniform(-1.0, 1.0, 2)


def room_of(position: np.ndarray) -> int:
    """The room of a position (2,), 0 to 3 as `DOORS` counts them; a door counts half to each side."""
    right = position[1] > 6.0
    low = position[0] > (7.0 if right else 6.0)
    return (2 if low else 1) if right else (3 if low else 0)


def waypoints(start: np.ndarray, goal: np.ndarray) -> list[np.ndarray]:
    """The shorter of the two ways round: a point before and one behind every door, and the goal (2,) itself."""
    here, there = room_of(start), room_of(goal)
    onward, back = [np.asarray(goal)], [np.asarray(goal)]
    for room in range(there - 1, there - 1 - (there - here) % 4, -1):
        door, ahead = np.array(DOORS[room % 4], np.float64), _AHEAD[room % 4]
        onward = [door - ahead, door + ahead, *onward]
    for room in range(there, there + (here - there) % 4):
        door, ahead = np.array(DOORS[room % 4], np.float64), _AHEAD[room % 4]
        back = [door + ahead, door - ahead, *back]
    return min(onward, back, key=lambda way: float(np.linalg.norm(np.diff([start, *way], axis=0), axis=1).sum()))


def record(
    count: int, *, seed: int, action_noise: float, progress: Callable[[int], None] = lambda rows: None
) -> dict[str, np.ndarray]:
    """Record `count` transitions in D4RL's layout: one episode a goal, from anywhere; a function of its arguments.

    `timeouts` marks the last row of an episode: the step that came within `ARRIVAL_DISTANCE` of its goal, or reached
    the step limit. The reward is the environment's: 1 where a step ends near the fixed target, whatever the goal.

    Args:
        action_noise: standard deviation of Gaussian noise on each action, which is recorded as applied.
        progress: called about every thousand rows with how many rows are new.

    Returns:
        `observations`, `actions`, `infos/goal` (N, 2), `rewards` (N,) float32, `terminals`, `timeouts` (N,) bool.
    """
    rng = np.random.default_rng(seed)
    positions, goals = np.zeros((count, 2)), np.zeros((count, 2))
    actions = np.zeros((count, 2), np.float32)  # what is applied is the float32 that is recorded
    rewards, timeouts = np.zeros(count, np.float32), np.zeros(count, bool)
    way: list[np.ndarray] = []
    position, goal, steps = np.zeros(2), np.zeros(2), 0
    for row in range(count):
        if not way:
            position, goal, steps = random_position(rng), random_position(rng), 0
            way = waypoints(position, goal)
        positions[row], goals[row] = position, goal
        actions[row] = limited(limited(way[0] - position) + action_noise * rng.standard_normal(2))
        position = move(position, limited(actions[row].astype(np.float64)))
        rewards[row] = is_success(position, FOUR_ROOMS.target)
        steps += 1
        while way and float(np.hypot(*(way[0] - position))) < ARRIVAL_DISTANCE:
            way.pop(0)
        if steps == FOUR_ROOMS.max_episode_steps:
            way = []
        timeouts[row] = not way
        if row % 1000 == 999:
            progress(1000)
    progress(count % 1000)
    return {
        "observations": positions.astype(np.float32),
        "actions": actions,
        "rewards": rewards,
        "terminals": np.zeros(count, bool),
        "timeouts": timeouts,
        "infos/goal": goals.astype(np.float32),
    }
