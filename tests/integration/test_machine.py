"""Commands on machines that lack what others have: an encoding, open streams, a user with a name, OpenGL."""

from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path

import h5py
import numpy as np
import pytest
from tests.unit.test_paths import NOBODY

SMALL = ["debug=fast", "data.num_transitions=2000", "training.max_steps=2", "training.progress_bar=false"]


def run_seqrl(*words: str, python: str = "", cwd: Path, **environment: str) -> subprocess.CompletedProcess[bytes]:
    code = f"{python}\nfrom seqrl.cli import main\nmain()"
    settings = {**os.environ, "SEQRL_DATA": str(cwd / "data"), **environment}
    return subprocess.run([sys.executable, "-c", code, *words], cwd=cwd, env=settings, capture_output=True, check=False)


@pytest.fixture
def recording(tmp_path: Path) -> Path:
    rng = np.random.default_rng(0)
    with h5py.File(tmp_path / "läufe.hdf5", "w") as file:
        for name, size in (("observations", 3), ("actions", 1)):
            file[name] = rng.normal(size=(300, size)).astype("f4")
        file["rewards"], file["terminals"] = rng.normal(size=300).astype("f4"), np.zeros(300, bool)
        file["timeouts"] = np.arange(300) % 50 == 49
    return tmp_path


@pytest.mark.parametrize(
    "environment",
    [
        {"PYTHONIOENCODING": "latin-1"},
        {"PYTHONIOENCODING": "ascii"},
        {"PYTHONIOENCODING": "cp1252:strict"},
        {"LC_ALL": "C", "PYTHONUTF8": "0", "PYTHONCOERCECLOCALE": "0"},
    ],
    ids=["latin-1", "ascii", "cp1252", "C"],
)
@pytest.mark.parametrize(
    "words",
    [
        ["data", "inspect", "läufe.hdf5"],
        ["train", "data.maze=groß", "--check"],
        ["data", "convert", "数.npz", "b.npz"],
    ],
    ids=["table", "error", "missing"],
)
def test_output_in_any_encoding(words: list[str], environment: dict[str, str], recording: Path) -> None:
    done = run_seqrl(*words, cwd=recording, **environment)
    assert done.returncode in (0, 2), done.stderr
    assert b"Traceback" not in done.stderr
    assert done.stdout or done.stderr
    assert done.returncode == (0 if "inspect" in words else 2)


@pytest.mark.parametrize("closed", [">&-", "2>&-", "<&-", ">&- 2>&- <&-"])
def test_streams_that_are_closed(closed: str, tmp_path: Path) -> None:
    command = f'"{sys.executable}" -m seqrl data generate maze2d made.hdf5 --transitions 300 {closed}'
    assert subprocess.run(["bash", "-c", command], cwd=tmp_path, check=False).returncode == 0
    with h5py.File(tmp_path / "made.hdf5") as file:
        assert len(file["rewards"]) == 300  # and not what was meant for a stream


def test_a_reader_that_went_away(tmp_path: Path) -> None:
    command = f'"{sys.executable}" -m seqrl plugins list | head -1; exit ${{PIPESTATUS[0]}}'
    done = subprocess.run(["bash", "-c", command], cwd=tmp_path, capture_output=True, check=False)
    assert done.returncode in (0, 141)
    assert done.stderr == b""


@pytest.mark.slow
def test_a_user_without_name_trains(tmp_path: Path) -> None:
    temporary = {"TMPDIR": str(tmp_path / "tmp")}
    (tmp_path / "tmp").mkdir()
    done = run_seqrl("train", *SMALL, python=NOBODY, cwd=tmp_path, **temporary)
    assert done.returncode == 0, done.stderr
    assert not (tmp_path / "~").exists()
    assert run_seqrl("data", "list", "hopper", python=NOBODY, cwd=tmp_path, **temporary).returncode == 0


@pytest.mark.slow
def test_an_evaluation_without_video_needs_no_opengl(tmp_path: Path) -> None:
    rng = np.random.default_rng(0)
    arrays = {"observations": rng.normal(size=(200, 11)), "actions": rng.uniform(-1, 1, size=(200, 3))}
    np.savez(tmp_path / "mine.npz", **arrays, rewards=np.zeros(200), offsets=np.arange(0, 201, 20))
    source = ["data=arrays", "data.path=mine.npz", "data.env_id=Hopper-v4", "strategy=zero", "debug=fast"]
    done = run_seqrl("train", *source, "training.max_steps=2", cwd=tmp_path, MUJOCO_GL="osmesa")
    assert done.returncode == 0, done.stderr
    done = run_seqrl("train", *SMALL, "strategy=zero", cwd=tmp_path, MUJOCO_GL="nonsense")
    assert done.returncode == 0, done.stderr
