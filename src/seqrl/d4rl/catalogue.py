"""The catalogue of D4RL: every data set with its address, its task and the returns that its scores are measured by.

The facts stand in `catalogue.csv`, taken from the published package `d4rl` 1.1 (`d4rl/infos.py`, and where an id
is missing there, the package's own registrations). The column `env_id` is ours: the environment we evaluate in.
"""

from __future__ import annotations

import csv
from collections.abc import Iterator
from dataclasses import dataclass
from functools import lru_cache
from importlib.resources import files
from pathlib import Path
from urllib.parse import urlsplit

from seqrl import paths
from seqrl.errors import ConfigError, did_you_mean

SOURCE = "d4rl 1.1, d4rl/infos.py"
PREFIX = "d4rl/"
"""With it before an id, a Gymnasium id names the environment that D4RL's own package simulates."""


@dataclass(frozen=True)
class Entry:
    """One data set of D4RL.

    Attributes:
        id: D4RL's name, `hopper-medium-v2`.
        family: `locomotion maze2d antmaze adroit kitchen bullet minigrid flow carla`.
        url: where D4RL keeps the file.
        reference_min, reference_max: mean undiscounted returns of a random and of an expert policy, scores 0 and 100.
        max_episode_steps: the time limit of D4RL's task.
        env_id: the Gymnasium id that policies are evaluated in; None where no environment runs today.
    """

    id: str
    family: str
    url: str
    reference_min: float
    reference_max: float
    max_episode_steps: int
    env_id: str | None

    @property
    def file_name(self) -> str:
        """What D4RL calls the file; a few ids share one."""
        return Path(urlsplit(self.url).path).name

    @property
    def task(self) -> str:
        """The id without its version."""
        return self.id.rpartition("-v")[0]

    @property
    def version(self) -> int:
        return int(self.id.rpartition("-v")[2])

    @property
    def path(self) -> Path:
        """Where the file is kept, or will be: our cache, unless `d4rl`'s own folder has it already."""
        folders = [cache_dir(), paths.named_dir("D4RL_DATASET_DIR") or paths.home_dir() / ".d4rl" / "datasets"]
        return next((folder / self.file_name for folder in folders if (folder / self.file_name).is_file()), self.target)

    @property
    def target(self) -> Path:
        """Where a download of it goes."""
        return cache_dir() / self.file_name

    @property
    def cached(self) -> bool:
        return self.path.is_file()

    @property
    def size(self) -> int | None:
        """Bytes of the file where it is cached."""
        return self.path.stat().st_size if self.cached else None


def cache_dir() -> Path:
    """`$SEQRL_DATA/d4rl`, else `~/.cache/seqrl/d4rl`."""
    return paths.data_dir() / "d4rl"


@lru_cache
def entries() -> tuple[Entry, ...]:
    """All data sets of D4RL, by family, sorted by id."""
    text = files("seqrl.d4rl").joinpath("catalogue.csv").read_text(encoding="utf-8")
    return tuple(
        Entry(
            row["id"],
            row["family"],
            row["url"],
            float(row["reference_min"]),
            float(row["reference_max"]),
            int(row["max_episode_steps"]),
            row["env_id"] or None,
        )
        for row in csv.DictReader(text.splitlines())
    )


def find(dataset_id: str) -> Entry:
    """The entry of an id.

    Raises:
        ConfigError: there is none; names the nearest id and the versions of the task.
    """
    for entry in entries():
        if entry.id == dataset_id:
            return entry
    known = [entry.id for entry in entries()]
    versions = [entry.id for entry in entries() if dataset_id in (entry.task, entry.task.replace("-", "_"))]
    hint = f" Its versions: {', '.join(versions)}." if versions else did_you_mean(dataset_id, known)
    raise ConfigError(f"D4RL has no data set {dataset_id!r}.{hint} `seqrl data list` shows all {len(known)}")


def of_file(name: str) -> Entry | None:
    """The entry that a file name speaks of: D4RL's own (`hopper_medium-v2.hdf5`) or `<id>.hdf5`."""
    matches = [entry for entry in entries() if name in (entry.file_name, f"{entry.id}.hdf5")]
    return min(matches, key=lambda entry: len(entry.id), default=None)


def resembling(file_name: str) -> Entry | None:
    """The entry whose rules a file follows, by its name alone: its own, else the `nearest`."""
    return of_file(file_name) or nearest(Path(file_name).stem)


def latest(entry: Entry) -> Entry:
    """The newest version of the same data set: the one that published tables use."""
    return max(_versions(entry), key=lambda each: each.version)


_MINARI_TASKS = {"pointmaze": "maze2d"}  # what Minari calls otherwise


def find_minari(dataset_id: str) -> Entry | None:
    """The D4RL data set that a Minari id stands for, in its newest version: the same task, and the same level if any.

    `D4RL/pointmaze/umaze-v2` stands for maze2d-umaze-v1, `mujoco/hopper/medium-v0` for hopper-medium-v2. Of a level
    that D4RL lacks (`mujoco/hopper/simple-v0`) it is the medium one, whose references are those of the task.

    Returns:
        None where D4RL has no such task.
    """
    parts = dataset_id.split("/")
    if len(parts) != 3 or parts[0] not in ("D4RL", "mujoco"):
        return None
    task, level = _MINARI_TASKS.get(parts[1], parts[1]), parts[2].rpartition("-v")[0]
    for name in (f"{task}-{level}", f"{task}-medium" if parts[0] == "mujoco" else ""):
        found = [entry for entry in entries() if entry.task == name]
        if found:
            return max(found, key=lambda entry: entry.version)
    return None


def nearest(name: str) -> Entry | None:
    """What a file of one's own resembles by its name: the newest entry whose task it begins with.

    `hopper_medium` and `hopper-medium-mine` are like hopper-medium-v2; where the level is not D4RL's (`hopper-mine`),
    the robot decides, as far as all levels share one environment.
    """
    words = name.lower().replace("_", "-")
    same = [entry for entry in entries() if f"{words}-".startswith(f"{entry.task}-")]
    if not same:
        robot = words.partition("-")[0]
        alike = [entry for entry in entries() if entry.family in ("locomotion", "adroit")]
        same = [entry for entry in alike if entry.id.partition("-")[0] == robot and "longhorizon" not in entry.id]
    return max(same, key=lambda entry: (len(entry.task), entry.version), default=None)


def _versions(entry: Entry) -> Iterator[Entry]:
    return (each for each in entries() if each.task == entry.task)
