"""Data that are made on the spot: recorded once for each choice of options, and read back the next time."""

from __future__ import annotations

import dataclasses
from abc import abstractmethod
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Annotated, Any, ClassVar

import numpy as np
from annotated_types import Interval

from seqrl import paths
from seqrl.data.episodes import EpisodeStore
from seqrl.formats.cutting import cut_episodes
from seqrl.formats.ends import EpisodeRule
from seqrl.paths import find_path
from seqrl.sources import DataSource
from seqrl.worlds.recording import read_or_record

NumTransitions = Annotated[int, Interval(ge=2, le=1_000_000_000)]


class RecordedSource(DataSource):
    """A world that is recorded on the spot, into an HDF5 file in D4RL's layout.

    Args:
        num_transitions: rows to record.
        seed: of all that is drawn.
        action_noise: standard deviation.
        cache_dir: where the file is kept; `$SEQRL_DATA/<world>` by default.

    Attributes:
        world: name of the source.
        format_version: part of the file's name, raised whenever the same options would give other numbers.
        packages: those that decide the numbers.
        episodes, time_limit: how the recording is cut, see `cut_episodes`.
    """

    world: ClassVar[str]
    format_version: ClassVar[int] = 1
    packages: ClassVar[tuple[str, ...]] = ("mujoco", "numpy")
    episodes: EpisodeRule = "timeouts"
    time_limit: int | None = None

    def __init__(self, *, num_transitions: int, seed: int, action_noise: float, cache_dir: str | None) -> None:
        self.num_transitions = num_transitions
        self.seed = seed
        self.action_noise = float(action_noise)
        self.cache_dir = find_path(cache_dir) if cache_dir else None

    @property
    @abstractmethod
    def env_id(self) -> str:
        """Gymnasium id of the environment that these data are recorded in."""

    @property
    @abstractmethod
    def recording_name(self) -> str:
        """What is recorded, without the options of every recording; the beginning of the file's name."""

    @abstractmethod
    def record(self, progress: Callable[[int], None]) -> dict[str, np.ndarray]:
        """Make the arrays of the file; `progress` is told how many rows are new."""

    @property
    def name(self) -> str:
        """Of the data set."""
        return self.recording_name

    def more_options(self) -> tuple[str, ...]:
        """What else decides the numbers, as part of the file's name."""
        return ()

    def more_attributes(self) -> Mapping[str, Any]:
        """Of the file, beside those of every recording."""
        return {}

    @property
    def path(self) -> Path:
        """The cached file; its name holds everything that decides its content."""
        folder = self.cache_dir or paths.data_dir() / self.world
        drawn = (f"noise{self.action_noise!r}", f"seed{self.seed}", f"format{self.format_version}")
        parts = (self.recording_name, str(self.num_transitions), *self.more_options(), *drawn)
        return folder / f"{'-'.join(parts)}.hdf5"

    def load(self) -> EpisodeStore:
        drawn = {"seed": self.seed, "noise": self.action_noise, "format_version": self.format_version}
        recording = read_or_record(
            self.path,
            self.record,
            name=self.name,
            count=self.num_transitions,
            attributes={"env_id": self.env_id, **self.more_attributes(), **drawn},
            packages=self.packages,
        )
        flat = cut_episodes(recording, self.episodes, self.time_limit)
        attributes = {**flat.attributes, "name": self.name, "source": self.world, "path": self.path.name}
        attributes["episodes"] = self.episodes
        return dataclasses.replace(flat, extras={}, attributes=attributes).store()
