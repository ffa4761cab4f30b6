"""Reading D4RL's HDF5 layout, whole and damaged."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path
from typing import Any

import h5py
import numpy as np
import pytest

from seqrl.data.sources.d4rl import D4rlSource, guess_env_id
from seqrl.errors import ConfigError, DataError

COUNT = 12


def content(**changes: Any) -> dict[str, Any]:
    """Twelve rows: a terminal in row 3, which is a timeout too, and a timeout in row 8."""
    rng = np.random.default_rng(0)
    terminals, timeouts = np.zeros(COUNT, bool), np.zeros(COUNT, bool)
    terminals[3] = timeouts[3] = timeouts[8] = True
    arrays: dict[str, Any] = {
        "observations": rng.normal(size=(COUNT, 4)).astype(np.float32),
        "actions": rng.uniform(-1, 1, (COUNT, 2)).astype(np.float32),
        "rewards": rng.normal(size=COUNT).astype(np.float32),
        "terminals": terminals,
        "timeouts": timeouts,
    }
    arrays.update(changes)
    return {key: array for key, array in arrays.items() if array is not None}


def write(path: Path, arrays: dict[str, Any], **attributes: Any) -> str:
    with h5py.File(path, "w") as file:
        file.attrs.update(attributes)
        for key, array in arrays.items():
            file[key] = array
    return str(path)


@pytest.fixture
def path(tmp_path: Path) -> Path:
    return tmp_path / "hopper-medium-v2.hdf5"


def test_arrays_and_ends_are_read_as_they_lie(path: Path) -> None:
    arrays = content()
    store = D4rlSource(write(path, arrays)).load()
    for name in ("observations", "actions", "rewards"):
        np.testing.assert_array_equal(getattr(store, name), arrays[name])
    assert store.offsets.tolist() == [0, 4, 9, 12]
    assert store.terminated.tolist() == [True, False, False]  # terminal and timeout at once is terminal
    assert store.truncated.tolist() == [False, True, False]
    assert store.segments.tolist() == [0, 4, 9, 12]
    assert store.attributes["name"] == "hopper-medium-v2"
    assert store.attributes["path"] == path.name
    assert store.attributes["source"] == "d4rl"


def test_a_file_without_timeouts_needs_a_rule(path: Path) -> None:
    written = write(path, content(timeouts=None))
    with pytest.raises(DataError, match=r"has no timeouts.*data\.episodes=time_limit.*data\.episodes=terminals"):
        D4rlSource(written).load()
    assert D4rlSource(written, episodes="terminals").load().offsets.tolist() == [0, 4, 12]
    assert D4rlSource(written, episodes="time_limit", time_limit=5).load().offsets.tolist() == [0, 4, 9, 12]


def test_old_files_with_columns_and_integer_flags_are_read(path: Path) -> None:
    arrays = content()
    columns = {key: arrays[key].astype(np.float64)[:, None] for key in ("rewards", "terminals", "timeouts")}
    store = D4rlSource(write(path, {**arrays, **columns})).load()
    assert store.offsets.tolist() == [0, 4, 9, 12]
    np.testing.assert_array_equal(store.rewards, arrays["rewards"])


def test_the_environment_is_given_or_recorded_or_guessed(path: Path) -> None:
    write(path, content())
    assert D4rlSource(str(path)).load().attributes["env_id"] == "Hopper-v4"
    write(path, content(), env_id="Hopper-v5", seed=7)
    store = D4rlSource(str(path)).load()
    assert store.attributes["env_id"] == "Hopper-v5"
    assert store.attributes["seed"] == 7
    assert D4rlSource(str(path), env_id="Mine-v0", dataset_name="mine").load().attributes["env_id"] == "Mine-v0"


@pytest.mark.parametrize(
    ("stem", "env_id"),
    [
        ("halfcheetah-expert-v2", "HalfCheetah-v4"),
        ("walker2d_medium_replay-v2", "Walker2d-v4"),
        ("ant-random", None),
        ("antmaze-umaze-v2", None),
        ("maze2d-large-sparse-v1", "seqrl/Maze2d-Large-v1"),
        ("my-robot", None),
    ],
)
def test_guesses_by_name(stem: str, env_id: str | None) -> None:
    assert guess_env_id(stem) == env_id


def goals() -> np.ndarray:
    return np.repeat([[1.0, 1.0], [2.0, 1.0], [2.0, 3.0]], [6, 3, 3], axis=0)


def test_segments_end_where_the_goal_changes(path: Path) -> None:
    store = D4rlSource(write(path, {**content(), "infos/goal": goals()})).load()
    assert store.offsets.tolist() == [0, 4, 9, 12]
    assert store.segments.tolist() == [0, 4, 6, 9, 12]


def test_a_stream_is_cut_at_the_time_limit(path: Path) -> None:
    arrays = {**content(terminals=np.zeros(COUNT, bool)), "infos/goal": goals()}
    store = D4rlSource(write(path, arrays), episodes="time_limit", time_limit=5).load()
    assert store.offsets.tolist() == [0, 5, 10, 12]
    assert store.truncated.tolist() == [True, True, False]  # the shorter tail was cut by the recording
    assert store.segments.tolist() == [0, 4, 5, 6, 9, 10, 12]  # timeouts in rows 3 and 8, a new goal after row 5


def test_a_terminal_starts_the_time_limit_anew(path: Path) -> None:
    store = D4rlSource(write(path, content()), episodes="time_limit", time_limit=3).load()
    assert store.offsets.tolist() == [0, 3, 4, 7, 10, 12]
    assert store.terminated.tolist() == [False, True, False, False, False]


@pytest.mark.parametrize(("limit", "rows"), [(4, 4), (8, 4), (9, 9), (11, 9), (12, 12), (100, 12)])
def test_whole_first_episodes_are_kept(path: Path, limit: int, rows: int) -> None:
    assert len(D4rlSource(write(path, content()), max_transitions=limit).load()) == rows


def test_a_limit_below_the_first_episode_is_refused(path: Path) -> None:
    with pytest.raises(DataError, match=r"max_transitions=3 keeps no whole episode .* first has 4 steps"):
        D4rlSource(write(path, content()), max_transitions=3).load()


def test_a_missing_file_is_named(tmp_path: Path) -> None:
    with pytest.raises(DataError, match=r"there is no file .*nothing\.hdf5"):
        D4rlSource(str(tmp_path / "nothing.hdf5")).load()


def test_files_that_are_not_whole_hdf5_are_told_apart(path: Path) -> None:
    path.write_bytes(b"PK\x03\x04 a zip archive, say")
    with pytest.raises(DataError, match="is not an HDF5 file"):
        D4rlSource(str(path)).load()
    path.write_bytes(b"")
    with pytest.raises(DataError, match="is an empty file"):
        D4rlSource(str(path)).load()
    write(path, content())
    path.write_bytes(path.read_bytes()[: path.stat().st_size // 2])
    with pytest.raises(DataError, match="is a truncated HDF5 file"):
        D4rlSource(str(path)).load()


def test_missing_keys_are_named_beside_those_there_are(path: Path) -> None:
    with pytest.raises(DataError, match="lacks actions, rewards; it has observations, terminals, timeouts"):
        D4rlSource(write(path, content(actions=None, rewards=None))).load()


@pytest.mark.parametrize(
    ("key", "array", "message"),
    [
        ("actions", np.zeros((COUNT - 1, 2)), "actions has 11 rows"),
        ("rewards", np.zeros((COUNT, 2)), r"rewards has shape \(12, 2\)"),
        ("terminals", np.zeros(COUNT + 1, bool), r"terminals has shape \(13,\)"),
        ("timeouts", np.zeros(COUNT - 2, bool), r"timeouts has shape \(10,\)"),
        ("timeouts", np.zeros((COUNT, 2), bool), r"timeouts has shape \(12, 2\)"),
        ("infos/goal", np.zeros((COUNT - 1, 2)), "infos/goal has shape"),
        ("observations", np.zeros(COUNT), r"observations has shape \(12,\)"),
        ("observations", np.full((COUNT, 4), np.nan), "observations holds nan at row 0"),
        ("actions", np.full((COUNT, 2), -np.inf), "actions holds -inf at row 0"),
    ],
)
def test_arrays_that_do_not_fit_are_refused(path: Path, key: str, array: np.ndarray, message: str) -> None:
    with pytest.raises(DataError, match=message):
        D4rlSource(write(path, content(**{key: array}))).load()


@pytest.mark.parametrize("rule", ["timeouts", "time_limit"])
def test_an_empty_data_set_is_refused(path: Path, rule: str) -> None:
    empty = {key: array[:0] for key, array in content().items()}
    with pytest.raises(DataError, match="holds no transitions"):
        D4rlSource(write(path, empty), episodes=rule).load()


def test_episodes_of_one_step_are_refused(path: Path) -> None:
    with pytest.raises(DataError, match="only episodes of one step"):
        D4rlSource(write(path, content(timeouts=np.ones(COUNT, bool)))).load()


def test_options_are_checked_before_the_file_is_touched() -> None:
    with pytest.raises(ConfigError, match="Did you mean 'time_limit'"):
        D4rlSource("nowhere.hdf5", episodes="timelimit")
    with pytest.raises(ConfigError, match="time_limit=1"):
        D4rlSource("nowhere.hdf5", time_limit=1)
    with pytest.raises(ConfigError, match="max_transitions=0"):
        D4rlSource("nowhere.hdf5", max_transitions=0)


def test_importing_the_sources_imports_no_simulator() -> None:
    code = (
        "import sys, seqrl.data.sources.d4rl, seqrl.data.sources.maze2d, seqrl.envs, seqrl.envs.reference;"
        "sys.exit(' '.join({'gymnasium', 'mujoco', 'h5py'} & set(sys.modules)) or 0)"
    )
    subprocess.run([sys.executable, "-c", code], check=True)
