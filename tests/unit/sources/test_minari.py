"""`data=minari`: data sets made with the library itself, read, written, and their environments recovered."""

from __future__ import annotations

import json
import re
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

import gymnasium
import numpy as np
import pytest
from gymnasium.spaces import Box, Dict, Discrete, MultiDiscrete

from seqrl.envs import make_environments
from seqrl.errors import ConfigError, DataError
from seqrl.formats import minari as minari_sets
from seqrl.formats import writers
from seqrl.sources import find_source, load_episodes
from seqrl.sources.minari import MinariSource

minari = pytest.importorskip("minari", reason="the optional package minari is not installed")

LENGTHS = [4, 6, 3]
GOAL_ENV = '''
import numpy as np
import gymnasium
from gymnasium.spaces import Box, Dict


class Reach(gymnasium.Env):
    """A point that moves as pushed; its observation is a dict, as in goal environments."""

    def __init__(self, size=2, render_mode=None):
        space = Box(-np.inf, np.inf, (size,), np.float64)
        inner = Dict(place=space, extra=space)
        self.observation_space = Dict(achieved_goal=space, desired_goal=space, observation=inner)
        self.action_space = Box(-1.0, 1.0, (size,), np.float32)

    def _seen(self):
        return {
            "achieved_goal": self.place, "desired_goal": self.goal,
            "observation": {"place": self.place, "extra": self.place + 100},
        }

    def reset(self, *, seed=None, options=None):
        super().reset(seed=seed)
        self.place, self.goal = np.zeros(self.action_space.shape), np.full(self.action_space.shape, 7.0)
        return self._seen(), {}

    def step(self, action):
        self.place = self.place + action
        return self._seen(), 0.0, False, False, {}
'''


@pytest.fixture(autouse=True)
def _place(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("MINARI_DATASETS_PATH", str(tmp_path / "minari"))


def episodes(observe: Any, act: Any) -> list[Any]:
    """Three episodes: terminated, truncated, and cut; rewards count the steps."""
    from minari.data_collector.episode_buffer import EpisodeBuffer

    made = []
    for number, length in enumerate(LENGTHS):
        last = np.arange(length) == length - 1
        made.append(
            EpisodeBuffer(
                observations=observe(number, length + 1),
                actions=act(number, length),
                rewards=np.arange(length, dtype=np.float64),
                terminations=last & (number == 0),
                truncations=last & (number == 1),
                infos={"qpos": np.full((length + 1, 2), float(number)), "cost": 100.0 * number + np.arange(length + 1)},
            )
        )
    return made


def create(dataset_id: str, buffers: list[Any], **arguments: Any) -> None:
    with pytest.warns(UserWarning, match=r"is set to None|env_spec is None"):  # metadata that are not given
        minari.create_dataset_from_buffers(dataset_id, buffers, **arguments)


def vectors(number: int, length: int) -> np.ndarray:
    return (10.0 * number + np.arange(length))[:, None] + np.array([0.0, 0.5])


def create_plain(dataset_id: str, **arguments: Any) -> None:
    spaces = {
        "observation_space": Box(-np.inf, np.inf, (2,), np.float64),
        "action_space": Box(-1, 1, (1,), np.float32),
    }
    actions = lambda number, length: np.full((length, 1), number / 10, np.float32)  # noqa: E731
    create(dataset_id, episodes(vectors, actions), **{**spaces, **arguments})


def test_infos_of_a_step_are_kept_as_what_stood_before_it_or_came_of_it() -> None:
    create_plain("mine/plain-v0")
    found = {
        when: load_episodes({"name": "minari", "id": "mine/plain-v0", "extras": {"cost": when}})
        for when in ("before", "after")
    }
    expected = np.concatenate([100.0 * number + np.arange(length) for number, length in enumerate(LENGTHS)])
    np.testing.assert_array_equal(found["before"].extras["cost"], expected)
    np.testing.assert_array_equal(found["after"].extras["cost"], expected + 1)
    with pytest.raises(DataError, match=r"no info 'costs', which data.extras asks for; its infos: cost, qpos"):
        load_episodes({"name": "minari", "id": "mine/plain-v0", "extras": {"costs": "after"}})
    with pytest.raises(ConfigError, match=r"data.extras.cost='now' is unknown.*Choices: before or after"):
        load_episodes({"name": "minari", "id": "mine/plain-v0", "extras": {"cost": "now"}})


def test_episodes_are_read_as_they_were_recorded() -> None:
    create_plain("mine/line/toy-v0")
    source = MinariSource("mine/line/toy-v0")
    store, flat = source.load(), source.read()
    assert store.offsets.tolist() == [0, 4, 10, 13]
    assert store.terminated.tolist() == [True, False, False]
    assert store.truncated.tolist() == [False, True, False]
    wanted = np.concatenate([vectors(number, length) for number, length in enumerate(LENGTHS)])
    np.testing.assert_array_equal(store.observations, wanted)  # T of T + 1
    np.testing.assert_array_equal(store.rewards, np.concatenate([np.arange(length) for length in LENGTHS]))
    np.testing.assert_allclose(store.actions[:, 0], np.repeat([0.0, 0.1, 0.2], LENGTHS), rtol=1e-6)
    np.testing.assert_array_equal(store.extras["qpos"][:, 0], np.repeat([0.0, 1.0, 2.0], LENGTHS))
    assert flat.final_observations is not None
    np.testing.assert_array_equal(flat.final_observations[:, 0], [4.0, 16.0, 23.0])
    assert (store.attributes["name"], store.attributes["env_id"]) == ("mine/line/toy-v0", None)
    assert MinariSource("mine/line/toy-v0", max_transitions=10).load().offsets.tolist() == [0, 4, 10]


@pytest.fixture
def goal_env(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Any:
    """`Reach-v0`, registered from a module, as a plugin would."""
    (tmp_path / "reach_plugin.py").write_text(GOAL_ENV)
    monkeypatch.syspath_prepend(str(tmp_path))
    gymnasium.register("Reach-v0", "reach_plugin:Reach", max_episode_steps=9)
    yield "Reach-v0"
    del gymnasium.registry["Reach-v0"]
    sys.modules.pop("reach_plugin", None)


def create_goals(dataset_id: str, env: Any) -> None:
    def observe(number: int, length: int) -> dict[str, Any]:
        place = vectors(number, length)
        inner = {"place": place, "extra": place + 100}
        return {"achieved_goal": place, "desired_goal": place * 0 + 7, "observation": inner}

    create(dataset_id, episodes(observe, lambda number, length: np.zeros((length, 2), np.float32)), env=env)


def test_parts_of_dict_observations_are_chosen_by_name_and_order(goal_env: str) -> None:
    create_goals("reach/toy-v0", goal_env)
    places = np.concatenate([vectors(number, length) for number, length in enumerate(LENGTHS)])
    keys = ["desired_goal", "observation.place"]
    store = MinariSource("reach/toy-v0", observation_keys=keys).load()
    np.testing.assert_array_equal(store.observations, np.concatenate([places * 0 + 7, places], axis=1))
    assert store.attributes["env_id"] == "Reach-v0@desired_goal+observation.place"
    with pytest.raises(
        ConfigError, match=r"choose with data\.observation_keys=\[\.\.\.\] among achieved_goal, desired"
    ):
        MinariSource("reach/toy-v0").load()  # `observation` is itself of several parts here
    with pytest.raises(ConfigError, match=r"no observation part 'desired'\. Did you mean 'desired_goal'"):
        MinariSource("reach/toy-v0", observation_keys=["desired"]).load()
    with pytest.raises(ConfigError, match=r"data\.observation_keys is empty"):
        MinariSource("reach/toy-v0", observation_keys=[]).load()


def test_goal_environments_need_no_choice() -> None:
    space = Dict(achieved_goal=Box(-1, 1, (1,)), desired_goal=Box(-1, 1, (1,)), observation=Box(-1, 1, (3,)))
    assert minari_sets.choose_keys(space, None, "x") == ("observation", "desired_goal")


def test_the_environment_is_recovered_with_its_observations(goal_env: str) -> None:
    create_goals("reach/toy-v0", goal_env)
    store = MinariSource("reach/toy-v0", observation_keys=["observation.extra", "desired_goal"]).load()
    envs = make_environments(store.attributes["env_id"], 2)
    assert (envs.observation_size, envs.max_episode_steps) == (4, 9)
    envs.reset([0, 1])
    observations, *_ = envs.step(np.ones((2, 2)))
    np.testing.assert_array_equal(observations, [[101.0, 101.0, 7.0, 7.0]] * 2)
    with pytest.raises(ConfigError, match=r"Dict observation space.*env_id=Reach-v0@achieved_goal\+desired_goal"):
        make_environments("Reach-v0", 1)


@pytest.mark.parametrize("settings", [{"max_episode_steps": 5}, {"size": 2, "max_episode_steps": 9}])
def test_an_environment_with_its_own_settings_is_recovered_from_the_data_set(
    goal_env: str, settings: dict[str, int]
) -> None:
    create_goals("reach/wide-v0", gymnasium.make(goal_env, **settings).spec)
    store = MinariSource("reach/wide-v0", observation_keys=["desired_goal"]).load()
    assert store.attributes["env_id"] == "minari:reach/wide-v0@desired_goal"
    envs = make_environments(store.attributes["env_id"], 1)
    assert (envs.max_episode_steps, envs.observation_size) == (settings["max_episode_steps"], 2)
    with pytest.raises(ConfigError, match="the environment of the Minari data set 'no/where-v0' cannot be recovered"):
        make_environments("minari:no/where-v0", 1)


def test_registered_environments_keep_their_id() -> None:
    buffers = episodes(
        lambda number, length: np.zeros((length, 11)), lambda number, length: np.zeros((length, 3), np.float32)
    )
    create("hop/toy-v0", buffers, env="Hopper-v5")
    assert MinariSource("hop/toy-v0").load().attributes["env_id"] == "Hopper-v5"
    assert MinariSource("hop/toy-v0", env_id="Hopper-v4").load().attributes["env_id"] == "Hopper-v4"


def test_actions_of_several_choices_are_counted_from_zero() -> None:
    buffers = episodes(vectors, lambda number, length: np.stack([np.arange(length) % 3 + 4, np.arange(length) % 2], 1))
    space = MultiDiscrete([3, 2], start=[4, 0])
    create("pole/toy-v0", buffers, observation_space=Box(-9, 99, (2,), np.float64), action_space=space)
    store = MinariSource("pole/toy-v0").load()
    assert store.sizes["categories"] == {"action": (3, 2)}
    assert store.actions[:4].tolist() == [[0, 0], [1, 1], [2, 0], [0, 1]]
    assert MinariSource("pole/toy-v0").check()["categories"] == {"action": (3, 2)}


def test_discrete_spaces_are_counted_from_zero(tmp_path: Path) -> None:
    buffers = episodes(
        lambda number, length: np.arange(length) % 4 + 5, lambda number, length: np.arange(length) % 3 - 1
    )
    create("pole/toy-v0", buffers, observation_space=Discrete(4, start=5), action_space=Discrete(3, start=-1))
    store = MinariSource("pole/toy-v0").load()
    assert (store.attributes["num_actions"], store.attributes["num_observations"]) == (3, 4)
    assert store.actions[:4].tolist() == [[0], [1], [2], [0]]
    assert store.observations[:4].tolist() == [[0], [1], [2], [3]]
    writers.write_episodes(MinariSource("pole/toy-v0").read(), "minari:pole/copy-v0")
    copy = minari.load_dataset("pole/copy-v0")
    assert (copy.action_space, copy.observation_space) == (Discrete(3), Discrete(4))
    again = MinariSource("pole/copy-v0").load()
    np.testing.assert_array_equal(again.actions, store.actions)
    np.testing.assert_array_equal(again.observations, store.observations)


@pytest.mark.parametrize("dtype", [np.int64, np.uint8, np.int32])
def test_boxes_of_whole_numbers_are_amounts_and_no_choices(dtype: Any) -> None:
    box = Box(0, 9, (1,), dtype)
    buffers = episodes(vectors, lambda number, length: np.full((length, 1), number + 3, dtype))
    create("valve/toy-v0", buffers, observation_space=Box(-9, 99, (2,), np.float64), action_space=box)
    store = MinariSource("valve/toy-v0").load()
    assert "num_actions" not in store.attributes
    np.testing.assert_array_equal(store.actions[:, 0], np.repeat([3.0, 4.0, 5.0], LENGTHS))


def test_missing_data_sets_say_what_to_do(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    create_plain("mine/toy-v0")
    with pytest.raises(
        DataError, match=r"'mine/toi-v0' is not in '.*minari'\. Did you mean 'mine/toy-v0'\? Run `minari"
    ):
        MinariSource("mine/toi-v0", download=False).load()

    def offline(*arguments: Any, **keywords: Any) -> None:
        raise ConnectionError("no route")

    monkeypatch.setattr(minari, "download_dataset", offline)
    words = r"cannot be downloaded \(ConnectionError: no route\)\..*`minari download D4RL/x-v0`.*its folder to '.*x-v0'"
    with pytest.raises(DataError, match=words):
        MinariSource("D4RL/x-v0").load()


@pytest.mark.parametrize("damage", ["cut", "json", "keys", "lengths", "empty"])
def test_damaged_data_sets_are_refused(damage: str, tmp_path: Path) -> None:
    import h5py

    create_plain("mine/toy-v0")
    folder = tmp_path / "minari" / "mine" / "toy-v0" / "data"
    file, metadata = folder / "main_data.hdf5", folder / "metadata.json"
    if damage == "cut":
        file.write_bytes(file.read_bytes()[:1000])
    elif damage == "json":
        metadata.write_text("{")
    elif damage == "empty":
        metadata.write_text(json.dumps({**json.loads(metadata.read_text()), "total_episodes": 0}))
    else:
        with h5py.File(file, "a") as content:
            rewards = content["episode_1/rewards"][()]
            del content["episode_1/rewards"]
            if damage == "lengths":
                content["episode_1/rewards"] = rewards[:-1]
    words = {
        "cut": r"mine/toy-v0: main_data\.hdf5 is a truncated HDF5 file",
        "json": r"'mine/toy-v0' in '.*' is damaged",
        "keys": r"mine/toy-v0 is damaged \(KeyError",
        "lengths": r"episode 1 of mine/toy-v0 has 7 observations, 6 actions and 5 rewards; one of each",
        "empty": r"mine/toy-v0 holds no transitions",
    }
    with pytest.raises(DataError, match=words[damage]) as caught:
        MinariSource("mine/toy-v0", download=False).load()
    assert "\n" not in str(caught.value)


def test_what_minari_cannot_load_is_not_called_damaged(tmp_path: Path) -> None:
    """It may be the only copy: the library's own reason says what is missing."""
    create_plain("mine/toy-v0")
    metadata = tmp_path / "minari" / "mine" / "toy-v0" / "data" / "metadata.json"
    metadata.write_text(json.dumps({**json.loads(metadata.read_text()), "minari_version": "0.3.1"}))
    with pytest.raises(DataError, match=r"minari cannot load it \(ValueError: .*version.*\); install") as caught:
        MinariSource("mine/toy-v0", download=False).load()
    assert "remove" not in str(caught.value)


def test_nan_is_refused_for_training_and_shown_to_inspection() -> None:
    spoilt = lambda number, length: np.where(np.arange(length) == 1, np.nan, 0.5)[:, None]  # noqa: E731
    spaces = {
        "observation_space": Box(-np.inf, np.inf, (2,), np.float64),
        "action_space": Box(-1, 1, (1,), np.float32),
    }
    create("mine/nan-v0", episodes(vectors, spoilt), **spaces)
    with pytest.raises(DataError, match="mine/nan-v0: actions holds nan at row 1, column 0"):
        MinariSource("mine/nan-v0").load()
    assert np.isnan(find_source("minari:mine/nan-v0").read().actions).sum() == 3


def test_what_was_written_is_read_by_the_library_and_back(tmp_path: Path) -> None:
    create_plain("mine/toy-v0")
    flat = MinariSource("mine/toy-v0").read()
    assert writers.write_episodes(flat, "minari:copies/line/toy-v1") == []
    assert set(minari.list_local_datasets()) == {"mine/toy-v0", "copies/line/toy-v1"}
    episode = minari.load_dataset("copies/line/toy-v1")[1]
    np.testing.assert_array_equal(episode.observations, vectors(1, 7))
    back = MinariSource("copies/line/toy-v1").read()
    names = ("observations", "actions", "rewards", "ends", "terminals", "timeouts", "final_observations")
    for name in names:
        np.testing.assert_array_equal(getattr(back, name), getattr(flat, name), err_msg=name)
    np.testing.assert_array_equal(back.extras["infos/qpos"], flat.extras["infos/qpos"])
    folders = [path.name for path in (tmp_path / "minari" / "copies" / "line").iterdir() if path.is_dir()]
    assert folders == ["toy-v1"]


def test_existing_data_sets_are_kept_unless_asked() -> None:
    create_plain("mine/toy-v0")
    flat = MinariSource("mine/toy-v0").read()
    with pytest.raises(ConfigError, match=r"'minari:mine/toy-v0' exists already"):
        writers.write_episodes(flat, "minari:mine/toy-v0")
    writers.write_episodes(flat.first(4), "minari:mine/toy-v0", overwrite=True)
    assert MinariSource("mine/toy-v0").load().num_episodes == 1
    for wrong in ("minari:toy", "minari:../toy-v0"):
        with pytest.raises(ConfigError, match="is no Minari id"):
            writers.write_episodes(flat, wrong)


def test_a_data_set_stays_where_replacing_it_fails(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    create_plain("mine/toy-v0")
    flat = MinariSource("mine/toy-v0").read()
    rename = Path.rename

    def fail_to_place(self: Path, target: Path) -> Path:
        if target.name == "toy-v0" and not self.name.endswith(".old"):
            raise OSError(28, "No space left on device")
        return rename(self, target)

    monkeypatch.setattr(Path, "rename", fail_to_place)
    with pytest.raises(DataError, match="No space left on device"):
        writers.write_episodes(flat.first(4), "minari:mine/toy-v0", overwrite=True)
    assert MinariSource("mine/toy-v0").load().num_episodes == 3
    assert [path.name for path in (tmp_path / "minari" / "mine").iterdir() if path.is_dir()] == ["toy-v0"]


def test_without_the_library_the_install_line_is_given(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, "minari", None)
    with pytest.raises(ConfigError, match=r"need the package minari .*run pip install 'seqrl\[minari\]'"):
        MinariSource("mine/toy-v0").load()


def _metadata(folder: Path, **changes: Any) -> None:
    file = folder / "metadata.json"
    kept = {**json.loads(file.read_text()), **changes}
    file.write_text(json.dumps({key: value for key, value in kept.items() if value is not None}))


def _recompress(folder: Path) -> None:
    """Rewards in LZF, called by the number of a filter that nobody has."""
    import h5py

    with h5py.File(folder / "main_data.hdf5", "a") as file:
        del file["episode_1/rewards"]
        file.create_dataset("episode_1/rewards", data=np.arange(6.0), chunks=(6,), compression="lzf")
    content = (folder / "main_data.hdf5").read_bytes()
    assert content.count(b"\x00\x7d\x08\x00") == 1  # the number of LZF, the length of its name
    (folder / "main_data.hdf5").write_bytes(content.replace(b"\x00\x7d\x08\x00", b"\x00\x7b\x08\x00"))


NOT_DAMAGED: dict[str, tuple[Callable[[Path], Any], str]] = {
    "arrow": (
        lambda data: _metadata(data, data_format="arrow"),
        r"ImportError: pyarrow is not installed.*minari\[arrow\]",
    ),
    "parquet": (lambda data: _metadata(data, data_format="parquet"), r"ImportError: pyarrow is not installed"),
    "later format": (
        lambda data: _metadata(data, data_format="zarr"),
        r"does not know its format 'zarr'; install a ver",
    ),
    "later version": (lambda data: _metadata(data, minari_version="9.0.0"), r"does not support the dataset .* 9\.0\.0"),
    "no format": (
        lambda data: _metadata(data, data_format=None),
        r"no text 'data_format' in its metadata\.json; keep it",
    ),
    "before 0.5": (lambda data: (data / "metadata.json").unlink(), r"minari wrote none before version 0\.5, so keep"),
    "no filter": (_recompress, r"is compressed by what HDF5 lacks here \(.*(filter|plugin)"),
}


@pytest.mark.parametrize("reason", NOT_DAMAGED)
def test_sets_that_are_whole_are_never_to_be_replaced(reason: str, tmp_path: Path) -> None:
    """A set of one's own cannot be fetched again."""
    create_plain("mine/toy-v0")
    change, words = NOT_DAMAGED[reason]
    change(tmp_path / "minari" / "mine" / "toy-v0" / "data")
    with pytest.raises(DataError, match=words) as caught:
        MinariSource("mine/toy-v0", download=False).load()
    assert not re.search(r"remove|fetch it again|make it again|is damaged \(", str(caught.value))
    assert "\n" not in str(caught.value)


def test_a_set_that_is_open_elsewhere_is_not_called_damaged(tmp_path: Path) -> None:
    create_plain("mine/toy-v0")
    file = tmp_path / "minari" / "mine" / "toy-v0" / "data" / "main_data.hdf5"
    code = f"import h5py, sys; f = h5py.File({str(file)!r}, 'a'); print('open', flush=True); sys.stdin.read()"
    with subprocess.Popen([sys.executable, "-c", code], stdin=subprocess.PIPE, stdout=subprocess.PIPE) as other:
        assert other.stdout is not None
        assert other.stdout.readline() == b"open\n"
        with pytest.raises(
            DataError, match=r"cannot be locked, .*; close it there, or set HDF5_USE_FILE_LOCKING=FALSE"
        ):
            MinariSource("mine/toy-v0", download=False).load()
        other.communicate(b"")
