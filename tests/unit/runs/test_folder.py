"""Folders of runs: what lies in them, and who works in them."""

from __future__ import annotations

import errno
import fcntl
import json
import os
import socket
import subprocess
import sys
import threading
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import yaml

from seqrl.errors import ConfigError
from seqrl.runs.folder import RunFolder, StageStatus, alone_in, is_held

CONFIG: dict[str, Any] = {
    "experiment_name": "maze",
    "runs_dir": "runs",
    "seed": 0,
    "tokenizer": {"name": "uniform", "num_bins": 100},
    "plugins": [],
    "window": {"length": 10, "terminate_truncated": True},
    "optimizer": {"betas": [0.9, 0.95], "learning_rate": 6e-4},
}


def test_the_config_comes_back_as_it_was(tmp_path: Path) -> None:
    path = RunFolder(tmp_path / "a" / "run").write_config(CONFIG)
    assert path == tmp_path / "a" / "run" / "config.yaml"
    assert yaml.safe_load(path.read_text()) == CONFIG


def test_the_status_is_kept_per_stage(tmp_path: Path) -> None:
    folder = RunFolder(tmp_path)
    assert folder.status() == {}
    folder.set_status("tokenizer", "done", 0)
    folder.set_status("model", "running", 5)
    folder.set_status("model", "interrupted", 9)
    assert RunFolder(tmp_path).status() == {
        "tokenizer": StageStatus("done", 0),
        "model": StageStatus("interrupted", 9),
    }


def test_opening_a_folder_leaves_nothing_in_it(tmp_path: Path) -> None:
    RunFolder(tmp_path / "run")
    assert list((tmp_path / "run").iterdir()) == []


def test_a_folder_that_cannot_be_made_is_named(tmp_path: Path) -> None:
    (tmp_path / "file").write_text("")
    with pytest.raises(
        ConfigError, match=r"run folder '.*file/run' cannot be written \(Not a directory\); set runs_dir"
    ):
        RunFolder(tmp_path / "file" / "run")


def test_a_folder_that_cannot_be_written_is_named(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def refuse(*args: object, **kwargs: object) -> None:
        raise PermissionError(13, "Permission denied")

    monkeypatch.setattr("tempfile.TemporaryFile", refuse)
    with pytest.raises(
        ConfigError, match=r"cannot be written \(Permission denied\); set runs_dir to a folder that can"
    ):
        RunFolder(tmp_path)


def test_a_failed_stage_says_why_until_it_goes_on(tmp_path: Path) -> None:
    folder = RunFolder(tmp_path)
    folder.set_status("model", "failed", 5, "DivergedError: ...")
    assert folder.status() == {"model": StageStatus("failed", 5, "DivergedError: ...")}
    folder.set_status("model", "running", 5)
    assert folder.status() == {"model": StageStatus("running", 5)}


def refuse(path: Path, work: Callable[[RunFolder], Any]) -> None:
    """Open a run folder, do some work in it, and refuse the rest."""
    folder = RunFolder(path)
    with pytest.raises(ConfigError), folder.held():
        _refuse(work(folder))


def _refuse(done: Any) -> None:
    raise ConfigError("refused")


def test_a_refused_run_leaves_nothing_but_what_was_there(tmp_path: Path) -> None:
    refuse(tmp_path / "new", lambda folder: folder.write_config(CONFIG))
    assert list(tmp_path.iterdir()) == []
    (tmp_path / "old").mkdir()
    (tmp_path / "old" / "notes.txt").write_text("mine")
    refuse(tmp_path / "old", lambda folder: folder.write_config(CONFIG))
    assert (tmp_path / "old" / "notes.txt").exists()
    refuse(tmp_path / "begun", lambda folder: folder.set_status("model", "running", 0))
    assert (tmp_path / "begun" / "status.json").exists()


def test_leftovers_of_killed_writers_are_removed(tmp_path: Path) -> None:
    (tmp_path / "model").mkdir()
    for name in ("status.json.123.tmp", "model/.last.ckpt.0a1b2c3d.tmp", "model/last.ckpt"):
        (tmp_path / name).write_text("")
    with RunFolder(tmp_path).held():
        pass
    assert {path.name for path in tmp_path.rglob("*")} == {"model", "last.ckpt", ".lock"}


def test_a_folder_is_held_by_one_process_and_only_while_it_works(tmp_path: Path) -> None:
    assert not is_held(tmp_path)
    with alone_in(tmp_path):
        assert is_held(tmp_path)
        assert is_held(tmp_path)  # asking takes nothing away
    assert not is_held(tmp_path)
    assert not is_held(tmp_path / "nowhere")


def test_who_asks_is_not_taken_for_one_who_works(tmp_path: Path) -> None:
    (tmp_path / ".lock").touch()
    with (tmp_path / ".lock").open() as file:
        fcntl.flock(file, fcntl.LOCK_SH)  # as `seqrl status` of somebody else does
        assert not is_held(tmp_path)


def test_a_run_is_opened_while_its_holder_tidies_up(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    first = RunFolder(tmp_path / "run")

    def tidy(file: int) -> None:
        with first.held():
            pass

    monkeypatch.setattr(os, "fsync", tidy)  # where a file that has a name would be lost
    RunFolder(tmp_path / "run")
    assert [path.name for path in (tmp_path / "run").iterdir()] in ([], [".lock"])


def test_who_waited_for_a_run_that_was_refused_makes_the_folder_anew(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    waiting, entered = threading.Event(), threading.Event()
    monkeypatch.setattr("seqrl.files.say", lambda text: waiting.set())

    def second() -> None:
        with alone_in(tmp_path / "run"):
            assert (tmp_path / "run" / ".lock").exists()
            entered.set()

    thread = threading.Thread(target=second)

    def work(folder: RunFolder) -> None:
        thread.start()
        waiting.wait(10)

    refuse(tmp_path / "run", work)
    thread.join(timeout=10)
    assert waiting.is_set()
    assert entered.is_set()


@pytest.fixture(params=[errno.ENOLCK, errno.ENOTSUP, errno.ENOSYS])
def no_locks(request: pytest.FixtureRequest, monkeypatch: pytest.MonkeyPatch) -> None:
    """Stands in for a file system that refuses to lock."""

    def refuse(file: object, operation: int) -> None:
        raise OSError(request.param, os.strerror(request.param))

    monkeypatch.setattr(fcntl, "flock", refuse)


@pytest.mark.usefixtures("no_locks")
def test_without_locks_a_run_is_worked_in_with_a_warning(
    tmp_path: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("COLUMNS", "500")
    folder = RunFolder(tmp_path / "run")
    for _ in range(2):
        with folder.held():
            folder.set_status("model", "done", 1)
        assert "has no locks: let no second command work in this run" in capsys.readouterr().out
    assert not is_held(folder.path)
    (folder.path / ".worker").write_text(json.dumps({"host": "elsewhere", "pid": 7}))
    with folder.held():
        assert "Process 7 of elsewhere began there" in capsys.readouterr().out


@pytest.mark.usefixtures("no_locks")
def test_without_locks_a_second_process_is_refused_while_the_first_lives(tmp_path: Path) -> None:
    folder = RunFolder(tmp_path / "run")
    folder.set_status("model", "running", 1)
    first = subprocess.Popen([sys.executable, "-c", "input()"], stdin=subprocess.PIPE)
    (folder.path / ".worker").write_text(json.dumps({"host": socket.gethostname(), "pid": first.pid}))
    assert is_held(folder.path)
    with pytest.raises(ConfigError, match=f"process {first.pid} works in .*; start the command again"), folder.held():
        pass
    assert folder.status(), "what the other one does is left alone"
    first.communicate()
    with folder.held():
        assert not is_held(folder.path)
    for damaged in ("", "[]", '{"host": 1}', '{"host": "x", "pid": "y"}'):
        (folder.path / ".worker").write_text(damaged)
        with folder.held():
            pass
