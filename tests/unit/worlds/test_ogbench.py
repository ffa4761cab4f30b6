"""OGBench's pointmaze: maps, tasks and physics as they are there, and walks recorded by its recipe."""

from __future__ import annotations

from pathlib import Path

import gymnasium
import numpy as np
import pytest
from gymnasium.utils.env_checker import check_env

from seqrl.envs import register_environments
from seqrl.errors import ConfigError
from seqrl.registry import DATA
from seqrl.sources.pointmaze import PointmazeSource
from seqrl.worlds.environments import is_maze, maze_of
from seqrl.worlds.maze import Maze
from seqrl.worlds.ogbench import POINTMAZES, PointSimulation, find_pointmaze, record_stitch

FIXTURE = Path(__file__).parents[2] / "fixtures" / "pointmaze_transitions.npz"


def record(count: int = 2000, *, maze: str = "medium", seed: int = 0, steps: int = 100) -> dict[str, np.ndarray]:
    return record_stitch(
        POINTMAZES[maze],
        count,
        seed=seed,
        action_noise=0.5,
        cells_apart=4,
        episode_steps=steps,
        progress=lambda _: None,
    )


def test_steps_are_those_of_ogbench() -> None:
    """180 transitions of ogbench 1.2.2 on mujoco 3.4.0, sixty of each maze, forty of them in contact with a wall."""
    data = np.load(FIXTURE)
    for name in POINTMAZES:
        chosen = data["maze"] == name
        found = PointSimulation(POINTMAZES[name]).step(data["observations"][chosen], data["actions"][chosen])
        np.testing.assert_allclose(found, data["next_observations"][chosen], rtol=0, atol=1e-12)
        assert data["contact"][chosen].sum() == 40
        free = ~data["contact"][chosen]
        np.testing.assert_array_equal(found[free], data["next_observations"][chosen][free])  # to the last bit


@pytest.mark.slow
@pytest.mark.parametrize("name", sorted(POINTMAZES))
def test_maps_tasks_and_long_walks_are_those_of_the_package(name: str) -> None:
    """Side by side with `ogbench`, where it is installed."""
    pytest.importorskip("ogbench")
    theirs, maze, rng = gymnasium.make(f"pointmaze-{name}-v0").unwrapped, POINTMAZES[name], np.random.default_rng(0)
    package = dict(vars(theirs))
    walls = np.array([[character == "#" for character in row] for row in maze.rows])
    np.testing.assert_array_equal(walls.T, package["maze_map"] == 1)
    tasks = [(task["init_ij"][::-1], task["goal_ij"][::-1]) for task in package["task_infos"]]
    assert list(maze.tasks) == tasks
    assert maze.radius == package["_goal_tol"]
    simulation = PointSimulation(maze)
    for task in range(1, 6):
        position, _ = theirs.reset(options={"task_id": task})
        for step in range(300):
            drift = rng.uniform(-1.2, 1.2, 2) if step % 12 == 0 else drift  # noqa: F821 (set in the first step)
            action = np.clip(drift + 0.2 * rng.normal(size=2), -1, 1).astype(np.float32)
            found = simulation.step(position[None], action[None])[0]
            position, *_ = theirs.step(action)
            np.testing.assert_allclose(found, position, rtol=0, atol=1e-12)


@pytest.mark.parametrize(("name", "cells", "ways"), [("medium", 26, 10), ("large", 46, 15), ("giant", 86, 30)])
def test_mazes_have_five_tasks_between_free_cells(name: str, cells: int, ways: int) -> None:
    maze = find_pointmaze(name)
    assert len(maze.free_cells()) == cells
    assert len(maze.tasks) == 5
    assert maze.distances(maze.tasks[0][1])[maze.tasks[0][0]] == ways
    for cell in maze.free_cells():
        assert maze.cell_of(maze.place_of(cell)) == cell
        corners = maze.centre_of(cell) + 1.99 * np.array([[1, 1], [1, -1], [-1, 1], [-1, -1]])
        assert {maze.cell_of(corner) for corner in corners} == {cell}
    with pytest.raises(ConfigError, match="there is no maze 'gaint'"):
        find_pointmaze("gaint")


def test_walls_hold() -> None:
    maze = POINTMAZES["giant"]
    simulation, rng = PointSimulation(maze), np.random.default_rng(1)
    positions = np.stack([maze.place_of(cell) for cell in maze.free_cells()])
    walls = np.stack([maze.centre_of(cell) for cell in maze.walls()])
    pushes = rng.uniform(-1, 1, positions.shape)
    for _ in range(40):
        positions = simulation.step(positions, np.clip(pushes + 0.3 * rng.normal(size=pushes.shape), -1, 1))
        gaps = np.linalg.norm(np.maximum(np.abs(positions[:, None] - walls) - 2.0, 0.0), axis=-1)
        assert gaps.min() > 0.7 - 0.3  # pushed out again, not at once
    assert gaps.min() < 0.7


def test_recorded_walks_follow_the_physics_and_go_to_a_cell_nearby() -> None:
    maze, arrays = POINTMAZES["medium"], record()
    positions, actions = arrays["observations"].astype(np.float64), arrays["actions"]
    assert np.abs(actions).max() == 1.0
    assert np.flatnonzero(arrays["timeouts"]).tolist() == [99 + 100 * k for k in range(20)]
    inside = ~arrays["timeouts"][:-1]
    following = PointSimulation(maze).step(positions, actions)[:-1][inside]
    np.testing.assert_allclose(following, positions[1:][inside], atol=1e-5)
    arrived = 0
    for first in range(0, 2000, 100):
        goal, start = maze.cell_of(arrays["infos/goal"][first]), maze.cell_of(positions[first])
        assert maze.distances(goal)[start] in (4, 0)
        assert (arrays["infos/goal"][first : first + 100] == arrays["infos/goal"][first]).all()
        arrived += maze.cell_of(positions[first + 99]) == goal
    assert arrived >= 18
    starts = positions[::100] - np.stack([maze.place_of(maze.cell_of(each)) for each in positions[::100]])
    assert np.abs(starts).max() <= 1.0


def test_a_recording_is_a_function_of_its_arguments() -> None:
    first, again, other = record(500), record(500), record(500, seed=1)
    for name, array in first.items():
        np.testing.assert_array_equal(array, again[name])
    assert not np.array_equal(first["observations"], other["observations"])
    assert {len(array) for array in first.values()} == {500}
    assert record(250)["timeouts"].nonzero()[0].tolist() == [99, 199, 249]  # the last one is cut short


def test_the_environment_is_one_and_draws_tasks() -> None:
    register_environments()
    env = gymnasium.make("seqrl/PointMaze-Medium-v0")
    check_env(env.unwrapped, skip_render_check=True)
    maze, seen = maze_of("seqrl/PointMaze-Medium-v0"), set()
    assert maze is POINTMAZES["medium"]
    assert is_maze("seqrl/PointMaze-Giant-v0")
    for seed in range(40):
        position, info = env.reset(seed=seed)
        seen.add((maze.cell_of(position), maze.cell_of(info["target"])))
    assert seen == set(maze.tasks)
    place = maze.place_of((1, 1))
    for far, earned in ((1.1, 0.0), (0.9, 1.0)):
        env.reset(options={"state": place, "target": [place[0] + far, place[1]]})
        assert env.step(np.zeros(2, np.float32))[1:3] == (earned, False)
    assert env.spec is not None
    assert env.spec.max_episode_steps == 1000
    with pytest.raises(ValueError, match="must be 2 finite numbers"):
        env.reset(options={"state": [0.0, float("nan")]})


def test_the_source_records_once_and_says_whose_recording_it_is(tmp_path: Path) -> None:
    source = PointmazeSource("large", num_transitions=600, episode_steps=60, cache_dir=str(tmp_path))
    store = source.load()
    assert store.lengths.tolist() == [60] * 10
    assert not store.terminated.any()
    assert store.attributes["env_id"] == "seqrl/PointMaze-Large-v0"
    assert "recorded by seqrl" in store.attributes["name"]
    written = source.path.stat().st_mtime_ns
    np.testing.assert_array_equal(source.load().observations, store.observations)
    assert source.path.stat().st_mtime_ns == written


@pytest.mark.parametrize(
    "options", [{"maze": "teleport"}, {"num_transitions": 1}, {"cells_apart": 0}, {"episode_steps": 1}, {"seed": -1}]
)
def test_options_out_of_range_are_refused(options: dict[str, object]) -> None:
    with pytest.raises(ConfigError):
        DATA.build({"name": "pointmaze", **options})


def test_maze2d_is_as_it_was() -> None:
    maze = maze_of("seqrl/Maze2d-Umaze-v1")
    assert isinstance(maze, Maze)
    assert (maze.unit, maze.radius, maze.noise, maze.offset) == (1.0, 0.5, 0.1, 0.2)
    assert maze.extent == (-0.7, 4.3, 4.3, -0.7)
    assert maze.centre_of((1, 2)).tolist() == [0.8, 1.8]
    assert maze.place_of((1, 2)).tolist() == [1.0, 2.0]
