"""The catalogue against facts from D4RL's paper and package, and against itself."""

from __future__ import annotations

from pathlib import Path

import gymnasium
import pytest

from seqrl.d4rl import catalogue
from seqrl.d4rl.catalogue import Entry, entries, find, latest, nearest, of_file
from seqrl.d4rl.conventions import CONVENTIONS
from seqrl.d4rl.registration import register_package
from seqrl.envs import register_environments
from seqrl.errors import ConfigError
from seqrl.formats.ends import EPISODE_RULES

SERVER = "http://rail.eecs.berkeley.edu/datasets/offline_rl"


def test_every_family_is_there() -> None:
    ids = {entry.id for entry in entries()}
    assert len(ids) == len(entries()) == 181
    for robot in ("hopper", "halfcheetah", "walker2d", "ant"):
        for level in ("random", "medium", "expert", "medium-replay", "medium-expert"):
            assert {f"{robot}-{level}-v{version}" for version in (0, 1, 2)} <= ids
        assert {f"{robot}-full-replay-v1", f"{robot}-full-replay-v2"} <= ids
    assert {f"maze2d-{maze}{kind}-v1" for maze in ("umaze", "medium", "large") for kind in ("", "-dense")} <= ids
    mazes = ["umaze", "umaze-diverse", "medium-play", "medium-diverse", "large-play", "large-diverse"]
    assert {f"antmaze-{maze}-v{version}" for maze in mazes for version in (0, 1, 2)} <= ids
    tasks = [f"{task}-{who}" for task in ("pen", "hammer", "door", "relocate") for who in ("human", "cloned", "expert")]
    assert {f"{task}-v{version}" for task in tasks for version in (0, 1)} <= ids
    assert {f"kitchen-{kind}-v0" for kind in ("complete", "partial", "mixed")} <= ids
    assert {entry.family for entry in entries()} == set(CONVENTIONS)


@pytest.mark.parametrize(
    ("dataset_id", "address", "minimum", "maximum", "limit", "env_id"),
    [
        ("hopper-medium-v2", "gym_mujoco_v2/hopper_medium-v2.hdf5", -20.272305, 3234.3, 1000, "Hopper-v4"),
        ("walker2d-medium-replay-v0", "gym_mujoco/walker_mixed.hdf5", 1.629008, 4592.3, 1000, "Walker2d-v4"),
        ("ant-expert-v2", "gym_mujoco_v2/ant_expert-v2.hdf5", -325.6, 3879.7, 1000, "seqrl/D4rlAnt-v2"),
        ("maze2d-large-v1", "maze2d/maze2d-large-sparse-v1.hdf5", 6.7, 273.99, 800, "seqrl/Maze2d-Large-v1"),
        (
            "antmaze-umaze-v2",
            "ant_maze_v2/Ant_maze_u-maze_noisy_multistart_False_multigoal_False_sparse_fixed.hdf5",
            0.0,
            1.0,
            700,
            "d4rl/antmaze-umaze-v2",
        ),
        ("pen-human-v1", "hand_dapg_v1/pen-human-v1.hdf5", 96.262799, 3076.8331017826877, 100, "AdroitHandPen-v1"),
        (
            "kitchen-mixed-v0",
            "kitchen/kitchen_microwave_kettle_bottomburner_light-v0.hdf5",
            0.0,
            4.0,
            280,
            None,
        ),
    ],
)
def test_facts(dataset_id: str, address: str, minimum: float, maximum: float, limit: int, env_id: str | None) -> None:
    entry = find(dataset_id)
    assert entry.url == f"{SERVER}/{address}"
    assert entry.file_name == address.rpartition("/")[2]
    assert (entry.reference_min, entry.reference_max) == (minimum, maximum)
    assert (entry.max_episode_steps, entry.env_id) == (limit, env_id)


def test_rows_are_sound() -> None:
    urls: dict[str, str] = {}
    for entry in entries():
        assert entry.url.startswith(f"{SERVER}/"), entry.id
        assert entry.url.endswith(".hdf5"), entry.id
        assert entry.reference_min < entry.reference_max, entry.id
        assert entry.max_episode_steps >= 50, entry.id
        assert urls.setdefault(entry.file_name, entry.url) == entry.url, "two files would share one name in the cache"
        assert of_file(entry.file_name).url == entry.url  # type: ignore[union-attr]
        assert of_file(f"{entry.id}.hdf5") == entry


def test_references_depend_on_the_task_alone() -> None:
    """Whoever mistypes a number in one row contradicts the other levels and versions of the robot."""
    for family in ("locomotion", "adroit", "kitchen", "antmaze"):
        tasks: dict[str, tuple[float, float]] = {}
        for entry in entries():
            if entry.family == family:
                numbers = (entry.reference_min, entry.reference_max)
                assert tasks.setdefault(entry.id.partition("-")[0], numbers) == numbers, entry.id


def test_environments_exist_and_keep_the_time_limit() -> None:
    register_environments()
    register_package()
    for entry in entries():
        if entry.env_id is not None and entry.family != "adroit":  # those are of Gymnasium-Robotics, an extra
            assert gymnasium.spec(entry.env_id).max_episode_steps == entry.max_episode_steps, entry.id


def test_rules_are_known() -> None:
    for convention in CONVENTIONS.values():
        assert convention.rule in EPISODE_RULES
        assert convention.without_timeouts in (None, *EPISODE_RULES)


def test_unknown_ids_are_answered_with_the_nearest_or_the_versions() -> None:
    with pytest.raises(ConfigError, match=r"no data set 'hoper-medium-v2'\. Did you mean 'hopper-medium-v2'"):
        find("hoper-medium-v2")
    with pytest.raises(ConfigError, match=r"Its versions: hopper-medium-v0, hopper-medium-v1, hopper-medium-v2"):
        find("hopper-medium")
    with pytest.raises(ConfigError, match=r"`seqrl data list` shows all 181"):
        find("atari")


def test_versions() -> None:
    assert latest(find("hopper-medium-v0")).id == "hopper-medium-v2"
    assert latest(find("maze2d-umaze-v0")).id == "maze2d-umaze-v1"
    assert latest(find("maze2d-open-v0")).id == "maze2d-open-v0"


@pytest.mark.parametrize(
    ("name", "dataset_id"),
    [
        ("hopper_medium_replay", "hopper-medium-replay-v2"),
        ("hopper-medium-mine", "hopper-medium-v2"),
        ("Walker2d-Medium-v1", "walker2d-medium-v2"),
        ("maze2d-umaze", "maze2d-umaze-v1"),
        ("maze2d-large-dense-mine", "maze2d-large-dense-v1"),
        ("door-human", "door-human-v1"),
        ("antmaze-mine", None),  # of which maze?
        ("hopperish", None),
        ("", None),
    ],
)
def test_names_of_own_files_resemble_data_sets(name: str, dataset_id: str | None) -> None:
    found = nearest(name)
    assert (found and found.id) == dataset_id


def test_an_unknown_level_still_tells_the_robot() -> None:
    assert nearest("hopper_mine").env_id == "Hopper-v4"  # type: ignore[union-attr]
    assert nearest("pen-mine").max_episode_steps == 100  # type: ignore[union-attr]


def test_files_are_looked_for_in_our_cache_and_in_d4rl_s(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("SEQRL_DATA", str(tmp_path / "ours"))
    monkeypatch.setenv("D4RL_DATASET_DIR", str(tmp_path / "theirs"))
    entry = find("hopper-medium-v2")
    ours, theirs = (tmp_path / folder / entry.file_name for folder in ("ours/d4rl", "theirs"))
    assert state(entry) == (False, None, ours)
    theirs.parent.mkdir()
    theirs.write_bytes(b"12345")
    assert state(entry) == (True, 5, theirs)
    ours.parent.mkdir(parents=True)
    ours.write_bytes(b"123")
    assert state(entry) == (True, 3, ours)
    assert catalogue.cache_dir() == ours.parent


def state(entry: Entry) -> tuple[bool, int | None, Path]:
    return entry.cached, entry.size, entry.path
