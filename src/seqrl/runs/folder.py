"""Run folders: where a run keeps its results, and how far it came."""

from __future__ import annotations

import json
import os
import shutil
import socket
import tempfile
from collections.abc import Iterator, Mapping
from contextlib import contextmanager, nullcontext
from pathlib import Path
from typing import Any

import yaml

from seqrl.console import say
from seqrl.errors import ConfigError
from seqrl.files import hold_lock, is_locked, write_text

_LOCK = ".lock"
_NOTE = ".worker"  # who works there, where there are no locks


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

    def write_config(self, config: Mapping[str, Any]) -> Path:
        """Keep the resolved config, for people and for the worker processes of this run."""
        target = self.path / "config.yaml"
        write_text(target, yaml.safe_dump(dict(config), sort_keys=False))
        return target

    def status(self) -> dict[str, Any]:
        """`{stage: {"state": "running" | "done" | "interrupted" | "failed", "step": int}}` so far; empty for a new run.

        A failed stage has a `reason`.
        """
        return read_status(self.path)

    def set_status(self, stage: str, state: str, step: int, reason: str | None = None) -> None:
        entry = {"state": state, "step": step, **({} if reason is None else {"reason": reason})}
        write_text(self.path / "status.json", json.dumps({**self.status(), stage: entry}, indent=2) + "\n")

    def checkpoint(self, stage: str) -> Path:
        """Where the newest checkpoint of a stage lies, once there is one."""
        return self.path / stage / "last.ckpt"

    def is_done(self, stage: str) -> bool:
        """Whether a stage was trained to its end, and its checkpoint is there."""
        return self.status().get(stage, {}).get("state") == "done" and self.checkpoint(stage).exists()

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


def read_status(folder: Path) -> dict[str, Any]:
    """As `RunFolder.status`, of a folder that is only looked at.

    Raises:
        ConfigError: `status.json` is damaged.
    """
    path = folder / "status.json"
    try:
        status = json.loads(path.read_text(encoding="utf-8")) if path.exists() else {}
        if all(isinstance(entry["state"], str) and isinstance(entry["step"], int) for entry in status.values()):
            return dict(status)
    except (ValueError, AttributeError, TypeError, KeyError):
        pass
    raise ConfigError(f"{str(path)!r} is damaged; delete it, and the run goes on from its checkpoints")


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
        note = json.loads((folder / _NOTE).read_text(encoding="utf-8"))
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
