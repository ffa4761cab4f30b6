"""Maze2d: its physics, its environment, its controller and the data made in it."""

from __future__ import annotations

import os
from pathlib import Path

import h5py
import numpy as np
import pytest

from seqrl.envs import make_environments
from seqrl.errors import ConfigError, DataError
from seqrl.registry import DATA
from seqrl.sources.maze2d import Maze2dSource
from seqrl.worlds.controller import WaypointController, record
from seqrl.worlds.maze import MAZES, Maze
from seqrl.worlds.point_mass import MAX_SPEED, PointMaze

FIXTURE = Path(__file__).parents[2] / "fixtures" / "maze2d_umaze_transitions.npz"


@pytest.fixture(params=sorted(MAZES))
def maze(request: pytest.FixtureRequest) -> Maze:
    return MAZES[request.param]


def test_one_step_equals_independent_recordings() -> None:
    """200 transitions recorded with D4RL's geometry by independent implementations.

    The first 120 are forty of each maze, thirty of them in contact with a wall, stepped by the MuJoCo model of
    gymnasium-robotics 1.4.2 (PointMaze_*-v3) on mujoco 3.4.0 and moved into D4RL's frame, float64. The other 80 come
    from a recording of the umaze whose simulation was written by other people on mujoco 4.0.0, float32.
    """
    data = np.load(FIXTURE)
    simulations = {name: PointMaze(MAZES[name]) for name in MAZES}
    touching = 0
    for row, name in enumerate(data["maze"]):
        simulation = simulations[str(name)]
        simulation.set_state(data["observations"][row])
        found = simulation.step(data["actions"][row])
        tolerance = 1e-10 if row < 120 else 1e-6
        np.testing.assert_allclose(found, data["next_observations"][row], rtol=0, atol=tolerance)
        touching += int(data["contact"][row])
    assert touching == 90


def test_walls_hold_at_full_force() -> None:
    simulation = PointMaze(MAZES["umaze"])
    simulation.set_state(np.array([1.0, 1.0, 0.0, 0.0]))
    for _ in range(100):
        state = simulation.step(np.array([-1.0, -1.0]))
    # The wall's face lies at 0.5 in cell coordinates and the ball's radius is 0.1: 0.5 + 0.1 - 0.2.
    np.testing.assert_allclose(state[:2], 0.4, atol=0.01)
    np.testing.assert_allclose(state[2:], 0.0, atol=1e-6)


def test_forces_and_speeds_are_clipped() -> None:
    simulation, start = PointMaze(MAZES["umaze"]), np.array([3.0, 2.0, 0.3, -0.2])
    simulation.set_state(start)
    wanted = simulation.step(np.array([1.0, -1.0]))
    simulation.set_state(start)
    np.testing.assert_array_equal(simulation.step(np.array([7.0, -7.0])), wanted)
    states = []
    for speed in (MAX_SPEED, 3 * MAX_SPEED):
        simulation.set_state(np.array([3.0, 1.2, 0.0, speed]))
        states.append(simulation.step(np.zeros(2)))
    np.testing.assert_array_equal(*states)


@pytest.mark.parametrize("name", sorted(MAZES))
def test_the_environment_rewards_nearness_and_ends_by_time_only(name: str) -> None:
    maze = MAZES[name]
    envs = make_environments(f"seqrl/Maze2d-{name.capitalize()}-v1", 1)
    assert (envs.observation_size, envs.action_size) == (4, 2)
    still = np.zeros((1, 2))
    cases = [([0.0, 0.49], 1.0), ([0.0, 0.51], 0.0), ([0.36, 0.36], 0.0), ([0.35, 0.35], 1.0)]
    for offset, reward in cases:
        state = [*np.array([3.0, 3.0]), 0.0, 0.0]
        target = np.array([3.0, 3.0]) + offset
        envs.reset([0], options=[{"state": state, "target": target}])
        assert envs.step(still)[1][0] == reward
    envs.reset([0], options=[{"state": [*maze.target, 0.0, 0.0]}])  # the target of the options above is forgotten
    steps = [envs.step(still) for _ in range(maze.max_episode_steps + 3)]
    assert sum(rewards[0] for _, rewards, _, _, _ in steps) == maze.max_episode_steps
    assert not any(terminated[0] for _, _, terminated, _, _ in steps)
    assert np.flatnonzero([truncated[0] for _, _, _, truncated, _ in steps]).tolist() == [maze.max_episode_steps - 1]
    envs.close()


def test_starts_lie_in_free_cells_and_follow_the_seed() -> None:
    envs = make_environments("seqrl/Maze2d-Umaze-v1", 64)
    starts, infos = envs.reset(range(64))
    again, _ = envs.reset(range(64))
    np.testing.assert_array_equal(starts, again)
    maze = MAZES["umaze"]
    assert {maze.cell_of(start) for start in starts} == set(maze.free_cells())
    assert np.abs(starts[:, :2] - np.rint(starts[:, :2])).max() <= 0.1
    assert 0.05 < starts[:, 2:].std() < 0.2
    assert all(info["target"].tolist() == [1, 1] for info in infos)
    with pytest.raises(ValueError, match="must be 4 finite numbers"):
        envs.reset(range(64), options=[{"state": [1.0]}] * 64)


def test_the_controller_reaches_every_goal(maze: Maze) -> None:
    rng = np.random.default_rng(0)
    simulation, controller = PointMaze(maze), WaypointController(maze)
    for _ in range(8):
        simulation.set_state(simulation.random_state(rng))
        goal = simulation.random_position(rng)
        controller.start(simulation.state[:2], goal)
        steps = 0
        while not controller.solved(simulation.state):
            simulation.step(controller.act(simulation.state))
            steps += 1
            assert steps < maze.max_episode_steps
        assert np.linalg.norm(simulation.state[:2] - goal) < 0.1


def test_a_recording_is_one_stream_of_the_environment() -> None:
    maze = MAZES["umaze"]
    data = record(maze, 1500, seed=3, action_noise=0.1)
    simulation = PointMaze(maze)
    simulation.set_state(data["observations"][0].astype(np.float64))
    for row in range(len(data["rewards"]) - 1):
        simulation.set_state(data["observations"][row].astype(np.float64))
        after = simulation.step(data["actions"][row])
        np.testing.assert_allclose(after, data["observations"][row + 1], rtol=0, atol=2e-6)
        if abs(np.linalg.norm(after[:2] - maze.target) - 0.5) > 1e-5:
            assert data["rewards"][row] == (np.linalg.norm(after[:2] - maze.target) <= 0.5)
    changes = np.flatnonzero((np.diff(data["infos/goal"], axis=0) != 0).any(axis=1))
    np.testing.assert_array_equal(np.flatnonzero(data["timeouts"]), changes)
    assert len(changes) > 8
    assert not data["terminals"].any()
    assert np.abs(data["actions"]).max() <= 1.0


def test_noise_spreads_actions_around_the_controller() -> None:
    maze, controller = MAZES["umaze"], WaypointController(MAZES["umaze"])
    for noise in (0.0, 0.2):
        data = record(maze, 400, seed=0, action_noise=noise)
        controller.start(data["observations"][0, :2], data["infos/goal"][0])
        first = int(np.flatnonzero(data["timeouts"])[0])
        differences = [
            data["actions"][row] - controller.act(data["observations"][row].astype(np.float64)) for row in range(first)
        ]
        inside = np.abs(data["actions"][:first]) < 1.0
        spread = np.asarray(differences)[inside].std()
        assert spread < 1e-4 if noise == 0.0 else 0.05 < spread < 0.4


def source(folder: Path, **options: object) -> Maze2dSource:
    return Maze2dSource(**{"num_transitions": 700, "cache_dir": str(folder), **options})  # type: ignore[arg-type]


def test_generations_are_equal_bit_for_bit(tmp_path: Path) -> None:
    one, two = source(tmp_path / "a").load(), source(tmp_path / "b").load()
    other = source(tmp_path / "a", seed=1).load()
    for name in ("observations", "actions", "rewards", "offsets", "segments"):
        assert getattr(one, name).tobytes() == getattr(two, name).tobytes()
    assert one.observations.tobytes() != other.observations.tobytes()


def test_the_cache_is_read_and_named_by_all_options(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    first = source(tmp_path).load()
    monkeypatch.setattr("seqrl.worlds.controller.record", None)  # a second recording would fail
    second = source(tmp_path).load()
    np.testing.assert_array_equal(first.observations, second.observations)
    others = [{"seed": 1}, {"maze": "medium"}, {"num_transitions": 701}, {"action_noise": 0.0}]
    assert len({source(tmp_path, **option).path for option in [{}, *others]}) == 5
    monkeypatch.setenv("SEQRL_DATA", str(tmp_path / "elsewhere"))
    assert Maze2dSource().path.parent == tmp_path / "elsewhere" / "maze2d"


def test_episodes_are_pieces_of_the_time_limit(tmp_path: Path) -> None:
    store = source(tmp_path).load()
    assert store.lengths.tolist() == [300, 300, 100]
    assert store.truncated.tolist() == [True, True, False]
    assert len(store.segments) > len(store.offsets)
    goals = source(tmp_path, episodes="timeouts").load()
    assert goals.num_episodes > 3
    with h5py.File(source(tmp_path).path) as file:
        assert (np.flatnonzero(file["timeouts"][()]) + 1).tolist() == goals.offsets[1:-1].tolist()
        assert set(file["infos"]) == {"goal", "qpos", "qvel"}
        assert dict(file.attrs)["env_id"] == store.attributes["env_id"] == "seqrl/Maze2d-Umaze-v1"


def test_a_failed_write_leaves_nothing_to_be_read(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def full(self: Path, target: Path) -> Path:
        raise OSError(28, os.strerror(28))

    monkeypatch.setattr(Path, "replace", full)
    with pytest.raises(DataError, match=r"cannot be written .*No space left on device.* data\.cache_dir"):
        source(tmp_path).load()
    assert list(tmp_path.iterdir()) == []
    (tmp_path / "file").touch()
    with pytest.raises(DataError, match="cannot be written"):
        source(tmp_path / "file").load()


@pytest.mark.parametrize(
    "options", [{"maze": "u-maze"}, {"num_transitions": 1}, {"seed": -1}, {"action_noise": -0.1}, {"episodes": "goals"}]
)
def test_options_that_make_no_sense_are_refused(options: dict[str, object]) -> None:
    with pytest.raises(ConfigError, match=str(next(iter(options.values())))):
        DATA.check({"name": "maze2d", **options})


def test_a_time_limit_of_ones_own_makes_shorter_episodes(tmp_path: Path) -> None:
    whole, short = source(tmp_path).load(), source(tmp_path, time_limit=80).load()
    np.testing.assert_array_equal(short.observations[:80], whole.observations[:80])
    assert short.lengths.max() <= 80 < whole.lengths.max()
    assert int(short.lengths.sum()) == 8 * 80 + 60
