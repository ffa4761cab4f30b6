"""What a stranger's Minari data set may do: be read. It names no code that runs and no file that is read."""

from __future__ import annotations

import importlib.util
import json
import sys
import zlib
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import gymnasium
import numpy as np
import pytest
from gymnasium.spaces import Box, Dict

from seqrl.envs import check_env_id, make_environments
from seqrl.errors import ConfigError, DataError
from seqrl.sources import find_source

pytest.importorskip("minari", reason="the optional package minari is not installed")

EVIL = """
from pathlib import Path
Path({mark!r}).touch()
import gymnasium
def run(*given, **settings):
    Path({mark!r}).touch()
class Env(gymnasium.Env):
    def __init__(self, **settings): run()
gymnasium.register("Evil-v0", Env)
"""
SPEC: dict[str, Any] = {
    "id": "Pendulum-v1",
    "entry_point": "gymnasium.envs.classic_control.pendulum:PendulumEnv",
    "reward_threshold": None,
    "nondeterministic": False,
    "max_episode_steps": 200,
    "order_enforce": True,
    "disable_env_checker": False,
    "kwargs": {},
    "additional_wrappers": [],
    "vector_entry_point": None,
}
WRAPPER = {"name": "Evil", "entry_point": "evil_module:run", "kwargs": {}}
Change = Callable[..., Path]


@pytest.fixture
def mark(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[Path]:
    """A file that appears when a module `evil_module` is imported, or anything of it called."""
    place = tmp_path / "code ran"
    (tmp_path / "modules").mkdir()
    (tmp_path / "modules" / "evil_module.py").write_text(EVIL.format(mark=str(place)))
    monkeypatch.syspath_prepend(str(tmp_path / "modules"))
    monkeypatch.setenv("MINARI_DATASETS_PATH", str(tmp_path / "minari"))
    monkeypatch.chdir(tmp_path)
    (tmp_path / "beside the data").touch()
    yield place
    sys.modules.pop("evil_module", None)
    gymnasium.registry.pop("Evil-v0", None)


@pytest.fixture
def record(tmp_path: Path, mark: Path) -> Change:
    """Records `evil/task-v0`, whose metadata are then changed; None takes a key out."""

    def make(observations: Any = None, space: Any = None, **changes: Any) -> Path:
        from minari.data_collector.episode_buffer import EpisodeBuffer
        from minari.dataset.minari_storage import MinariStorage

        folder = tmp_path / "minari" / "evil" / "task-v0"
        folder.mkdir(parents=True)
        space = space or Box(-np.inf, np.inf, (3,))
        storage = MinariStorage.new(
            folder / "data", observation_space=space, action_space=Box(-2, 2, (1,)), data_format="hdf5"
        )
        storage.update_metadata({"dataset_id": "evil/task-v0", "minari_version": "0.5.4"})
        last = np.arange(20) == 19
        seen = np.zeros((21, 3), "f4") if observations is None else observations
        actions = np.zeros((20, 1), "f4")
        storage.update_episodes([EpisodeBuffer(None, None, None, seen, actions, np.zeros(20), last, ~last & last)])
        file = folder / "data" / "metadata.json"
        content = {**json.loads(file.read_text()), **changes}
        file.write_text(json.dumps({key: value for key, value in content.items() if value is not None}))
        return folder

    return make


def spec(**changes: Any) -> str:
    return json.dumps({**SPEC, **changes})


UNTRUSTED = {
    "entry point": spec(entry_point="evil_module:run"),
    "entry point of the system": spec(entry_point="os:system", kwargs={"command": "touch evil"}),
    "unregistered": spec(id="Mine-v0", entry_point="evil_module:Env"),
    "module in the id": spec(id="evil_module:Evil-v0", entry_point="evil_module:Env"),
    "wrapper": spec(additional_wrappers=[WRAPPER]),
    "vectorized": spec(vector_entry_point="evil_module:run"),
    "setting that names code": spec(kwargs={"controller": "evil_module:run"}),
    "setting that names a module": spec(kwargs={"config": {"type": ["evil.module"]}}),
    "setting that names a file": spec(kwargs={"xml_file": "/etc/passwd"}),
    "setting that is a module": spec(kwargs={"plugin": "evil_module"}),
    "setting with a module in it": spec(kwargs={"parts": [{"walls": 1}, {"evil_module": [1]}]}),
    "setting that is a file": spec(kwargs={"map": "beside the data"}),
    "setting of make": spec(kwargs={"id": "evil_module:Evil-v0"}),
    "unknown setting": spec(kwargs={"evil": 1}),
    "of another version": spec(apply_api_compatibility=True, autoreset=True, entry_point="evil_module:run"),
    "limit": spec(max_episode_steps="evil_module:run"),
}


@pytest.mark.parametrize("key", ["env_spec", "eval_env_spec"])
@pytest.mark.parametrize("attack", UNTRUSTED)
def test_no_environment_is_made_of_what_metadata_name(attack: str, key: str, record: Change, mark: Path) -> None:
    record(**{"env_spec": spec(), key: UNTRUSTED[attack]})
    for act in (lambda: make_environments("minari:evil/task-v0", 1), lambda: check_env_id("minari:evil/task-v0")):
        if attack == "unknown setting" and act.__code__.co_names[0] == "check_env_id":
            continue  # only the environment knows its settings
        with pytest.raises(ConfigError, match=r"environment of the Minari data set 'evil/task-v0' cannot be recovered"):
            act()
    assert not mark.exists()


@pytest.mark.parametrize("attack", UNTRUSTED)
def test_episodes_are_read_and_their_environment_is_not_made(attack: str, record: Change, mark: Path) -> None:
    record(env_spec=UNTRUSTED[attack])
    try:
        flat = find_source("minari:evil/task-v0").read()
    except DataError:  # the library refuses some
        flat = None
    if flat is not None:
        assert len(flat.ends) == 20
        with pytest.raises(ConfigError):
            make_environments(flat.attributes["env_id"], 1)
    assert not mark.exists()


@pytest.mark.parametrize("lacking", [("observation_space",), ("action_space",), ("observation_space", "action_space")])
def test_a_missing_space_is_refused_and_no_environment_asked(
    lacking: tuple[str, ...], record: Change, mark: Path
) -> None:
    """The library makes the environment to find out, whatever it is."""
    record(env_spec=spec(entry_point="evil_module:run"), **dict.fromkeys(lacking))
    with pytest.raises(DataError, match=rf"'evil/task-v0' has no {lacking[0]} in its metadata\.json"):
        find_source("minari:evil/task-v0").read()
    with pytest.raises(ConfigError, match="has no"):
        make_environments("minari:evil/task-v0", 1)
    assert not mark.exists()


@pytest.mark.parametrize(
    "space",
    [
        {"type": "evil_module:run"},
        {"type": "Box", "dtype": "O", "shape": [3], "low": [0, 0, 0], "high": [1, 1, 1]},
        {"type": "Box", "dtype": {"names": ["a"], "formats": ["O"]}, "shape": [1], "low": [0], "high": [1]},
        {"type": "Box", "dtype": "float32", "shape": [10**12], "low": 0, "high": 1},
        {"type": "Dict", "subspaces": {"a": {"type": "Env"}}},
        {"type": "MultiBinary", "n": 10**12},
        {"type": "MultiDiscrete", "dtype": "int64", "nvec": [3, 0], "start": [0, 0]},
        {"type": "MultiDiscrete", "dtype": "int64", "nvec": [10**12], "start": [0]},
        {"type": "Discrete", "n": 10**30, "start": 0},
        ["Box"],
        3,
    ],
)
def test_spaces_that_are_none_are_refused(space: Any, record: Change, mark: Path) -> None:
    record(observation_space=json.dumps(space))
    with pytest.raises(DataError, match=r"'evil/task-v0' has a observation_space in its metadata\.json that is no"):
        find_source("minari:evil/task-v0").read()
    assert not mark.exists()


def test_a_download_is_checked_before_it_is_loaded(
    record: Change, mark: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    import minari

    folder = record(env_spec=spec(entry_point="evil_module:run"), observation_space=None)
    server = folder.rename(tmp_path / "server")
    monkeypatch.setattr(minari, "download_dataset", lambda dataset_id: server.rename(folder))
    with pytest.raises(DataError, match=r"has no observation_space in its metadata\.json"):
        find_source("minari:evil/task-v0").load()
    assert folder.exists()
    assert not mark.exists()


@pytest.mark.parametrize("found", ["13.0.0", "14.0.0", "2.1"])
def test_an_old_pyarrow_is_refused(found: str, record: Change, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    package = tmp_path / "modules" / f"pyarrow-{found}.dist-info"
    package.mkdir()
    (package / "METADATA").write_text(f"Metadata-Version: 2.1\nName: pyarrow\nVersion: {found}\n")
    record(data_format="arrow")
    with pytest.raises(
        DataError, match=rf"pyarrow {found} runs code that a data file may hold; install 14\.0\.1 or later"
    ):
        find_source("minari:evil/task-v0").read()


@pytest.mark.parametrize("count", [10**12, -1, "3", True, 2.5])
def test_impossible_numbers_of_episodes_are_refused(count: Any, record: Change) -> None:
    record(total_episodes=count)
    with pytest.raises(DataError, match=r"metadata\.json (promises|has total_episodes)"):
        find_source("minari:evil/task-v0").read()


@pytest.mark.parametrize("content", ["[]", "{", '"text"', "[" * 100_000, "\x00", '{"a": 1}'])
def test_metadata_that_are_none_are_told_in_a_sentence(content: str, record: Change) -> None:
    (record() / "data" / "metadata.json").write_text(content)
    with pytest.raises(DataError, match="'evil/task-v0'") as caught:
        find_source("minari:evil/task-v0").read()
    assert "\n" not in str(caught.value)


@pytest.mark.parametrize("text", [3, "[]", '{"id": 3}', "{", {"id": "Pendulum-v1"}])
def test_a_specification_that_is_none_is_told_in_a_sentence(text: Any, record: Change) -> None:
    record(eval_env_spec=text)
    with pytest.raises(DataError, match=r"has a eval_env_spec that is none of Gymnasium's"):
        find_source("minari:evil/task-v0").read()


def test_the_registered_environment_is_recovered_with_the_recorded_settings(record: Change) -> None:
    record(env_spec=spec(), eval_env_spec=spec(max_episode_steps=7, kwargs={"g": 3.0, "render_mode": "human"}))
    assert find_source("minari:evil/task-v0").read().attributes["env_id"] == "minari:evil/task-v0"
    envs = make_environments("minari:evil/task-v0", 2)
    assert (envs.max_episode_steps, envs.envs[0].unwrapped.g, envs.envs[0].render_mode) == (7, 3.0, None)


class Worded(gymnasium.Env[Any, Any]):
    """An environment that imports what it is told, and has words that happen to be modules."""

    observation_space, action_space = Box(-1, 1, (3,)), Box(-2, 2, (1,))

    def __init__(self, engine: str = "json", reward: str = "random", level: str = "easy") -> None:
        for word in (engine, reward, level):
            if word.isidentifier() and importlib.util.find_spec(word):
                importlib.import_module(word)


@pytest.mark.parametrize(
    ("settings", "is_made"),
    [
        ({"engine": "json", "reward": "random"}, True),
        ({"level": "hard"}, True),
        ({"reward": "code"}, True),  # as it is registered
        ({"engine": "evil_module"}, False),
        ({"level": "evil_module"}, False),
        ({"reward": "json"}, False),
    ],
)
def test_words_that_are_modules_are_those_of_the_registration(
    settings: dict[str, str], is_made: bool, record: Change, mark: Path
) -> None:
    gymnasium.register("Worded-v0", Worded, kwargs={"reward": "code"})
    try:
        place = f"{Worded.__module__}:Worded"
        record(env_spec=spec(id="Worded-v0", entry_point=place, kwargs=settings, max_episode_steps=5))
        if is_made:
            assert make_environments("minari:evil/task-v0", 1).max_episode_steps == 5
        else:
            with pytest.raises(ConfigError, match="is a module or file here"):
                make_environments("minari:evil/task-v0", 1)
    finally:
        del gymnasium.registry["Worded-v0"]
    assert not mark.exists()


@pytest.mark.parametrize("env_id", ["evil_module:Evil-v0", "evil_module:Pendulum-v1@a+b", "minari:../evil-v0", 3, None])
def test_names_out_of_files_import_nothing(env_id: Any, mark: Path) -> None:
    for act in (check_env_id, lambda name: make_environments(name, 1)):
        with pytest.raises(ConfigError):
            act(env_id)
    assert not mark.exists()


@pytest.mark.parametrize("kind", ["external link", "external storage", "virtual", "huge", "bomb"])
def test_arrays_outside_the_data_set_are_refused(kind: str, record: Change, tmp_path: Path) -> None:
    import h5py

    secret = tmp_path / "secret"
    secret.write_bytes(np.arange(63, dtype="f4").tobytes())
    with h5py.File(tmp_path / "secret.hdf5", "w") as file:
        file["x"] = np.ones((21, 3), "f4")
    with h5py.File(record() / "data" / "main_data.hdf5", "a") as file:
        key = "episode_0/observations"
        del file[key]
        if kind == "external link":
            file[key] = h5py.ExternalLink(str(tmp_path / "secret.hdf5"), "x")
        elif kind == "external storage":
            file.create_dataset(key, (21, 3), "f4", external=[(str(secret), 0, 252)])
        elif kind == "bomb":
            item = file.create_dataset(key, (21, 3), "f4", chunks=(21, 3), compression="gzip")
            item.id.write_direct_chunk((0, 0), zlib.compress(bytes(8 * 10**7), 9))
        elif kind == "huge":
            file.create_dataset(key, (2**40, 3), "f4", chunks=(1024, 3))
        else:
            layout = h5py.VirtualLayout((21, 3), "f4")
            layout[:] = h5py.VirtualSource(str(tmp_path / "secret.hdf5"), "x", (21, 3))
            file.create_virtual_dataset(key, layout)
    with pytest.raises(DataError, match=r"'evil/task-v0'.*(another file|declares arrays of|holds more than)"):
        find_source("minari:evil/task-v0").read()


def test_damage_elsewhere_does_not_hide_a_link(record: Change, tmp_path: Path) -> None:
    """The library reads what it needs and never comes to the damage; the check does before it is through."""
    import h5py

    with h5py.File(tmp_path / "secret.hdf5", "w") as file:
        file["x"] = np.ones((21, 3), "f4")
    main = record() / "data" / "main_data.hdf5"
    with h5py.File(main, "a") as file:
        file["a/b"] = 1
        file.flush()
    content = main.read_bytes()
    place = content.rindex(b"HEAP")  # of the group that was made last
    main.write_bytes(content[:place] + b"xxxx" + content[place + 4 :])
    with h5py.File(main, "a") as file:
        del file["episode_0/observations"]
        file["episode_0/observations"] = h5py.ExternalLink(str(tmp_path / "secret.hdf5"), "x")
    with pytest.raises(DataError, match=r"'evil/task-v0'( is damaged|: episode_0/observations is a link)"):
        find_source("minari:evil/task-v0").read()


def test_pictures_are_not_decoded(record: Change) -> None:
    """Pillow would run Ghostscript on a picture that is PostScript."""
    space = Dict(state=Box(-1, 1, (3,)), view=Box(0, 255, (40, 40, 3), np.uint8))
    pictures = np.zeros((21, 40, 40, 3), np.uint8)
    folder = record({"state": np.zeros((21, 3), "f4"), "view": pictures}, space)
    import h5py

    with h5py.File(folder / "data" / "main_data.hdf5", "a") as file:
        del file["episode_0/observations/view"]
        file["episode_0/observations/view"] = np.frombuffer(
            b"%!PS-Adobe-3.0 EPSF-3.0\n%%BoundingBox: 0 0 9 9\n" * 21, "u1"
        ).reshape(21, -1)
    from seqrl.sources.minari import MinariSource

    assert MinariSource("evil/task-v0", observation_keys=["state"]).read().observations.shape == (20, 3)
    with pytest.raises(DataError, match=r"has pictures of shape \(40, 40, 3\); only vectors"):
        MinariSource("evil/task-v0", observation_keys=["view"]).read()
