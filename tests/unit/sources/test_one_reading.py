"""`seqrl data inspect` and `seqrl data convert` show and write the episodes that training uses."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path
from typing import Any

import h5py
import numpy as np
import pytest

from seqrl.errors import DataError
from seqrl.registry import DATA
from seqrl.sources import find_source

STORED = ("observations", "actions", "rewards", "offsets", "terminated", "truncated", "segments")


def at(count: int, *rows: int) -> np.ndarray:
    flags = np.zeros(count, bool)
    flags[list(rows)] = True
    return flags


def save(path: Path, count: int, **more: Any) -> str:
    rng = np.random.default_rng(0)
    arrays = {
        "observations": rng.normal(size=(count, 4)).astype(np.float32),
        "actions": rng.uniform(-1, 1, (count, 2)).astype(np.float32),
        "rewards": rng.normal(size=count).astype(np.float32),
        **more,
    }
    if path.suffix == ".npz":
        np.savez(path, **arrays)
    else:
        with h5py.File(path, "w") as file:
            for key, array in arrays.items():
                file[key] = array
    return str(path)


GOALS = np.repeat([[1.0, 1.0], [3.0, 1.0], [2.0, 3.0]], [91, 53, 556], axis=0)
FILES: dict[str, tuple[str, int, dict[str, Any]]] = {
    "a stream": ("maze2d-umaze.hdf5", 700, {"timeouts": at(700, 90, 143), "infos/goal": GOALS}),
    "a stream of v0": ("maze2d-umaze-v0.hdf5", 700, {"terminals": at(700, 90, 143)}),
    "recordings": ("antmaze-umaze-v2.hdf5", 90, {"terminals": at(90, 40, 41, 42), "timeouts": at(90, 29, 59, 89)}),
    "demonstrations": ("kitchen-mixed-v0.hdf5", 60, {"terminals": at(60, 20, 59)}),
    "a time limit": ("hopper-mine.hdf5", 2500, {"terminals": at(2500, 1499)}),
    "flags": ("mine.hdf5", 60, {"terminals": at(60, 20), "timeouts": at(60, 20, 40)}),
    "goals": ("mine.hdf5", 700, {"timeouts": at(700, 90, 143, 400), "infos/goal": GOALS}),
    "offsets": ("mine.hdf5", 12, {"offsets": np.array([0, 4, 9, 12]), "terminated": np.array([1, 0, 0])}),
    "segments": ("mine.hdf5", 12, {"timeouts": at(12, 5), "segment_ends": at(12, 2)}),
    "invalid rows": ("mine.hdf5", 10, {"timeouts": at(10, 3, 4, 8, 9), "valids": 1.0 - at(10, 4, 9)}),
    "arrays": ("mine.npz", 12, {"timeouts": at(12, 5), "qpos": np.ones((12, 2))}),
}


@pytest.mark.parametrize("case", FILES)
def test_what_is_shown_is_what_is_trained_on(case: str, tmp_path: Path) -> None:
    name, count, more = FILES[case]
    ends = {} if {"offsets", "terminals"} & set(more) else {"terminals": np.zeros(count, bool)}
    path = save(tmp_path / name, count, **ends, **more)
    shown, used = find_source(path).read().store(), find_source(path).load()
    for array in STORED:
        np.testing.assert_array_equal(getattr(shown, array), getattr(used, array), err_msg=array)
    assert shown.attributes == used.attributes


@pytest.mark.parametrize("name", ["d4rl", "arrays"])
def test_links_are_followed(name: str, tmp_path: Path) -> None:
    """HDF5 files share arrays by soft and external links; a link may lead nowhere, or back to its own group."""
    save(tmp_path / "raw.hdf5", 60, terminals=at(60, 20), timeouts=at(60, 40))
    with h5py.File(tmp_path / "mine.hdf5", "w") as file:
        for key in ("observations", "actions", "rewards", "terminals", "timeouts"):
            file[key] = h5py.ExternalLink("raw.hdf5", f"/{key}")
        file["infos/qpos"] = np.ones((60, 2))
        file["qvel"] = h5py.SoftLink("/infos/qpos")
        file["infos/all"] = h5py.SoftLink("/")
        file["gone"] = h5py.SoftLink("/nothing")
    source = DATA.build({"name": name, "path": str(tmp_path / "mine.hdf5")})
    assert source.load().offsets.tolist() == [0, 21, 41, 60]
    assert set(source.read().extras) == {"infos/qpos", "infos/qvel"}


def test_parts_of_observations_are_no_array(tmp_path: Path) -> None:
    path = tmp_path / "mine.hdf5"
    save(path, 12, terminals=at(12), timeouts=at(12, 5))
    with h5py.File(path, "a") as file:
        del file["observations"]
        file["observations/state"], file["observations/goal"] = np.zeros((12, 3)), np.zeros((12, 2))
    for name in ("d4rl", "arrays"):
        with pytest.raises(DataError, match="observations is a group of goal, state; join its parts into one array"):
            DATA.build({"name": name, "path": str(path)}).load()


def test_a_file_in_use_is_not_called_damaged(tmp_path: Path) -> None:
    path = tmp_path / "mine.hdf5"
    save(path, 12, terminals=at(12), timeouts=at(12, 5))
    code = f"import h5py, sys; file = h5py.File({str(path)!r}, 'r+'); print('open', flush=True); sys.stdin.read()"
    with subprocess.Popen([sys.executable, "-c", code], stdin=subprocess.PIPE, stdout=subprocess.PIPE) as holder:
        assert holder.stdout is not None
        holder.stdout.readline()
        with pytest.raises(DataError, match=r"cannot be locked, since another process .* HDF5_USE_FILE_LOCKING=FALSE"):
            find_source(str(path)).read()
        holder.communicate()
