"""Reading D4RL's HDF5 layout, whole and damaged."""

from __future__ import annotations

import hashlib
import subprocess
import sys
import threading
from collections.abc import Iterator, Sequence
from functools import partial
from http.server import SimpleHTTPRequestHandler, ThreadingHTTPServer
from importlib.util import find_spec
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import h5py
import numpy as np
import pytest

from seqrl.d4rl import package as d4rl_package
from seqrl.d4rl.catalogue import find, resembling
from seqrl.data.episodes import EpisodeStore
from seqrl.errors import ConfigError, DataError
from seqrl.registry import DATA
from seqrl.sources.d4rl import D4rlSource

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


def test_a_file_without_timeouts_needs_a_rule(tmp_path: Path) -> None:
    written = write(tmp_path / "mine.hdf5", content(timeouts=None))
    with pytest.raises(DataError, match=r"has no timeouts.*data\.episodes=time_limit.*data\.episodes=terminals"):
        D4rlSource(written).load()
    assert D4rlSource(written, episodes="terminals").load().offsets.tolist() == [0, 4, 12]
    assert D4rlSource(written, episodes="time_limit", time_limit=5).load().offsets.tolist() == [0, 4, 9, 12]
    with pytest.raises(ConfigError, match=r"needs the length of the episodes; set data\.time_limit"):
        D4rlSource(written, episodes="time_limit").load()


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
        ("ant-random", "seqrl/D4rlAnt-v2"),
        ("antmaze-umaze-v2", "d4rl/antmaze-umaze-v2"),
        ("kitchen-complete-v0", None),
        ("maze2d-large-sparse-v1", "seqrl/Maze2d-Large-v1"),
        ("my-robot", None),
    ],
)
def test_guesses_by_name(stem: str, env_id: str | None) -> None:
    like = resembling(f"{stem}.hdf5")
    assert (like and like.env_id) == env_id


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
    with pytest.raises(DataError, match="is truncated or damaged"):
        D4rlSource(str(path)).load()
    path.write_bytes(b"a,b")
    with pytest.raises(DataError, match="is neither an HDF5 nor an NPZ file"):
        D4rlSource(str(path)).load()
    path.write_bytes(b"")
    with pytest.raises(DataError, match="is an empty file"):
        D4rlSource(str(path)).load()
    write(path, content())
    path.write_bytes(path.read_bytes()[: path.stat().st_size // 2])
    with pytest.raises(DataError, match="is a truncated HDF5 file"):
        D4rlSource(str(path)).load()


@pytest.mark.parametrize("part", [b"SNOD", b"HEAP", b"all of it"])  # of the root group
def test_a_damaged_file_is_one_sentence(path: Path, part: bytes) -> None:
    data = Path(write(path, content())).read_bytes()
    path.write_bytes(data.replace(part, b"xxxx") if part in data else data[:96] + b"\xff" * 1404 + data[1500:])
    with pytest.raises(DataError, match=r"is a damaged HDF5 file \(.+\); fetch or make it again"):
        D4rlSource(str(path)).load()


def test_a_folder_is_told_from_a_missing_file(tmp_path: Path) -> None:
    with pytest.raises(DataError, match="is a folder; give the path"):
        D4rlSource(str(tmp_path)).load()


def test_a_group_is_no_array(path: Path) -> None:
    write(path, content(timeouts=None))
    with h5py.File(path, "a") as file:
        file.create_group("timeouts")
        file.create_group("infos/goal")
    assert D4rlSource(str(path)).load().attributes["episodes"] == "time_limit"  # as without timeouts


def test_missing_keys_are_named_beside_those_there_are(path: Path) -> None:
    with pytest.raises(DataError, match="lacks actions and rewards; it has observations, terminals, timeouts"):
        D4rlSource(write(path, content(actions=None, rewards=None))).load()


@pytest.mark.parametrize(
    ("key", "array", "message"),
    [
        ("actions", np.zeros((COUNT - 1, 2)), r"actions has shape \(11, 2\)"),
        ("rewards", np.zeros((COUNT, 2)), r"rewards has shape \(12, 2\)"),
        ("terminals", np.zeros(COUNT + 1, bool), r"terminals has shape \(13,\)"),
        ("timeouts", np.zeros(COUNT - 2, bool), r"timeouts has shape \(10,\)"),
        ("timeouts", np.zeros((COUNT, 2), bool), r"timeouts has shape \(12, 2\)"),
        ("timeouts", np.full(COUNT, 0.5), "timeouts holds 0.5 at row 0; flags are 0 or 1"),
        ("terminals", np.full(COUNT, np.nan), "terminals holds nan at row 0"),
        ("infos/goal", np.zeros((COUNT - 1, 2)), "infos/goal has shape"),
        ("actions", np.zeros((COUNT, 0)), r"actions has shape \(12, 0\)"),
        ("actions", np.zeros(COUNT, np.int64), "has discrete actions"),
        ("actions", np.zeros((COUNT, 1), np.int64), "has discrete actions.*give amounts as floats"),
        ("observations", np.float32(3), "observations is a single number"),
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
        DATA.check({"name": "d4rl", "path": "nowhere.hdf5", "episodes": "timelimit"})
    with pytest.raises(ConfigError, match="time_limit=1"):
        DATA.check({"name": "d4rl", "path": "nowhere.hdf5", "time_limit": 1})
    with pytest.raises(ConfigError, match="max_transitions=0"):
        DATA.check({"name": "d4rl", "path": "nowhere.hdf5", "max_transitions": 0})
    with pytest.raises(ConfigError, match="Did you mean 'hopper-medium-v2'"):
        D4rlSource(id="hoppr-medium-v2")
    with pytest.raises(ConfigError, match=r"data\.id=.* or data\.path=FILE, and neither is given"):
        D4rlSource()
    with pytest.raises(ConfigError, match="both are given"):
        D4rlSource("mine.hdf5", id="hopper-medium-v2")
    with pytest.raises(ConfigError, match="Did you mean 'package'"):
        DATA.check({"name": "d4rl", "id": "hopper-medium-v2", "reader": "packages"})
    with pytest.raises(ConfigError, match=r"give data\.id instead"):
        D4rlSource("mine.hdf5", reader="package")
    with pytest.raises(ConfigError, match="64 hexadecimal"):
        D4rlSource("mine.hdf5", sha256="abc")


@pytest.fixture
def cache(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """An empty cache of our own, and none of D4RL's."""
    monkeypatch.setenv("SEQRL_DATA", str(tmp_path / "data"))
    monkeypatch.setenv("D4RL_DATASET_DIR", str(tmp_path / "none"))
    monkeypatch.delenv("SEQRL_D4RL_MIRROR", raising=False)
    (tmp_path / "data" / "d4rl").mkdir(parents=True)
    return tmp_path / "data" / "d4rl"


def flags(count: int, rows: Sequence[int]) -> np.ndarray:
    array = np.zeros(count, bool)
    array[list(rows)] = True
    return array


def family_file(cache: Path, dataset_id: str, count: int, **extra: Any) -> D4rlSource:
    """A file in the cache under D4RL's name for it, and the source that reads it."""
    rng = np.random.default_rng(0)
    arrays = {
        "observations": rng.normal(size=(count, 4)).astype(np.float32),
        "actions": rng.uniform(-1, 1, (count, 2)).astype(np.float32),
        "rewards": np.zeros(count, np.float32),
        "terminals": np.zeros(count, bool),
        **extra,
    }
    write(cache / find(dataset_id).file_name, arrays)
    return D4rlSource(id=dataset_id)


def ends(store: EpisodeStore) -> list[tuple[int, str]]:
    """(rows, how it ended) of every episode."""
    kinds = np.where(store.terminated, "terminated", np.where(store.truncated, "truncated", "cut"))
    return list(zip(store.lengths.tolist(), kinds.tolist(), strict=True))


def test_locomotion_ends_at_terminals_and_timeouts(cache: Path) -> None:
    """v1 and v2: a row may be both, and replay files end in the middle of an episode."""
    source = family_file(cache, "hopper-medium-replay-v2", 20, terminals=flags(20, [4, 9]), timeouts=flags(20, [9, 15]))
    store = source.load()
    assert ends(store) == [(5, "terminated"), (5, "terminated"), (6, "truncated"), (4, "cut")]
    assert store.attributes["name"] == store.attributes["d4rl_id"] == "hopper-medium-replay-v2"
    assert store.attributes["env_id"] == "Hopper-v4"
    assert store.attributes["return_note"] == ""


def test_v0_locomotion_without_timeouts_has_999_rows_an_episode(cache: Path) -> None:
    """The last of 1000 steps was not recorded: whoever counts to 1000 drifts over the resets."""
    store = family_file(cache, "halfcheetah-medium-v0", 2500, terminals=flags(2500, [1499])).load()
    assert ends(store) == [(999, "truncated"), (501, "terminated"), (999, "truncated"), (1, "cut")]
    store = family_file(cache, "halfcheetah-medium-v2", 2500).load()
    assert store.lengths.tolist() == [1000, 1000, 500]
    source = D4rlSource(id="halfcheetah-medium-v0", time_limit=1000)
    assert source.load().lengths.tolist() == [1000, 500, 1000]


def test_v0_locomotion_uses_its_timeouts_where_it_has_them(cache: Path) -> None:
    store = family_file(cache, "hopper-medium-v0", 12, terminals=flags(12, [3]), timeouts=flags(12, [8])).load()
    assert ends(store) == [(4, "terminated"), (5, "truncated"), (3, "cut")]


def test_maze2d_is_one_stream_of_goals(cache: Path) -> None:
    """Whether goals reached are flagged as timeouts (v1), as terminals (v0) or by the goal alone: nothing ends."""
    goal = np.repeat([[1.0, 1.0], [3.0, 1.0], [2.0, 3.0]], [91, 53, 556], axis=0).astype(np.float32)
    reached = [90, 143]
    for dataset_id, more in (
        ("maze2d-umaze-v1", {"timeouts": flags(700, reached), "infos/goal": goal}),
        ("maze2d-umaze-dense-v1", {"timeouts": flags(700, reached)}),
    ):
        store = family_file(cache, dataset_id, 700, **more).load()
        assert ends(store) == [(300, "truncated"), (300, "truncated"), (100, "cut")]
        assert store.segments.tolist() == [0, 91, 144, 300, 600, 700]
    for more in ({"infos/goal": goal}, {}):
        store = family_file(cache, "maze2d-umaze-v0", 700, terminals=flags(700, reached), **more).load()
        assert store.lengths.tolist() == [150, 150, 150, 150, 100]
        assert not store.terminated.any()
        assert {91, 144} <= set(store.segments.tolist())
    assert D4rlSource(id="maze2d-umaze-v0", time_limit=350).load().lengths.tolist() == [350, 350]


def test_antmaze_recordings_go_on_past_the_goal(cache: Path) -> None:
    """1001 rows each; terminals, of type float, and rewards flag every row near the goal of the evaluation."""
    count = 3003
    near = [*range(400, 420), *range(600, 603), 1500]  # came, left, came again; the third recording never comes
    goal = np.repeat([[0.7, 8.6], [0.3, 9.0], [0.5, 8.8]], 1001, axis=0).astype(np.float32)
    source = family_file(
        cache,
        "antmaze-umaze-v2",
        count,
        timeouts=flags(count, [1000, 2001, 3002]),
        terminals=flags(count, near).astype(np.float32),
        rewards=flags(count, near).astype(np.float32),
        **{"infos/goal": goal},
    )
    store = source.load()
    assert ends(store) == [(1001, "truncated")] * 3
    assert store.segments.tolist() == store.offsets.tolist()  # rows near the goal are no boundaries
    assert store.returns().tolist() == [23.0, 1.0, 0.0]
    assert store.attributes["env_id"] == "d4rl/antmaze-umaze-v2"
    assert "past the goal" in store.attributes["return_note"]
    literal = D4rlSource(id="antmaze-umaze-v2", episodes="timeouts").load()  # as d4rl.sequence_dataset cuts
    assert literal.lengths.tolist()[:3] == [401, 1, 1]
    assert literal.terminated.sum() == len(near)


def test_antmaze_without_timeouts_is_refused(cache: Path) -> None:
    source = family_file(cache, "antmaze-umaze-v0", 50, terminals=flags(50, [20]))
    with pytest.raises(
        DataError, match=r"resets cannot be told; take data\.id=antmaze-umaze-v2, or set data\.episodes"
    ):
        source.load()


def test_adroit_demonstrations_differ_in_length_and_never_terminate(cache: Path) -> None:
    timeouts = flags(600, [299, 499, 599])
    for dataset_id in ("door-human-v1", "door-cloned-v1", "door-expert-v1"):
        store = family_file(cache, dataset_id, 600, timeouts=timeouts).load()
        assert ends(store) == [(300, "truncated"), (200, "truncated"), (100, "truncated")]  # 300 > the task's 200
        assert store.attributes["env_id"] == "AdroitHandDoor-v1"
    source = family_file(cache, "door-human-v0", 600)
    with pytest.raises(DataError, match=r"take data\.id=door-human-v1"):
        source.load()
    assert D4rlSource(id="door-human-longhorizon-v1").load().attributes["name"] == "door-human-longhorizon-v1"


def test_kitchen_terminals_only_end_demonstrations(cache: Path) -> None:
    """No timeouts, terminals as floats in the last row of each demonstration, and `infos` that is no group."""
    count = 500
    terminals = flags(count, [209, 499]).astype(np.float32)
    tasks = np.minimum(np.arange(count) % 210 // 50, 4).astype(np.float32)
    infos = np.zeros(count, np.int64)
    source = family_file(cache, "kitchen-complete-v0", count, terminals=terminals, rewards=tasks, infos=infos)
    store = source.load()
    assert ends(store) == [(210, "truncated"), (290, "truncated")]
    assert store.attributes["env_id"] is None
    assert "tasks done" in store.attributes["return_note"]


def test_an_own_file_follows_the_family_that_its_name_resembles(tmp_path: Path) -> None:
    arrays = {**content(terminals=np.zeros(COUNT, bool)), "infos/goal": goals()}
    store = D4rlSource(write(tmp_path / "maze2d-umaze.hdf5", arrays)).load()
    assert store.lengths.tolist() == [COUNT]
    assert store.attributes["episodes"] == "stream"
    assert store.attributes["d4rl_id"] is None
    store = D4rlSource(write(tmp_path / "maze2d-umaze.hdf5", arrays), episodes="timeouts").load()
    assert store.lengths.tolist() == [4, 5, 3]


@pytest.fixture
def mirror(tmp_path: Path, cache: Path) -> Iterator[tuple[str, list[str]]]:
    """A server with D4RL's folders that has one file; its address, and what was asked for."""
    folder = tmp_path / "mirror" / "gym_mujoco_v2"
    folder.mkdir(parents=True)
    write(folder / "hopper_medium-v2.hdf5", content())
    asked: list[str] = []

    class Handler(SimpleHTTPRequestHandler):
        def log_message(self, *_: object) -> None:
            asked.append(self.path)

    handler = partial(Handler, directory=str(tmp_path / "mirror"))
    with ThreadingHTTPServer(("127.0.0.1", 0), handler) as server:
        threading.Thread(target=lambda: server.serve_forever(poll_interval=0.01), daemon=True).start()
        yield f"http://127.0.0.1:{server.server_port}", asked
        server.shutdown()


def test_an_id_is_downloaded_on_first_use_and_kept(
    mirror: tuple[str, list[str]], cache: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    address, asked = mirror
    monkeypatch.setenv("SEQRL_D4RL_MIRROR", f"{address}/")
    store = D4rlSource(id="hopper-medium-v2").load()
    np.testing.assert_array_equal(store.observations, content()["observations"])
    assert (cache / "hopper_medium-v2.hdf5").is_file()
    monkeypatch.setenv("SEQRL_D4RL_MIRROR", "http://127.0.0.1:9")
    again = D4rlSource(id="hopper-medium-v2").load()
    np.testing.assert_array_equal(again.rewards, store.rewards)
    assert asked == ["/gym_mujoco_v2/hopper_medium-v2.hdf5"]
    file = cache / "hopper_medium-v2.hdf5"
    file.write_bytes(file.read_bytes()[:-1] + b"x")
    with pytest.raises(DataError, match="damaged or changed"):
        D4rlSource(id="hopper-medium-v2").load()


def test_another_address_may_be_given(mirror: tuple[str, list[str]]) -> None:
    address, _ = mirror
    url = f"{address}/gym_mujoco_v2/hopper_medium-v2.hdf5"
    assert len(D4rlSource(id="walker2d-medium-v2", url=url).load()) == COUNT
    with pytest.raises(DataError, match=r"answers 404 .*data\.url"):
        D4rlSource(id="hopper-expert-v2", url=f"{address}/nothing.hdf5").load()


def test_a_download_that_is_no_data_set_is_refused(mirror: tuple[str, list[str]], tmp_path: Path, cache: Path) -> None:
    address, _ = mirror
    folder = tmp_path / "mirror"
    whole = (folder / "gym_mujoco_v2" / "hopper_medium-v2.hdf5").read_bytes()
    for name, data, reason in (
        ("page.html", b"<html>please log in</html>", "is not an HDF5 file"),
        ("empty.hdf5", b"", "is an empty file"),
        ("half.hdf5", whole[: len(whole) // 2], "is a truncated HDF5 file"),
    ):
        (folder / name).write_bytes(data)
        with pytest.raises(DataError, match=f"not the file.*{reason}"):
            D4rlSource(id="ant-medium-v2", url=f"{address}/{name}").load()
    write(folder / "other.hdf5", {"images": np.zeros(3)})
    with pytest.raises(DataError, match="without observations"):
        D4rlSource(id="ant-medium-v2", url=f"{address}/other.hdf5").load()
    assert [p.name for p in cache.iterdir() if not p.name.endswith(".lock")] == []


def test_a_given_digest_is_checked_for_own_files_too(path: Path) -> None:
    written = write(path, content())
    digest = hashlib.sha256(path.read_bytes()).hexdigest()
    assert len(D4rlSource(written, sha256=digest).load()) == COUNT
    with pytest.raises(DataError, match=r"data\.sha256"):
        D4rlSource(written, sha256="0" * 64).load()


def test_without_the_packages_the_install_line_is_told(cache: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """And nothing is left that another library could take for mujoco-py."""
    family_file(cache, "hopper-medium-v2", 12)
    monkeypatch.setattr(d4rl_package, "find_spec", lambda _: None)
    d4rl_package.load.cache_clear()
    with pytest.raises(ConfigError, match=r"no d4rl and no gym.*pip install --no-deps d4rl==1\.1 gym==0\.23\.1"):
        D4rlSource(id="hopper-medium-v2", reader="package").load()
    assert find_spec("gym") or "mujoco_py" not in sys.modules
    family_file(cache, "kitchen-mixed-v0", 12)
    with pytest.raises(ConfigError, match=r"cannot make kitchen environments .* locomotion, maze2d, antmaze"):
        D4rlSource(id="kitchen-mixed-v0", reader="package").load()


def test_a_gym_of_another_time_is_refused(monkeypatch: pytest.MonkeyPatch) -> None:
    def modules(name: str) -> SimpleNamespace:
        return SimpleNamespace(__version__="0.26.2")

    monkeypatch.setattr(d4rl_package, "find_spec", lambda _: object())
    monkeypatch.setattr(d4rl_package, "importlib", SimpleNamespace(import_module=modules))
    monkeypatch.setitem(sys.modules, "mujoco_py", sys.modules.get("mujoco_py"))  # what is put there goes again
    d4rl_package.load.cache_clear()
    with pytest.raises(ConfigError, match=r"d4rl needs gym 0\.23 and 0\.26\.2 is installed"):
        d4rl_package.load("locomotion")


def test_importing_the_sources_imports_no_simulator() -> None:
    code = (
        "import sys, seqrl.sources.d4rl, seqrl.sources.maze2d, seqrl.envs, seqrl.d4rl.reference;"
        "sys.exit(' '.join({'gymnasium', 'mujoco', 'h5py'} & set(sys.modules)) or 0)"
    )
    subprocess.run([sys.executable, "-c", code], check=True)
