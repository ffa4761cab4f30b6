"""Run folders: where a configuration keeps its results, and how far it came."""

from __future__ import annotations

import hashlib
import json
import os
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import yaml

from seqrl.errors import ConfigError
from seqrl.plugins import identities

# Settings that say where and how to run, not what to compute: they do not change a run's name.
_NOT_HASHED = {
    "": {"runs_dir"},
    "trainer": {"accelerator", "devices", "num_nodes", "num_threads", "strategy"},
    "data": {"cache_dir"},
    "training": {"checkpoint_every", "log_every", "loggers", "progress_bar"},
}


def run_name(config: Mapping[str, Any]) -> str:
    """`<experiment>-<8 hex digits>`, the digits being a hash of the resolved config without its paths.

    Of data files name and size count, of plugin files name and content, and not their folders.
    """
    kept = {key: value for key, value in config.items() if key not in _NOT_HASHED[""]}
    for section in ("trainer", "data", "training"):
        if isinstance(kept.get(section), Mapping):
            kept[section] = {k: v for k, v in kept[section].items() if k not in _NOT_HASHED[section]}
    if kept.get("data", {}).get("path"):
        path = Path(kept["data"]["path"]).expanduser()
        kept["data"]["path"] = [path.name, path.stat().st_size if path.is_file() else None]
    kept["plugins"] = identities(config.get("plugins", []))
    digest = hashlib.sha256(json.dumps(kept, sort_keys=True, default=str).encode()).hexdigest()
    return f"{config.get('experiment_name') or 'run'}-{digest[:8]}"


class RunFolder:
    """The folder of one run: `config.yaml`, `status.json`, `metrics.csv`, one folder per stage, `evaluations/`.

    Args:
        path: made when it does not exist.

    Raises:
        ConfigError: the folder cannot be made or written to.
    """

    def __init__(self, path: Path) -> None:
        self.path = path
        try:
            path.mkdir(parents=True, exist_ok=True)
            probe = path / f".writable-{os.getpid()}"
            write_atomically(probe, "")
            probe.unlink(missing_ok=True)
        except OSError as error:
            raise ConfigError(
                f"run folder {str(path)!r} cannot be written ({error.strerror}); set runs_dir to a folder that can"
            ) from error

    def write_config(self, config: Mapping[str, Any]) -> Path:
        """Keep the resolved config, for people and for the worker processes of this run."""
        target = self.path / "config.yaml"
        write_atomically(target, yaml.safe_dump(dict(config), sort_keys=False))
        return target

    def status(self) -> dict[str, Any]:
        """`{stage: {"state": "running" | "done" | "interrupted", "step": int}}` so far; empty for a new run."""
        path = self.path / "status.json"
        status: dict[str, Any] = json.loads(path.read_text()) if path.exists() else {}
        return status

    def set_status(self, stage: str, state: str, step: int) -> None:
        write_atomically(
            self.path / "status.json",
            json.dumps({**self.status(), stage: {"state": state, "step": step}}, indent=2) + "\n",
        )


def write_atomically(path: Path, text: str) -> None:
    """Write a text file so that a reader sees the old content or the new, never a part."""
    temporary = path.with_name(f"{path.name}.{os.getpid()}.tmp")
    try:
        temporary.write_text(text)
        temporary.replace(path)
    finally:
        temporary.unlink(missing_ok=True)
