"""Maze2d data that are made on the spot: no download, the same arrays for the same options."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Annotated, Literal

import numpy as np
from annotated_types import Ge

from seqrl.data.episodes import EpisodeStore
from seqrl.formats.ends import EpisodeRule
from seqrl.registry import register_data
from seqrl.sources._recorded import NumTransitions, RecordedSource
from seqrl.worlds import controller
from seqrl.worlds.environments import maze2d_id
from seqrl.worlds.maze import find_maze
from seqrl.worlds.regions import cut_apart, find_regions


@register_data("maze2d")
class Maze2dSource(RecordedSource):
    """D4RL's maze2d, recorded anew: a controller drives a point mass to one random goal after another.

    The recording is one stream without resets. It is kept as an HDF5 file in D4RL's layout, which is read back the
    next time. 60,000 transitions take a few seconds and 1 MB.

    Args:
        maze: `umaze`, `medium` or `large`.
        num_transitions: rows to record, at least two.
        seed: of goals and noise.
        action_noise: standard deviation of Gaussian noise on the actions (which lie in [-1, 1]), so that states beside
            the controller's paths are covered.
        episodes: `time_limit` makes episodes of as many steps as an evaluation has (300, 600, 800), so that the mean
            return of the data compares with an evaluation's; `timeouts` makes one episode per goal.
        time_limit: of the rule of that name, steps of an episode instead of the environment's limit: short ones leave
            a long way to be stitched together from several.
        apart: two lists of cells, `[[[3,1],[3,2]],[[1,1],[1,2]]]`: episodes are cut so that none visits both, and a
            path from one to the other has to be stitched together from several.
        cache_dir: where the file is kept; `$SEQRL_DATA/maze2d` by default.

    Reference: the recipe of Fu et al. 2020, https://arxiv.org/abs/2004.07219, section 5.
    """

    world = "maze2d"

    def __init__(
        self,
        maze: Literal["umaze", "medium", "large"] = "umaze",
        *,
        num_transitions: NumTransitions = 60_000,
        seed: Annotated[int, Ge(0)] = 0,
        action_noise: Annotated[float, Ge(0)] = 0.1,
        episodes: EpisodeRule = "time_limit",
        time_limit: Annotated[int, Ge(2)] | None = None,
        apart: Sequence[Sequence[tuple[int, int]]] | None = None,
        cache_dir: str | None = None,
    ) -> None:
        super().__init__(num_transitions=num_transitions, seed=seed, action_noise=action_noise, cache_dir=cache_dir)
        self.maze = find_maze(maze)
        self.episodes = episodes
        self.time_limit = time_limit or self.maze.max_episode_steps
        self.apart = None if apart is None else find_regions(self.maze, apart)

    @property
    def env_id(self) -> str:
        return maze2d_id(self.maze)

    @property
    def recording_name(self) -> str:
        return f"maze2d-{self.maze.name}"

    def more_attributes(self) -> dict[str, str]:
        return {"maze": self.maze.name}

    def load(self) -> EpisodeStore:
        store = super().load()
        return store if self.apart is None else cut_apart(store, self.maze, *self.apart, seed=self.seed)

    def record(self, progress: Callable[[int], None]) -> dict[str, np.ndarray]:
        noise = self.action_noise
        return controller.record(self.maze, self.num_transitions, seed=self.seed, action_noise=noise, progress=progress)
