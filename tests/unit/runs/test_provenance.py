"""A run says where its numbers come from, and keeps what its commands printed."""

from __future__ import annotations

import io
import os
import shlex
import socket
import subprocess
import sys
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import pytest
import torch
import yaml

from seqrl.config import TrainerConfig
from seqrl.errors import ConfigError
from seqrl.runs.console_log import CONSOLE_LOG, keep_console
from seqrl.runs.provenance import PROVENANCE, note_invocation

WORDS = ["experiment=maze2d_umaze", "evaluation.rows={a: null}"]
TRAINER = TrainerConfig(num_threads=3)


def noted(folder: Path) -> list[dict[str, Any]]:
    entries: list[dict[str, Any]] = yaml.safe_load((folder / PROVENANCE).read_text())
    return entries


def test_every_invocation_is_noted(tmp_path: Path) -> None:
    note_invocation(tmp_path, WORDS, TRAINER)
    note_invocation(tmp_path, [], TrainerConfig())
    first, second = noted(tmp_path)
    assert shlex.split(first["command"]) == ["seqrl", "train", *WORDS]
    assert (first["overrides"], second["command"]) == (WORDS, "seqrl train")
    assert (first["threads"], second["threads"]) == (3, torch.get_num_threads())
    assert first["host"] == socket.gethostname()
    assert first["versions"]["torch"] == torch.__version__
    assert first["versions"]["python"] == ".".join(map(str, sys.version_info[:3]))
    age = datetime.now(UTC) - datetime.fromisoformat(first["date"])
    assert abs(age.total_seconds()) < 600


def test_no_environment_variable_is_noted(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("SECRET_TOKEN", "do-not-tell")
    note_invocation(tmp_path, WORDS, TRAINER)
    text = (tmp_path / PROVENANCE).read_text()
    assert "do-not-tell" not in text
    assert str(Path.home()) not in text


def test_the_commit_and_whether_something_changed(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    monkeypatch.setenv("GIT_CEILING_DIRECTORIES", str(tmp_path.parent))
    note_invocation(tmp_path, [], TRAINER)

    def git(*words: str) -> str:
        identity = {f"GIT_{who}_{what}": "x@y" for who in ("AUTHOR", "COMMITTER") for what in ("NAME", "EMAIL")}
        return subprocess.run(
            ["git", *words], env={**os.environ, **identity}, check=True, capture_output=True, text=True
        ).stdout.strip()

    git("init", "-q")
    Path("mine.py").write_text("1")
    git("add", "mine.py")
    git("commit", "-qm", "first")
    note_invocation(tmp_path, [], TRAINER)
    Path("mine.py").write_text("2")
    note_invocation(tmp_path, [], TRAINER)
    commit = git("rev-parse", "HEAD")
    assert [entry["git"]["working_folder"] for entry in noted(tmp_path)] == [
        *(None, {"commit": commit, "dirty": False}, {"commit": commit, "dirty": True})
    ]


def test_without_git_there_is_no_state(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("PATH", str(tmp_path))
    note_invocation(tmp_path, [], TRAINER)
    assert noted(tmp_path)[0]["git"] == {"seqrl": None, "working_folder": None}


def test_what_is_printed_is_kept_and_still_printed(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    with keep_console(tmp_path):
        print("one")
        print("an error", file=sys.stderr)
        print("without an end", end="")
    with keep_console(tmp_path):
        print("again")
    print("afterwards")
    assert (tmp_path / CONSOLE_LOG).read_text() == "one\nan error\nwithout an end\nagain\n"
    captured = capsys.readouterr()
    assert (captured.out, captured.err) == ("one\nwithout an endagain\nafterwards\n", "an error\n")


def test_of_a_progress_bar_its_end_is_kept(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    with keep_console(tmp_path):
        for percent in range(101):
            print(f"\r\x1b[32mtraining\x1b[0m {percent} %", end="")
        print()
    assert (tmp_path / CONSOLE_LOG).read_text() == "training 100 %\n"


def test_the_error_that_ends_a_command_is_kept(tmp_path: Path) -> None:
    def fail() -> None:
        print("before")
        raise ConfigError("wrong")

    with pytest.raises(ConfigError), keep_console(tmp_path):
        fail()
    assert (tmp_path / CONSOLE_LOG).read_text() == "before\nConfigError: wrong\n"
    assert not hasattr(sys.stdout, "_log")


def test_a_terminal_stays_a_terminal(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    class Terminal(io.StringIO):
        def isatty(self) -> bool:
            return True

    monkeypatch.setattr(sys, "stdout", Terminal())
    with keep_console(tmp_path):
        assert sys.stdout.isatty()
        sys.stdout.writelines(["a\n", "b\n"])
    assert (tmp_path / CONSOLE_LOG).read_text() == "a\nb\n"


def test_a_folder_that_cannot_be_written_keeps_nothing(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    with keep_console(tmp_path / "nowhere"):
        print("said")
    assert capsys.readouterr().out == "said\n"
