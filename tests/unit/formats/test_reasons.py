"""What is wrong with a file that cannot be read, each thing in its own sentence, with advice that does no harm."""

from __future__ import annotations

import os
import pickle
import subprocess
import sys
import zipfile
from collections.abc import Callable
from pathlib import Path
from typing import Any

import h5py
import numpy as np
import pytest

from seqrl.errors import DataError
from seqrl.formats.hdf5_reasons import explain_failure
from seqrl.formats.reading import read_recording
from seqrl.sources import find_source

COUNT = 40


def arrays() -> dict[str, np.ndarray]:
    rng = np.random.default_rng(0)
    return {
        "observations": rng.normal(size=(COUNT, 3)).astype(np.float32),
        "actions": rng.uniform(-1, 1, (COUNT, 2)).astype(np.float32),
        "rewards": rng.normal(size=COUNT).astype(np.float32),
        "offsets": np.array([0, 20, COUNT]),
    }


def write(path: Path, **options: Any) -> Path:
    with h5py.File(path, "w", **options) as file:
        for key, array in arrays().items():
            file[key] = array
    return path


@pytest.mark.parametrize("block", [512, 1024, 8192])
@pytest.mark.parametrize("start", [b"", b"#!/bin/sh\n", b"P"])
def test_a_block_of_the_user_before_hdf5_is_no_damage(tmp_path: Path, block: int, start: bytes) -> None:
    path = write(tmp_path / "mine.hdf5", userblock_size=block)
    with path.open("r+b") as file:
        file.write(start)
    np.testing.assert_array_equal(read_recording(path).arrays["observations"], arrays()["observations"])


def opaque() -> Any:
    kind = h5py.h5t.create(h5py.h5t.OPAQUE, 7)
    kind.set_tag(b"NUMPY:|O8;")
    return kind


def wide() -> Any:
    kind = h5py.h5t.STD_I64LE.copy()
    kind.set_size(16)
    return kind


@pytest.mark.parametrize("kind", [lambda: h5py.h5t.UNIX_D32LE, opaque, wide], ids=["time", "opaque", "16 bytes"])
def test_what_numpy_has_no_type_for_is_left_out(tmp_path: Path, kind: Callable[[], Any]) -> None:
    """Attributes and arrays that training does not need."""
    path = write(tmp_path / "mine.hdf5")
    with h5py.File(path, "a") as file:
        file.attrs["env_id"] = "Hopper-v4"
        h5py.h5a.create(file.id, b"odd", kind(), h5py.h5s.create(h5py.h5s.SCALAR))
        h5py.h5d.create(file.id, b"when", kind(), h5py.h5s.create_simple((COUNT,)))
    read = read_recording(path)
    assert sorted(read.arrays) == sorted(arrays())
    assert read.attributes == {"env_id": "Hopper-v4", "path": "mine.hdf5"}


@pytest.mark.parametrize("name", ["mine.dat", "mine.npz", "mine", "mine.hdf5"])
def test_the_name_of_a_file_does_not_say_what_it_is(tmp_path: Path, name: str) -> None:
    def write_npz(path: Path) -> None:
        with path.open("wb") as file:
            np.savez(file, **arrays())

    for make in (write, write_npz):
        make(tmp_path / name)
        assert find_source(str(tmp_path / name)).load().num_episodes == 2
        assert find_source(str(tmp_path / name)).read().store().num_episodes == 2


@pytest.mark.parametrize("version", ["earliest", "v108", "v110", "v112", "latest"])
def test_all_versions_of_the_format_are_read(tmp_path: Path, version: str) -> None:
    assert read_recording(write(tmp_path / "mine.hdf5", libver=version)).arrays["rewards"].shape == (COUNT,)


def test_a_missing_filter_is_named_and_the_file_is_kept(tmp_path: Path) -> None:
    path = tmp_path / "mine.hdf5"
    with h5py.File(path, "w") as file:
        for key, array in arrays().items():
            if key != "rewards":
                file[key] = array
        created = h5py.h5p.create(h5py.h5p.DATASET_CREATE)
        created.set_chunk((COUNT,))
        created.set_filter(32001, h5py.h5z.FLAG_OPTIONAL)  # blosc's number
        space = h5py.h5s.create_simple((COUNT,))
        h5py.h5d.create(file.id, b"rewards", h5py.h5t.IEEE_F32LE, space, created).write_direct_chunk((0,), bytes(32))
    with pytest.raises(DataError, match=r"is compressed by what HDF5 lacks here .*; install that filter") as caught:
        read_recording(path)
    assert "damaged" not in str(caught.value)


def test_a_writer_that_was_killed_leaves_no_damage(tmp_path: Path) -> None:
    code = (
        "import h5py, os, sys; file = h5py.File(sys.argv[1], 'a', libver='latest'); file.swmr_mode = True; os._exit(0)"
    )
    path = write(tmp_path / "mine.hdf5", libver="latest")
    subprocess.run([sys.executable, "-c", code, str(path)], check=True)
    with pytest.raises(
        DataError, match=r"is marked as open for writing .* `h5clear -s mine\.hdf5` if its writer"
    ) as caught:
        read_recording(path)
    assert "damaged" not in str(caught.value)


@pytest.mark.parametrize(
    ("said", "told"),
    [
        ("Unable to open file (unable to lock file, errno = 11, error message = 'x')", "another process has it open"),
        ("Unable to open file (unable to lock file, errno = 37, error message = 'x')", "a file system without locks"),
        ("Unable to open file (unable to lock file, errno = 38, error message = 'x')", "a file system without locks"),
        ("Unable to open file (file is already open for write (may use <h5clear>))", "h5clear -s mine.hdf5"),
        ("Can't read data (required filter 'zstd' is not registered)", "install that filter"),
        ("Can't open directory or file for filter plugins", "install that filter"),
        ("Unable to open file (bad superblock version number)", "install a newer h5py"),
        ("Unable to open file (errno = 13, error message = 'Permission denied')", "check its permissions"),
        ("Unable to read (memory allocation failed for chunk)", "does not fit into memory"),
        ("Can't read data (file read failed: errno = 5, error message = 'Input/output error')", "it is not damaged"),
        ("Something that nobody has seen", "it is not damaged"),
    ],
)
def test_what_the_library_says_is_passed_on_and_advice_fits(tmp_path: Path, said: str, told: str) -> None:
    sentence = explain_failure(OSError(said), tmp_path / "mine.hdf5")
    assert told in sentence
    assert said in sentence
    assert "make it again" not in sentence
    assert " is a damaged" not in sentence


@pytest.mark.parametrize(
    "said", ["inflate() failed", "incorrect metadata checksum", "bad object header version number"]
)
def test_damage_is_called_damage(tmp_path: Path, said: str) -> None:
    assert "is a damaged HDF5 file" in explain_failure(OSError(said), tmp_path / "mine.hdf5")


def test_types_that_are_no_numbers_are_named(tmp_path: Path) -> None:
    for number, values in enumerate((np.array([b"a"] * COUNT), h5py.Empty("f4"), np.zeros(COUNT, [("a", "f4")]))):
        path = write(tmp_path / f"{number}.hdf5")
        with h5py.File(path, "a") as file:
            del file["rewards"]
            file["rewards"] = values
        with pytest.raises(DataError, match=r"rewards has shape .* and type .*; numbers are needed"):
            read_recording(path)


def twice(path: Path) -> None:
    np.savez(path, **arrays())
    with zipfile.ZipFile(path, "a") as archive, pytest.warns(UserWarning, match="Duplicate name"):
        archive.writestr("rewards.npy", b"other")


def under_two_names(path: Path) -> None:
    np.savez(path, **arrays())
    with zipfile.ZipFile(path, "a") as archive:
        archive.writestr("rewards", b"other")


def cut(path: Path) -> None:
    np.savez(path, **arrays())
    path.write_bytes(path.read_bytes()[:-30])


def flipped(path: Path) -> None:
    np.savez(path, **arrays())
    content = bytearray(path.read_bytes())
    content[300] ^= 1
    path.write_bytes(content)


def objects(path: Path) -> None:
    np.savez(path, **{**arrays(), "observations": np.array([[1], [1, 2]], dtype=object)})


def a_pickle_in_it(path: Path) -> None:
    np.savez(path, **{key: array for key, array in arrays().items() if key != "observations"})
    with zipfile.ZipFile(path, "a") as archive:
        archive.writestr("observations.npy", pickle.dumps([1, 2]))


def another_packing(path: Path) -> None:
    np.savez(path, **arrays())
    content = path.read_bytes()
    place = content.rindex(b"PK\x01\x02")  # the last entry of the directory; its method stands ten bytes on
    path.write_bytes(content[: place + 10] + b"\x63\x00" + content[place + 12 :])


def a_password(path: Path) -> None:
    np.savez(path, **arrays())
    content = bytearray(path.read_bytes())
    for signature, offset in ((b"PK\x03\x04", 6), (b"PK\x01\x02", 8)):
        content[content.rindex(signature) + offset] |= 1
    path.write_bytes(content)


@pytest.mark.parametrize(
    ("make", "words"),
    [
        (twice, r"holds 'rewards' twice; write the file again"),
        (under_two_names, r"holds 'rewards' twice; write the file again"),
        (cut, r"is truncated or damaged \(.*\); fetch or make it again"),
        (flipped, r"is truncated or damaged \(Bad CRC-32 for file .*\); fetch or make it again"),
        (objects, r"observations cannot be read, since it holds Python objects; save plain arrays"),
        (a_pickle_in_it, r"observations cannot be read, since it is no array of NumPy .*; save plain arrays"),
        (another_packing, r"is packed in a way that Python lacks here .*; write it by numpy.savez"),
        (a_password, r"cannot be unpacked \(.*encrypted.*\); write it without a password"),
    ],
    ids=lambda value: getattr(value, "__name__", ""),
)
def test_an_npz_file_that_cannot_be_read_says_why(tmp_path: Path, make: Any, words: str) -> None:
    make(tmp_path / "mine.npz")
    with pytest.raises(DataError, match=words) as caught:
        read_recording(tmp_path / "mine.npz")
    assert "\n" not in str(caught.value)


def test_what_is_no_file_is_told_at_once(tmp_path: Path) -> None:
    os.mkfifo(tmp_path / "pipe")  # opening it would wait for a writer
    (tmp_path / "circle").symlink_to("circle")
    (tmp_path / "link").symlink_to("mine.hdf5")
    write(tmp_path / "mine.hdf5")
    for name, words in (
        ("pipe", "is a device, pipe or socket"),
        ("circle", "cannot be read"),
        ("mine.hdf5/x", "cannot be read"),
        (".", "is a folder"),
        ("n" * 300, "cannot be read"),
    ):
        with pytest.raises(DataError, match=words):
            read_recording(tmp_path / name)
    assert read_recording(tmp_path / "link").arrays["rewards"].shape == (COUNT,)


@pytest.mark.skipif(os.geteuid() == 0, reason="root may read everything")
@pytest.mark.parametrize("name", ["mine.hdf5", "mine.npz"])
def test_a_forbidden_file_says_so(tmp_path: Path, name: str) -> None:
    path = tmp_path / name
    path.touch(mode=0)
    with pytest.raises(DataError, match="may not be read; check its permissions"):
        read_recording(path)
