"""Run folders: where a run keeps its results, and how far it came."""

from __future__ import annotations

import json
import os
import shutil
import socket
import tempfile
from collections.abc import Iterator, Mapping
from contextlib import contextmanager, nullcontext
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

import yaml

from seqrl.console import say
from seqrl.errors import ConfigError, explain_unread, is_damage
from seqrl.files import hold_lock, is_locked, read_json, reason_of, write_text
from seqrl.runs.yaml_files import read_yaml

_LOCK = ".lock"
_NOTE = ".worker"  # who works there, where there are no locks


@dataclass(frozen=True)
class StageStatus:
    """How far a stage of a run came: an entry of `status.json`.

    Attributes:
        state: `running`, `done`, `interrupted`, `pruned` or `failed`.
        step: optimiser steps that its newest checkpoint has seen.
        reason: why it failed or ended early; None of others.
    """

    state: str
    step: int
    reason: str | None = None

    @staticmethod
    def from_json(entry: Any) -> StageStatus:
        """An entry as any version of seqrl wrote it; what this one does not know is left out.

        Raises:
            ValueError: it is no object, or an attribute is missing or of another type.
        """
        if not isinstance(entry, Mapping):
            raise ValueError(f"an entry is a {type(entry).__name__}, not an object")
        state, step, reason = (entry.get(key) for key in ("state", "step", "reason"))
        if not isinstance(state, str) or not isinstance(step, int) or isinstance(step, bool):
            raise ValueError(f"an entry has the state {state!r} and the step {step!r}")
        return StageStatus(state, step, reason if isinstance(reason, str) else None)

    def to_json(self) -> dict[str, Any]:
        """The entry of `status.json`."""
        return {key: value for key, value in asdict(self).items() if value is not None}


class RunFolder:
    """The folder of one run: `config.yaml`, `status.json`, `metrics.csv`, one folder per stage, `evaluations/`.

    Args:
        path: made when it does not exist.

    Raises:
        ConfigError: the folder cannot be made or written to.
    """

    def __init__(self, path: Path) -> None:
        self.path = path
        self._new = not path.exists()
        try:
            path.mkdir(parents=True, exist_ok=True)
            with tempfile.TemporaryFile(dir=path):  # without a name, which whoever holds the folder would remove
                pass
        except OSError as error:
            raise ConfigError(
                f"run folder {str(path)!r} cannot be written ({error.strerror}); set runs_dir to a folder that can"
            ) from error

    @property
    def config_file(self) -> Path:
        """Where the configuration lies, once it is written."""
        return self.path / "config.yaml"

    def write_config(self, config: Mapping[str, Any]) -> Path:
        """Keep the configuration of the run, plain, for people and for its worker processes."""
        write_text(self.config_file, yaml.safe_dump(dict(config), sort_keys=False))
        return self.config_file

    def status(self) -> dict[str, StageStatus]:
        """How far its stages came, by name; empty for a new run.

        Raises:
            ConfigError: `status.json` is damaged or cannot be read.
        """
        return read_status(self.path)

    def set_status(self, stage: str, state: str, step: int, reason: str | None = None) -> None:
        """Note how far a stage came; see `StageStatus`."""
        self._write_status({**self.status(), stage: StageStatus(state, step, reason)})

    def forget_status(self, stage: str) -> None:
        """Remove what was noted of a stage, if anything was."""
        status = self.status()
        if status.pop(stage, None) is not None:
            self._write_status(status)

    def _write_status(self, status: Mapping[str, StageStatus]) -> None:
        entries = {stage: entry.to_json() for stage, entry in status.items()}
        write_text(self.path / "status.json", json.dumps(entries, indent=2) + "\n")

    def checkpoint(self, stage: str) -> Path:
        """Where the newest checkpoint of a stage lies, once there is one."""
        return self.path / stage / "last.ckpt"

    def is_done(self, stage: str) -> bool:
        """Whether a stage was trained to its end, and its checkpoint is there."""
        entry = self.status().get(stage)
        return entry is not None and entry.state == "done" and self.checkpoint(stage).exists()

    @contextmanager
    def held(self) -> Iterator[None]:
        """Work alone in the folder (see `alone_in`); one that was refused before any stage began is removed if new."""
        with alone_in(self.path):
            for pattern in ("*.tmp", "*/*.tmp"):  # of killed processes: nobody else writes here
                for leftover in self.path.glob(pattern):
                    leftover.unlink(missing_ok=True)
            try:
                yield
            except BaseException:
                if self._new and not self.status():
                    shutil.rmtree(self.path, ignore_errors=True)
                raise


def read_status(folder: Path) -> dict[str, StageStatus]:
    """As `RunFolder.status`, of a folder that is only looked at.

    Raises:
        ConfigError: `status.json` is damaged or cannot be read.
    """
    path = folder / "status.json"
    try:
        content = read_json(path)
        if not isinstance(content, Mapping):
            raise ValueError(f"it holds a {type(content).__name__}, not an object")
        return {stage: StageStatus.from_json(entry) for stage, entry in content.items()}
    except (FileNotFoundError, NotADirectoryError):
        return {}
    except (OSError, ValueError) as error:
        if not is_damage(error):
            raise ConfigError(explain_unread(path, error)) from error
        raise ConfigError(
            f"{str(path)!r} is damaged; delete it, and the run goes on from its checkpoints ({reason_of(error)})"
        ) from error


def read_config(path: Path) -> dict[str, Any]:
    """The configuration that a run keeps in its `config.yaml`.

    Raises:
        ConfigError: it is missing, damaged or cannot be read.
    """
    try:
        content = read_yaml(path)
        if not isinstance(content, dict):
            raise ValueError(f"it holds a {type(content).__name__}, not a mapping")
        return content
    except (OSError, ValueError) as error:
        if not is_damage(error):
            raise ConfigError(explain_unread(path, error)) from error
        why = " ".join(reason_of(error).split())
        raise ConfigError(f"{str(path)!r} is damaged; the same command writes it anew ({why})") from error


@contextmanager
def alone_in(folder: Path) -> Iterator[None]:
    """Hold a run folder; jobs that differ in their evaluations only share one, and the second waits for the first.

    On a file system without locks nobody can wait: a note says who works there, a second process of the same machine
    is refused, and everybody is warned.

    Raises:
        ConfigError: another process works there, and there is no lock to wait for.
    """
    waiting = f"another process works in {folder}; waiting for it"
    with hold_lock(folder / _LOCK, waiting) as locked, nullcontext() if locked else _noted_in(folder):
        yield


def is_held(folder: Path) -> bool:
    """Whether a process works in a run folder, perhaps on another machine that shares the disk, or another user's."""
    return is_locked(folder / _LOCK) or _is_alive(_read_note(folder))


@contextmanager
def _noted_in(folder: Path) -> Iterator[None]:
    note, mine = _read_note(folder), {"host": socket.gethostname(), "pid": os.getpid()}
    if _is_alive(note):
        raise ConfigError(
            f"process {note['pid']} works in {str(folder)!r}, whose file system has no locks to wait for; start the "
            "command again when that one has ended"
        )
    other = "" if not note or note["host"] == mine["host"] else f" Process {note['pid']} of {note['host']} began there."
    say(f"the file system of {folder} has no locks: let no second command work in this run.{other}")
    write_text(folder / _NOTE, json.dumps(mine))
    try:
        yield
    finally:
        (folder / _NOTE).unlink(missing_ok=True)


def _read_note(folder: Path) -> dict[str, Any]:
    """Host and pid of who works in a folder without locks; empty where nobody is known to."""
    try:
        note = read_json(folder / _NOTE)
        return {"host": str(note["host"]), "pid": int(note["pid"])}
    except (OSError, ValueError, TypeError, KeyError):
        return {}


def _is_alive(note: Mapping[str, Any]) -> bool:
    """Whether a noted process, another one than this, still runs; unknown of other machines, and then False."""
    if not note or note["host"] != socket.gethostname() or note["pid"] in (0, os.getpid()):
        return False
    try:
        os.kill(note["pid"], 0)
    except (ProcessLookupError, OverflowError):
        return False
    except PermissionError:
        pass  # another user's
    return True
