"""Formats that episodes are written in: nothing is lost on the way, nothing is half written."""

from __future__ import annotations

import dataclasses
import os
from pathlib import Path

import h5py
import numpy as np
import pytest

from seqrl.data.episodes import EpisodeStore
from seqrl.errors import ConfigError, DataError
from seqrl.formats import targets, writers
from seqrl.formats.flat import FlatEpisodes
from seqrl.sources import find_source
from seqrl.sources.d4rl import D4rlSource

ARRAYS = ("observations", "actions", "rewards", "ends", "terminals", "timeouts", "final_observations", "segment_ends")


@pytest.fixture
def flat(tiny_store: EpisodeStore) -> FlatEpisodes:
    """The tiny store with everything that a format may have to keep."""
    made = FlatEpisodes.of(tiny_store, "tiny")
    rng = np.random.default_rng(1)
    return dataclasses.replace(
        made,
        segment_ends=made.ends | (np.arange(25) % 4 == 1),
        final_observations=rng.normal(size=(5, 3)).astype(np.float32),
        extras={"infos/qpos": rng.normal(size=(25, 2)), "note": np.arange(25)},
        attributes={"name": "tiny", "env_id": "Tiny-v0"},
    )


@pytest.mark.parametrize("suffix", [".hdf5", ".h5", ".npz"])
def test_what_was_written_is_read_back(flat: FlatEpisodes, suffix: str, tmp_path: Path) -> None:
    target = str(tmp_path / f"tiny{suffix}")
    assert writers.write_episodes(flat, target) == []
    back = find_source(target).read()
    for name in ARRAYS:
        np.testing.assert_array_equal(getattr(back, name), getattr(flat, name), err_msg=name)
        assert getattr(back, name).dtype == getattr(flat, name).dtype
    assert set(back.extras) == {"infos/qpos", "note"}
    np.testing.assert_array_equal(back.extras["infos/qpos"], flat.extras["infos/qpos"])
    assert back.attributes["env_id"] == "Tiny-v0"
    assert [path.name for path in tmp_path.iterdir()] == [f"tiny{suffix}"]


def test_hdf5_is_d4rls_layout(flat: FlatEpisodes, tmp_path: Path) -> None:
    target = tmp_path / "tiny.hdf5"
    writers.write_episodes(flat, str(target))
    store, wanted = D4rlSource(str(target)).load(), flat.store()
    for name in ("observations", "actions", "rewards", "offsets", "terminated", "truncated"):
        np.testing.assert_array_equal(getattr(store, name), getattr(wanted, name), err_msg=name)
    with h5py.File(target) as file:
        assert not file["timeouts"][-1]  # the last episode was cut, not ended


def test_cuts_that_d4rl_has_no_word_for_are_told(flat: FlatEpisodes, tmp_path: Path) -> None:
    cut = dataclasses.replace(flat, timeouts=np.zeros(25, bool))
    (note,) = writers.write_episodes(cut, str(tmp_path / "a.hdf5"))
    assert "1 episodes that were cut count as timeouts" in note
    assert find_source(str(tmp_path / "a.hdf5")).read().store().truncated.tolist() == [False, True, False, False, False]
    assert writers.write_episodes(cut, str(tmp_path / "a.npz")) == []
    assert not find_source(str(tmp_path / "a.npz")).read().store().truncated.any()


def test_stores_are_opened_and_written(tiny_store: EpisodeStore, tmp_path: Path) -> None:
    tiny_store.save(tmp_path / "store")
    flat = find_source(str(tmp_path / "store")).read()
    writers.write_episodes(flat, str(tmp_path / "a.npz"))
    back = find_source(str(tmp_path / "a.npz")).read().store()
    assert back.fingerprint() == tiny_store.fingerprint()


def test_existing_outputs_are_kept_unless_asked(flat: FlatEpisodes, tmp_path: Path) -> None:
    target = tmp_path / "tiny.npz"
    target.write_text("mine")
    with pytest.raises(ConfigError, match=r"tiny\.npz' exists already; choose another name, or --overwrite it"):
        writers.write_episodes(flat, str(target))
    assert target.read_text() == "mine"
    writers.write_episodes(flat, str(target), overwrite=True)
    assert len(find_source(str(target)).read().rewards) == 25
    with pytest.raises(ConfigError, match="has no known format"):
        writers.write_episodes(flat, str(tmp_path / "tiny.csv"))


@pytest.mark.parametrize("suffix", [".hdf5", ".npz"])
def test_nothing_half_written_is_left(
    flat: FlatEpisodes, suffix: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    target = tmp_path / f"tiny{suffix}"
    writers.write_episodes(flat, str(target))
    before = target.read_bytes()

    def full(*arguments: object) -> None:
        raise OSError(28, "No space left on device")

    monkeypatch.setattr(os, "fsync", full)  # the last thing before the new file takes its place
    with pytest.raises(DataError, match=r"cannot be written \(No space left on device\); give a place with room"):
        writers.write_episodes(dataclasses.replace(flat, rewards=flat.rewards + 1), str(target), overwrite=True)
    assert target.read_bytes() == before
    assert list(tmp_path.iterdir()) == [target]


def test_an_unwritable_place_is_told_before_the_work(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    (tmp_path / "file").touch()
    with pytest.raises(DataError, match=r"cannot be written \('.*file' is a file\); give a place"):
        targets.check_target(str(tmp_path / "file" / "deep" / "a.npz"), overwrite=False)
    targets.check_target(str(tmp_path / "new" / "deep" / "a.npz"), overwrite=False)
    monkeypatch.setattr(os, "access", lambda *_: False)
    with pytest.raises(DataError, match="takes no new files"):
        targets.check_target(str(tmp_path / "a.npz"), overwrite=False)


def test_a_place_that_fails_is_one_sentence(tmp_path: Path) -> None:
    (tmp_path / "file").touch()
    with pytest.raises(DataError, match=r"cannot be written \(.+\); mend it"):
        targets.write_whole(tmp_path / "file" / "a.npz", Path.touch, overwrite=False, advice="mend it")


def test_what_no_store_can_be_made_of_is_not_written(flat: FlatEpisodes, tmp_path: Path) -> None:
    broken = dataclasses.replace(flat, rewards=np.full(25, np.nan))
    with pytest.raises(DataError, match="rewards holds nan at row 0"):
        writers.write_episodes(broken, str(tmp_path / "a.npz"))
    assert list(tmp_path.iterdir()) == []
