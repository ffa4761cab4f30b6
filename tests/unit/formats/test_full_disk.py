"""A disk that is full: HDF5 files and Minari's data sets are whole or not there, and the process lives on to say so.

HDF5 ended the process in a segmentation fault, mostly while Python was closing. So each try has a process of its own.
"""

from __future__ import annotations

import signal
import subprocess
import sys
from pathlib import Path

import h5py
import numpy as np
import pytest

from seqrl.formats.hdf5_writing import write_hdf5
from seqrl.formats.targets import write_whole

WRITER = """
import os, resource, sys
import numpy as np
target, limit = sys.argv[1], int(sys.argv[2])
os.environ["MINARI_DATASETS_PATH"] = os.path.dirname(target)
from seqrl.data.episodes import EpisodeStore
from seqrl.errors import DataError
from seqrl.formats import writers
from seqrl.formats.flat import FlatEpisodes
rng, count = np.random.default_rng(0), 20_000
observations, actions = rng.normal(size=(count, 11)), rng.uniform(-1, 1, (count, 3))
ends = np.arange(count) % 1000 == 999
store = EpisodeStore.from_arrays(observations, actions, rng.normal(size=count), ends, np.zeros(count, bool))
name = "minari:full/task-v0" if target.endswith("minari") else target
if name != target:
    writers.check_target(name, overwrite=False)
if limit:
    resource.setrlimit(resource.RLIMIT_FSIZE, (limit, limit))
try:
    writers.write_episodes(FlatEpisodes.of(store, "mine"), name)
except DataError as error:
    print(error, flush=True)
"""


def fill(target: Path, limit: int = 0) -> subprocess.CompletedProcess[str]:
    code = [sys.executable, "-W", "ignore", "-c", WRITER, str(target), str(limit)]
    return subprocess.run(code, capture_output=True, text=True, check=False)


def check(done: subprocess.CompletedProcess[str], reason: str, folder: Path) -> None:
    assert (done.returncode, done.stderr) == (0, "")
    assert f"cannot be written ({reason}); give a place with room" in done.stdout
    assert [path for path in folder.rglob("*") if path.is_file()] == []


# In the middle of an array, of the tables of chunks, of what is written while the file closes.
@pytest.mark.parametrize("limit", [1, 900, 5000, 70_000, 700_000, 1_040_000])
def test_a_file_may_not_grow(tmp_path: Path, limit: int) -> None:
    check(fill(tmp_path / "mine.hdf5", limit), "File too large", tmp_path)


@pytest.mark.parametrize("limit", [1000, 50_000, 1_000_000])
def test_a_data_set_of_minari_may_not_grow(tmp_path: Path, limit: int) -> None:
    pytest.importorskip("minari")
    check(fill(tmp_path / "minari", limit), "File too large", tmp_path)


@pytest.mark.slow
@pytest.mark.parametrize("name", ["mine.hdf5", "minari"])
def test_a_full_disk(tmp_path: Path, name: str) -> None:
    """Every size of a small disk up to the one that takes all; needs the right to mount one."""
    taken = []
    for kilobytes in (64, 256, 512, 768, 900, 1000, 1100, 4000):
        place = tmp_path / str(kilobytes)
        place.mkdir()
        mount = ["mount", "-t", "tmpfs", "-o", f"size={kilobytes}k", "tmpfs", str(place)]
        if subprocess.run(mount, capture_output=True, check=False).returncode:
            pytest.skip("no disk can be mounted here")
        try:
            done = fill(place / name)
            taken.append(not done.stdout)
            if done.stdout:
                check(done, "No space left on device", place)
        finally:
            subprocess.run(["umount", str(place)], check=True)
    assert not taken[0]
    assert taken[-1]


def test_what_is_written_is_what_was_given(tmp_path: Path) -> None:
    rng = np.random.default_rng(0)
    arrays = {
        "observations": rng.normal(size=(100_003, 60)).astype(np.float32),  # written in several parts
        "terminals": np.arange(100_003) % 7 == 0,
        "infos/qpos": rng.normal(size=(5, 2, 3)),
        "none": np.zeros((0, 4), np.float32),
    }
    write_hdf5(tmp_path / "mine.hdf5", arrays, {"name": "mine", "seed": 3, "skipped": object()})
    with h5py.File(tmp_path / "mine.hdf5") as file:
        assert dict(file.attrs) == {"name": "mine", "seed": 3}
        for key, array in arrays.items():
            np.testing.assert_array_equal(file[key][()], array)
            assert (file[key].dtype, file[key].compression) == (array.dtype, "gzip")


def test_leftovers_of_killed_writers_go_and_those_of_live_ones_stay(tmp_path: Path) -> None:
    target = tmp_path / "mine.npz"
    code = (
        "import sys; from pathlib import Path; from seqrl.formats.targets import write_whole\n"
        "def make(new): new.write_text('half'); print(flush=True); sys.stdin.read()\n"
        "write_whole(Path(sys.argv[1]), make, overwrite=False, folder=sys.argv[2] == 'folder')"
    )
    started = []
    for kind in ("file", "folder", "file"):
        make = code if kind == "file" else code.replace("new.write", "(new / 'a').write")
        process = subprocess.Popen(
            [sys.executable, "-c", make, str(target), kind], stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True
        )
        assert process.stdout is not None
        process.stdout.readline()
        started.append(process)
    assert len(list(tmp_path.iterdir())) == 3
    for process in started[:2]:
        process.send_signal(signal.SIGKILL)
        process.communicate()
    write_whole(target, lambda new: new.write_text("whole"), overwrite=False)
    assert sorted(path.suffix for path in tmp_path.iterdir()) == [".npz", ".tmp"]
    started[2].communicate("")  # goes on
    assert started[2].returncode == 0
    assert [path.name for path in tmp_path.iterdir()] == ["mine.npz"]
    assert target.read_text() == "half"
