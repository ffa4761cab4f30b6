"""Maps: their cells, their shortest paths, what may start where, and the environments that they stand for."""

from __future__ import annotations

import itertools

import numpy as np
import pytest

from seqrl.errors import ConfigError
from seqrl.worlds.environments import is_maze, maze_of
from seqrl.worlds.four_rooms import FOUR_ROOMS
from seqrl.worlds.maze import MAZES, Maze, draw_starts, find_far_pairs, find_maze

UMAZE = MAZES["umaze"]  # a U: (1,1) (1,2) (1,3) (2,3) (3,3) (3,2) (3,1)
GOAL = np.array([[3.0, 1.0]])


@pytest.fixture(params=sorted(MAZES))
def maze(request: pytest.FixtureRequest) -> Maze:
    return MAZES[request.param]


def test_maps_are_closed_and_hold_one_target(maze: Maze) -> None:
    grid = np.array([list(row) for row in maze.rows])
    border = np.concatenate([grid[0], grid[-1], grid[:, 0], grid[:, -1]])
    assert set(border) == {"#"}
    assert (grid == "G").sum() == 1
    assert maze.is_free(maze.cell_of(maze.target))
    assert len(maze.free_cells()) + len(maze.walls()) == grid.size


@pytest.mark.parametrize(
    ("name", "target", "free", "steps"),
    [("umaze", [1, 1], 7, 300), ("medium", [6, 6], 26, 600), ("large", [7, 9], 46, 800)],
)
def test_sizes_targets_and_time_limits_are_those_of_d4rl(name: str, target: list[int], free: int, steps: int) -> None:
    assert MAZES[name].target.tolist() == target
    assert len(MAZES[name].free_cells()) == free
    assert MAZES[name].max_episode_steps == steps


def test_distances_equal_powers_of_the_adjacency_matrix(maze: Maze) -> None:
    cells = maze.free_cells()
    adjacent = np.array([[abs(a[0] - b[0]) + abs(a[1] - b[1]) == 1 for b in cells] for a in cells])
    reached = np.eye(len(cells), dtype=bool)
    wanted = np.where(reached, 0, -1)
    for step in range(1, len(cells)):
        reached = reached | (reached @ adjacent)
        wanted[reached & (wanted < 0)] = step
    for index, goal in enumerate(cells):
        distances = maze.distances(goal)
        assert [distances[cell] for cell in cells] == wanted[:, index].tolist()
    path = maze.path_cells(cells[0], cells[-1])
    assert (path[0], path[-1], len(path)) == (cells[0], cells[-1], wanted[0, -1] + 1)
    assert all(adjacent[cells.index(a), cells.index(b)] for a, b in itertools.pairwise(path))


def test_walls_and_unknown_mazes_are_refused() -> None:
    with pytest.raises(ConfigError, match=r"\(0, 0\) of maze 'umaze' is a wall"):
        MAZES["umaze"].distances((0, 0))
    with pytest.raises(ConfigError, match="is a wall"):
        MAZES["umaze"].path_cells((2, 2), (1, 1))
    with pytest.raises(ConfigError, match="Did you mean 'medium'"):
        find_maze("medum")


def test_starts_count_beyond_so_many_cells_of_the_way_not_of_the_air() -> None:
    cells = [(1, 1), (1, 2), (2, 3), (3, 3), (3, 2), (3, 1)]
    found = find_far_pairs(UMAZE, cells, np.array([[3.0, 1.0], [1.2, 3.1]]), 2)
    # To (3,1) the way takes 6, 5, 3, 2, 1 and 0 steps; to (1,3) 2, 1, 1, 2, 3 and 4.
    assert found[:, 0].tolist() == [True, True, True, False, False, False]
    assert found[:, 1].tolist() == [False, False, False, False, True, True]
    assert find_far_pairs(UMAZE, cells, GOAL, 0)[:, 0].tolist() == [True] * 5 + [False]


def test_goals_and_starts_in_walls_are_refused() -> None:
    with pytest.raises(ConfigError, match=r"goal \[2\.0, 2\.0\] lies in a wall; free cells: \[\(1, 1\)"):
        find_far_pairs(UMAZE, [(1, 1)], np.array([[2.0, 2.0]]), 2)
    with pytest.raises(ConfigError, match=r"goal \[30\.0, 1\.0\] lies in a wall"):
        find_far_pairs(UMAZE, [(1, 1)], np.array([[30.0, 1.0]]), 2)
    for cell in ([2, 2], [0, 0], [1, 9], [-1, 1]):
        with pytest.raises(
            ConfigError, match=rf"start cell \[{cell[0]}, {cell[1]}\] is no free cell of the maze; free"
        ):
            draw_starts(UMAZE, [[1, 1], cell], 3, 0)


def test_no_start_cell_is_refused() -> None:
    with pytest.raises(ConfigError, match=r"start_cells=\[\] names no cell"):
        draw_starts(UMAZE, [], 3, 0)


def test_starts_lie_in_their_cells() -> None:
    states, cells = draw_starts(UMAZE, [[1, 1], [3, 2]], 50, 0)
    assert states.shape == (100, 4)
    assert cells == [(1, 1)] * 50 + [(3, 2)] * 50
    assert [UMAZE.cell_of(state[:2]) for state in states] == cells
    offsets = states[:, :2] - np.array(cells)
    assert np.abs(offsets).max() <= 0.1
    assert np.abs(offsets).max() > 0.09
    assert states[:, 2:].std() == pytest.approx(0.1, rel=0.2)


def test_free_starts_spread_over_the_free_cells() -> None:
    states, cells = draw_starts(UMAZE, None, 200, 0)
    assert len(states) == len(cells) == 200
    assert set(cells) == set(UMAZE.free_cells())


def test_starts_are_a_function_of_the_seed() -> None:
    np.testing.assert_array_equal(draw_starts(UMAZE, None, 20, 3)[0], draw_starts(UMAZE, None, 20, 3)[0])
    assert not np.array_equal(draw_starts(UMAZE, None, 20, 3)[0], draw_starts(UMAZE, None, 20, 4)[0])


def test_the_maze_is_read_off_the_environment() -> None:
    for name in ("UMaze", "Medium", "Large"):
        assert maze_of(f"seqrl/Maze2d-{name}-v0").name == name.lower()
    with pytest.raises(ConfigError, match="goals are given for Hopper-v5; they can be judged in"):
        maze_of("Hopper-v5")
    with pytest.raises(ConfigError, match=r"there is no maze 'umaz'\. Did you mean 'umaze'"):
        maze_of("seqrl/Maze2d-UMaz-v0")


def test_four_rooms_are_a_map_as_well() -> None:
    rooms = maze_of("seqrl/FourRooms-v0")
    assert rooms is FOUR_ROOMS
    assert is_maze("seqrl/FourRooms-v0")
    assert is_maze("seqrl/Maze2d-Umaze-v1")
    assert not is_maze("Hopper-v4")
    states, cells = draw_starts(rooms, [[3, 3], [9, 9]], 10, 0)
    assert states.shape == (20, 2)  # no velocity
    assert [rooms.cell_of(state) for state in states] == cells
    with_velocity, _ = draw_starts(UMAZE, [[3, 3], [1, 1]], 10, 0)
    np.testing.assert_allclose(states - np.array(cells), with_velocity[:, :2] - np.repeat([[3, 3], [1, 1]], 10, axis=0))
