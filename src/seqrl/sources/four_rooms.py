"""Four-rooms data that are made on the spot: no download, no simulator, the same arrays for the same options."""

from __future__ import annotations

from collections.abc import Callable
from typing import Annotated

import numpy as np
from annotated_types import Ge

from seqrl.registry import register_data
from seqrl.sources._recorded import NumTransitions, RecordedSource
from seqrl.worlds import four_rooms


@register_data("four_rooms")
class FourRoomsSource(RecordedSource):
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

    world = "four_rooms"
    packages = ("numpy",)

    def __init__(
        self,
        *,
        num_transitions: NumTransitions = 100_000,
        seed: Annotated[int, Ge(0)] = 0,
        action_noise: Annotated[float, Ge(0)] = 0.05,
        cache_dir: str | None = None,
    ) -> None:
        super().__init__(num_transitions=num_transitions, seed=seed, action_noise=action_noise, cache_dir=cache_dir)

    @property
    def env_id(self) -> str:
        return four_rooms.ENV_ID

    @property
    def recording_name(self) -> str:
        return "four_rooms"

    def record(self, progress: Callable[[int], None]) -> dict[str, np.ndarray]:
        noise = self.action_noise
        return four_rooms.record(self.num_transitions, seed=self.seed, action_noise=noise, progress=progress)
