"""The published packages `d4rl` and `gym` beside ours: the same arrays, and their environments on today's MuJoCo.

`nox -s d4rl` installs them into an environment of their own; without them everything here is skipped.
"""

from __future__ import annotations

from collections.abc import Sequence
from importlib.util import find_spec
from pathlib import Path
from typing import Any

import gymnasium
import h5py
import numpy as np
import pytest

from seqrl.d4rl import package as d4rl_package
from seqrl.d4rl.catalogue import entries, find
from seqrl.envs import make_environments, register_environments
from seqrl.formats.reading import read_recording
from seqrl.sources.d4rl import D4rlSource

pytestmark = [
    pytest.mark.skipif(
        not (find_spec("d4rl") and find_spec("gym")), reason=f"without D4RL's packages: {d4rl_package.INSTALL}"
    ),
    pytest.mark.filterwarnings("ignore::DeprecationWarning", "ignore::UserWarning"),  # of packages no longer kept
]

SIZES = {
    "hopper-medium-v2": (11, 3),
    "walker2d-medium-v2": (17, 6),
    "halfcheetah-medium-v2": (17, 6),
    "ant-medium-v2": (111, 8),
    "maze2d-umaze-v1": (4, 2),
    "antmaze-umaze-v2": (29, 8),
}


def test_the_catalogue_is_the_package_s() -> None:
    gyms = [d4rl_package.load(family) for family in d4rl_package.MODULES]
    from d4rl import infos

    assert set(infos.DATASET_URLS) <= {entry.id for entry in entries()}
    for entry in entries():
        if entry.id in infos.DATASET_URLS:
            assert entry.url == infos.DATASET_URLS[entry.id]
        if entry.id in infos.REF_MIN_SCORE:
            assert entry.reference_min == infos.REF_MIN_SCORE[entry.id]
            assert entry.reference_max == infos.REF_MAX_SCORE[entry.id]
        if entry.family in d4rl_package.MODULES:
            spec = gyms[0].spec(entry.id)
            assert entry.max_episode_steps == spec.max_episode_steps
            assert entry.url == spec.kwargs["dataset_url"]
            assert entry.reference_min == spec.kwargs["ref_min_score"]
            assert entry.reference_max == spec.kwargs["ref_max_score"]


@pytest.fixture
def folder(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """D4RL's own folder of data sets, read where it lies."""
    monkeypatch.setenv("SEQRL_DATA", str(tmp_path / "ours"))
    monkeypatch.setenv("D4RL_DATASET_DIR", str(tmp_path))
    d4rl_package.load("locomotion")
    from d4rl import offline_env

    monkeypatch.setattr(offline_env, "DATASET_PATH", str(tmp_path))  # read from the variable when it was imported
    return tmp_path


def write(folder: Path, dataset_id: str, ends: Sequence[int], *, columns: bool = False) -> Path:
    observation_size, action_size = SIZES[dataset_id]
    rng = np.random.default_rng(0)
    count = ends[-1] + 9
    arrays: dict[str, Any] = {
        "observations": rng.normal(size=(count, observation_size)).astype(np.float32),
        "actions": rng.uniform(-1, 1, (count, action_size)).astype(np.float32),
        "rewards": rng.normal(size=(count, 1) if columns else count).astype(np.float32),
        "terminals": np.isin(np.arange(count), ends[::2]).astype(np.float32),
        "timeouts": np.isin(np.arange(count), ends[1::2]),
        "infos/goal": np.repeat(rng.normal(size=(count // 4, 2)), 4, axis=0).astype(np.float32),
        "metadata/algorithm": np.bytes_("SAC"),
    }
    path = folder / find(dataset_id).file_name
    with h5py.File(path, "w") as file:
        for key, array in arrays.items():
            file[key] = array
    return path


@pytest.mark.parametrize("dataset_id", sorted(SIZES))
def test_the_package_s_arrays_are_ours(folder: Path, dataset_id: str) -> None:
    path = write(folder, dataset_id, [7, 31, 63], columns=dataset_id.startswith("ant-"))
    with d4rl_package.quiet():
        theirs = d4rl_package.make(find(dataset_id)).get_dataset()
    ours = read_recording(path).arrays
    for key in ("observations", "actions", "rewards", "terminals", "timeouts", "infos/goal"):
        np.testing.assert_array_equal(ours[key].reshape(theirs[key].shape), theirs[key], err_msg=key)
    one, two = (D4rlSource(id=dataset_id, reader=reader).load() for reader in ("seqrl", "package"))
    for key in ("observations", "actions", "rewards", "offsets", "terminated", "truncated", "segments"):
        np.testing.assert_array_equal(getattr(one, key), getattr(two, key), err_msg=key)


def test_our_episodes_are_the_package_s_trajectories(folder: Path) -> None:
    """`d4rl.sequence_dataset` leaves the cut tail out; otherwise the rule `timeouts` is what it does."""
    write(folder, "hopper-medium-v2", [7, 31, 63])
    import d4rl

    env = d4rl_package.make(find("hopper-medium-v2"))
    with d4rl_package.quiet():
        dataset = env.get_dataset()
        rows = {key: dataset[key] for key in ("rewards", "terminals", "timeouts")}  # it stumbles over metadata
        trajectories = list(d4rl.sequence_dataset(env, rows))
    store = D4rlSource(id="hopper-medium-v2").load()
    assert [len(t["rewards"]) for t in trajectories] == store.lengths.tolist()[:-1]
    assert [bool(t["terminals"][-1]) for t in trajectories] == store.terminated.tolist()[:-1]


@pytest.mark.parametrize("dataset_id", [*sorted(SIZES), "antmaze-large-diverse-v2", "maze2d-open-dense-v0"])
def test_its_environments_reset_and_step(dataset_id: str) -> None:
    envs = make_environments(f"d4rl/{dataset_id}", 3)
    if dataset_id in SIZES:
        assert (envs.observation_size, envs.action_size) == SIZES[dataset_id]
    assert envs.max_episode_steps == find(dataset_id).max_episode_steps
    before = np.random.get_state()[1].copy()  # type: ignore[index,union-attr]  # noqa: NPY002
    first, _ = envs.reset([1, 1, 2])
    np.testing.assert_array_equal(first[0], first[1])
    assert not np.array_equal(first[0], first[2])
    if dataset_id.startswith("antmaze"):
        goals = [env.unwrapped._simulated.target_goal for env in envs.envs]  # type: ignore[attr-defined]
        assert goals[0] == goals[1] != goals[2]
    rng = np.random.default_rng(0)
    for _ in range(20):
        actions = np.repeat(rng.uniform(-1, 1, (1, envs.action_size)), 3, axis=0)
        observations, rewards, terminated, truncated, _ = envs.step(actions)
        assert np.isfinite(observations).all()
        assert np.isfinite(rewards).all()
        assert not truncated.any()
        np.testing.assert_array_equal(observations[0], observations[1])
        assert terminated[0] == terminated[1]
    after = np.random.get_state()[1]  # type: ignore[index]  # noqa: NPY002
    np.testing.assert_array_equal(after, before)  # nobody else's numbers moved
    again, _ = envs.reset([2, 1, 1])
    np.testing.assert_array_equal(again, first[[2, 0, 0]])
    envs.close()


def test_episodes_end_at_the_time_limit() -> None:
    envs = make_environments("d4rl/maze2d-open-v0", 1)
    envs.reset([0])
    for step in range(150):
        _, _, terminated, truncated, _ = envs.step(np.zeros((1, 2)))
        assert not terminated[0]
        assert truncated[0] == (step == 149)


def test_antmaze_ends_at_the_goal() -> None:
    envs = make_environments("d4rl/antmaze-umaze-v2", 1)
    envs.reset([0])
    inner = envs.envs[0].unwrapped._simulated  # type: ignore[attr-defined]
    inner.set_xy(inner.target_goal)
    _, rewards, terminated, truncated, _ = envs.step(np.zeros((1, 8)))
    assert (rewards[0], terminated[0], truncated[0]) == (1.0, True, False)


@pytest.mark.parametrize(
    ("dataset_id", "env_id"),
    [
        ("hopper-medium-v2", "Hopper-v4"),
        ("walker2d-medium-v2", "Walker2d-v4"),
        ("halfcheetah-medium-v2", "HalfCheetah-v4"),
        ("halfcheetah-medium-v2", "HalfCheetah-v5"),
        ("ant-medium-v2", "seqrl/D4rlAnt-v2"),
    ],
)
@pytest.mark.filterwarnings("ignore:.*out of date.*")
def test_its_robots_move_as_gymnasium_s(dataset_id: str, env_id: str) -> None:
    """From the same state, under the same actions: observations, rewards and ends."""
    register_environments()
    theirs = make_environments(f"d4rl/{dataset_id}", 1).envs[0].unwrapped
    ours = gymnasium.make(env_id, disable_env_checker=True)
    robot: Any = ours.unwrapped
    rng = np.random.default_rng(0)
    ends = 0
    for episode in range(4):
        theirs.reset(seed=episode)
        ours.reset(seed=episode)
        data = theirs.data  # type: ignore[attr-defined]
        robot.set_state(data.qpos.copy(), data.qvel.copy())
        for _ in range(120):
            # 64ths survive d4rl's rescaling of float32 actions without rounding
            action = (rng.integers(-64, 65, theirs.action_space.shape) / 64).astype(np.float32)
            one, two = theirs.step(action), ours.step(action)
            np.testing.assert_array_equal(one[0], two[0])
            np.testing.assert_allclose(one[1], two[1], rtol=0, atol=1e-12)
            assert one[2] == two[2]
            if one[2]:
                ends += 1
                break
    assert ends > 0 or dataset_id.startswith("halfcheetah")


def test_its_point_mass_moves_as_ours() -> None:
    theirs, ours = (
        make_environments(i, 1).envs[0].unwrapped for i in ("d4rl/maze2d-umaze-v1", "seqrl/Maze2d-Umaze-v1")
    )
    rng = np.random.default_rng(0)
    rewards = 0.0
    for episode in range(3):
        start, _ = theirs.reset(seed=episode)
        if episode == 0:
            start = np.array([1.0, 1.0, 0.0, 0.0])  # at the goal
            theirs._simulated.set_state(start[:2], start[2:])  # type: ignore[attr-defined]
        ours.reset(options={"state": start})
        action = rng.uniform(-1, 1, 2).astype(np.float32)
        for step in range(200):
            if step % 40 == 0:
                action = rng.uniform(-1, 1, 2).astype(np.float32)
            one, two = theirs.step(action), ours.step(action)
            np.testing.assert_allclose(one[0], two[0], rtol=0, atol=1e-9)
            assert one[1:3] == two[1:3]
            rewards += float(one[1])
    assert rewards > 0
