"""OGBench's pointmaze data in its `stitch` recipe, recorded on the spot: no download, no OGBench."""

from __future__ import annotations

from collections.abc import Callable
from typing import Annotated, Literal

import numpy as np
from annotated_types import Ge, Interval

from seqrl.registry import register_data
from seqrl.sources._recorded import NumTransitions, RecordedSource
from seqrl.worlds import ogbench
from seqrl.worlds.environments import pointmaze_id


@register_data("pointmaze")
class PointmazeSource(RecordedSource):
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

    world = "pointmaze"

    def __init__(
        self,
        maze: Literal["medium", "large", "giant"] = "medium",
        *,
        num_transitions: NumTransitions = 1_000_000,
        seed: Annotated[int, Ge(0)] = 0,
        action_noise: Annotated[float, Ge(0)] = 0.5,
        cells_apart: Annotated[int, Ge(1)] = 4,
        episode_steps: Annotated[int, Interval(ge=2, le=10_000)] = 200,
        cache_dir: str | None = None,
    ) -> None:
        super().__init__(num_transitions=num_transitions, seed=seed, action_noise=action_noise, cache_dir=cache_dir)
        self.maze = ogbench.find_pointmaze(maze)
        self.cells_apart = cells_apart
        self.episode_steps = episode_steps

    @property
    def env_id(self) -> str:
        return pointmaze_id(self.maze)

    @property
    def recording_name(self) -> str:
        return f"pointmaze-{self.maze.name}-stitch"

    @property
    def name(self) -> str:
        return f"{self.recording_name}, recorded by seqrl"

    def more_options(self) -> tuple[str, ...]:
        return (f"{self.cells_apart}cells", f"{self.episode_steps}steps")

    def more_attributes(self) -> dict[str, str]:
        return {"maze": self.maze.name}

    def record(self, progress: Callable[[int], None]) -> dict[str, np.ndarray]:
        return ogbench.record_stitch(
            self.maze,
            self.num_transitions,
            seed=self.seed,
            action_noise=self.action_noise,
            cells_apart=self.cells_apart,
            episode_steps=self.episode_steps,
            progress=progress,
        )
