"""Processes that seqrl starts find no modules in the current folder, and end with the process that started them."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
import time
from pathlib import Path
from typing import Any

import pytest

from seqrl.config import TrainerConfig
from seqrl.errors import ConfigError
from seqrl.processes import bound_command, safe_environment, usable_cores
from seqrl.training.launch import MAX_RANKS, check_ranks

HOLDER = """
import subprocess, sys, time
from seqrl.processes import bound_command, safe_environment
child = subprocess.Popen(bound_command("slow_to_import"), env=safe_environment())
print(child.pid, flush=True)
time.sleep(600)
"""
PLANTED = 'from pathlib import Path\nPath("ran").write_text(__file__)\n'


@pytest.mark.parametrize(
    ("given", "kept"),
    [
        (None, None),
        ("", None),
        (":", None),
        ("/a:", "/a"),
        (":/a::/b", "/a:/b"),
        ("/a:.", "/a:."),  # the user named it
    ],
)
def test_empty_entries_leave_the_path(monkeypatch: pytest.MonkeyPatch, given: str | None, kept: str | None) -> None:
    monkeypatch.delenv("PYTHONPATH", raising=False)
    if given is not None:
        monkeypatch.setenv("PYTHONPATH", given)
    environment = safe_environment()
    assert environment.get("PYTHONPATH") == kept
    assert environment["PYTHONSAFEPATH"] == "1"


@pytest.mark.parametrize("command", [["-m", "seqrl"], ["-mseqrl"], ["-u", "-m", "seqrl.training.worker"]])
@pytest.mark.parametrize("given", ["", ":", "{named}:"])
def test_a_command_leaves_the_current_folder(tmp_path: Path, command: list[str], given: str) -> None:
    """Whatever a command imports first, which is `lazy_loader`; and yaml, which the worker does."""
    for name in ("lazy_loader", "yaml", "sitecustomize" if not given else "rich"):
        (tmp_path / f"{name}.py").write_text(PLANTED)
    environment = {**os.environ, "PYTHONPATH": given.format(named=tmp_path.parent)}
    environment.pop("PYTHONSAFEPATH", None)
    words = [sys.executable, *command, "--version"]
    done = subprocess.run(words, cwd=tmp_path, env=environment, capture_output=True, text=True, check=False)
    assert "lazy_loader" not in done.stderr
    assert not (tmp_path / "ran").exists()


def test_a_script_keeps_its_folder(tmp_path: Path) -> None:
    """A user's own script that imports seqrl imports files beside it, as ever."""
    (tmp_path / "mine.py").write_text("answer = 42\n")
    (tmp_path / "script.py").write_text("import seqrl, mine\nprint(mine.answer)\n")
    done = subprocess.run(
        [sys.executable, "script.py"], cwd=tmp_path, capture_output=True, text=True, check=True, timeout=120
    )
    assert done.stdout == "42\n"


@pytest.mark.skipif(sys.platform != "linux", reason="reads /proc")
def test_a_child_ends_with_its_parent_while_it_imports(tmp_path: Path) -> None:
    (tmp_path / "slow_to_import.py").write_text("import time\ntime.sleep(600)\n")
    environment = {**os.environ, "PYTHONPATH": str(tmp_path)}
    with subprocess.Popen([sys.executable, "-c", HOLDER], env=environment, stdout=subprocess.PIPE) as parent:
        assert parent.stdout is not None
        child = int(parent.stdout.readline())
        parent.kill()
    wait_until_gone(child)


def test_a_child_of_a_parent_that_is_gone_does_not_begin(tmp_path: Path) -> None:
    (tmp_path / "module.py").write_text(PLANTED)
    command = bound_command("module")
    command[command.index(str(os.getpid()))] = "1"  # not who starts it
    done = subprocess.run(command, cwd=tmp_path, env={**os.environ, "PYTHONPATH": str(tmp_path)}, check=False)
    assert done.returncode == 3
    assert not (tmp_path / "ran").exists()


@pytest.mark.parametrize("trainer", [{"devices": 99}, {"devices": 1000, "accelerator": "auto", "strategy": "fsdp"}])
def test_more_ranks_than_cores_are_refused(monkeypatch: pytest.MonkeyPatch, trainer: dict[str, Any]) -> None:
    monkeypatch.setattr("torch.cuda.device_count", lambda: 0)
    monkeypatch.setattr("os.sched_getaffinity", lambda pid: {0, 1, 2})
    monkeypatch.delenv(MAX_RANKS, raising=False)
    chosen = TrainerConfig(**trainer)
    with pytest.raises(ConfigError, match=rf"devices={chosen.devices} is refused: at most 3 ranks .* {MAX_RANKS}="):
        check_ranks(chosen)
    monkeypatch.setenv(MAX_RANKS, str(chosen.devices))
    check_ranks(chosen)


@pytest.mark.parametrize(
    "trainer", [{"devices": 2}, {"devices": 99, "num_nodes": 2}, {"devices": "auto"}, {"devices": usable_cores()}]
)
def test_ranks_that_other_machines_judge_or_that_fit_are_allowed(trainer: dict[str, Any]) -> None:
    check_ranks(TrainerConfig(**trainer))


def test_more_ranks_than_gpus_are_refused(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("torch.cuda.device_count", lambda: 2)
    with pytest.raises(ConfigError, match="this machine shows 2 GPUs"):
        check_ranks(TrainerConfig(accelerator="gpu", devices=4))


def wait_until_gone(*processes: int, seconds: float = 5.0) -> None:
    """Fails, and ends them, where processes are still there after a while."""
    deadline = time.monotonic() + seconds
    while left := [number for number in processes if is_alive(number)]:
        if time.monotonic() > deadline:
            for number in left:
                os.kill(number, signal.SIGKILL)
            pytest.fail(f"{len(left)} processes outlived the one that started them")
        time.sleep(0.02)


def is_alive(number: int) -> bool:
    try:
        state = Path(f"/proc/{number}/stat").read_text().rpartition(")")[2].split()[0]
    except OSError:
        return False
    return state != "Z"
