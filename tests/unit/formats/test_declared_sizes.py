"""Small files that declare large arrays are refused before memory is taken for them; what real recordings do passes."""

from __future__ import annotations

import io
import json
import subprocess
import sys
import zipfile
import zlib
from pathlib import Path
from typing import Any

import h5py
import numpy as np
import pytest
from tests.unit.formats.test_reasons import COUNT, arrays

from seqrl.errors import DataError
from seqrl.formats.limits import check_size, free_memory
from seqrl.formats.reading import read_recording

GIGABYTE = 10**9


def header(shape: tuple[int, ...], descr: str = "<f4") -> bytes:
    buffer = io.BytesIO()
    np.lib.format.write_array_header_1_0(buffer, {"descr": descr, "fortran_order": False, "shape": shape})
    return buffer.getvalue()


def hdf5(path: Path, observations: Any) -> Path:
    with h5py.File(path, "w") as file:
        for key, array in arrays().items():
            if key != "observations":
                file[key] = array
        observations(file)
    return path


def npz(path: Path, member: bytes, repeat: int = 0) -> Path:
    """`observations.npy` of some bytes, and so many MB of zeros behind them."""
    with zipfile.ZipFile(path, "w", zipfile.ZIP_DEFLATED) as archive:
        with archive.open("observations.npy", "w", force_zip64=True) as file:
            file.write(member)
            for _ in range(repeat):
                file.write(bytes(10**6))
        for key, array in arrays().items():
            if key != "observations":
                buffer = io.BytesIO()
                np.save(buffer, array)
                archive.writestr(f"{key}.npy", buffer.getvalue())
    return path


def never_written(file: Any) -> None:
    file.create_dataset("observations", (40_000_000, 30), "f4", chunks=(4096, 30))


def filled(file: Any) -> None:
    file.create_dataset("observations", (40_000_000, 30), "f4", chunks=(4096, 30), compression="gzip", fillvalue=1.0)


def beyond_any_disk(file: Any) -> None:
    file.create_dataset("observations", (2**45, 1), "f4", chunks=(4096, 1))


def beyond_64_bits(file: Any) -> None:
    file.create_dataset("observations", (2**40, 2**40), "f8", chunks=(64, 64))


def elsewhere_in_the_file(file: Any) -> None:
    file["observations"] = np.zeros((COUNT, 3), np.float32)
    file.create_dataset("infos/qpos", (COUNT, 10**8), "f4", chunks=(1, 4096))


def one_array_under_many_names(file: Any) -> None:
    file["observations"] = np.zeros((COUNT, 3), np.float32)
    file.create_dataset("a", (COUNT, 250_000), "f4", compression="gzip")[...] = 1.0
    for number in range(40):
        file[f"b{number}"] = h5py.SoftLink("/a")


@pytest.mark.parametrize(
    "declare",
    [never_written, filled, beyond_any_disk, beyond_64_bits, elsewhere_in_the_file, one_array_under_many_names],
    ids=lambda declare: declare.__name__,
)
def test_a_small_hdf5_file_of_large_arrays_is_refused(tmp_path: Path, declare: Any) -> None:
    with pytest.raises(DataError, match=r"mine\.hdf5 declares arrays of [\d.e+]+ .B in a file of .* take a whole copy"):
        read_recording(hdf5(tmp_path / "mine.hdf5", declare))


def block_larger_than_its_array(file: Any) -> None:
    file.create_dataset("observations", (COUNT, 3), "f4", maxshape=(None, 3), chunks=(2**26, 3), compression="gzip")


def block_of_an_array_that_is_not_needed(file: Any) -> None:
    file["observations"] = np.zeros((COUNT, 3), np.float32)
    file.create_dataset("infos/qpos", (COUNT, 2), "f8", maxshape=(None, 2), chunks=(2**25, 2), compression="lzf")


@pytest.mark.parametrize("declare", [block_larger_than_its_array, block_of_an_array_that_is_not_needed])
def test_a_block_counts_as_a_whole(tmp_path: Path, declare: Any) -> None:
    """HDF5 takes memory for all of a block, though the array has a few rows of it."""
    with pytest.raises(DataError, match=r"mine\.hdf5 declares arrays of [\d.]+ MB in a file of"):
        read_recording(hdf5(tmp_path / "mine.hdf5", declare))


def deflate(megabytes: int) -> bytes:
    return zlib.compress(bytes(megabytes * 10**6), 9)


def pack(file: Any, block: bytes, **packing: Any) -> None:
    """`observations` of one block, which is what is given."""
    packing = {"compression": "gzip", **packing}
    item = file.create_dataset("observations", (COUNT, 3), "f4", chunks=(COUNT, 3), **packing)
    item.id.write_direct_chunk((0, 0), block)


def unpacks_to_80_mb(file: Any) -> None:
    pack(file, deflate(80))


def shuffled_and_summed(file: Any) -> None:
    pack(file, deflate(80), shuffle=True, fletcher32=True)


def repeats_without_end(file: Any) -> None:
    pack(file, bytes(2) + 10**6 * b"\xe0\xff\x00", compression="lzf")


def packed_twice(file: Any) -> None:
    made = h5py.h5p.create(h5py.h5p.DATASET_CREATE)
    made.set_chunk((COUNT, 3))
    for _ in range(2):
        made.set_deflate(9)
    item = h5py.h5d.create(file.id, b"observations", h5py.h5t.IEEE_F32LE, h5py.h5s.create_simple((COUNT, 3)), made)
    item.write_direct_chunk((0, 0), zlib.compress(deflate(80), 9))


@pytest.mark.parametrize(
    "make", [unpacks_to_80_mb, shuffled_and_summed, repeats_without_end, packed_twice], ids=lambda make: make.__name__
)
def test_a_block_that_unpacks_to_more_than_it_declares_is_refused(tmp_path: Path, make: Any) -> None:
    with pytest.raises(DataError, match=r"mine\.hdf5: (a block of observations holds more than the 480|the blocks of)"):
        read_recording(hdf5(tmp_path / "mine.hdf5", make))


def test_blocks_of_any_packing_are_read(tmp_path: Path) -> None:
    """Large blocks, those that cannot be shrunk, and those that few bytes stand for."""
    rng = np.random.default_rng(0)
    lzf: dict[str, Any] = {"compression": "lzf"}
    noise, zeros = rng.integers(0, 256, (100_000, 3), dtype=np.uint8), np.zeros((10_000_000, 8), np.uint8)
    with h5py.File(tmp_path / "mine.hdf5", "w") as file:
        for number, packing in enumerate([{"compression": "gzip", "shuffle": True, "fletcher32": True}, lzf, {}]):
            for key, array in {"noise": noise, "actions": arrays()["actions"]}.items():
                file.create_dataset(f"{key}{number}", data=array, chunks=array.shape, **packing)
        file.create_dataset("zeros", data=zeros, chunks=zeros.shape, compression="gzip", compression_opts=1)
        keys = sorted(file)
    found = read_recording(tmp_path / "mine.hdf5", keys).arrays
    assert sorted(found) == keys
    assert all(np.array_equal(found[f"noise{number}"], noise) for number in range(3))
    assert all(np.array_equal(found[f"actions{number}"], arrays()["actions"]) for number in range(3))
    assert found["zeros"].shape == zeros.shape
    assert not found["zeros"].any()


def test_groups_within_groups_have_an_end(tmp_path: Path) -> None:
    def nested(file: Any) -> None:
        group = file
        for _ in range(400):
            group = group.create_group("g")
        group["observations"] = np.zeros((COUNT, 3))

    with pytest.raises(DataError, match=r"mine\.hdf5 has more than 64 groups within each other"):
        read_recording(hdf5(tmp_path / "mine.hdf5", nested))


@pytest.mark.parametrize(
    ("member", "repeat", "words"),
    [
        (header((10**9, 30)), 0, "declares 1200000001.. bytes and holds 128"),
        (header((2**62, 2**62)), 0, "declares"),
        (header((100,), "V1000000000"), 0, "declares"),
        (header((10**6, 72)), 290, r"mine\.npz declares arrays of 29\d"),
        (b"\x93NUMPY\x02\x00\xff\xff\xff\x7f", 290, r"mine\.npz declares arrays of 29\d"),
        (b"\x93NUMPY\x02\x00\xff\xff\xff\x7f", 0, "no array of NumPy"),
        (header((-5, 3)), 0, "cannot be read"),
        (header((2**33, -(2**33))), 0, "cannot be read"),
        (header((0, 10**19)), 0, "cannot be read"),
        (header((10,), "|O"), 0, "holds Python objects"),
    ],
    ids=["shape", "overflow", "items", "bomb", "header bomb", "header", "negative", "both", "empty", "objects"],
)
def test_an_npz_file_that_declares_what_it_has_not_is_refused(
    tmp_path: Path, member: bytes, repeat: int, words: str
) -> None:
    with pytest.raises(DataError, match=words):
        read_recording(npz(tmp_path / "mine.npz", member, repeat))


@pytest.mark.parametrize("kind", ["hdf5", "npz"])
def test_refusing_takes_no_memory(tmp_path: Path, kind: str) -> None:
    """What a process holds at most, while it refuses 4.8 GB and 290 MB."""
    path = tmp_path / f"mine.{kind}"
    _ = hdf5(path, filled) if kind == "hdf5" else npz(path, header((72_000, 1000)), 290)
    code = (
        "import sys, resource, json, h5py; from pathlib import Path\n"
        "from seqrl.formats.reading import read_recording\n"
        "before = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss\n"
        "try: read_recording(Path(sys.argv[1]))\n"
        "except Exception as error: said = type(error).__name__\n"
        "print(json.dumps([said, resource.getrusage(resource.RUSAGE_SELF).ru_maxrss - before]))"
    )
    done = subprocess.run([sys.executable, "-c", code, str(path)], capture_output=True, text=True, check=True)
    said, grown = json.loads(done.stdout)
    assert (said, grown < 100_000) == ("DataError", True)  # kB


def test_what_recordings_hold_is_read(tmp_path: Path) -> None:
    """Zeros, flags and one-hot rows shrink much, and a file of them is no attack."""
    rng = np.random.default_rng(0)
    more = {
        "observations": np.eye(100, dtype=np.float32)[rng.integers(100, size=30_000)],
        "actions": np.zeros((30_000, 1), np.float32),
        "rewards": np.zeros(30_000, np.float32),
        "offsets": np.array([0, 30_000]),
    }
    np.savez_compressed(tmp_path / "mine.npz", **more)
    with h5py.File(tmp_path / "mine.hdf5", "w") as file:
        for key, array in more.items():
            file.create_dataset(key, data=array, compression="gzip", compression_opts=9, shuffle=True)
    for name in ("mine.npz", "mine.hdf5"):
        np.testing.assert_array_equal(read_recording(tmp_path / name).arrays["observations"], more["observations"])


def test_the_rule() -> None:
    check_size(2**28, 0, "x")
    check_size(256 * 10**7, 10**7, "x", at_once=False)
    with pytest.raises(DataError, match=r"x declares arrays of 3\.3 GB in a file of 3\.6 MB"):
        check_size(3_300_000_000, 3_600_000, "x")
    free = free_memory()
    if free is not None:
        check_size(2 * free, free, "x", at_once=False)
        with pytest.raises(DataError, match=r"x holds arrays of .* and .* of memory are free; read it on a machine"):
            check_size(2 * free, free, "x")


def test_keys_without_end_are_refused(tmp_path: Path) -> None:
    """Forty groups that name each other twice are 2^40 keys."""
    with h5py.File(tmp_path / "mine.hdf5", "w") as file:
        for number in range(40):
            group = file.create_group(f"level{number}")
            for name in "ab":
                group[name] = h5py.SoftLink(f"/level{number + 1}")
        for key, array in arrays().items():
            file[key] = array
    with pytest.raises(DataError, match="has more than 20000 keys"):
        read_recording(tmp_path / "mine.hdf5")
