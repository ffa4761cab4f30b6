"""Judging driven paths, and where episodes start."""

from __future__ import annotations

import numpy as np
import pytest

from seqrl.data.maze import MAZES
from seqrl.errors import ConfigError
from seqrl.evaluation.goals import SUCCESS_RADIUS, far_enough, judge, maze_of, start_states

UMAZE = MAZES["umaze"]  # a U: (1,1) (1,2) (1,3) (2,3) (3,3) (3,2) (3,1)
GOAL = np.array([[3.0, 1.0]])


def path(*distances: float) -> np.ndarray:
    """(1, 1, T + 1, 2) positions at these distances from the goal."""
    return np.array([[[[3.0, 1.0 + d] for d in distances]]])


@pytest.mark.parametrize(
    ("distances", "success", "steps", "share"),
    [
        ((2.0, 1.0, 0.2, 0.1), True, 2, 1.0),
        ((2.0, 0.4, 1.0, 2.0), True, 1, 1 / 3),  # passing by is success; it shows in the time at the goal
        ((0.1, 2.0, 2.0, 0.1), True, 0, 0.5),
        ((2.0, 1.0, 0.51, 0.51), False, None, None),
        ((2.0, 1.0, 0.9, -SUCCESS_RADIUS), True, 3, 1.0),  # the radius itself still counts, as in D4RL
    ],
)
def test_paths_are_judged_by_their_distance_to_the_goal(
    distances: tuple[float, ...], success: bool, steps: int | None, share: float | None
) -> None:
    found = judge(path(*distances), GOAL)
    assert bool(found.success[0, 0]) is success
    if steps is None:
        assert np.isnan(found.steps[0, 0])
        assert np.isnan(found.time_at_goal[0, 0])
    else:
        assert found.steps[0, 0] == steps
        assert found.time_at_goal[0, 0] == pytest.approx(share)


def test_every_start_is_judged_against_its_own_goal() -> None:
    goals = np.array([[1.0, 1.0], [3.0, 1.0]])
    here, there = [[1.0, 1.0]] * 3, [[3.0, 1.0]] * 3
    found = judge(np.array([[here, here], [here, there]]), goals)
    assert found.success.tolist() == [[True, False], [True, True]]


def test_distance_is_euclidean() -> None:
    near, far = [[3.3, 1.3]], [[3.4, 1.4]]  # 0.42 and 0.57 away
    found = judge(np.array([[near], [far]]), GOAL)
    assert found.success.tolist() == [[True], [False]]


def test_starts_count_beyond_so_many_cells_of_the_way_not_of_the_air() -> None:
    cells = [(1, 1), (1, 2), (2, 3), (3, 3), (3, 2), (3, 1)]
    found = far_enough(UMAZE, cells, np.array([[3.0, 1.0], [1.2, 3.1]]), 2)
    # To (3,1) the way takes 6, 5, 3, 2, 1 and 0 steps; to (1,3) 2, 1, 1, 2, 3 and 4.
    assert found[:, 0].tolist() == [True, True, True, False, False, False]
    assert found[:, 1].tolist() == [False, False, False, False, True, True]
    assert far_enough(UMAZE, cells, GOAL, 0)[:, 0].tolist() == [True] * 5 + [False]


def test_goals_and_starts_in_walls_are_refused() -> None:
    with pytest.raises(ConfigError, match=r"goal \[2\.0, 2\.0\] lies in a wall; free cells: \[\(1, 1\)"):
        far_enough(UMAZE, [(1, 1)], np.array([[2.0, 2.0]]), 2)
    with pytest.raises(ConfigError, match=r"goal \[30\.0, 1\.0\] lies in a wall"):
        far_enough(UMAZE, [(1, 1)], np.array([[30.0, 1.0]]), 2)
    for cell in ([2, 2], [0, 0], [1, 9], [-1, 1]):
        with pytest.raises(
            ConfigError, match=rf"start cell \[{cell[0]}, {cell[1]}\] is no free cell of the maze; free"
        ):
            start_states(UMAZE, [[1, 1], cell], 3, 0)


def test_no_start_cell_is_refused() -> None:
    with pytest.raises(ConfigError, match=r"start_cells=\[\] names no cell"):
        start_states(UMAZE, [], 3, 0)


def test_starts_lie_in_their_cells() -> None:
    states, cells = start_states(UMAZE, [[1, 1], [3, 2]], 50, 0)
    assert states.shape == (100, 4)
    assert cells == [(1, 1)] * 50 + [(3, 2)] * 50
    assert [UMAZE.cell_of(state[:2]) for state in states] == cells
    offsets = states[:, :2] - np.array(cells)
    assert np.abs(offsets).max() <= 0.1
    assert np.abs(offsets).max() > 0.09
    assert states[:, 2:].std() == pytest.approx(0.1, rel=0.2)


def test_free_starts_spread_over_the_free_cells() -> None:
    states, cells = start_states(UMAZE, None, 200, 0)
    assert len(states) == len(cells) == 200
    assert set(cells) == set(UMAZE.free_cells())


def test_starts_are_a_function_of_the_seed() -> None:
    np.testing.assert_array_equal(start_states(UMAZE, None, 20, 3)[0], start_states(UMAZE, None, 20, 3)[0])
    assert not np.array_equal(start_states(UMAZE, None, 20, 3)[0], start_states(UMAZE, None, 20, 4)[0])


def test_the_maze_is_read_off_the_environment() -> None:
    for name in ("UMaze", "Medium", "Large"):
        assert maze_of(f"seqrl/Maze2d-{name}-v0").name == name.lower()
    with pytest.raises(ConfigError, match="goals are given for Hopper-v5; they can be judged in"):
        maze_of("Hopper-v5")
    with pytest.raises(ConfigError, match=r"there is no maze 'umaz'\. Did you mean 'umaze'"):
        maze_of("seqrl/Maze2d-UMaz-v0")
