"""Four-rooms data that are made on the spot: no download, no simulator, the same arrays for the same options."""

from __future__ import annotations

import dataclasses
from collections.abc import Callable
from pathlib import Path
from typing import Annotated

import numpy as np
from annotated_types import Ge, Interval

from seqrl import paths
from seqrl.data.episodes import EpisodeStore
from seqrl.formats.cutting import cut_episodes
from seqrl.paths import find_path
from seqrl.registry import register_data
from seqrl.sources import DataSource
from seqrl.worlds import four_rooms
from seqrl.worlds.recording import read_or_record

FORMAT_VERSION = 1
"""Part of the cached file's name: raise it whenever the same options would give other numbers."""


@register_data("four_rooms")
class FourRoomsSource(DataSource):
    """Walks through four rooms, each from anywhere to a random goal by the shorter way; an episode ends at its goal.

    The recording is kept as an HDF5 file in D4RL's layout, which is read back the next time. The ends are truncations:
    the environment would go on.

    Args:
        num_transitions: rows to record, at least two; 100,000 take seconds and are about 3,300 walks.
        seed: of starts, goals and noise.
        action_noise: standard deviation of Gaussian noise on the steps (which are at most 0.25 long), so that places
            beside the planned ways are covered.
        cache_dir: where the file is kept; `$SEQRL_DATA/four_rooms` by default.
    """

    def __init__(
        self,
        *,
        num_transitions: Annotated[int, Interval(ge=2, le=1_000_000_000)] = 100_000,
        seed: Annotated[int, Ge(0)] = 0,
        action_noise: Annotated[float, Ge(0)] = 0.05,
        cache_dir: str | None = None,
    ) -> None:
        self.num_transitions = num_transitions
        self.seed = seed
        self.action_noise = float(action_noise)
        self.cache_dir = find_path(cache_dir) if cache_dir else None

    @property
    def path(self) -> Path:
        """The cached file; its name holds everything that decides its content."""
        folder = self.cache_dir or paths.data_dir() / "four_rooms"
        options = f"{self.num_transitions}-noise{self.action_noise!r}-seed{self.seed}-format{FORMAT_VERSION}"
        return folder / f"four_rooms-{options}.hdf5"

    def load(self) -> EpisodeStore:
        recording = read_or_record(
            self.path,
            self._record,
            name="four_rooms",
            count=self.num_transitions,
            attributes={
                "env_id": four_rooms.ENV_ID,
                "seed": self.seed,
                "noise": self.action_noise,
                "format_version": FORMAT_VERSION,
            },
            packages=("numpy",),
        )
        flat = cut_episodes(recording, "timeouts")
        more = {"name": "four_rooms", "source": "four_rooms", "path": self.path.name}
        return dataclasses.replace(flat, extras={}, attributes={**flat.attributes, **more}).store()

    def _record(self, progress: Callable[[int], None]) -> dict[str, np.ndarray]:
        noise = self.action_noise
        return four_rooms.record(self.num_transitions, seed=self.seed, action_noise=noise, progress=progress)
