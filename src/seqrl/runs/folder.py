"""Run folders: where a configuration keeps its results, and how far it came."""

from __future__ import annotations

import json
import shutil
import tempfile
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import yaml

from seqrl.errors import ConfigError
from seqrl.files import fingerprint, hold_lock, is_locked, write_text
from seqrl.plugins import identities

_LOCK = ".lock"

# Settings that say where and how to run, not what to compute: they do not change a run's name.
_NOT_HASHED = {
    "": {"runs_dir", "trial"},
    "trainer": {"accelerator", "compile", "devices", "num_nodes", "num_threads", "strategy"},
    "data": {"cache_dir", "url"},
    "training": {"checkpoint_every", "keep_last", "log_every", "loggers", "progress_bar"},
}
# What decides the model, the seed aside.
_TRAINED = (
    *("data", "window", "layout", "tokenizer", "backbone", "objective", "optimizer", "scheduler", "critic", "plugins"),
    *("training", "tokenizer_training", "critic_training"),
)


def run_name(config: Mapping[str, Any]) -> str:
    """`<experiment>-<8 hex digits>`, the digits being a hash of the resolved config without its paths.

    Of data files name and size count, of plugin files name and content, and not their folders.
    """
    return f"{config.get('experiment_name') or 'run'}-{_digest(config)}"


def training_digest(config: Mapping[str, Any]) -> str:
    """8 hex digits of what was trained how, which runs that differ in the training seed alone have in common."""
    return _digest({key: config[key] for key in _TRAINED if key in config})


def _digest(config: Mapping[str, Any]) -> str:
    kept = {key: value for key, value in config.items() if key not in _NOT_HASHED[""]}
    for section in ("trainer", "training"):
        if isinstance(kept.get(section), Mapping):
            kept[section] = {k: v for k, v in kept[section].items() if k not in _NOT_HASHED[section]}
    if isinstance(kept.get("data"), Mapping):
        kept["data"] = _data_identity(kept["data"])
    kept["plugins"] = identities(config.get("plugins", []))
    return fingerprint(kept)[:8]


def _data_identity(source: Mapping[str, Any]) -> dict[str, Any]:
    """What a source is to the hash of a run, and each part of a mix; a part may be a mere path or id."""
    kept = {key: value for key, value in source.items() if key not in _NOT_HASHED["data"]}
    if kept.get("path"):
        kept["path"] = _name_and_size(Path(kept["path"]).expanduser())
    if isinstance(kept.get("parts"), Sequence):
        kept["parts"] = [
            _data_identity(part)
            if isinstance(part, Mapping)
            else _name_and_size(path)
            if (path := Path(str(part)).expanduser()).exists()
            else part
            for part in kept["parts"]
        ]
    return kept


def _name_and_size(path: Path) -> list[str | int | None]:
    """Of a file, or of a folder with the files in it; None as the size of what is not there."""
    files = [path] if path.is_file() else list(path.iterdir()) if path.is_dir() else None
    return [path.name, None if files is None else sum(file.stat().st_size for file in files)]


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
        path = self.path / "status.json"
        status: dict[str, Any] = json.loads(path.read_text()) if path.exists() else {}
        return status

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


@contextmanager
def alone_in(folder: Path) -> Iterator[None]:
    """Hold a run folder; jobs that differ in their evaluations only share one, and the second waits for the first."""
    with hold_lock(folder / _LOCK, f"another process works in {folder}; waiting for it"):
        yield


def is_held(folder: Path) -> bool:
    """Whether a process works in a run folder, perhaps on another machine that shares the disk, or another user's."""
    return is_locked(folder / _LOCK)
