"""OGBench's pointmaze data in its `stitch` recipe, recorded on the spot: no download, no OGBench."""

from __future__ import annotations

import dataclasses
from collections.abc import Callable
from pathlib import Path
from typing import Annotated, Literal

import numpy as np
from annotated_types import Ge, Interval

from seqrl import paths
from seqrl.data.episodes import EpisodeStore
from seqrl.formats.cutting import cut_episodes
from seqrl.paths import find_path
from seqrl.registry import register_data
from seqrl.sources import DataSource
from seqrl.worlds import ogbench
from seqrl.worlds.environments import pointmaze_id
from seqrl.worlds.recording import read_or_record

FORMAT_VERSION = 1
"""Part of the cached file's name: raise it whenever the same options would give other numbers."""


@register_data("pointmaze")
class PointmazeSource(DataSource):
    """Short walks in OGBench's pointmaze, each from any cell to one that is four cells away; ways must be joined.

    The recipe is that of `pointmaze-*-stitch-v0`, and the recording is ours: the published files hold other numbers.
    It is kept as an HDF5 file in D4RL's layout, which is read back the next time. A million transitions take seconds.

    Args:
        maze: `medium`, `large` or `giant`.
        num_transitions: rows to record, at least two.
        seed: of starts, goals and noise.
        action_noise: standard deviation of Gaussian noise on the actions, which lie in [-1, 1].
        cells_apart: from the start of an episode to its goal, by the shortest way.
        episode_steps: of every episode; it stays at its goal when it has come there.
        cache_dir: where the file is kept; `$SEQRL_DATA/pointmaze` by default.

    Reference: the recipe of Park et al. 2025, OGBench, https://arxiv.org/abs/2410.20092, appendix on data.
    """

    def __init__(
        self,
        maze: Literal["medium", "large", "giant"] = "medium",
        *,
        num_transitions: Annotated[int, Interval(ge=2, le=1_000_000_000)] = 1_000_000,
        seed: Annotated[int, Ge(0)] = 0,
        action_noise: Annotated[float, Ge(0)] = 0.5,
        cells_apart: Annotated[int, Ge(1)] = 4,
        episode_steps: Annotated[int, Interval(ge=2, le=10_000)] = 200,
        cache_dir: str | None = None,
    ) -> None:
        self.maze = ogbench.find_pointmaze(maze)
        self.num_transitions = num_transitions
        self.seed = seed
        self.action_noise = float(action_noise)
        self.cells_apart = cells_apart
        self.episode_steps = episode_steps
        self.cache_dir = find_path(cache_dir) if cache_dir else None

    @property
    def path(self) -> Path:
        """The cached file; its name holds everything that decides its content."""
        folder = self.cache_dir or paths.data_dir() / "pointmaze"
        walks = f"{self.cells_apart}cells-{self.episode_steps}steps"
        options = f"{self.num_transitions}-{walks}-noise{self.action_noise!r}-seed{self.seed}-format{FORMAT_VERSION}"
        return folder / f"pointmaze-{self.maze.name}-stitch-{options}.hdf5"

    @property
    def env_id(self) -> str:
        """Gymnasium id of the environment that this data was recorded in."""
        return pointmaze_id(self.maze)

    def load(self) -> EpisodeStore:
        name = f"pointmaze-{self.maze.name}-stitch, recorded by seqrl"
        recording = read_or_record(
            self.path,
            self._record,
            name=name,
            count=self.num_transitions,
            attributes={
                "env_id": self.env_id,
                "maze": self.maze.name,
                "seed": self.seed,
                "noise": self.action_noise,
                "format_version": FORMAT_VERSION,
            },
            packages=("mujoco", "numpy"),
        )
        flat = cut_episodes(recording, "timeouts")
        more = {"name": name, "source": "pointmaze", "path": self.path.name}
        return dataclasses.replace(flat, extras={}, attributes={**flat.attributes, **more}).store()

    def _record(self, progress: Callable[[int], None]) -> dict[str, np.ndarray]:
        return ogbench.record_stitch(
            self.maze,
            self.num_transitions,
            seed=self.seed,
            action_noise=self.action_noise,
            cells_apart=self.cells_apart,
            episode_steps=self.episode_steps,
            progress=progress,
        )
