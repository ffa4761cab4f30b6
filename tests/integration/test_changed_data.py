"""Data and plugins that change under a run: it is refused in a sentence, or another run is trained, never the same."""

from __future__ import annotations

import os
from collections.abc import Callable
from pathlib import Path

import h5py
import numpy as np
import pytest

from seqrl.checkpoints.loading import load
from seqrl.cli import train
from seqrl.d4rl import catalogue
from seqrl.data.episodes import EpisodeStore

SMALL = [
    "debug=fast",
    "evaluation=none",
    "training.progress_bar=false",
    "training.loggers=[csv]",
    "training.max_steps=3",
]
Arrays = dict[str, np.ndarray]


def arrays(reward: float) -> Arrays:
    rng = np.random.default_rng(0)
    return {
        "observations": rng.normal(size=(60, 3)).astype(np.float32),
        "actions": rng.uniform(-1, 1, (60, 2)).astype(np.float32),
        "rewards": np.full(60, reward, np.float32),
        "terminals": np.zeros(60, bool),
        "timeouts": np.arange(60) % 10 == 9,
    }


def write_hdf5(path: Path, reward: float) -> None:
    """Beside, and renamed over what is there."""
    path.parent.mkdir(parents=True, exist_ok=True)
    with h5py.File(path.with_suffix(".new"), "w") as file:
        for name, array in arrays(reward).items():
            file[name] = array
    path.with_suffix(".new").replace(path)


def write_npz(path: Path, reward: float) -> None:
    """In place."""
    np.savez(path, **arrays(reward))


def write_store(path: Path, reward: float) -> None:
    """One array, mapped."""
    if not path.exists():
        flat = arrays(reward)
        given = [flat[name] for name in ("observations", "actions", "rewards", "timeouts", "terminals")]
        EpisodeStore.from_arrays(*given).save(path)
    mapped = np.load(path / "rewards.npy", mmap_mode="r+")
    mapped[:] = reward
    mapped.flush()


CASES: dict[str, tuple[list[str], str, Callable[[Path, float], None]]] = {
    "NPZ": (["data=arrays", "data.path=mine.npz"], "mine.npz", write_npz),
    "HDF5": (["data=d4rl", "data.path=mine.hdf5"], "mine.hdf5", write_hdf5),
    "folder": (["data=store", "data.path=mine"], "mine", write_store),
    "mix": (["data.mix=[fixed.npz,mine.npz]"], "mine.npz", write_npz),
    "mix of mappings": (["data.mix=[fixed.npz,{name:store,path:mine}]"], "mine", write_store),
    "id": (["data=d4rl", "data.id=hopper-medium-v2"], "", write_hdf5),
    "mix of ids": (["data.mix=[fixed.npz,hopper-medium-v2]"], "", write_hdf5),
}


@pytest.fixture(params=[name if name == "id" else pytest.param(name, marks=pytest.mark.slow) for name in CASES])
def case(
    request: pytest.FixtureRequest, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> tuple[list[str], Callable[[float], None]]:
    """Words of a command, and what records its data anew: the same size, and times as they were."""
    monkeypatch.chdir(tmp_path)
    monkeypatch.setenv("SEQRL_DATA", str(tmp_path / "cache"))
    monkeypatch.setenv("D4RL_DATASET_DIR", str(tmp_path / "nowhere"))
    words, name, write = CASES[request.param]
    path = Path(name) if name else catalogue.find("hopper-medium-v2").target
    write_npz(Path("fixed.npz"), 0.5)

    def record(reward: float) -> None:
        files = [path] if not path.is_dir() else sorted(path.iterdir())
        times = {file: file.stat() for file in files if file.exists()}
        write(path, reward)
        for file, before in times.items():
            os.utime(file, ns=(before.st_atime_ns, before.st_mtime_ns))
            assert file.stat().st_size == before.st_size

    return words, record


def rewards_of(run: Path) -> float:
    """What the data of a run earned, as its checkpoint says."""
    found = load(run / "model" / "last.ckpt").config["dataset"]["behaviour_return_mean"]
    assert isinstance(found, float)
    return found


@pytest.mark.parametrize("interrupted", [True, False])
def test_data_that_were_exchanged_are_not_taken_for_those_of_then(
    case: tuple[list[str], Callable[[float], None]], capsys: pytest.CaptureFixture[str], interrupted: bool
) -> None:
    words, record = case
    record(1.0)
    early = ["+trainer.max_time=00:00:00:00"] if interrupted else []
    assert train.run([*SMALL, *words, *early]) == (2 if interrupted else 0)
    (first,) = Path("runs").iterdir()
    before = rewards_of(first)
    record(2.0)
    capsys.readouterr()
    status = train.run([*SMALL, *words])
    told = "".join(capsys.readouterr()).replace("\n", " ")
    assert rewards_of(first) == before
    if status == 2:
        assert "was trained on other data than" in told
        assert [*Path("runs").iterdir()] == [first]
        assert train.run([*SMALL, *words, "name=another"]) == 0, "the sentence says so"
    assert "trained already" not in told
    (second,) = set(Path("runs").iterdir()) - {first}
    assert rewards_of(second) != before
    record(1.0)
    assert train.run([*SMALL, *words]) == 0, "what was recorded first goes on"
    assert rewards_of(first) == before
