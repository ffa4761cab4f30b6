"""Runs in folders: which folders are runs, and which run is the newest."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import suppress
from pathlib import Path

from seqrl.runs.naming import IDENTITY

LATEST = "latest"
"""The word that stands for the newest run of a folder, as in `checkpoint=latest`."""

_DEEPEST = 3  # folders between a runs_dir and a run


def is_run(path: Path) -> bool:
    """Whether a folder is that of a run, rather than of a sweep, of runs or of something else."""
    kept = ("config.yaml", "status.json", IDENTITY)
    return any((path / name).exists() for name in kept) and not (path / "multirun.yaml").exists()


def is_sweep(path: Path) -> bool:
    """Whether a folder is that of a sweep."""
    return (path / "jobs").is_dir()


def find_runs(folder: Path, *, depth: int = _DEEPEST) -> Iterator[Path]:
    """The runs in a folder and in those of its folders that are neither runs nor sweeps; links are not followed."""
    for each in sorted(folder.iterdir()):
        if is_run(each):
            yield each
        elif depth and each.is_dir() and not each.is_symlink() and not is_sweep(each):
            with suppress(PermissionError):
                yield from find_runs(each, depth=depth - 1)


def find_latest(folder: Path) -> Path | None:
    """The run of a folder whose model was saved last; None where no run has one."""
    saved = [(each, _saved_at(each)) for each in find_runs(folder)] if folder.is_dir() else []
    times = [(time, each) for each, time in saved if time is not None]
    return max(times, default=(0.0, None))[1]


def _saved_at(run: Path) -> float | None:
    """When a run's newest checkpoint of a model was written; None where there is none."""
    return max((file.stat().st_mtime for file in run.glob("model/*.ckpt")), default=None)
