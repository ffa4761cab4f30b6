"""Saved stores: what comes back, what damage says, and that nothing half-written is ever met."""

from __future__ import annotations

import json
import subprocess
import sys
import tracemalloc
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest

from seqrl.data.episodes import EpisodeStore
from seqrl.data.returns import sample_transitions, transition_chunks
from seqrl.errors import DataError
from seqrl.layout import Layout
from seqrl.registry import DATA

ARRAYS = ("observations", "actions", "rewards", "offsets", "terminated", "truncated", "segments")


@pytest.fixture
def store(tiny_store: EpisodeStore) -> EpisodeStore:
    """The tiny store with two extras, one called like an array of D4RL, and segments of its own."""
    rows = len(tiny_store)
    extras = {"infos/qpos": np.arange(2.0 * rows).reshape(rows, 2), "done": np.arange(rows) % 2 == 0}
    return replace(tiny_store, extras=extras, segments=np.unique([*tiny_store.offsets, 3, 11]))


def assert_same(found: EpisodeStore, wanted: EpisodeStore) -> None:
    for name in ARRAYS:
        array, other = np.asarray(getattr(found, name)), np.asarray(getattr(wanted, name))
        np.testing.assert_array_equal(array, other)
        assert array.dtype == other.dtype
    assert set(found.extras) == set(wanted.extras)
    for name, extra in wanted.extras.items():
        np.testing.assert_array_equal(np.asarray(found.extras[name]), np.asarray(extra))


def test_a_saved_store_comes_back_mapped(store: EpisodeStore, tmp_path: Path) -> None:
    store.save(tmp_path / "new" / "folder")
    found = EpisodeStore.open(tmp_path / "new" / "folder")
    assert_same(found, store)
    assert found.attributes == store.attributes
    assert isinstance(found.observations.base, np.memmap)  # type: ignore[union-attr]
    assert not np.asarray(found.observations).flags.writeable
    assert found.fingerprint() == store.fingerprint()
    assert [path.name for path in (tmp_path / "new").iterdir()] == ["folder"]


def test_the_source_opens_a_folder(store: EpisodeStore, tmp_path: Path) -> None:
    store.save(tmp_path / "mine")
    found = DATA.build({"name": "store", "path": str(tmp_path / "mine"), "env_id": "Hopper-v4"}).load()
    assert_same(found, store)
    assert found.attributes == {"name": "tiny", "env_id": "Hopper-v4"}


@pytest.mark.parametrize(
    ("damage", "message"),
    [
        (lambda f: (f / "rewards.npy").unlink(), r"rewards\.npy' is missing"),
        (lambda f: (f / "actions.npy").write_bytes((f / "actions.npy").read_bytes()[:-1]), "is cut or damaged"),
        (lambda f: (f / "actions.npy").write_bytes(b""), "is cut or damaged"),
        (lambda f: np.save(f / "actions.npy", np.zeros((25, 3), np.float32)), r"holds .*\[25, 3\].*says .*\[25, 2\]"),
        (lambda f: np.save(f / "offsets.npy", np.zeros(6, np.int64)), "offsets does not rise from 0 to 25"),
        (lambda f: (f / "store.json").unlink(), r"no readable store\.json \(there is none\)"),
        (
            lambda f: (f / "store.json").write_text('{"format": "seqrl epi'),
            r"no readable store\.json \(it is no JSON: Unterminated",
        ),
        (lambda f: (f / "store.json").write_text('{"format": "other"}'), "is not of seqrl"),
        (lambda f: edit(f, version=99), "has version 99 of the format and this seqrl reads 1"),
        (lambda f: edit(f, arrays=None), "lists no arrays"),
        (lambda f: edit(f, identity=None), "lists no identity"),
    ],
)
def test_damage_is_told_in_one_sentence(store: EpisodeStore, tmp_path: Path, damage: object, message: str) -> None:
    store.save(tmp_path / "mine")
    damage(tmp_path / "mine")  # type: ignore[operator]
    with pytest.raises(DataError, match=message) as error:
        EpisodeStore.open(tmp_path / "mine")
    assert "\n" not in str(error.value)


def edit(folder: Path, **changes: object) -> None:
    content = {**json.loads((folder / "store.json").read_text()), **changes}
    (folder / "store.json").write_text(json.dumps(content))


def test_arrays_that_do_not_belong_together_are_refused(store: EpisodeStore, tmp_path: Path) -> None:
    store.save(tmp_path / "mine")
    content = json.loads((tmp_path / "mine" / "store.json").read_text())
    content["arrays"]["actions"]["shape"] = [24, 2]
    edit(tmp_path / "mine", arrays=content["arrays"])
    np.save(tmp_path / "mine" / "actions.npy", np.zeros((24, 2), np.float32))
    with pytest.raises(DataError, match=r"actions has shape \(24, 2\) beside 25 rewards"):
        EpisodeStore.open(tmp_path / "mine")


def test_folders_that_are_no_store_are_refused(store: EpisodeStore, tmp_path: Path) -> None:
    with pytest.raises(DataError, match="there is no folder"):
        EpisodeStore.open(tmp_path / "nowhere")
    (tmp_path / "photos").mkdir()
    with pytest.raises(DataError, match=r"give a folder that EpisodeStore\.save wrote"):
        EpisodeStore.open(tmp_path / "photos")


def test_saving_replaces_nothing_and_needs_plain_attributes(store: EpisodeStore, tmp_path: Path) -> None:
    store.save(tmp_path / "mine")
    with pytest.raises(DataError, match="it exists already"):
        store.save(tmp_path / "mine")
    (tmp_path / "file").touch()
    with pytest.raises(DataError, match="cannot be saved"):
        store.save(tmp_path / "file")
    with pytest.raises(DataError, match="attributes cannot be written as JSON"):
        replace(store, attributes={"env": object()}).save(tmp_path / "other")
    assert sorted(path.name for path in tmp_path.iterdir()) == ["file", "mine"]


def test_a_full_disk_leaves_nothing(tmp_path: Path) -> None:
    """A limit on the size of files stands for the disk: the writes of a real process fail halfway."""
    code = """
import resource, sys
import numpy as np
from seqrl.data.episodes import EpisodeStore
from seqrl.errors import DataError
zeros = np.zeros((50_000, 4), np.float32)
store = EpisodeStore.from_arrays(zeros, zeros, zeros[:, 0], zeros[:, 0] > 0, zeros[:, 0] > 0)
resource.setrlimit(resource.RLIMIT_FSIZE, (300_000, 300_000))
try:
    store.save(sys.argv[1])
except DataError as error:
    print(error)
"""
    done = subprocess.run([sys.executable, "-c", code, tmp_path / "mine"], capture_output=True, text=True, check=True)
    assert "cannot be saved" in done.stdout
    assert "File too large" in done.stdout
    assert list(tmp_path.iterdir()) == []


def test_what_is_larger_than_memory_is_read_in_chunks(tmp_path: Path, tiny_layout: Layout) -> None:
    """Checking, saving, sampling and laying out 64 MB mapped from a file takes a fraction of it."""
    rows = 2**21
    observations = np.lib.format.open_memmap(tmp_path / "raw.npy", "w+", np.float32, (rows, 8))  # a hole: no disk
    actions = np.lib.format.open_memmap(tmp_path / "raw2.npy", "w+", np.float32, (rows, 2))
    flags = np.zeros(rows, bool)
    layout = replace(tiny_layout, fields=Layout.from_config({"fields": {"observation": {}, "action": {}, "reward": {},
                     "value": {}}}, 8, 2).fields)  # fmt: skip
    tracemalloc.start()
    try:
        store = EpisodeStore.from_arrays(observations, actions, actions[:, 0].copy(), flags, flags)
        store.save(tmp_path / "mine")
        found = EpisodeStore.open(tmp_path / "mine")
        seen = sum(len(values) for _, values in transition_chunks(found, layout))
        sample = sample_transitions(found, layout, scalars=1000)
        peak = tracemalloc.get_traced_memory()[1]
    finally:
        tracemalloc.stop()
    assert seen == rows
    assert len(sample) == 1000 // 12 + 2 * 12
    assert peak < 32 * 2**20


def test_numbers_are_checked_beyond_the_first_chunk() -> None:
    values = np.zeros((70_000, 2), np.float32)
    values[69_000, 1] = np.nan
    flags = np.zeros(70_000, bool)
    with pytest.raises(DataError, match="observations holds nan at row 69000, column 1"):
        EpisodeStore.from_arrays(values, values[:, :1] * 0, flags, flags, flags)
    with pytest.raises(DataError, match=r"rewards holds 1e\+300 at row 3"):  # more than float32 holds
        EpisodeStore.from_arrays(
            flags[:, None], np.zeros((70_000, 1)), np.where(np.arange(70_000) == 3, 1e300, 0), flags, flags
        )
