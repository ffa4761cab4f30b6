"""The cache of episodes: what the file says, opened instead of read, and never a reason to fail."""

from __future__ import annotations

import os
import shutil
import time
from collections.abc import Callable, Collection
from copy import deepcopy
from pathlib import Path

import h5py
import numpy as np
import pytest

from seqrl.data.episodes import EpisodeStore
from seqrl.errors import DataError
from seqrl.sources import d4rl
from seqrl.sources.d4rl import D4rlSource
from seqrl.sources.store import StoreSource

COUNT = 40


@pytest.fixture
def cache(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    monkeypatch.setenv("SEQRL_DATA", str(tmp_path / "data"))
    return tmp_path / "data" / "episodes"


@pytest.fixture
def file(tmp_path: Path) -> Path:
    return write(tmp_path / "hopper-mine.hdf5")


def write(path: Path, *, reward: float = 1.0) -> Path:
    rng = np.random.default_rng(0)
    with h5py.File(path, "w") as file:
        file["observations"] = rng.normal(size=(COUNT, 3)).astype(np.float32)
        file["actions"] = rng.uniform(-1, 1, (COUNT, 2)).astype(np.float32)
        file["rewards"] = np.full(COUNT, reward, np.float32)
        file["terminals"] = np.arange(COUNT) == 9
        file["timeouts"] = np.arange(COUNT) % 10 == 9
        file.attrs["policy"] = "mine"
    return path


def forbid_reading(monkeypatch: pytest.MonkeyPatch) -> None:
    def never(path: Path, keys: object) -> None:
        raise AssertionError(f"{path} was read")

    monkeypatch.setattr(d4rl, "read_recording", never)


def let_an_hour_pass(monkeypatch: pytest.MonkeyPatch) -> None:
    """So that hashes of files that were just written are remembered."""
    now = time.time_ns()
    monkeypatch.setattr("time.time_ns", lambda: now + 3600 * 10**9)


def kept(cache: Path) -> list[Path]:
    return [path for path in cache.iterdir() if path.suffix != ".lock"] if cache.exists() else []


def same(one: EpisodeStore, other: EpisodeStore) -> bool:
    return one.attributes == other.attributes and all(
        np.array_equal(getattr(one, name), getattr(other, name))
        for name in ("observations", "actions", "rewards", "offsets", "terminated", "truncated", "segments")
    )


def test_a_file_is_read_once(cache: Path, file: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    first = D4rlSource(str(file)).load()
    assert first.attributes["policy"] == "mine"
    forbid_reading(monkeypatch)
    again = D4rlSource(str(file)).load()
    assert same(first, again)
    assert isinstance(again.observations.base, np.memmap)
    assert again.identity is not None
    assert D4rlSource(str(file), dataset_name="b", env_id="X-v0").load().attributes["name"] == "b"
    assert len(kept(cache)) == 1


def test_another_file_or_rule_is_read_anew(cache: Path, file: Path) -> None:
    assert D4rlSource(str(file)).load().rewards.sum() == COUNT
    before = file.stat()
    write(file, reward=2.0)
    os.utime(file, ns=(before.st_atime_ns, before.st_mtime_ns + 1))
    assert D4rlSource(str(file)).load().rewards.sum() == 2 * COUNT
    assert D4rlSource(str(file), episodes="terminals").load().num_episodes == 2
    assert len(D4rlSource(str(file), max_transitions=20).load()) == 20
    assert len(kept(cache)) == 4


def rename_over(path: Path) -> None:
    write(path.with_suffix(".new"), reward=2.0).replace(path)


def write_again(path: Path) -> None:
    path.unlink()
    write(path, reward=2.0)


def edit_in_place(path: Path) -> None:
    with h5py.File(path, "r+") as opened:
        opened["rewards"][:] = 2.0


@pytest.mark.parametrize("replace", [rename_over, write_again, edit_in_place])
def test_other_content_of_the_same_size_and_time_of_change_is_read_anew(
    cache: Path, file: Path, monkeypatch: pytest.MonkeyPatch, replace: Callable[[Path], None]
) -> None:
    let_an_hour_pass(monkeypatch)
    assert D4rlSource(str(file)).load().rewards.sum() == COUNT
    before = file.stat()
    replace(file)
    os.utime(file, ns=(before.st_atime_ns, before.st_mtime_ns))
    after = file.stat()
    assert (after.st_size, after.st_mtime_ns) == (before.st_size, before.st_mtime_ns)
    assert D4rlSource(str(file)).load().rewards.sum() == 2 * COUNT


def test_the_same_content_elsewhere_is_not_read_again(
    cache: Path, file: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    first = D4rlSource(str(file)).load()
    other = tmp_path / "elsewhere" / file.name
    other.parent.mkdir()
    shutil.copy(file, other)
    forbid_reading(monkeypatch)
    assert same(D4rlSource(str(other)).load(), first)


def test_a_file_that_changes_while_it_is_read_is_refused(
    cache: Path, file: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    read = d4rl.read_recording

    def read_and_change(path: Path, keys: Collection[str] | None) -> object:
        found = read(path, keys)
        rename_over(path)
        return found

    with monkeypatch.context() as patch:
        patch.setattr(d4rl, "read_recording", read_and_change)
        with pytest.raises(DataError, match="changes while it is read"):
            D4rlSource(str(file)).load()
    assert kept(cache) == []
    assert D4rlSource(str(file)).load().rewards.sum() == 2 * COUNT


def test_saved_episodes_that_were_edited_are_other_episodes(
    cache: Path, tmp_path: Path, file: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    let_an_hour_pass(monkeypatch)
    D4rlSource(str(file)).load().save(tmp_path / "mine")
    found = {StoreSource(str(tmp_path / "mine")).load().fingerprint()}
    for name in ("rewards", "actions"):
        array = tmp_path / "mine" / f"{name}.npy"
        before = array.stat()
        edited = np.load(array, mmap_mode="r+")
        edited[:] += 0.5
        edited.flush()
        os.utime(array, ns=(before.st_atime_ns, before.st_mtime_ns))
        found.add(StoreSource(str(tmp_path / "mine")).load().fingerprint())
    assert len(found) == 3
    assert StoreSource(str(tmp_path / "mine")).load().fingerprint() in found


def test_a_damaged_copy_is_made_again(cache: Path, file: Path) -> None:
    first = deepcopy(D4rlSource(str(file)).load())  # not mapped from what is damaged next
    (folder,) = kept(cache)
    for name in ("observations.npy", "store.json"):
        (folder / name).write_bytes(b"half")
        assert same(D4rlSource(str(file)).load(), first)
    EpisodeStore.open(folder)


def test_what_a_killed_process_left_is_removed(cache: Path, file: Path) -> None:
    D4rlSource(str(file)).load()
    (folder,) = kept(cache)
    left = folder.rename(cache / f".{folder.name}.0a1b2c3d.tmp")
    D4rlSource(str(file)).load()
    assert kept(cache) == [folder]
    assert not left.exists()


def test_a_file_that_is_refused_leaves_nothing(cache: Path, tmp_path: Path) -> None:
    path = write(tmp_path / "nan.hdf5", reward=float("nan"))
    for _ in range(2):
        with pytest.raises(DataError, match="rewards holds nan"):
            D4rlSource(str(path)).load()
    assert kept(cache) == []


def test_without_room_the_episodes_stay_in_memory(
    cache: Path, file: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    whole = D4rlSource(str(file)).load()

    def full(file: int) -> None:
        raise OSError(28, "No space left on device")

    with monkeypatch.context() as patch:
        patch.setattr(os, "fsync", full)
        found = D4rlSource(str(file), episodes="timeouts").load()
    assert np.array_equal(found.rewards, whole.rewards)
    printed = "".join(capsys.readouterr())
    assert "episodes stay in memory" in printed.replace("\n", " ")
    assert "No space left on device" in printed.replace("\n", " ")
    assert len(kept(cache)) == 1
    monkeypatch.setenv("SEQRL_DATA", str(file / "no folder"))
    assert same(D4rlSource(str(file)).load(), whole)
