"""OGBench's data sets by name, from files in its format that the test writes itself."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import pytest

from seqrl.data.episodes import EpisodeStore
from seqrl.envs import check_env_id, make_environments
from seqrl.errors import ConfigError, DataError
from seqrl.registry import DATA
from seqrl.sources import load_episodes

LENGTHS = [5, 5, 4]


def write(folder: Path, name: str, **more: np.ndarray) -> dict[str, np.ndarray]:
    """Trajectories as OGBench has them on disk: flat, and `terminals` set in the last row of each."""
    rng, rows = np.random.default_rng(0), sum(LENGTHS)
    terminals = np.zeros(rows, np.float32)
    terminals[np.cumsum(LENGTHS) - 1] = 1.0
    arrays = {
        "observations": rng.normal(size=(rows, 2)).astype(np.float32),
        "actions": rng.uniform(-1, 1, size=(rows, 2)).astype(np.float32),
        "terminals": terminals,
        "qpos": rng.normal(size=(rows, 3)).astype(np.float32),
        "qvel": rng.normal(size=(rows, 3)).astype(np.float32),
        **more,
    }
    np.savez_compressed(folder / f"{name}.npz", **arrays)
    return arrays


def load(folder: Path, name: str, **options: Any) -> EpisodeStore:
    return load_episodes({"name": "ogbench", "id": name, "folder": str(folder), **options})


def test_trajectories_are_truncated_episodes_without_rewards(tmp_path: Path) -> None:
    arrays = write(tmp_path, "antmaze-large-stitch-v0")
    store = load(tmp_path, "antmaze-large-stitch-v0")
    np.testing.assert_array_equal(store.observations, arrays["observations"])
    np.testing.assert_array_equal(store.actions, arrays["actions"])
    assert store.lengths.tolist() == LENGTHS
    assert store.truncated.all()
    assert not store.terminated.any()
    assert not store.rewards.any()
    np.testing.assert_array_equal(store.extras["qpos"], arrays["qpos"])
    assert store.attributes["name"] == "antmaze-large-stitch-v0"
    assert store.attributes["env_id"] == "antmaze-large-v0"
    assert load(tmp_path, "antmaze-large-stitch-v0", max_transitions=11).lengths.tolist() == [5, 5]


def test_single_tasks_have_rewards_and_end_where_a_mask_says_so(tmp_path: Path) -> None:
    masks = np.ones(sum(LENGTHS), np.float32)
    masks[[2, 9]] = 0.0  # within the first trajectory, and in the last row of the second
    name = "cube-double-play-singletask-task2-v0"
    write(tmp_path, name, rewards=masks - 1.0, masks=masks)
    store = load(tmp_path, name)
    assert store.rewards.tolist() == (masks - 1.0).tolist()
    assert store.terminated.tolist() == [False, True, False]
    assert store.attributes["env_id"] == "cube-double-singletask-task2-v0"


@pytest.mark.parametrize(
    ("name", "env_id"),
    [
        ("pointmaze-giant-navigate-v0", "seqrl/PointMaze-Giant-v0"),
        ("pointmaze-medium-stitch-v0-val", "seqrl/PointMaze-Medium-v0"),
        ("pointmaze-teleport-navigate-v0", "pointmaze-teleport-v0"),
        ("humanoidmaze-medium-navigate-v0", "humanoidmaze-medium-v0"),
        ("puzzle-4x6-noisy-v0", "puzzle-4x6-v0"),
        ("scene-play-v0", "scene-v0"),
    ],
)
def test_the_environment_follows_from_the_name(name: str, env_id: str, tmp_path: Path) -> None:
    source = DATA.build({"name": "ogbench", "id": name, "folder": str(tmp_path)})
    assert source.env_id == env_id
    assert source.local_files() == [tmp_path / f"{name}.npz"]
    if env_id.startswith("seqrl/"):
        check_env_id(env_id)


@pytest.mark.parametrize(
    ("name", "message"),
    [
        ("visual-antmaze-large-navigate-v0", r"holds images.*data set of states"),
        ("powderworld-easy-play-v0", "holds images"),
        ("antmaze-large", r"no name of OGBench's; give one as antmaze-large-navigate-v0"),
        ("../../etc/antmaze-large-navigate-v0", "no name of OGBench's"),
        ("os:antmaze-large-navigate-v0", "no name of OGBench's"),
    ],
)
def test_other_names_are_refused(name: str, message: str) -> None:
    with pytest.raises(ConfigError, match=message):
        DATA.build({"name": "ogbench", "id": name})


def test_a_file_that_is_missing_is_told_with_the_way_to_fetch_it(tmp_path: Path) -> None:
    with pytest.raises(
        DataError, match=r"cube-single-play-v0.npz' is not there; fetch it by ogbench.download_datasets"
    ):
        load(tmp_path, "cube-single-play-v0")


def test_an_environment_of_the_package_says_what_installs_it() -> None:
    pytest.importorskip("gymnasium")
    try:
        import ogbench  # noqa: F401
    except ImportError:
        with pytest.raises(ConfigError, match=r"pip install 'seqrl\[ogbench\]'"):
            check_env_id("cube-single-v0")


@pytest.mark.slow
def test_the_package_reads_the_same_rows(tmp_path: Path) -> None:
    """`ogbench.load_dataset` drops the last row of each trajectory, whose action led nowhere that was recorded."""
    utils = pytest.importorskip("ogbench.utils", reason="the optional package ogbench is not installed")
    write(tmp_path, "antmaze-large-stitch-v0")
    theirs = utils.load_dataset(str(tmp_path / "antmaze-large-stitch-v0.npz"))
    store = load(tmp_path, "antmaze-large-stitch-v0")
    kept = np.ones(len(store), bool)
    kept[store.offsets[1:] - 1] = False
    np.testing.assert_array_equal(np.asarray(store.observations)[kept], theirs["observations"])
    np.testing.assert_array_equal(np.asarray(store.actions)[kept], theirs["actions"])


@pytest.mark.slow
@pytest.mark.filterwarnings("ignore:.*precision lowered by casting")  # of its spaces, made anew by each reset
@pytest.mark.parametrize(
    ("env_id", "observation", "action"), [("cube-single-v0", 28, 5), ("antmaze-medium-v0", 29, 8), ("scene-v0", 40, 5)]
)
def test_environments_of_the_package_are_acted_in_without_a_plugin(env_id: str, observation: int, action: int) -> None:
    pytest.importorskip("ogbench", reason="the optional package ogbench is not installed")
    envs = make_environments(env_id, 1)
    assert (envs.observation_size, envs.action_size) == (observation, action)
    seen, _ = envs.reset([0])
    after, rewards, *_ = envs.step(np.ones((1, action)))
    assert seen.shape == after.shape == (1, observation)
    assert rewards.tolist() == [0.0]
    envs.close()
