"""HDF5 files that would have other files read: nothing of those is read or written, whoever asks."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any

import h5py
import numpy as np
import pytest

from seqrl.cli import data as command
from seqrl.cli import train
from seqrl.d4rl.fetch import check_file
from seqrl.errors import DataError
from seqrl.registry import DATA

COUNT = 40
SECRET = 8675.309


def fill(file: Any, *left_out: str) -> None:
    rng = np.random.default_rng(0)
    arrays = {
        "observations": rng.normal(size=(COUNT, 3)).astype(np.float32),
        "actions": rng.uniform(-1, 1, (COUNT, 2)).astype(np.float32),
        "rewards": rng.normal(size=COUNT).astype(np.float32),
        "terminals": np.zeros(COUNT, bool),
        "timeouts": np.arange(COUNT) % 10 == 9,
    }
    for key, array in arrays.items():
        if key not in left_out:
            file[key] = array


def external_storage(file: Any, elsewhere: Path) -> None:
    file.create_dataset("rewards", (COUNT,), "f4", external=[(elsewhere / "raw.bin", 0, 4 * COUNT)])


def external_storage_deep(file: Any, elsewhere: Path) -> None:
    file.create_dataset("rewards", data=np.zeros(COUNT, np.float32))
    file.create_dataset("infos/deep/qpos", (COUNT, 1), "f4", external=[(elsewhere / "raw.bin", 0, 4 * COUNT)])


def virtual(file: Any, elsewhere: Path) -> None:
    layout = h5py.VirtualLayout((COUNT,), "f4")
    layout[:] = h5py.VirtualSource(elsewhere / "secret.hdf5", "rewards", shape=(COUNT,))
    file.create_virtual_dataset("rewards", layout)


def virtual_behind_a_soft_link(file: Any, elsewhere: Path) -> None:
    layout = h5py.VirtualLayout((COUNT,), "f4")
    layout[:] = h5py.VirtualSource(elsewhere / "secret.hdf5", "rewards", shape=(COUNT,))
    file.create_virtual_dataset("far/away/kept", layout)
    file["rewards"] = h5py.SoftLink("/far/away/kept")


def virtual_behind_a_reference(file: Any, elsewhere: Path) -> None:
    virtual_behind_a_soft_link(file, elsewhere)
    file.attrs["about"] = file["far/away/kept"].ref


def link(file: Any, elsewhere: Path) -> None:
    file["rewards"] = h5py.ExternalLink(elsewhere / "secret.hdf5", "/rewards")


def link_out_of_the_folder(file: Any, elsewhere: Path) -> None:
    file["rewards"] = h5py.ExternalLink("../elsewhere/secret.hdf5", "/rewards")


def link_to_a_group(file: Any, elsewhere: Path) -> None:
    file["infos"] = h5py.ExternalLink(elsewhere / "secret.hdf5", "/")
    file["rewards"] = h5py.SoftLink("/infos/rewards")


def link_beside_what_is_needed(file: Any, elsewhere: Path) -> None:
    file["rewards"] = np.zeros(COUNT, np.float32)
    file["infos/qpos"] = h5py.ExternalLink(elsewhere / "secret.hdf5", "/rewards")


def link_to_a_symbolic_link(file: Any, elsewhere: Path) -> None:
    (Path(file.filename).parent / "near.hdf5").symlink_to(elsewhere / "secret.hdf5")
    file["rewards"] = h5py.ExternalLink("near.hdf5", "/rewards")


def link_to_a_neighbour_that_links_on(file: Any, elsewhere: Path) -> None:
    with h5py.File(Path(file.filename).with_name("near.hdf5"), "w") as near:
        near["rewards"] = h5py.ExternalLink(elsewhere / "secret.hdf5", "/rewards")
    file["rewards"] = h5py.ExternalLink("near.hdf5", "/rewards")


def link_to_itself(file: Any, elsewhere: Path) -> None:
    file["rewards"] = h5py.ExternalLink("mine.hdf5", "/rewards")


KINDS = [
    external_storage,
    external_storage_deep,
    virtual,
    virtual_behind_a_soft_link,
    virtual_behind_a_reference,
    link,
    link_out_of_the_folder,
    link_to_a_group,
    link_beside_what_is_needed,
    link_to_a_symbolic_link,
    link_to_a_neighbour_that_links_on,
    link_to_itself,
]


@pytest.fixture(params=KINDS, ids=lambda kind: kind.__name__)
def hostile(request: pytest.FixtureRequest, tmp_path: Path) -> Path:
    """`here/mine.hdf5`, which would have a secret of `elsewhere` read."""
    elsewhere, here = tmp_path / "elsewhere", tmp_path / "here"
    elsewhere.mkdir()
    here.mkdir()
    secret = np.full(COUNT, SECRET, np.float32)
    (elsewhere / "raw.bin").write_bytes(secret.tobytes())
    with h5py.File(elsewhere / "secret.hdf5", "w") as file:
        file["rewards"] = secret
    make: Callable[[Any, Path], None] = request.param
    with h5py.File(here / "mine.hdf5", "w") as file:
        fill(file, "rewards")
        make(file, elsewhere)
    return here / "mine.hdf5"


REFUSED = r"(rewards|infos|infos/deep/qpos|infos/qpos|far/away/kept) is (a link into|kept in) another file; copy"


def test_every_reader_refuses_it_and_names_the_key(hostile: Path) -> None:
    for source in ("d4rl", "arrays"):
        built = DATA.build({"name": source, "path": str(hostile)})
        for read in (built.load, built.read):
            with pytest.raises(DataError, match=REFUSED) as caught:
                read()
            assert "8675" not in str(caught.value)
    with pytest.raises(DataError, match=REFUSED):
        check_file(hostile)


def test_every_command_refuses_it_and_writes_nothing(
    hostile: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.chdir(tmp_path)
    monkeypatch.setenv("SEQRL_DATA", str(tmp_path / "cache"))
    for target in ("copy.npz", "copy.hdf5"):
        assert command.run(["convert", str(hostile), target]) == 2
        assert not Path(target).exists()
    assert command.run(["inspect", str(hostile), "--json", "seen.json"]) == 2
    assert train.run(["debug=fast", "data=d4rl", f"data.path={hostile}", "evaluation=none"]) == 2
    told = capsys.readouterr()
    assert told.err.count("another file") == 4
    assert "8675" not in told.out + told.err
    assert not Path("seen.json").exists()
    kept = [path for path in (tmp_path / "cache").rglob("*") if path.is_file()]
    assert not any(np.float32(SECRET).tobytes() in path.read_bytes() for path in kept)


def split(folder: Path) -> Path:
    """A recording in two files of one folder."""
    with h5py.File(folder / "raw.hdf5", "w") as file:
        fill(file)
    with h5py.File(folder / "mine.hdf5", "w") as file:
        fill(file, "rewards")
        file["rewards"] = h5py.ExternalLink("raw.hdf5", "/rewards")
    return folder / "mine.hdf5"


def test_a_split_recording_is_read_but_not_copied(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    """What is trained on stays with the user; a copy may go to somebody whose file chose what is in it."""
    monkeypatch.chdir(tmp_path)
    path = split(tmp_path)
    assert DATA.build({"name": "arrays", "path": str(path)}).load().num_episodes == 4
    for target in ("copy.npz", "copy.hdf5"):
        assert command.run(["convert", str(path), target]) == 2
        assert "mine.hdf5 has links into raw.hdf5, of which no copy is made" in capsys.readouterr().err
        assert not Path(target).exists()
    with pytest.raises(DataError, match="rewards is a link into another file"):
        check_file(path)  # a download has no neighbours


def test_a_change_of_the_other_file_is_seen(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """The cache knows a file by its content, and not by that of the files that it links to."""
    monkeypatch.setenv("SEQRL_DATA", str(tmp_path / "cache"))
    source = DATA.build({"name": "d4rl", "path": str(split(tmp_path))})
    before = source.load()
    with h5py.File(tmp_path / "raw.hdf5", "a") as file:
        file["rewards"][...] = 5.0
    after = source.load()
    assert (after.rewards == 5.0).all()
    assert before.fingerprint() != after.fingerprint()
