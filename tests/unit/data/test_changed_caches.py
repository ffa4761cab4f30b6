"""Caches that are not as they were written: they are made again, which a line says, and nobody trains on them."""

from __future__ import annotations

import json
import os
import time
from collections.abc import Callable, Iterator
from pathlib import Path

import h5py
import numpy as np
import pytest
from tests.unit.data.test_token_cache import KEY, TOKENS, chunks, never

from seqrl.data.array_folder import check_unchanged
from seqrl.data.episodes import EpisodeStore
from seqrl.data.token_cache import cached_tokens
from seqrl.errors import DataError
from seqrl.registry import DATA


def tokens(folder: Path, make: Callable[[], Iterator[tuple[int, np.ndarray]]] = chunks) -> np.ndarray:
    return cached_tokens(KEY, 20, np.dtype(np.uint8), make, folder)


def zeros(path: Path) -> None:
    np.save(path, np.zeros_like(np.load(path)))


def zeros_in_place(path: Path) -> None:
    """As after a loss of power: the header and the length are right."""
    with path.open("r+b") as file:
        file.seek(128)
        file.write(bytes(60))


def zeros_with_the_old_times(path: Path) -> None:
    times = path.stat()
    zeros_in_place(path)
    os.utime(path, ns=(times.st_atime_ns, times.st_mtime_ns))


def beyond_the_vocabulary(path: Path) -> None:
    np.save(path, np.full_like(np.load(path), 250))


def one_bit(path: Path) -> None:
    content = bytearray(path.read_bytes())
    content[140] ^= 1
    path.write_bytes(content)


def one_more(path: Path) -> None:
    path.write_bytes(path.read_bytes() + b"x")


def another_shape(path: Path) -> None:
    content = path.read_bytes()
    path.write_bytes(content.replace(b"(20, 3)", b"(20, 2)"))


def only_the_hash(path: Path) -> None:
    path.write_bytes(path.read_bytes()[-64:])


def a_zip(path: Path) -> None:
    with path.open("wb") as file:
        np.savez(file, np.zeros((20, 3), np.uint8))


CHANGES = [zeros, zeros_in_place, zeros_with_the_old_times, beyond_the_vocabulary, one_bit, one_more, another_shape]
CHANGES += [only_the_hash, a_zip]


@pytest.mark.parametrize("change", CHANGES, ids=lambda change: change.__name__)
@pytest.mark.parametrize("age", ["new", "remembered"])
def test_changed_tokens_are_made_again(
    tmp_path: Path,
    change: Callable[[Path], None],
    age: str,
    capsys: pytest.CaptureFixture[str],
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    np.testing.assert_array_equal(tokens(tmp_path), TOKENS)
    (path,) = tmp_path.glob("*.npy")
    if age == "remembered":
        an_hour_later = time.time_ns() + 3600 * 10**9
        monkeypatch.setattr("time.time_ns", lambda: an_hour_later)
        tokens(tmp_path, never)  # and its hash is kept
    change(path)
    capsys.readouterr()
    np.testing.assert_array_equal(tokens(tmp_path), TOKENS)
    (said,) = capsys.readouterr().out.splitlines()
    assert said == f"tokens are made again: {str(path)!r} is not as it was written, or of an older seqrl"
    tokens(tmp_path, never)
    assert capsys.readouterr().out == ""


@pytest.fixture
def file(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    monkeypatch.setenv("SEQRL_DATA", str(tmp_path / "cache"))
    rng = np.random.default_rng(0)
    with h5py.File(tmp_path / "mine.hdf5", "w") as content:
        content["observations"] = rng.normal(size=(20, 3)).astype(np.float32)
        content["actions"] = rng.uniform(-1, 1, (20, 2)).astype(np.float32)
        content["rewards"] = rng.normal(size=20).astype(np.float32)
        content["terminals"], content["timeouts"] = np.zeros(20, bool), np.arange(20) % 10 == 9
    return tmp_path / "mine.hdf5"


def edit_manifest(folder: Path, **changes: object) -> None:
    path = folder / "store.json"
    path.write_text(json.dumps({**json.loads(path.read_text()), **changes}))


@pytest.mark.parametrize(
    "change",
    [
        lambda folder: zeros(folder / "observations.npy"),
        lambda folder: one_bit(folder / "rewards.npy"),
        lambda folder: np.save(folder / "terminated.npy", np.ones(2, bool)),
        lambda folder: np.save(folder / "offsets.npy", np.array([0, 5, 20])),
        lambda folder: (folder / "actions.npy").unlink(),
        lambda folder: edit_manifest(folder, identity="0" * 64),
        lambda folder: edit_manifest(folder, attributes={"env_id": "other"}),
        lambda folder: edit_manifest(folder, sha256={}),
        lambda folder: (folder / "store.json").write_text("[]"),
    ],
    ids=["zeros", "bit", "flags", "offsets", "missing", "identity", "attributes", "hashes", "list"],
)
def test_changed_episodes_are_read_again(
    file: Path, change: Callable[[Path], None], capsys: pytest.CaptureFixture[str]
) -> None:
    source = DATA.build({"name": "d4rl", "path": str(file)})
    right = source.load()
    (folder,) = (path for path in (file.parent / "cache" / "episodes").iterdir() if path.is_dir())
    before = right.fingerprint(), np.array(right.observations)
    change(folder)
    capsys.readouterr()
    again = source.load()
    (said,) = capsys.readouterr().out.splitlines()
    assert said == f"episodes are read again: {str(folder)!r} is not as it was written, or of an older seqrl"
    assert again.fingerprint() == before[0]
    assert again.num_episodes == 2
    np.testing.assert_array_equal(again.observations, before[1])
    source.load()
    assert capsys.readouterr().out == ""


def test_a_folder_without_hashes_is_still_opened_by_its_owner(tmp_path: Path, tiny_store: EpisodeStore) -> None:
    """`EpisodeStore.save` of an older seqrl wrote none; only the cache wants them."""
    tiny_store.save(tmp_path / "mine")
    check_unchanged(tmp_path / "mine")
    content = json.loads((tmp_path / "mine" / "store.json").read_text())
    del content["sha256"], content["sealed"]
    (tmp_path / "mine" / "store.json").write_text(json.dumps(content))
    assert EpisodeStore.open(tmp_path / "mine").num_episodes == tiny_store.num_episodes
    with pytest.raises(DataError, match="has no hashes"):
        check_unchanged(tmp_path / "mine")
