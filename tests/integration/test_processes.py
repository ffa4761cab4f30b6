"""Ranks and the workers of sweeps: what they import, and that they end with the command, whenever it is killed."""

from __future__ import annotations

import os
import subprocess
import sys
import time
from collections.abc import Iterator
from contextlib import contextmanager
from importlib.util import find_spec
from pathlib import Path

import pytest
from tests.unit.test_processes import is_alive, wait_until_gone

pytestmark = [pytest.mark.slow, pytest.mark.skipif(sys.platform != "linux", reason="reads /proc")]

WORDS = [
    *("data=d4rl", "data.path=hopper-tiny.hdf5", "debug=fast", "training.progress_bar=false", "evaluation=none"),
    *("training.loggers=[csv]", "training.max_steps=2", "training.validate_every=2", "training.log_every=1"),
]
RANKS = ["trainer=ddp", "trainer.accelerator=cpu", "trainer.devices=2"]
JOBLIB = ["-m", "seed=1,2", "hydra/launcher=joblib", "hydra.launcher.n_jobs=2"]
# Of the standard library, of packages that commands, ranks and workers import, and of files that Python looks for.
NAMES = [
    *("yaml", "torch", "random", "hydra", "omegaconf", "numpy", "lightning", "rich", "lazy_loader", "pydantic"),
    *("sitecustomize", "usercustomize", "joblib", "cloudpickle", "submitit", "logging", "socket", "tempfile", "json"),
]
PLANTED = """
from pathlib import Path
with Path(__file__).with_name("ran").open("a") as file:
    file.write(__name__ + "\\n")
raise ImportError("a file beside the data was imported")
"""
PLUGIN = """
from seqrl import register_objective
from seqrl.objectives.next_token import NextTokenObjective

@register_objective("mine")
class Mine(NextTokenObjective):
    pass
"""
# In a folder that PYTHONPATH names: whoever imports yaml says so, and waits; the command itself gets the real one.
SLOW_YAML = """
import os, sys, time
from pathlib import Path
if "seqrl.child" in sys.orig_argv:
    Path(__file__).with_name(f"importing-{os.getpid()}").touch()
    time.sleep(600)
here = str(Path(__file__).parent)
sys.path.remove(here)
del sys.modules["yaml"]
import yaml
sys.path.insert(0, here)  # which the workers of a sweep are told
"""
IS_JOBLIB = pytest.mark.skipif(not find_spec("joblib"), reason="needs seqrl[joblib]")
IS_SUBMITIT = pytest.mark.skipif(not find_spec("submitit"), reason="needs seqrl[submitit]")


@pytest.mark.parametrize(
    "words",
    [
        pytest.param(RANKS, id="ranks"),
        pytest.param(JOBLIB, id="joblib", marks=IS_JOBLIB),
        pytest.param(
            ["-m", "seed=1", "hydra/launcher=submitit_local", "hydra.launcher.timeout_min=5"],
            id="submitit",
            marks=IS_SUBMITIT,
        ),
    ],
)
def test_files_of_the_current_folder_are_not_imported(in_folder_with_data: Path, words: list[str]) -> None:
    """Started as `python -m seqrl`, which puts the folder first; a plugin by its path works all the same."""
    for name in NAMES:
        (in_folder_with_data / f"{name}.py").write_text(PLANTED)
    (in_folder_with_data / "mine.py").write_text(PLUGIN)
    environment = {key: value for key, value in os.environ.items() if key not in ("PYTHONPATH", "PYTHONSAFEPATH")}
    command = [sys.executable, "-m", "seqrl", "train", *words, *WORDS, "plugins=[mine.py]", "objective=mine"]
    done = subprocess.run(command, env=environment, capture_output=True, text=True, check=False, timeout=300)
    assert not (in_folder_with_data / "ran").exists(), (in_folder_with_data / "ran").read_text()
    assert done.returncode == 0, done.stderr
    assert list(in_folder_with_data.glob("runs/run-*/model/last.ckpt"))


def test_an_empty_entry_of_the_path_is_not_the_current_folder(in_folder_with_data: Path) -> None:
    """As `PYTHONPATH=$PYTHONPATH:/my/code` leaves it, which no flag of Python undoes."""
    for name in set(NAMES) - {"sitecustomize", "usercustomize"}:  # run before any code of ours
        (in_folder_with_data / f"{name}.py").write_text(PLANTED)
    code = in_folder_with_data / "code"
    code.mkdir()
    environment = {**os.environ, "PYTHONPATH": f":{code}"}
    command = [sys.executable, "-m", "seqrl", "train", *WORDS, *RANKS]
    done = subprocess.run(command, env=environment, capture_output=True, text=True, check=False, timeout=300)
    assert not (in_folder_with_data / "ran").exists(), (in_folder_with_data / "ran").read_text()
    assert done.returncode == 0, done.stderr


@pytest.mark.parametrize("words", [pytest.param(RANKS, id="ranks"), pytest.param(JOBLIB, id="joblib", marks=IS_JOBLIB)])
def test_a_killed_command_leaves_nobody_who_still_imports(in_folder_with_data: Path, words: list[str]) -> None:
    """The command is killed while its ranks, or the workers of its sweep, are in the middle of their imports."""
    shim = in_folder_with_data / "shim"
    shim.mkdir()
    (shim / "yaml.py").write_text(SLOW_YAML)
    environment = {**os.environ, "PYTHONPATH": str(shim)}
    command = [sys.executable, "-m", "seqrl", "train", *words, *WORDS]
    with started(command, environment) as process:
        wait_for(lambda: len(list(shim.glob("importing-*"))) >= 2, process)
        numbers = [int(path.name.partition("-")[2]) for path in shim.glob("importing-*")]
        assert all(map(is_alive, numbers))
        process.kill()
        process.wait()
        wait_until_gone(*numbers)


def test_ranks_beyond_the_cores_are_refused_before_any_starts(in_folder_with_data: Path) -> None:
    environment = {key: value for key, value in os.environ.items() if key != "SEQRL_MAX_RANKS"}
    ranks = [*RANKS[:2], "trainer.devices=5000"]
    command = [sys.executable, "-m", "seqrl", "train", *WORDS, *ranks]
    done = subprocess.run(command, env=environment, capture_output=True, text=True, check=False, timeout=120)
    assert done.returncode == 2
    assert "trainer.devices=5000 is refused: at most" in done.stderr
    assert "Traceback" not in done.stderr
    assert not (in_folder_with_data / "runs").exists()


@IS_JOBLIB
def test_jobs_beyond_the_cores_are_refused(in_folder_with_data: Path) -> None:
    jobs = ["-m", f"seed=range(0,{10 + (os.cpu_count() or 1)})", "hydra/launcher=joblib", "hydra.launcher.n_jobs=5000"]
    command = [sys.executable, "-m", "seqrl", "train", *jobs, *WORDS]
    done = subprocess.run(command, capture_output=True, text=True, check=False, timeout=120)
    assert done.returncode == 2
    assert "n_jobs=5000 is refused: at most" in done.stderr
    assert "Traceback" not in done.stderr


@contextmanager
def started(command: list[str], environment: dict[str, str]) -> Iterator[subprocess.Popen[bytes]]:
    process = subprocess.Popen(command, env=environment)
    try:
        yield process
    finally:
        process.kill()
        process.wait()


def wait_for(condition: object, process: subprocess.Popen[bytes], seconds: float = 120) -> None:
    assert callable(condition)
    deadline = time.monotonic() + seconds
    while not condition():
        assert process.poll() is None, "the command ended"
        assert time.monotonic() < deadline
        time.sleep(0.05)
