"""`data=arrays`: layouts told apart by their keys, and files that are not what they should be."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import h5py
import numpy as np
import pytest

from seqrl.envs import make_environments
from seqrl.errors import ConfigError, DataError
from seqrl.formats.cutting import cut_episodes
from seqrl.formats.recording import Recording
from seqrl.registry import DATA
from seqrl.sources.arrays import ArraysSource

COUNT = 12


def rows(**changes: Any) -> dict[str, Any]:
    """Twelve rows in three episodes of 4, 5 and 3 steps, cut by nothing yet; None removes a key."""
    rng = np.random.default_rng(0)
    arrays: dict[str, Any] = {
        "observations": rng.normal(size=(COUNT, 4)).astype(np.float32),
        "actions": rng.uniform(-1, 1, (COUNT, 2)).astype(np.float32),
        "rewards": rng.normal(size=COUNT).astype(np.float32),
        **changes,
    }
    return {key: array for key, array in arrays.items() if array is not None}


def at(*places: int) -> np.ndarray:
    flags = np.zeros(COUNT, bool)
    flags[list(places)] = True
    return flags


OFFSETS = np.array([0, 4, 9, 12])


@pytest.fixture(params=["npz", "hdf5"])
def save(request: pytest.FixtureRequest, tmp_path: Path) -> Any:
    """Writes arrays to a file of either kind and gives its path."""

    def write(arrays: dict[str, Any]) -> str:
        path = tmp_path / f"mine.{request.param}"
        if request.param == "npz":
            np.savez(path, **arrays)
        else:
            with h5py.File(path, "w") as file:
                for key, array in arrays.items():
                    file[key] = array
        return str(path)

    return write


@pytest.mark.parametrize(
    ("keys", "terminated", "truncated"),
    [
        ({"offsets": OFFSETS}, [0, 0, 0], [1, 1, 1]),
        ({"offsets": OFFSETS, "terminated": np.array([1, 0, 0])}, [1, 0, 0], [0, 1, 1]),
        ({"offsets": OFFSETS, "terminals": at(3)}, [1, 0, 0], [0, 1, 1]),
        ({"offsets": OFFSETS, "terminated": at(3), "truncated": np.array([0, 1, 0])}, [1, 0, 0], [0, 1, 0]),
        ({"terminals": at(3), "timeouts": at(8)}, [1, 0, 0], [0, 1, 0]),
        ({"terminations": at(3), "truncations": at(3, 8, 11)}, [1, 0, 0], [0, 1, 1]),
        ({"terminals": at(3).astype(np.float32)[:, None], "timeouts": at(8).astype(np.int64)}, [1, 0, 0], [0, 1, 0]),
        ({"terminals": at(3, 8, 11), "rewards": None}, [0, 0, 0], [1, 1, 1]),
        ({"terminals": at(3, 8, 11), "masks": 1.0 - at(2, 3, 5)}, [1, 0, 0], [0, 1, 1]),
    ],
    ids=["offsets", "of episodes", "of rows", "cut", "flags", "gymnasium", "numbers", "ogbench", "ogbench masks"],
)
def test_the_keys_decide_how_episodes_end(
    save: Any, keys: dict[str, Any], terminated: list[int], truncated: list[int]
) -> None:
    arrays = rows(**keys)
    store = ArraysSource(save(arrays)).load()
    assert store.offsets.tolist() == OFFSETS.tolist()
    assert store.terminated.tolist() == terminated
    assert store.truncated.tolist() == truncated
    np.testing.assert_array_equal(store.observations, arrays["observations"])
    np.testing.assert_array_equal(store.actions, arrays["actions"])
    np.testing.assert_array_equal(store.rewards, arrays.get("rewards", np.zeros(COUNT)))


def test_ogbench_in_all_three_forms_gives_the_same_transitions() -> None:
    """On disk, as `load_dataset` gives it, and compact; only the first has the actions that nothing followed."""
    states = np.arange(10.0)[:, None]  # two trajectories of four transitions: s0 ... s4, s5 ... s9
    ends = np.isin(np.arange(10), (4, 9))
    disk = {"observations": states, "actions": states / 10, "terminals": ends}
    kept = ~ends
    loaded = {
        "observations": states[kept],
        "actions": states[kept] / 10,
        "next_observations": states[np.roll(kept, 1)],
        "terminals": np.isin(np.arange(8), (3, 7)).astype(np.float32),
    }
    compact = {**disk, "terminals": np.isin(np.arange(10), (3, 4, 8, 9)), "valids": kept.astype(np.float32)}
    whole, regular, small = (cut_episodes(Recording("x", a)) for a in (disk, loaded, compact))
    assert whole.layout == regular.layout == small.layout == "ogbench"
    assert whole.offsets.tolist() == [0, 5, 10]
    assert regular.offsets.tolist() == small.offsets.tolist() == [0, 4, 8]
    np.testing.assert_array_equal(regular.observations, small.observations)
    np.testing.assert_array_equal(whole.observations[kept], regular.observations)
    np.testing.assert_array_equal(regular.final_observations, [[4.0], [9.0]])


def test_a_compact_recording_that_was_cut_ends_with_its_last_valid_row() -> None:
    """Its dropped row is the end of the file, and not of an episode."""
    four = {"observations": np.zeros((4, 1)), "actions": np.zeros((4, 1)), "terminals": np.array([0, 1, 0, 0])}
    flat = cut_episodes(Recording("x", {**four, "valids": np.array([1, 1, 1, 0])}))
    assert flat.offsets.tolist() == [0, 2, 3]
    assert flat.store().truncated.tolist() == [True, False]


def test_segments_states_and_names_travel(tmp_path: Path) -> None:
    path = tmp_path / "mine.npz"
    qpos = np.arange(2.0 * COUNT).reshape(COUNT, 2)
    segments = at(1, 3)
    np.savez(path, **rows(offsets=OFFSETS, segment_ends=segments, qpos=qpos), env_id="Hopper-v4", name="hop")
    store = ArraysSource(str(path)).load()
    assert store.segments.tolist() == [0, 2, 4, 9, 12]
    np.testing.assert_array_equal(store.extras["qpos"], qpos)
    assert (store.attributes["env_id"], store.attributes["name"]) == ("Hopper-v4", "hop")
    other = ArraysSource(str(path), env_id="Mine-v0", dataset_name="other", max_transitions=10).load()
    assert (other.attributes["env_id"], other.attributes["name"]) == ("Mine-v0", "other")
    assert other.offsets.tolist() == [0, 4, 9]


@pytest.mark.parametrize(
    ("changes", "words"),
    [
        ({}, r"lacks terminals and timeouts; it has actions, observations, rewards; needed are"),
        ({"observations": None, "offsets": OFFSETS}, r"lacks observations;"),
        ({"rewards": None, "terminals": at(3), "timeouts": at(8)}, r"lacks rewards;"),
        ({"terminals": at(3)}, r"has no timeouts, .*; write timeouts as well \(all 0 where"),
        ({"timeouts": at(3)}, r"lacks terminals;"),
        (
            {"terminals": at(3), "terminated": at(3), "timeouts": at(8)},
            r"terminals and terminated, which mean the same",
        ),
        ({"offsets": np.array([0, 4, 4, 12])}, r"offsets must rise from 0 to 12"),
        ({"offsets": np.array([0, 4, 9])}, r"offsets must rise from 0 to 12"),
        ({"offsets": np.array([0.0, 12.0])}, r"offsets has shape \(2,\) and type float64; whole numbers"),
        ({"offsets": OFFSETS, "terminals": at(2)}, r"terminals is set in row 2, which is not the last"),
        ({"terminals": at(3)[:5], "timeouts": at(8)}, r"terminals has shape \(5,\)"),
        ({"terminals": at(3) * 2, "timeouts": at(8)}, r"terminals holds 2 at row 3; flags are 0 or 1"),
        ({"terminals": at(3) * np.nan, "timeouts": at(8)}, r"terminals holds nan at row 0"),
        ({"actions": np.zeros((COUNT - 1, 2)), "offsets": OFFSETS}, r"actions has shape \(11, 2\).*12 rows"),
        ({"actions": np.zeros(COUNT, np.int64), "offsets": OFFSETS}, r"has discrete actions \(one int64 per step\)"),
        ({"observations": np.full((COUNT, 2), b"x"), "offsets": OFFSETS}, r"observations has shape .*S1; numbers"),
        ({"actions": np.zeros((COUNT, 0)), "offsets": OFFSETS}, r"actions has shape \(12, 0\)"),
        ({"observations": np.zeros((COUNT, 2, 2)), "offsets": OFFSETS}, r"observations has shape \(12, 2, 2\)"),
        ({"observations": np.float32(3), "offsets": OFFSETS}, r"lacks observations|observations is a single number"),
        ({"rewards": np.full(COUNT, np.nan), "offsets": OFFSETS}, r"rewards holds nan at row 0"),
        (
            {"observations": np.full((COUNT, 2), np.inf), "offsets": OFFSETS},
            r"observations holds inf at row 0, column 0",
        ),
        (
            {
                "observations": np.zeros((0, 2)),
                "actions": np.zeros((0, 2)),
                "rewards": np.zeros(0),
                "terminals": np.zeros(0),
                "timeouts": np.zeros(0),
            },
            r"holds no transitions",
        ),
    ],
)
def test_a_wrong_file_is_refused_in_one_sentence(save: Any, changes: dict[str, Any], words: str) -> None:
    path = save(rows(**changes))
    with pytest.raises(DataError, match=words) as caught:
        ArraysSource(path).load()
    message = str(caught.value)
    assert message.startswith(Path(path).name)
    assert "\n" not in message


@pytest.mark.parametrize("keep", [0.0, 0.002, 0.5, 0.99])
def test_a_truncated_file_is_refused(save: Any, keep: float) -> None:
    path = Path(save(rows(observations=np.random.default_rng(0).normal(size=(COUNT, 4000)), offsets=OFFSETS)))
    content = path.read_bytes()
    path.write_bytes(content[: int(keep * len(content))])
    with pytest.raises(
        DataError,
        match=r"is (an empty file|truncated or damaged|a (truncated|damaged) HDF5 file|neither an HDF5 nor)",
    ):
        ArraysSource(str(path)).load()


def test_a_damaged_npz_is_refused(tmp_path: Path) -> None:
    path = tmp_path / "mine.npz"
    np.savez_compressed(path, **rows(offsets=OFFSETS))
    content = bytearray(path.read_bytes())
    content[200:260] = bytes(60)
    path.write_bytes(bytes(content))
    with pytest.raises(DataError, match=r"mine\.npz is truncated or damaged"):
        ArraysSource(str(path)).load()


def test_other_files_are_refused(tmp_path: Path) -> None:
    (tmp_path / "text.npz").write_text("hello")
    np.save(tmp_path / "single.npy", np.zeros(3))
    np.savez(tmp_path / "objects.npz", observations=np.array([np.zeros((2, 3)), np.zeros((3, 3))], dtype=object))
    for name, words in (
        ("text.npz", "neither an HDF5 nor an NPZ file"),
        ("single.npy", "is a single NumPy array"),
        ("objects.npz", r"observations cannot be read.*save plain arrays"),
        ("missing.npz", "there is no file"),
        (".", "is a folder"),
    ):
        with pytest.raises(DataError, match=words):
            ArraysSource(str(tmp_path / name)).load()


def test_too_few_transitions_are_refused(save: Any) -> None:
    with pytest.raises(ConfigError, match="max_transitions=1 is too small"):
        DATA.check({"name": "arrays", "path": "x.npz", "max_transitions": 1})
    with pytest.raises(DataError, match=r"max_transitions=3 keeps no whole episode of mine.*has 4 steps"):
        ArraysSource(save(rows(offsets=OFFSETS)), max_transitions=3).load()


@pytest.mark.slow
@pytest.mark.filterwarnings("ignore")  # of dm_control and its like
def test_a_recording_of_ogbenchs_own_environment(tmp_path: Path) -> None:
    """Its point maze, driven along its own shortest paths with noise, written with the keys of its files."""
    ogbench = pytest.importorskip(
        "ogbench", reason="ogbench is not installed: pip install --no-deps ogbench dm_control"
    )
    env = ogbench.make_env_and_datasets("pointmaze-medium-navigate-v0", env_only=True)
    rng = np.random.default_rng(0)
    recorded: dict[str, list[Any]] = {key: [] for key in ("observations", "actions", "terminals", "qpos", "qvel")}
    for trajectory in range(2):
        observation, info = env.reset(seed=trajectory, options={"task_id": trajectory + 1})
        for step in range(200):
            place = env.unwrapped.get_xy()
            subgoal, _ = env.unwrapped.get_oracle_subgoal(place, np.asarray(info["goal"])[:2])
            heading = (subgoal - place) / max(float(np.linalg.norm(subgoal - place)), 1e-6)
            action = np.clip(heading + rng.normal(scale=0.5, size=2), -1, 1).astype(np.float32)
            row = (observation, action, step == 199, env.unwrapped.data.qpos.copy(), env.unwrapped.data.qvel.copy())
            for key, value in zip(recorded, row, strict=True):
                recorded[key].append(value)
            observation, *_ = env.step(action)
    path = tmp_path / "pointmaze-medium-navigate-v0.npz"
    np.savez(path, **{key: np.array(value) for key, value in recorded.items()})
    store = ArraysSource(str(path)).load()
    assert store.lengths.tolist() == [200, 200]
    assert (store.terminated.any(), store.truncated.all()) == (False, True)
    np.testing.assert_allclose(store.observations, store.extras["qpos"][:, :2], atol=1e-6)
    envs = make_environments("pointmaze-medium-v0", 1)  # importing ogbench registered it
    assert (envs.observation_size, envs.action_size) == (store.observations.shape[1], store.actions.shape[1])


@pytest.fixture
def large(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> Path:
    """Every file counts as large; the cache folder."""
    monkeypatch.setattr("seqrl.sources.arrays.CACHED_BYTES", 1)
    monkeypatch.setenv("SEQRL_DATA", str(tmp_path / "kept"))
    return tmp_path / "kept" / "episodes"


@pytest.mark.parametrize(
    ("changes", "options"),
    [
        ({"terminals": at(3), "timeouts": at(8)}, {}),
        ({"offsets": OFFSETS, "infos/goal": np.arange(24.0).reshape(12, 2)}, {"max_transitions": 9}),
        ({"offsets": OFFSETS, "actions": np.arange(12) % 3}, {"num_actions": 3, "env_id": "Mine-v0"}),
    ],
)
def test_large_files_are_mapped_and_are_what_they_were(
    save: Any, large: Path, changes: dict[str, Any], options: dict[str, Any]
) -> None:
    source = ArraysSource(save(rows(**changes)), **options)
    expected = source.read().store()
    for _ in range(2):  # made, and found
        store = source.load()
        assert store.fingerprint() == expected.fingerprint()
        assert dict(store.attributes) == dict(expected.attributes)
        assert {name: np.asarray(each).tolist() for name, each in store.extras.items()} == {
            name: np.asarray(each).tolist() for name, each in expected.extras.items()
        }
        assert isinstance(store.observations, np.ndarray)
        assert not store.observations.flags.writeable, "mapped from the cache"
    assert len([each for each in large.iterdir() if each.is_dir()]) == 1


def test_a_large_file_that_changed_is_read_again(save: Any, large: Path) -> None:
    path = save(rows(offsets=OFFSETS))
    before = ArraysSource(path).load().fingerprint()
    changed = rows(offsets=OFFSETS)
    changed["rewards"] = changed["rewards"] + 1
    assert ArraysSource(save(changed)).load().fingerprint() != before
    assert ArraysSource(path, max_transitions=9).load().fingerprint() != before


def test_a_large_file_that_is_refused_leaves_nothing(save: Any, large: Path) -> None:
    path = save(rows(offsets=OFFSETS, rewards=np.full(COUNT, np.nan)))
    for _ in range(2):
        with pytest.raises(DataError, match=r"rewards"):
            ArraysSource(path).load()
    assert not [each for each in large.glob("*") if each.is_dir()]


def test_what_reading_assumed_is_told_when_data_are_loaded(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    arrays = {"observations": np.zeros((6, 2)), "actions": np.zeros((6, 1))}
    np.savez(tmp_path / "plain.npz", **arrays, terminals=np.arange(6) == 5)
    ArraysSource(tmp_path / "plain.npz").load()
    told = capsys.readouterr().out
    assert told.count("no rewards were recorded: they are 0 here") == 1
    np.savez(
        tmp_path / "whole.npz", **arrays, rewards=np.ones(6), terminals=np.arange(6) == 5, timeouts=np.zeros(6, bool)
    )
    ArraysSource(tmp_path / "whole.npz").load()
    assert capsys.readouterr().out == ""


def test_an_array_of_another_length_is_told_and_left_out(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    flags = {"terminals": np.arange(6) == 5, "timeouts": np.zeros(6, bool)}
    arrays = {"observations": np.zeros((6, 2)), "actions": np.zeros((6, 1)), "rewards": np.ones(6), **flags}
    odd = {
        "torque": np.zeros(4),
        "infos/qpos": np.zeros((7, 2)),
        "metadata/weights": np.zeros(3),
        "version": np.array(2),
    }
    np.savez(tmp_path / "odd.npz", **arrays, **odd, cost=np.ones(6))
    store = ArraysSource(tmp_path / "odd.npz").load()
    assert set(store.extras) == {"cost"}
    told = capsys.readouterr().out
    assert "'torque' has 4 rows where there are 6 steps, so that it is left out" in told
    assert "'infos/qpos' has 7 rows" in told
    assert "weights" not in told
    assert "version" not in told
