"""Run folders: where a run keeps its results, and how far it came."""

from __future__ import annotations

import json
import shutil
import tempfile
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import yaml

from seqrl.errors import ConfigError
from seqrl.files import hold_lock, is_locked, write_text

_LOCK = ".lock"


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
    """Hold a run folder; jobs that differ in their evaluations only share one, and the second waits for the first."""
    with hold_lock(folder / _LOCK, f"another process works in {folder}; waiting for it"):
        yield


def is_held(folder: Path) -> bool:
    """Whether a process works in a run folder, perhaps on another machine that shares the disk, or another user's."""
    return is_locked(folder / _LOCK)
