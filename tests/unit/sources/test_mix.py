"""Subsets and mixes of episodes: the rows of copies, without the copies."""

from __future__ import annotations

import shutil
import tracemalloc
from dataclasses import replace
from pathlib import Path
from typing import Any

import hydra
import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from seqrl.cli.application import plain
from seqrl.cli.words import spell_words
from seqrl.config import RunConfig, WindowConfig
from seqrl.data.batches import TokenWindows
from seqrl.data.episodes import EpisodeStore
from seqrl.data.gathered_rows import Rows, join_rows, select_rows
from seqrl.data.returns import transitions
from seqrl.errors import ConfigError, DataError
from seqrl.layout import Layout
from seqrl.paths import config_dir
from seqrl.registry import DATA
from seqrl.runs.identity import identify
from seqrl.sources import source_config

FIELDS: dict[str, Any] = {"observation": {}, "action": {}, "reward": {}, "value": {"hidden": True}}
LAYOUT = Layout.from_config({"fields": FIELDS, "goal": {"dims": [0], "dropout": 0.0}, "discount": 0.9}, 2, 1)


def make_store(lengths: list[int], seed: int = 0) -> EpisodeStore:
    """Random episodes of given lengths with random ends, segments and an extra; the first observation is unique."""
    rng = np.random.default_rng(seed)
    rows = sum(lengths)
    ends, terminals = np.zeros((2, rows), bool)
    stops = np.cumsum(lengths) - 1
    ends[stops] = True
    terminals[stops] = rng.random(len(lengths)) < 0.5
    observations = np.stack([1000 * seed + np.arange(rows), rng.normal(size=rows)], axis=1)
    return EpisodeStore.from_arrays(
        observations,
        rng.normal(size=(rows, 1)),
        rng.normal(size=rows),
        ends,
        terminals,
        segment_ends=rng.random(rows) < 0.2,
        extras={"qpos": rng.normal(size=(rows, 2, 3))},
        attributes={"name": f"s{seed}", "env_id": "Hopper-v4", "seed": seed},
    )


def rebuilt(pieces: list[tuple[EpisodeStore, int]]) -> EpisodeStore:
    """What a subset or mix stands for, put together from copies, episode by episode."""
    segment_ends, ends, terminals = [], [], []
    for store, e in pieces:
        first, stop = store.offsets[e], store.offsets[e + 1]
        segment_ends.append(np.isin(np.arange(first, stop) + 1, store.segments))
        ends.append(np.arange(first, stop) == stop - 1)
        terminals.append(ends[-1] & store.terminated[e])
    columns = {
        name: np.concatenate([np.asarray(getattr(s, name))[s.offsets[e] : s.offsets[e + 1]] for s, e in pieces])
        for name in ("observations", "actions", "rewards")
    }
    extra = np.concatenate([np.asarray(s.extras["qpos"])[s.offsets[e] : s.offsets[e + 1]] for s, e in pieces])
    joined = [np.concatenate(flags) for flags in (ends, terminals, segment_ends)]
    return EpisodeStore.from_arrays(
        **columns, ends=joined[0], terminals=joined[1], segment_ends=joined[2], extras={"qpos": extra}
    )


def assert_same(found: EpisodeStore, wanted: EpisodeStore) -> None:
    for name in ("observations", "actions", "rewards", "offsets", "terminated", "truncated", "segments"):
        np.testing.assert_array_equal(np.asarray(getattr(found, name)), getattr(wanted, name), err_msg=name)
    np.testing.assert_array_equal(np.asarray(found.extras["qpos"]), wanted.extras["qpos"])


lengths = st.lists(st.integers(1, 6), min_size=1, max_size=5)


@st.composite
def composed(draw: st.DrawFn) -> tuple[EpisodeStore, list[tuple[EpisodeStore, int]]]:
    """A store made of subsets and mixes, a few deep, and the episodes it is made of."""
    bases = [make_store(draw(lengths), seed) for seed in range(3)]
    pool = [(base, [(base, e) for e in range(base.num_episodes)]) for base in bases]
    for _ in range(draw(st.integers(1, 4))):
        if draw(st.booleans()):
            store, pieces = draw(st.sampled_from(pool))
            chosen = draw(st.lists(st.integers(0, len(pieces) - 1), min_size=1, max_size=6))
            pool.append((store.subset(chosen), [pieces[e] for e in chosen]))
        else:
            parts = draw(st.lists(st.sampled_from(pool), min_size=1, max_size=3))
            pool.append((EpisodeStore.mix([s for s, _ in parts]), [p for _, pieces in parts for p in pieces]))
    return pool[-1]


@given(composed(), st.integers(1, 7))
def test_subsets_of_mixes_of_subsets_equal_copies(
    example: tuple[EpisodeStore, list[tuple[EpisodeStore, int]]], size: int
) -> None:
    found, pieces = example
    wanted = rebuilt(pieces)
    assert_same(found, wanted)
    np.testing.assert_array_equal(transitions(found, LAYOUT), transitions(wanted, LAYOUT))
    np.testing.assert_array_equal(found.returns(), wanted.returns())
    if wanted.lengths.max() < 2:
        return
    tokens = np.arange(len(wanted) * 5).reshape(-1, 5)
    made = [TokenWindows(s, tokens, LAYOUT, WindowConfig(3), termination_token=9999) for s in (found, wanted)]
    ours, theirs = (w.batch(np.arange(len(w)), np.random.default_rng(0)) for w in made)
    for name in ("tokens", "mask", "goal"):
        assert getattr(ours, name).equal(getattr(theirs, name))


@given(composed(), st.data())
def test_rows_are_indexed_like_an_array(
    example: tuple[EpisodeStore, list[tuple[EpisodeStore, int]]], data: st.DataObject
) -> None:
    array = example[0].observations
    whole = np.asarray(array)
    assert array.shape == whole.shape
    assert (len(array), array.ndim, array.dtype) == (len(whole), 2, whole.dtype)
    row = st.integers(-len(whole), len(whole) - 1)
    rows = data.draw(st.lists(row, max_size=5))
    keys: list[Any] = [data.draw(row), np.array(rows, int), data.draw(st.slices(len(whole))), whole[:, 1] > 0]
    keys += [(keys[1], 1), (keys[2], slice(0, 1)), (keys[0], 1), np.array(rows * 2, int).reshape(2, -1)]
    for key in keys:
        np.testing.assert_array_equal(array[key], whole[key])


def test_rows_refuse_what_they_would_get_wrong() -> None:
    rows = EpisodeStore.mix([make_store([3], 0), make_store([2], 1)]).observations
    assert isinstance(rows, Rows)
    for key in (5, [-6], [0.5], ([0, 1], [0, 1])):
        with pytest.raises(IndexError):
            rows[key]
    with pytest.raises(ValueError, match="without a copy"):
        np.asarray(rows, copy=False)


def test_nothing_large_is_copied() -> None:
    zeros = np.zeros((1_000_000, 8), np.float32)
    flags = np.arange(1_000_000) % 1000 == 999
    store = EpisodeStore.from_arrays(zeros, zeros[:, :2].copy(), zeros[:, 0].copy(), flags, flags)
    tracemalloc.start()
    try:
        mix = EpisodeStore.mix([store.subset(np.arange(0, 1000, 2)), store.subset(np.arange(500, 1000))])
        peak = tracemalloc.get_traced_memory()[1]
    finally:
        tracemalloc.stop()
    assert len(mix) == 1_000_000
    assert peak < 16 * 2**20  # the rewards, 4 bytes a row, twice, and a few small things; observations take 32
    head = store.subset(np.arange(10))
    assert np.shares_memory(np.asarray(head.observations), zeros)  # rows that lie together are a view
    assert np.shares_memory(select_rows(zeros, np.array([5, 9]), np.array([9, 12])), zeros)  # type: ignore[arg-type]
    assert np.shares_memory(join_rows([zeros[:5], zeros[5:]])[:1], zeros) is False  # two arrays stay two


def test_what_a_mix_says_of_itself() -> None:
    one, two = make_store([3], 0), make_store([2], 1)
    mix = EpisodeStore.mix([one, two])
    assert mix.attributes == {"name": "s0+s1", "env_id": "Hopper-v4"}  # the seeds differ
    other = replace(two, extras={}, attributes={"name": "s1", "env_id": "Hopper-v5"})
    mix = EpisodeStore.mix([one, other], attributes={"name": "mine"})
    assert mix.attributes == {"name": "mine"}
    assert mix.extras == {}


def test_stores_that_do_not_fit_are_refused_in_one_sentence() -> None:
    one, two = make_store([3], 0), make_store([2], 1)
    wide = replace(two, observations=np.zeros((2, 5), np.float32))
    with pytest.raises(DataError, match="observations of different sizes cannot be mixed: 2 in s0, 5 in s1"):
        EpisodeStore.mix([one, wide])
    with pytest.raises(DataError, match="actions of different sizes cannot be mixed: 1 in s0, 5 in s1"):
        EpisodeStore.mix([one, replace(two, actions=wide.observations)])
    with pytest.raises(DataError, match="nothing to mix"):
        EpisodeStore.mix([])


@pytest.mark.parametrize("episodes", [[], [3], [-1], [0.5], [[0]], [True, False]])
def test_subsets_of_what_there_is_not_are_refused(episodes: list[Any]) -> None:
    with pytest.raises(DataError, match=r"a subset (needs|asks for)"):
        make_store([3, 2, 4]).subset(episodes)


def test_a_subset_by_flags_is_one_by_numbers() -> None:
    store = make_store([3, 2, 4])
    assert_same(store.subset([True, False, True]), store.subset([0, 2]))


def test_fingerprints_follow_the_content(tmp_path: Path) -> None:
    one, two = make_store([3, 4], 0), make_store([2, 5], 1)
    assert (
        EpisodeStore.mix([one, two]).fingerprint()
        == rebuilt([(s, e) for s in (one, two) for e in (0, 1)]).fingerprint()
    )
    one.save(tmp_path / "one")
    two.save(tmp_path / "two")
    saved = [EpisodeStore.open(tmp_path / name) for name in ("one", "two")]
    stores = [*saved, one, saved[0].subset([0]), saved[0].subset([1]), EpisodeStore.mix(saved),
              EpisodeStore.mix(saved[::-1]), EpisodeStore.mix([one, saved[1]])]  # fmt: skip
    prints = [store.fingerprint() for store in stores]
    assert prints[0] == prints[2]
    assert len(set(prints)) == len(prints) - 1


def test_a_known_fingerprint_does_not_survive_other_content(tmp_path: Path) -> None:
    make_store([3, 4], 0).save(tmp_path / "one")
    saved = EpisodeStore.open(tmp_path / "one")
    assert saved.described(name="other").identity == saved.identity
    changed = replace(saved, rewards=saved.rewards + 1)
    assert changed.fingerprint() != saved.fingerprint()
    assert replace(saved, rewards=saved.rewards.copy()).fingerprint() == saved.fingerprint()


def recording(path: Path, seed: int) -> Path:
    import h5py

    rng = np.random.default_rng(seed)
    with h5py.File(path, "w") as file:
        file["observations"] = rng.normal(size=(12 + seed, 3))
        file["actions"] = rng.uniform(-1, 1, size=(12 + seed, 2))
        file["rewards"] = rng.normal(size=12 + seed)
        file["terminals"] = np.zeros(12 + seed, bool)
        file["timeouts"] = np.arange(12 + seed) % 4 == 3
    return path


def test_the_source_mixes_files_folders_and_configs(tmp_path: Path) -> None:
    medium, expert = (str(recording(tmp_path / f"hopper-{name}.hdf5", seed)) for seed, name in enumerate("me"))
    single = DATA.build({"name": "d4rl", "path": medium}).load()
    single.save(tmp_path / "saved")
    parts = [medium, {"name": "d4rl", "path": expert, "max_transitions": 8}, str(tmp_path / "saved")]
    found = DATA.build({"name": "mix", "parts": parts}).load()
    assert len(found) == 12 + 8 + 12
    assert found.attributes["name"] == "hopper-m+hopper-e+hopper-m"
    assert found.attributes["env_id"] == "Hopper-v4"
    np.testing.assert_array_equal(found.observations[20:], single.observations)
    named = DATA.build({"name": "mix", "parts": parts[:2], "dataset_name": "both", "env_id": "Mine-v0"}).load()
    assert (named.attributes["name"], named.attributes["env_id"]) == ("both", "Mine-v0")


@pytest.mark.parametrize(
    ("part", "config"),
    [
        ("hopper-medium-v2", {"name": "d4rl", "id": "hopper-medium-v2"}),
        ("some/hopper.hdf5", {"name": "d4rl", "path": "some/hopper.hdf5"}),
        ("mine.npz", {"name": "arrays", "path": "mine.npz"}),
        ("minari:a/b-v0", {"name": "minari", "id": "a/b-v0"}),
        ({"name": "minari", "id": "a/b-v0"}, {"name": "minari", "id": "a/b-v0"}),
    ],
)
def test_a_part_may_be_a_mere_text(part: Any, config: dict[str, str]) -> None:
    assert source_config(part) == config


@pytest.mark.parametrize("parts", ["a.hdf5", [], {"name": "d4rl"}, [3], [""]])
def test_parts_that_are_none_are_refused(parts: Any) -> None:
    with pytest.raises(ConfigError, match=r"data\.parts"):
        DATA.build({"name": "mix", "parts": parts})


def composed_data(word: str) -> dict[str, Any]:
    with hydra.initialize_config_dir(str(config_dir()), version_base="1.3"):
        return plain(hydra.compose("train", spell_words("train", [word])))


def digest(config: dict[str, Any]) -> str:
    return identify(RunConfig.from_saved(config)).digest


def test_the_short_word_and_the_names_of_runs(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    recording(Path("a.hdf5"), 0)
    recording(Path("b.hdf5"), 1)
    config = composed_data("data.mix=[a.hdf5,b.hdf5]")
    assert config["data"] == {"name": "mix", "parts": ["a.hdf5", "b.hdf5"], "dataset_name": None, "env_id": None}
    names = {digest(composed_data(f"data.mix=[{parts}]")) for parts in
             ("a.hdf5,b.hdf5", "b.hdf5,a.hdf5", "a.hdf5", "a.hdf5,hopper-medium-v2", "{name:d4rl,path:a.hdf5},b.hdf5",
              "{name:d4rl,path:a.hdf5,max_transitions:8},b.hdf5")}  # fmt: skip
    assert len(names) == 6
    (tmp_path / "moved").mkdir()
    shutil.copy("a.hdf5", "moved/a.hdf5")
    assert digest(composed_data("data.mix=[moved/a.hdf5,b.hdf5]")) == digest(config)  # folders do not count
    recording(Path("b.hdf5"), 200)  # another file under the same name
    assert digest(config) not in names
